package node

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/node/p2p"
)

// TestFixedPortStaysRecognisable: who is removed is told nothing, but the owner is, where
// the node goes on at a port that it cannot change by itself.
func TestFixedPortStaysRecognisable(t *testing.T) {
	for _, tc := range []struct {
		name   string
		config Config
		fixed  bool
	}{
		{"any port", Config{}, false},
		{"port 0 asked for", Config{Listen: []string{"/ip4/0.0.0.0/udp/0/quic-v1"}}, false},
		{"a port asked for", Config{Listen: []string{"/ip4/0.0.0.0/udp/4001/quic-v1"}}, true},
		{"a server", Config{Profile: "server"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := testnet.New(t, 1, testnet.Options{})
				tc.config.Name, tc.config.NoLAN, tc.config.NoDHT, tc.config.Network = "Ada", true, true, net.Host(0).Configure
				ada, bob := opened(t, tc.config), alone(t, net, 1, "Bob")
				meet(t, ada, bob)
				time.Sleep(5 * time.Second)
				notices := ada.Watch()
				if _, err := ada.RemoveContact(t.Context(), "Bob", false); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				told := false
				for _, n := range notices() {
					told = told || n.Kind == "route" && strings.Contains(n.Text, "at a fixed port") && strings.Contains(n.Text, "leaves when that address changes")
				}
				if told != tc.fixed {
					t.Errorf("the owner was told of a port that stays: %v, want %v", told, tc.fixed)
				}
				closed(t, ada, bob)
			})
		})
	}
}

// TestServerOfBlockedContactIsLeft: the server of a contact who was blocked is no relay,
// way into the network or proxy any more, whoever else names it, and is never told the
// next key; after a restart neither. Where the owner named it by hand it stays, and the
// owner is told.
func TestServerOfBlockedContactIsLeft(t *testing.T) {
	for _, named := range []bool{false, true} {
		t.Run(map[bool]string{false: "told by her", true: "named by the owner"}[named], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				net := testnet.New(t, 1, testnet.Options{})
				m := opened(t, Config{Name: "Mallory", NoLAN: true, Profile: "server", Network: net.Host(0).Configure})
				id, _ := m.net.PeerIDs()
				c := Config{Name: "Victim", Dir: t.TempDir(), NoLAN: true, Network: net.Host(1).Configure}
				if named {
					c.Bootstrap = []string{net.Host(0).Addr.String() + "/p2p/" + id.String()}
				}
				v := opened(t, c)
				net.Host(1).Firewall(true)
				meet(t, m, v)
				time.Sleep(2 * time.Minute)
				uses := func() (book, relay, held bool) {
					book = slices.ContainsFunc(v.net.Book(), func(k p2p.Known) bool { return k.Peer.ID == id })
					relay = slices.ContainsFunc(v.edge.relays(), func(i peer.AddrInfo) bool { return i.ID == id })
					return book, relay, len(v.net.Reachability().Relays) > 0
				}
				if book, relay, held := uses(); !book || !relay || !held {
					t.Fatalf("before: in the book %v, asked to relay %v, relays %v", book, relay, held)
				}
				notices := v.Watch()
				if _, err := v.Block(ctx, "Mallory"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				look := func(when string) {
					t.Helper()
					v.net.AddBootstrap(p2p.FromDHT, peer.AddrInfo{ID: id, Addrs: m.net.Addrs()})
					time.Sleep(5 * time.Minute)
					if book, relay, held := uses(); book != named || relay != named || held != named {
						t.Errorf("%s: in the book %v, asked to relay %v, relays %v; want %v", when, book, relay, held, named)
					}
					next, _ := v.net.PeerIDs()
					if knows := slices.ContainsFunc(m.net.Peers(), func(p p2p.Peer) bool { return p.ID == next }); knows != named {
						t.Errorf("%s: her server is connected with the next key: %v, want %v", when, knows, named)
					}
				}
				look("after the block")
				told := slices.ContainsFunc(notices(), func(n Notice) bool { return strings.Contains(n.Text, "stays a way into the network") })
				if told != named {
					t.Errorf("the owner was told that the server stays: %v, want %v", told, named)
				}
				closed(t, v)
				v = opened(t, c)
				look("after a restart")
				closed(t, v, m)
			})
		})
	}
}

// TestLANOnlyContactCannotFollow: who may reach a node on the local network alone is
// reached there, and does not know the key by which the node is found elsewhere: neither
// what she knew before, nor told, nor shown by a dial, after a restart neither.
func TestLANOnlyContactCannotFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{Latency: time.Millisecond})
		c := Config{Name: "Ada", Dir: t.TempDir(), NoDHT: true, Network: net.Host(0).Configure}
		ada, bob := opened(t, c), opened(t, Config{Name: "Bob", NoDHT: true, Network: net.Host(1).Configure})
		meet(t, ada, bob)
		time.Sleep(10 * time.Second)
		before, _ := ada.net.PeerIDs()
		if _, err := ada.SetWays(t.Context(), "Bob", WaysLAN); err != nil {
			t.Fatal(err)
		}
		look := func(when string) {
			t.Helper()
			time.Sleep(2 * time.Minute)
			main, _ := ada.net.PeerIDs()
			if main == before {
				t.Errorf("%s the transport key is still that of before", when)
			}
			at(t, bob, ada, func(_ *loop, d *device) {
				k := d.queue.link
				if len(d.Transport) > 0 || d.Secret != [32]byte{} || k == nil || k.route != RouteLAN || k.peer == main {
					t.Errorf("%s Bob knows the key %x and has a link: %v", when, d.Transport, k != nil)
				}
			})
			for _, p := range bob.net.Peers() {
				if p.ID == main {
					t.Errorf("%s Ada's main host is connected with Bob: %+v", when, p)
				}
			}
		}
		look("after the rule")
		closed(t, ada)
		c.Network = net.Host(2).Configure
		ada = opened(t, c)
		look("after a restart")
		closed(t, ada, bob)
	})
}
