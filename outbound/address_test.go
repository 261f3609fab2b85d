package outbound

import (
	"net/netip"
	"testing"
)

func TestU222_PrivateIPv4(t *testing.T) {
	t.Parallel()
	checkRefused(t, "127.0.0.1", "127.255.255.254", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "169.254.169.254", "100.64.0.1",
		"100.127.255.255", "0.0.0.0", "0.1.2.3", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.255",
		"240.0.0.1", "255.255.255.255", "192.88.99.1")
	checkAllowed(t, "1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1", "192.0.1.1", "198.17.255.255", "198.20.0.1", "223.255.255.255", "169.253.1.1")
}

func TestU223_PrivateIPv6(t *testing.T) {
	t.Parallel()
	checkRefused(t, "::", "::1", "fe80::1", "fe80::1%eth0", "febf::1", "fc00::1", "fdff::1", "fec0::1", "ff02::1", "2001:db8::1", "100::1", "3fff::1", "5f00::1", "2001:2::1", "2001::1")
	checkAllowed(t, "2606:4700:4700::1111", "2a00:1450::1", "2001:4860:4860::8888")
	checkRefused(t, "2606:4700:4700::1111%eth0")
}

func TestU224_AddressesInsideOthers(t *testing.T) {
	t.Parallel()
	checkRefused(t, "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "::ffff:0:7f00:1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:7f00:1::")
	checkAllowed(t, "::ffff:1.1.1.1", "64:ff9b::808:808")
}

func guardOf(private bool) *guard {
	return &guard{ranges: refusedRanges(), allowPrivate: private, own: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("9.9.9.9")} }}
}

func checkRefused(t *testing.T, list ...string) {
	t.Helper()
	for _, a := range list {
		if guardOf(false).allows(netip.MustParseAddr(a), false) {
			t.Errorf("%s is allowed", a)
		}
	}
}

func checkAllowed(t *testing.T, list ...string) {
	t.Helper()
	for _, a := range list {
		if !guardOf(false).allows(netip.MustParseAddr(a), false) {
			t.Errorf("%s is refused", a)
		}
	}
}

func TestU230_OwnAddresses(t *testing.T) {
	t.Parallel()
	checkRefused(t, "9.9.9.9", "::ffff:9.9.9.9")
}

// What the operator opens is loopback and private ranges, not what keeps the credentials of the machine, and not what is no host.
func TestAllowPrivate_OpensPrivateRangesAlone(t *testing.T) {
	t.Parallel()
	for _, a := range []string{"127.0.0.1", "10.0.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd00::1", "9.9.9.9", "1.1.1.1"} {
		if !guardOf(true).allows(netip.MustParseAddr(a), false) {
			t.Errorf("%s is refused", a)
		}
	}
	for _, a := range []string{"169.254.169.254", "0.0.0.0", "::", "224.0.0.1", "fe80::1", "255.255.255.255", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"} {
		if guardOf(true).allows(netip.MustParseAddr(a), false) {
			t.Errorf("%s is allowed", a)
		}
	}
}

func TestGuard_WhatTheOperatorNamedHimself(t *testing.T) {
	t.Parallel()
	for a, want := range map[string]bool{"127.0.0.1": true, "10.0.0.1": true, "9.9.9.9": true, "0.0.0.0": false, "::": false, "224.0.0.1": false} {
		if got := guardOf(false).allows(netip.MustParseAddr(a), true); got != want {
			t.Errorf("%s: allowed %v, want %v", a, got, want)
		}
	}
}

func TestControl_RefusesWhatIsNoTCP(t *testing.T) {
	t.Parallel()
	control := guardOf(true).control(false)
	for _, c := range [][2]string{{"udp4", "1.1.1.1:53"}, {"unix", "/run/x"}, {"tcp4", "1.1.1.1:0"}, {"tcp4", "nonsense"}, {"tcp", "1.1.1.1:443"}} {
		if control(c[0], c[1], nil) == nil {
			t.Errorf("%s %s is allowed", c[0], c[1])
		}
	}
	if err := control("tcp4", "1.1.1.1:443", nil); err != nil {
		t.Error(err)
	}
}
