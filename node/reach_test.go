package node

import (
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/p2p"
)

// TestUPnPLies: what a router says that it opened makes no invite one for the internet,
// and neither does a verdict without an address, as behind the provider's router (CGNAT).
func TestUPnPLies(t *testing.T) {
	mapped := ma.StringCast("/ip4/100.64.3.4/udp/4001/quic-v1")
	for _, r := range []p2p.Reachability{
		{Mapped: []ma.Multiaddr{mapped}},
		{Verdict: p2p.Private, Mapped: []ma.Multiaddr{mapped}},
		{Verdict: p2p.Public, Mapped: []ma.Multiaddr{mapped}},
	} {
		if got := reachOf(r, &Config{}); got.Reach != ReachLAN || got.Next == "" {
			t.Errorf("%+v: %+v", r, got)
		}
	}
	if got := reachOf(p2p.Reachability{Verdict: p2p.Public, Direct: []ma.Multiaddr{mapped}}, &Config{}); got.Reach != ReachInternet {
		t.Errorf("dialled back: %+v", got)
	}
}
