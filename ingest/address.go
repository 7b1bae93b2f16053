package ingest

import (
	"net/http"
	"net/netip"
	"strings"
)

// ipv6Subscriber is the length of the prefix that one subscriber has all addresses of.
const ipv6Subscriber = 64

// proxies are those whose word about the caller's address is taken.
type proxies []netip.Prefix

func (p proxies) trust(addr netip.Addr) bool {
	for _, prefix := range p {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// caller is the address that a request is counted under: the peer's, or behind trusted proxies the last one that none of
// them has. What stands further left in X-Forwarded-For is the caller's own word.
func (p proxies) caller(r *http.Request) netip.Addr {
	addr := peer(r.RemoteAddr)
	if len(p) == 0 || !p.trust(addr) {
		return subscriber(addr)
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && p.trust(addr); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		addr = hop.Unmap()
	}
	return subscriber(addr)
}

func peer(remote string) netip.Addr {
	addr, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Addr().Unmap()
}

// subscriber is what an address is counted under.
func subscriber(addr netip.Addr) netip.Addr {
	addr = addr.WithZone("")
	if !addr.Is6() {
		return addr
	}
	prefix, err := addr.Prefix(ipv6Subscriber)
	if err != nil {
		return addr
	}
	return prefix.Addr()
}
