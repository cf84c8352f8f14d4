package p2p

import (
	"net/netip"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

// TestRoamingShowsAtOnce: an address that is gone is not told any more, and one that has
// come is, though libp2p finds out a minute later.
func TestRoamingShowsAtOnce(t *testing.T) {
	addrs := func(all ...string) []ma.Multiaddr {
		var out []ma.Multiaddr
		for _, a := range all {
			out = append(out, ma.StringCast(a))
		}
		return ma.Unique(out)
	}
	ips := func(all ...string) []netip.Addr {
		var out []netip.Addr
		for _, a := range all {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	now := time.Unix(1_800_000_000, 0)
	listen := addrs("/ip4/0.0.0.0/udp/4001/quic-v1", "/ip6/::/tcp/4002", "/p2p-circuit")
	told := addrs("/ip4/45.1.0.1/udp/4001/quic-v1", "/ip4/9.9.9.9/udp/4001/quic-v1") // its own, and one that others saw
	var i ifaces
	check := func(what string, want ...string) {
		t.Helper()
		if got := i.fresh(told, listen); !sameAddrs(got, addrs(want...)) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	check("in a simulation", "/ip4/45.1.0.1/udp/4001/quic-v1", "/ip4/9.9.9.9/udp/4001/quic-v1")
	i.set(now, ips("45.1.0.1"))
	check("at first", "/ip4/45.1.0.1/udp/4001/quic-v1", "/ip4/9.9.9.9/udp/4001/quic-v1")
	i.set(now.Add(time.Second), ips("45.2.0.1", "2a01::1"))
	check("moved", "/ip4/45.2.0.1/udp/4001/quic-v1", "/ip6/2a01::1/tcp/4002", "/ip4/9.9.9.9/udp/4001/quic-v1")
	i.set(now.Add(2*time.Second), ips("45.1.0.1"))
	check("back", "/ip4/45.1.0.1/udp/4001/quic-v1", "/ip4/9.9.9.9/udp/4001/quic-v1")
	i.set(now.Add(3*time.Second), ips("45.2.0.1"))
	i.set(now.Add(3*time.Second+ifaceStale+1), ips("45.2.0.1"))
	if len(i.gone) != 0 {
		t.Errorf("%v is still remembered as gone", i.gone)
	}
}

// TestInterfacesAreRead: what the system says holds the loopback at least.
func TestInterfacesAreRead(t *testing.T) {
	var i ifaces
	found := false
	for _, ip := range i.look(time.Now()) {
		found = found || ip.IsLoopback()
	}
	if !found || len(i.ips()) == 0 {
		t.Errorf("%v", i.ips())
	}
}
