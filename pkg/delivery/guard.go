package delivery

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"
)

// Target is a range of addresses, and a port of them.
type Target struct {
	// Prefix is the range.
	Prefix netip.Prefix
	// Port is the port meant; 0 means every port.
	Port uint16
}

// guard says which addresses may be dialed. It sees the address that a connection is about to be made to, after name
// resolution, so that neither an odd notation of an address nor a name that resolves differently the second time gets
// around it.
type guard struct {
	allow   []netip.Prefix
	deny    []Target
	builtin []rule
}

// rule is a range that no subscriber lives in, and why.
type rule struct {
	prefix netip.Prefix
	why    string
}

func newGuard(o *Options) *guard {
	g := &guard{builtin: builtinRules()}
	for _, p := range o.Allow {
		g.allow = append(g.allow, unmap(p))
	}
	for _, t := range o.Deny {
		g.deny = append(g.deny, Target{Prefix: unmap(t.Prefix), Port: t.Port})
	}
	if !o.AllowLoopback {
		g.builtin = append(g.builtin, loopbackRules()...)
	}
	return g
}

// unmap makes a prefix of IPv4-mapped addresses one of IPv4 addresses, which is what addresses are compared as.
func unmap(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// builtinRules are the ranges denied unless allowed. Private ranges are not among them: that is where the Services and
// Pods of a cluster are. The metadata services of clouds hand out credentials to whoever asks from a node's network.
func builtinRules() []rule {
	return []rule{
		{netip.MustParsePrefix("169.254.0.0/16"), "link-local, where cloud metadata services are"},
		{netip.MustParsePrefix("fe80::/10"), "link-local"},
		{netip.MustParsePrefix("100.100.100.200/32"), "a cloud metadata service"},
		{netip.MustParsePrefix("168.63.129.16/32"), "a cloud metadata service"},
		{netip.MustParsePrefix("192.0.0.192/32"), "a cloud metadata service"},
		{netip.MustParsePrefix("fd00:ec2::/64"), "a cloud metadata service"},
		{netip.MustParsePrefix("fd20:ce::254/128"), "a cloud metadata service"},
		{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
		{netip.MustParsePrefix("ff00::/8"), "multicast"},
		{netip.MustParsePrefix("255.255.255.255/32"), "broadcast"},
	}
}

// loopbackRules are the addresses of the dialing machine itself.
func loopbackRules() []rule {
	return []rule{
		{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
		{netip.MustParsePrefix("::1/128"), "loopback"},
	}
}

// control is a net.Dialer's ControlContext.
func (g *guard) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || (network != "tcp4" && network != "tcp6") {
		return fmt.Errorf("%w: %s %s", ErrDenied, network, address)
	}
	return g.check(to)
}

// check returns nil if to may be dialed, else an ErrDenied that says why not. The rules also hold for the IPv4 address
// that an IPv6 address leads to. Deny wins over Allow, and Allow over what is built in.
func (g *guard) check(to netip.AddrPort) error {
	// A prefix contains no address with a zone, so zones go first.
	addr := to.Addr().Unmap().WithZone("")
	inner := embedded(addr)
	for _, a := range append(inner, addr) {
		if g.denied(a, to.Port()) {
			return fmt.Errorf("%w: %s is denied by configuration", ErrDenied, to)
		}
	}
	for _, p := range g.allow {
		if p.Contains(addr) {
			return nil
		}
	}
	for _, a := range append(inner, addr) {
		if why := g.forbidden(a); why != "" {
			return fmt.Errorf("%w: %s is %s", ErrDenied, to, why)
		}
	}
	return nil
}

func (g *guard) denied(a netip.Addr, port uint16) bool {
	for _, t := range g.deny {
		if (t.Port == 0 || t.Port == port) && t.Prefix.Contains(a) {
			return true
		}
	}
	return false
}

func (g *guard) forbidden(a netip.Addr) string {
	// All of 0.0.0.0/8 means this host on this network (RFC 1122).
	if a.IsUnspecified() || a.Is4() && a.As4()[0] == 0 {
		return "unspecified"
	}
	for _, r := range g.builtin {
		if r.prefix.Contains(a) {
			return r.why
		}
	}
	return ""
}

// embedded returns the IPv4 addresses that an IPv6 address leads to by one of the transition mechanisms, if a router or
// the host itself speaks it. An IPv4-mapped address is no such case: it has been unmapped before.
func embedded(a netip.Addr) []netip.Addr {
	if !a.Is6() || a.IsUnspecified() || a.IsLoopback() {
		return nil
	}
	b := a.As16()
	tail := [4]byte(b[12:16])
	var found []netip.Addr
	for _, f := range embeddings() {
		if f.prefix.Contains(a) {
			found = append(found, netip.AddrFrom4(f.extract(b)))
		}
	}
	// ISATAP (RFC 5214) marks the interface identifier, not the prefix.
	if b[8]&^0x02 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe {
		found = append(found, netip.AddrFrom4(tail))
	}
	return found
}

// embedding is where addresses of a range keep an IPv4 address.
type embedding struct {
	prefix  netip.Prefix
	extract func(b [16]byte) [4]byte
}

func embeddings() []embedding {
	tail := func(b [16]byte) [4]byte { return [4]byte(b[12:16]) }
	return []embedding{
		// IPv4-compatible (RFC 4291) and IPv4-translated (RFC 2765).
		{netip.MustParsePrefix("::/96"), tail},
		{netip.MustParsePrefix("::ffff:0:0:0/96"), tail},
		// NAT64: the well-known prefix (RFC 6052), and the local-use one (RFC 8215) as a /96 and as a /48.
		{netip.MustParsePrefix("64:ff9b::/96"), tail},
		{netip.MustParsePrefix("64:ff9b:1::/48"), tail},
		{netip.MustParsePrefix("64:ff9b:1::/48"), func(b [16]byte) [4]byte { return [4]byte{b[6], b[7], b[9], b[10]} }},
		// 6to4 (RFC 3056).
		{netip.MustParsePrefix("2002::/16"), func(b [16]byte) [4]byte { return [4]byte(b[2:6]) }},
		// Teredo (RFC 4380): the server, and the client, whose address is inverted.
		{netip.MustParsePrefix("2001::/32"), func(b [16]byte) [4]byte { return [4]byte(b[4:8]) }},
		{netip.MustParsePrefix("2001::/32"), func(b [16]byte) [4]byte {
			return [4]byte{^b[12], ^b[13], ^b[14], ^b[15]}
		}},
	}
}
