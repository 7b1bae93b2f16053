package upstream

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Addresses says which addresses may be connected to. It is asked with the address that a name was resolved to, when the
// connection is made, so that a name that points elsewhere later does not get around it. The zero value refuses what no
// model server has: link-local addresses, the metadata services of clouds, multicast, and the unspecified address, which is
// another name of this machine.
type Addresses struct {
	NoPrivate bool           // refuse loopback and private networks as well
	Deny      []netip.Prefix // refused whatever else is said
	Allow     []netip.Prefix // allowed although they would be refused otherwise
}

// AddressError says that a connection was refused before it was made. The address is for the operator alone.
type AddressError struct {
	Addr netip.Addr
	Why  string
}

func (e *AddressError) Error() string {
	return fmt.Sprintf("connecting to %s is refused: it is %s; if that is meant, allow it under network", e.Addr, e.Why)
}

// Check reports an address that may not be connected to, as an [AddressError].
func (a Addresses) Check(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	if inner, ok := embedded(addr); ok {
		if err := a.Check(inner); err != nil {
			return err
		}
	}
	why := forbidden(addr)
	if why == "" && a.NoPrivate && private(addr) {
		why = "a private address, and network.allow_private is false"
	}
	switch {
	case contains(a.Deny, addr):
		why = "on the list network.deny"
	case contains(a.Allow, addr):
		return nil
	}
	if why == "" {
		return nil
	}
	return &AddressError{addr, why}
}

// Dialer connects where it may, within the time given, the resolution of the name included; 0 = no bound but that of the
// context.
func (a Addresses) Dialer(connect time.Duration) *net.Dialer {
	return &net.Dialer{Timeout: connect, KeepAlive: 15 * time.Second, Control: a.control}
}

// control is called with the address before each attempt to connect.
func (a Addresses) control(_, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("address to connect to: %w", err)
	}
	return a.Check(target.Addr())
}

// forbidden says what is wrong with an address that no model server has; "" is nothing.
func forbidden(addr netip.Addr) string {
	switch {
	case addr.IsUnspecified() || addr.Is4() && addr.As4()[0] == 0:
		return "no address of a server"
	case addr.IsMulticast():
		return "a multicast address"
	case addr.IsLinkLocalUnicast():
		return "a link-local address, where clouds keep credentials"
	case addr.Is4() && addr.As4()[0] >= 240:
		return "a reserved address"
	}
	switch addr.String() {
	case "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192": // EC2, GCE, Alibaba, Azure, Oracle
		return "the metadata service of a cloud"
	}
	return ""
}

func private(addr netip.Addr) bool {
	return addr.IsLoopback() || addr.IsPrivate() || netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10).Contains(addr)
}

// embedded is the IPv4 address that a translator (NAT64, 6to4) on the way connects to.
func embedded(addr netip.Addr) (netip.Addr, bool) {
	b := addr.As16()
	switch {
	case !addr.Is6():
	case netip.PrefixFrom(netip.AddrFrom16([16]byte{0x00, 0x64, 0xff, 0x9b}), 96).Contains(addr):
		return netip.AddrFrom4([4]byte(b[12:])), true
	case b[0] == 0x20 && b[1] == 0x02:
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return netip.Addr{}, false
}

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
