package router_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weir-llm/weir/schemas"
)

// TestPartitionOf computes what the server does.
func TestPartitionOf(t *testing.T) {
	p := setup(t)
	stream, err := p.js.Stream(p.ctx, schemas.StreamRequests)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 30 {
		tenant := fmt.Sprint("tenant-", n*n, "_x")
		ack, err := p.js.Publish(p.ctx, "llm.requests."+tenant+".m", []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		msg, err := stream.GetMsg(p.ctx, ack.Sequence)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("llm.queue.%d.", schemas.PartitionOf(tenant)); !strings.HasPrefix(msg.Subject, want) {
			t.Errorf("%s is stored as %s, want %s", tenant, msg.Subject, want)
		}
	}
}
