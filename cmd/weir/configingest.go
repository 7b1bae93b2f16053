package main

import (
	"fmt"
	"net/netip"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/schemas"
)

func (i *Ingest) check() *configError {
	if i.MaxBodyBytes < 0 || i.MaxBodyBytes > schemas.MaxBodyBytes {
		return problem("ingest.max_body_bytes", fmt.Sprintf("use 1 to %d", schemas.MaxBodyBytes), "%d is out of range", i.MaxBodyBytes)
	}
	if i.MaxBodiesBytes != 0 && i.MaxBodiesBytes < max(i.MaxBodyBytes, 1) {
		return problem("ingest.max_bodies_bytes", "use at least ingest.max_body_bytes", "%d is less than one body may have", i.MaxBodiesBytes)
	}
	for _, limit := range []struct {
		key    string
		number int
	}{
		{"ingest.max_streams", i.MaxStreams}, {"ingest.max_streams_per_key", i.MaxStreamsPerKey},
		{"ingest.max_streams_per_address", i.MaxStreamsPerAddress}, {"ingest.max_connections_per_address", i.MaxConnectionsPerAddress},
	} {
		if limit.number < 0 {
			return problem(limit.key, "use a number from 1", "%d is out of range", limit.number)
		}
	}
	for n, text := range i.TrustedProxies {
		if _, err := parseNetwork(text); err != nil {
			return problem(fmt.Sprintf("ingest.trusted_proxies[%d]", n), "write an address such as 10.0.0.1, or a network such as 10.0.0.0/8", "%q is neither an address nor a network", text)
		}
	}
	for n, origin := range i.CORS.Origins {
		if err := ingest.CheckOrigin(origin); err != nil {
			return problem(fmt.Sprintf("ingest.cors.origins[%d]", n), "or leave it out", "%v", err)
		}
	}
	if e := i.Edge; e.Creds != "" && e.User != "" || e.Creds == "" && (e.User == "") != (e.Password == "") {
		return problem("ingest.edge", "give user and password, or creds alone", "the credentials are not whole")
	}
	return nil
}

// proxies are the trusted ones; the configuration has been checked.
func (i *Ingest) proxies() (networks []netip.Prefix) {
	for _, text := range i.TrustedProxies {
		if network, err := parseNetwork(text); err == nil {
			networks = append(networks, network)
		}
	}
	return networks
}

// parseNetwork reads a network, or an address as a network of one.
func parseNetwork(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	network, err := netip.ParsePrefix(text)
	return network.Masked(), err
}
