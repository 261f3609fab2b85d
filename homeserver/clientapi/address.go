package clientapi

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// AddressOf finds the address of the client behind a request. X-Forwarded-For is believed only as far as proxies that are known
// have written it: from the right, the first address that is no such proxy is the client's. Anybody else could write anything there.
func AddressOf(r *http.Request, proxies []netip.Prefix) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	ip := peer.Addr().Unmap().WithZone("")
	known := func(a netip.Addr) bool {
		return slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	if len(proxies) == 0 || !known(ip) {
		return ip
	}
	lines := r.Header.Values("X-Forwarded-For")
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; {
			last := rest
			if at := strings.LastIndexByte(rest, ','); at >= 0 {
				rest, last = rest[:at], rest[at+1:]
			} else {
				more = false
			}
			hop, err := netip.ParseAddr(strings.TrimSpace(last))
			if err != nil {
				return ip // whoever wrote that wrote no address: the last proxy is all that is known
			}
			if ip = hop.Unmap().WithZone(""); !known(ip) {
				return ip
			}
		}
	}
	return ip
}
