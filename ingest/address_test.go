package ingest

import (
	"net/http"
	"net/netip"
	"testing"
)

func TestCallerAddress(t *testing.T) {
	t.Parallel()
	trusted := proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, c := range []struct {
		peer      string
		forwarded []string
		want      string
	}{
		{"192.0.2.1:5", nil, "192.0.2.1"},
		{"192.0.2.1:5", []string{"198.51.100.1"}, "192.0.2.1"}, // no proxy of ours
		{"10.0.0.1:5", nil, "10.0.0.1"},
		{"10.0.0.1:5", []string{"198.51.100.1"}, "198.51.100.1"},
		{"10.0.0.1:5", []string{"203.0.113.7, 198.51.100.1"}, "198.51.100.1"}, // the left is the caller's word
		{"10.0.0.1:5", []string{"203.0.113.7", "198.51.100.1, 10.0.0.2"}, "198.51.100.1"},
		{"10.0.0.1:5", []string{"10.0.0.3 ,10.0.0.2"}, "10.0.0.3"},
		{"10.0.0.1:5", []string{"198.51.100.1, nonsense"}, "10.0.0.1"},
		{"10.0.0.1:5", []string{""}, "10.0.0.1"},
		{"[::ffff:10.0.0.1]:5", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"[2001:db8:1:2:3:4:5:6]:5", nil, "2001:db8:1:2::"},
		{"[fe80::1%eth0]:5", nil, "fe80::"},
		{"[fd00::1]:5", []string{"2001:db8:1:2:3::9"}, "2001:db8:1:2::"},
		{"@", nil, "invalid IP"},
	} {
		r := &http.Request{RemoteAddr: c.peer, Header: http.Header{"X-Forwarded-For": c.forwarded}}
		if got := trusted.caller(r).String(); got != c.want {
			t.Errorf("%s with %q: %s, want %s", c.peer, c.forwarded, got, c.want)
		}
	}
}

func TestPlacesForgetWhoLeft(t *testing.T) {
	t.Parallel()
	p := newPlaces(4, 2, 2)
	addr := netip.MustParseAddr("192.0.2.1")
	for range 2 {
		if err := p.take("k", addr); err != nil {
			t.Fatal(err)
		}
	}
	if p.take("k", netip.MustParseAddr("192.0.2.2")) == nil || p.take("other", addr) == nil {
		t.Error("a place beyond the limit")
	}
	p.give("k", addr)
	p.give("k", addr)
	if p.taken != 0 || len(p.keys) != 0 || len(p.addresses) != 0 {
		t.Errorf("%d places, keys %v, addresses %v are left", p.taken, p.keys, p.addresses)
	}
}

// What a caller is told is the limit that it will meet first.
func TestNearestLimit(t *testing.T) {
	t.Parallel()
	p := newPlaces(10, 4, 3)
	mine, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	told := func(key string, addr netip.Addr, limit, free int) {
		t.Helper()
		if gotLimit, gotFree := p.room(key, addr); gotLimit != limit || gotFree != free {
			t.Errorf("key %q at %s: %d of %d, want %d of %d", key, addr, gotFree, gotLimit, free, limit)
		}
	}
	told("", netip.Addr{}, 10, 10)
	told("k", mine, 3, 3)
	for _, addr := range []netip.Addr{mine, mine, other} {
		if err := p.take("k", addr); err != nil {
			t.Fatal(err)
		}
	}
	told("k", mine, 4, 1)
	told("", mine, 3, 1)
	told("k", netip.Addr{}, 4, 1)
	told("", netip.Addr{}, 10, 7)
}
