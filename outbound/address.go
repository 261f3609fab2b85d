package outbound

import (
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// refusal says when a range of addresses is refused.
type refusal uint8

const (
	never refusal = iota
	// unlessPrivate ranges are reached where the operator allows private addresses.
	unlessPrivate
	// always holds for what no server can have: unspecified, multicast, reserved, documentation; and for link-local addresses, where clouds
	// keep the credentials of the machine.
	always
)

type addressRange struct {
	prefix netip.Prefix
	when   refusal
}

// refusedRanges is the explicit list; the first that fits decides. The predicates of the standard library are not enough: they know nothing of shared, benchmark,
// reserved and translated addresses.
func refusedRanges() []addressRange {
	list := []struct {
		prefix string
		when   refusal
	}{
		{"0.0.0.0/8", always},
		{"10.0.0.0/8", unlessPrivate},
		{"100.64.0.0/10", unlessPrivate},
		{"127.0.0.0/8", unlessPrivate},
		{"169.254.0.0/16", always},
		{"172.16.0.0/12", unlessPrivate},
		{"192.0.0.0/24", always},
		{"192.0.2.0/24", always},
		{"192.31.196.0/24", always},
		{"192.52.193.0/24", always},
		{"192.88.99.0/24", always},
		{"192.168.0.0/16", unlessPrivate},
		{"192.175.48.0/24", always},
		{"198.18.0.0/15", unlessPrivate},
		{"198.51.100.0/24", always},
		{"203.0.113.0/24", always},
		{"224.0.0.0/4", always},
		{"240.0.0.0/4", always},
		{"::1/128", unlessPrivate},
		{"::/96", always},           // unspecified and IPv4-compatible
		{"::ffff:0:0:0/96", always}, // IPv4-translated
		{"64:ff9b:1::/48", always},
		{"100::/64", always},
		{"100:0:0:1::/64", always},
		{"2001::/23", always}, // Teredo, benchmarking, ORCHID and other special purposes
		{"2001:db8::/32", always},
		{"2002::/16", always}, // 6to4
		{"2620:4f:8000::/48", always},
		{"3fff::/20", always},
		{"5f00::/16", always},
		{"fc00::/7", unlessPrivate},
		{"fe80::/10", always},
		{"fec0::/10", always},
		{"ff00::/8", always},
	}
	out := make([]addressRange, len(list))
	for i, r := range list {
		out[i] = addressRange{netip.MustParsePrefix(r.prefix), r.when}
	}
	return out
}

// refused tells how the list judges an address. IPv4 inside IPv6 (mapped, NAT64) is judged as IPv4.
func (g *guard) refused(a netip.Addr) refusal {
	if a.Zone() != "" {
		return always
	}
	a = a.Unmap()
	if b := a.As16(); a.Is6() && [12]byte(b[:12]) == [12]byte{0, 0x64, 0xff, 0x9b} {
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	for _, r := range g.ranges {
		if r.prefix.Contains(a) {
			return r.when
		}
	}
	return never
}

// guard judges the address of every connection attempt.
type guard struct {
	ranges       []addressRange
	allowPrivate bool
	// own returns the addresses of this machine.
	own func() []netip.Addr
}

// allows tells whether a connection to an address may be opened. trusted is true for an address that the operator named himself.
func (g *guard) allows(a netip.Addr, trusted bool) bool {
	if trusted {
		return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast()
	}
	switch g.refused(a) {
	case always:
		return false
	case unlessPrivate:
		return g.allowPrivate
	}
	if g.allowPrivate {
		return true
	}
	a = a.Unmap()
	for _, own := range g.own() {
		if own == a {
			return false
		}
	}
	return true
}

// control is Dialer.Control: it sees the address that is about to be connected to, whatever names and redirects led there, and
// however often a name was resolved.
func (g *guard) control(trusted bool) func(network, address string, _ syscall.RawConn) error {
	return func(network, address string, _ syscall.RawConn) error {
		if network != "tcp4" && network != "tcp6" {
			return errRefused
		}
		ap, err := netip.ParseAddrPort(address)
		if err != nil || ap.Port() == 0 || !g.allows(ap.Addr(), trusted) {
			return errRefused
		}
		return nil
	}
}

// ownAddresses lists the addresses of this machine's interfaces, read again at most once a minute.
func ownAddresses(now func() time.Time) func() []netip.Addr {
	var mu sync.Mutex // guards list and read
	var list []netip.Addr
	var read time.Time
	return func() []netip.Addr {
		mu.Lock()
		defer mu.Unlock()
		if t := now(); read.IsZero() || t.Sub(read) > time.Minute {
			found, err := net.InterfaceAddrs()
			if err != nil {
				return list // what was known stays known
			}
			list, read = nil, t
			for _, a := range found {
				if n, ok := a.(*net.IPNet); ok {
					if ip, ok := netip.AddrFromSlice(n.IP); ok {
						list = append(list, ip.Unmap())
					}
				}
			}
		}
		return list
	}
}
