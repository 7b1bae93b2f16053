package main

import (
	"fmt"
	"net/netip"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/schemas"
)

func (i *Ingest) check(f *findings) {
	largest := i.MaxBodyBytes
	if largest == 0 {
		largest = schemas.MaxBodyBytes
	}
	f.when(i.MaxBodiesBytes != 0 && i.MaxBodiesBytes < largest, "ingest.max_bodies_bytes", "use at least ingest.max_body_bytes", "%d is less than one body may have, %d", i.MaxBodiesBytes, largest)
	checkNetworks(f, "ingest.trusted_proxies", i.TrustedProxies)
	for n, origin := range i.CORS.Origins {
		if err := ingest.CheckOrigin(origin); err != nil {
			f.wrong(fmt.Sprintf("ingest.cors.origins[%d]", n), "or leave it out", "%v", err)
		}
	}
	e := i.Edge
	f.when(e.Creds != "" && e.User != "" || e.Creds == "" && (e.User == "") != (e.Password == ""),
		"ingest.edge", "give user and password, or creds alone", "the credentials are not whole")
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
