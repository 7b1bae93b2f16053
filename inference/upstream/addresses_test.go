package upstream

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/weir-llm/weir/schemas"
)

func TestAddresses(t *testing.T) {
	prefixes := func(list ...string) (out []netip.Prefix) {
		for _, p := range list {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	var open Addresses
	public := Addresses{NoPrivate: true}
	listed := Addresses{Deny: prefixes("10.9.0.0/16"), Allow: prefixes("169.254.7.0/24", "10.9.1.0/24")}
	excepted := Addresses{NoPrivate: true, Allow: prefixes("10.1.0.0/16")}
	for _, c := range []struct {
		policy  Addresses
		addr    string
		refused string // part of the reason; "" = allowed
	}{
		{open, "10.0.0.7", ""},
		{open, "127.0.0.1", ""},
		{open, "::1", ""},
		{open, "8.8.8.8", ""},
		{open, "2606:4700::1111", ""},
		{open, "169.254.169.254", "link-local"},
		{open, "::ffff:169.254.169.254", "link-local"},
		{open, "64:ff9b::169.254.169.254", "link-local"},
		{open, "2002:a9fe:a9fe::1", "link-local"},
		{open, "fe80::1%eth0", "link-local"},
		{open, "fd00:ec2::254", "metadata"},
		{open, "fd20:ce::254", "metadata"},
		{open, "100.100.100.200", "metadata"},
		{open, "168.63.129.16", "metadata"},
		{open, "192.0.0.192", "metadata"},
		{open, "0.0.0.0", "no address"},
		{open, "0.1.2.3", "no address"},
		{open, "::", "no address"},
		{open, "224.0.0.1", "multicast"},
		{open, "ff02::1", "multicast"},
		{open, "255.255.255.255", "reserved"},
		{public, "8.8.8.8", ""},
		{public, "10.0.0.7", "private"},
		{public, "192.168.1.1", "private"},
		{public, "100.64.0.1", "private"},
		{public, "127.0.0.1", "private"},
		{public, "::ffff:127.0.0.1", "private"},
		{public, "64:ff9b::10.0.0.1", "private"},
		{public, "fd12::1", "private"},
		{excepted, "10.1.2.3", ""},
		{excepted, "10.2.2.3", "private"},
		{listed, "10.9.2.3", "network.deny"},
		{listed, "10.9.1.3", "network.deny"}, // deny has the last word
		{listed, "169.254.7.1", ""},
		{listed, "169.254.169.254", "link-local"},
	} {
		err := c.policy.Check(netip.MustParseAddr(c.addr))
		if c.refused == "" && err != nil || c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)) {
			t.Errorf("%s with %+v: got %v, want %q", c.addr, c.policy, err, c.refused)
		}
	}
}

// TestResolvedAddressCounts calls a server by name: what the name resolves to is judged, for every connection anew.
func TestResolvedAddressCounts(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	url := strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
	if _, err := get(t, s.client(t, Config{URL: url})); err != nil {
		t.Fatal(err)
	}
	_, err := get(t, s.client(t, Config{URL: url, Connection: Connection{Addresses: Addresses{NoPrivate: true}}}))
	if err == nil || err.Code != schemas.CodeUpstreamError || !strings.Contains(err.Message, "does not allow") {
		t.Fatalf("got %v, want a refusal", err)
	}
	if strings.Contains(err.Message, "127.0.0.1") || strings.Contains(err.Message, "::1") {
		t.Errorf("the caller is told the address: %s", err.Message)
	}
	if e, ok := errors.AsType[*AddressError](err); !ok || !e.Addr.IsLoopback() {
		t.Errorf("the operator is not told the address: %v", errors.Unwrap(err))
	}
}
