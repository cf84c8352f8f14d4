package p2p

import (
	"errors"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	ma "github.com/multiformats/go-multiaddr"
)

// TestServersSayWhereThisIs: behind a router, where nothing else tells a machine's public
// address, it is what those servers say that are to be chosen from, and not what anybody
// says who is connected.
func TestServersSayWhereThisIs(t *testing.T) {
	a, b := start(t, Config{Listen: []ma.Multiaddr{loopTCP}}), start(t, Config{Listen: []ma.Multiaddr{loopTCP}})
	if _, err := a.Dial(t.Context(), b.self(), b.Addrs()); err != nil {
		t.Fatal(err)
	}
	h := a.host(mainHost)
	c := h.conn(b.self())
	if at, err := h.sights.wait(t.Context(), c); err != nil || !isLoopback(at) {
		t.Fatalf("seen at %v, %v", at, err)
	}
	here, there := ma.StringCast("/ip4/8.8.4.4/tcp/443"), ma.StringCast("/ip4/9.9.9.9/tcp/443")
	near, far := peer.AddrInfo{ID: b.self(), Addrs: []ma.Multiaddr{here}}, peer.AddrInfo{ID: "far", Addrs: []ma.Multiaddr{there}}
	for _, tc := range []struct {
		name  string
		seen  string
		nodes []peer.AddrInfo
		known bool
	}{
		{"seen at a private address", "/ip4/192.168.1.7/tcp/4001", []peer.AddrInfo{near, far}, false},
		{"seen by a stranger", "/ip4/8.8.4.4/tcp/4001", []peer.AddrInfo{far}, false},
		{"seen by one of them", "/ip4/8.8.4.4/tcp/4001", []peer.AddrInfo{near, far}, true},
	} {
		h.sights.note(c, ma.StringCast(tc.seen))
		out, left, known := a.Elsewhere(tc.nodes)
		if known != tc.known || known && (len(out) != 1 || out[0].ID != far.ID || !errors.Is(left[near.ID], ErrRelayHere)) {
			t.Errorf("%s: %v, %v, %v", tc.name, out, left, known)
		}
	}
}

// oneSays is what a single observer said of our addresses.
type oneSays struct {
	basichost.ObservedAddrsManager
	at ma.Multiaddr
}

func (o oneSays) Addrs(int) []ma.Multiaddr { return []ma.Multiaddr{o.at} }

// TestStrangersSayWhereThisIsNot: a stranger's word keeps away from where it says, and
// makes nothing else a place that is known to be elsewhere.
func TestStrangersSayWhereThisIsNot(t *testing.T) {
	a := start(t, Config{Listen: []ma.Multiaddr{loopTCP}})
	h := a.host(mainHost)
	if h.punch == nil {
		t.Fatal("nobody is asked where this is")
	}
	h.punch.seen = oneSays{h.punch.seen, ma.StringCast("/ip4/9.9.9.9/udp/1/quic-v1")}
	home := peer.AddrInfo{ID: "home", Addrs: []ma.Multiaddr{ma.StringCast("/ip4/8.8.4.4/tcp/443")}}
	if out, _, known := a.Elsewhere([]peer.AddrInfo{home}); known {
		t.Errorf("a stranger says where this is: %v", out)
	}
}
