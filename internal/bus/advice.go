package bus

import (
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Error codes of JetStream with which it refuses to create a stream.
const (
	codeNoPeers     = 10005 // too few servers, or none with the room that is asked for; the text says which
	codeStorage     = 10047
	codeNoReplicas  = 10074 // replicas on a server that is in no cluster
	bytesOfGibibyte = 1 << 30
)

// advise adds to the refusal of a stream what the operator can do about it, which depends on what was asked for.
func (b *Bus) advise(err error) error {
	api, ok := errors.AsType[*jetstream.APIError](err)
	if !ok {
		return err
	}
	room := fmt.Sprintf("the streams of Weir reserve %s in all", gibibytes(b.cfg.StoreBytes))
	switch api.ErrorCode {
	case codeNoReplicas:
		return fmt.Errorf("%w: this NATS server is in no cluster and has no room for %d replicas; set replicas: 1, or connect to a cluster", err, b.cfg.Replicas)
	case codeNoPeers:
		return fmt.Errorf("%w: replicas: %d needs as many servers in the cluster, each with room: %s on each; set fewer replicas, start the other servers, or raise their max_file_store", err, b.cfg.Replicas, room)
	case codeStorage, codeResources:
		return fmt.Errorf("%w: %s; raise max_file_store of the NATS server, and max_file of the account if it has one", err, room)
	}
	return err
}

func gibibytes(n int64) string {
	return fmt.Sprintf("%.4g GiB", float64(n)/bytesOfGibibyte)
}
