package node

import (
	"context"
	"crypto/rand"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/node/p2p"
)

// TestSilentNeighbours: somebody on the LAN who announces ever new neighbours that do
// not answer does not keep contacts there from being found at once.
func TestSilentNeighbours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{Latency: time.Millisecond})
		adaHome, bobHome := t.TempDir(), t.TempDir()
		open := func(i int, dir, name string) *Node {
			n, err := Open(t.Context(), Config{Dir: dir, Name: name, NoDHT: true, Network: net.Host(i).Configure})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		end := func(n *Node) {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
		ada, bob := open(0, adaHome, "Ada"), open(1, bobHome, "Bob")
		introduce(t, ada, bob)
		time.Sleep(5 * time.Second)
		end(ada)
		end(bob)
		time.Sleep(time.Minute)
		ada = open(2, adaHome, "Ada")
		announce := func() {
			key, _, err := crypto.GenerateEd25519Key(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			id, err := peer.IDFromPrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			ada.edge.Found(peer.AddrInfo{ID: id, Addrs: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/10.0.77.77/udp/4001/quic-v1")}})
		}
		for range 100 { // what the guard lets one address announce, and more
			announce()
			time.Sleep(time.Second)
		}
		found := func() (yes bool) {
			if err := ada.ask(t.Context(), func(l *loop) {
				for _, d := range l.acct.devices {
					yes = yes || d.queue.link != nil
				}
			}); err != nil {
				t.Fatal(err)
			}
			return yes
		}
		// Bob announces itself and looks for nobody.
		bob, err := Open(t.Context(), Config{Dir: bobHome, NoDHT: true, Network: func(c *p2p.Config) {
			net.Host(3).Configure(c)
			c.Discovery = nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		_, id := bob.net.PeerIDs()
		ada.edge.Found(peer.AddrInfo{ID: id, Addrs: []multiaddr.Multiaddr{net.Host(3).LANAddr}})
		begin := time.Now()
		for !found() && time.Since(begin) < time.Minute {
			announce()
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("the contact on the LAN was found after %v", took)
		}
		end(ada)
		end(bob)
	})
}

// TestGreeterIsBounded: whoever announces what, the newest of each address are kept, and
// one at an address is greeted at a time.
func TestGreeterIsBounded(t *testing.T) {
	g, now := newGreeter(), time.Unix(1_700_000_000, 0)
	at := func(i, j int) peer.AddrInfo {
		ip := multiaddr.StringCast("/ip4/10.0.0." + string(rune('0'+i)) + "/tcp/1")
		return peer.AddrInfo{ID: peer.ID([]byte{byte(i), byte(j)}), Addrs: []multiaddr.Multiaddr{ip}}
	}
	for j := range 100 {
		g.found(at(1, j), now)
	}
	g.found(at(2, 0), now)
	if len(g.waiting) != waitingAt+1 {
		t.Errorf("%d wait, want %d", len(g.waiting), waitingAt+1)
	}
	first, _ := g.next()
	second, _ := g.next()
	if _, more := g.next(); first.ID != at(2, 0).ID || second.ID != at(1, 99).ID || more {
		t.Errorf("greeted %v and %v, more %v; want the newest, one at an address", first, second, more)
	}
	g.greeted(first, errStranger, now)
	if g.found(at(2, 0), now); len(g.waiting) != waitingAt-1 {
		t.Error("a stranger is asked again at once")
	}
	for j := range 2 * strangersMax {
		g.greeted(peer.AddrInfo{ID: peer.ID([]byte{3, byte(j), byte(j >> 8)}), Addrs: second.Addrs}, errStranger, now.Add(time.Duration(j)))
	}
	if len(g.strangers) != strangersMax {
		t.Errorf("%d strangers are remembered, want %d", len(g.strangers), strangersMax)
	}
	for j := range 2 * strangersMax {
		g.greeted(peer.AddrInfo{ID: peer.ID([]byte{4, byte(j), byte(j >> 8)}), Addrs: second.Addrs}, errOther, now.Add(time.Duration(j)))
	}
	if len(g.failed) != strangersMax || len(g.strangers) != strangersMax {
		t.Errorf("%d who were not there are remembered, want %d", len(g.failed), strangersMax)
	}
}

// TestGreeterKeepsPlacesApart: that somebody was not where they were announced says nothing
// of another address, and of this one for half a minute. A stranger is one everywhere.
func TestGreeterKeepsPlacesApart(t *testing.T) {
	g, now := newGreeter(), time.Unix(1_700_000_000, 0)
	there := peer.AddrInfo{ID: "bob", Addrs: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/10.0.0.1/tcp/1")}}
	elsewhere := peer.AddrInfo{ID: "bob", Addrs: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/10.0.0.2/tcp/1")}}
	want := func(what string, n int) {
		t.Helper()
		if g.found(there, now); len(g.waiting) != n {
			t.Errorf("%s: %v wait, want %d", what, g.waiting, n)
		}
	}
	want("announced", 1)
	g.found(elsewhere, now)
	want("announced elsewhere too", 2)
	for range 2 {
		g.next()
	}
	if len(g.busy) != 2 {
		t.Errorf("greeted at %v, want both", g.busy)
	}
	g.greeted(elsewhere, context.DeadlineExceeded, now)
	g.greeted(there, nil, now)
	want("not there elsewhere", 1)
	g.next()
	g.greeted(there, context.DeadlineExceeded, now)
	want("not there", 0)
	now = now.Add(failedEvery)
	want("half a minute later", 1)
	g.next()
	g.greeted(there, errStranger, now)
	now = now.Add(strangerEvery - 1)
	want("a stranger", 0)
	if g.found(elsewhere, now); len(g.waiting) > 0 {
		t.Error("a stranger is asked again elsewhere")
	}
	now = now.Add(1)
	want("ten minutes later", 1)
}

// TestForeignIDAtTheGreeter: somebody on the LAN announces a contact's id at addresses of
// their own, where nobody answers, or somebody else. The contact is found at once where it
// is, whatever was announced before and after, and its link lives on.
func TestForeignIDAtTheGreeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{Latency: time.Millisecond})
		adaHome, bobHome := t.TempDir(), t.TempDir()
		open := func(i int, dir, name string) *Node {
			n, err := Open(t.Context(), Config{Dir: dir, Name: name, NoDHT: true, Network: func(c *p2p.Config) {
				net.Host(i).Configure(c)
				c.Discovery = nil // who announces whom is said below
			}})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		end := func(all ...*Node) {
			for _, n := range all {
				if err := n.Close(); err != nil {
					t.Error(err)
				}
			}
		}
		ada, bob := open(0, adaHome, "Ada"), open(1, bobHome, "Bob")
		introduce(t, ada, bob)
		time.Sleep(5 * time.Second)
		end(ada, bob)
		eve := open(4, "", "Eve")
		type at = []multiaddr.Multiaddr
		nobody, other := at{multiaddr.StringCast("/ip4/10.0.77.77/udp/4001/quic-v1")}, at{net.Host(4).LANAddr}
		for i, tc := range []struct {
			name          string
			before, after []at // where Bob is said to be beside where it is
			wait, gap     time.Duration
		}{
			{"before", []at{nobody}, nil, 6 * time.Second, 0},
			{"another's, before", []at{other}, nil, time.Second, 0},
			{"while it is tried", []at{nobody}, nil, 0, 0},
			{"right after", nil, []at{nobody, other}, 0, 0},
			{"another's, during the dial", nil, []at{other}, 0, time.Millisecond},
			{"another's, at the end of the dial", nil, []at{other}, 0, 2 * time.Millisecond},
			{"two of one machine", nil, []at{{nobody[0], net.Host(6*2 + 11).LANAddr}}, 0, 0},
		} {
			time.Sleep(time.Minute)
			// After a move of both: neither knows an address of the other that is good.
			ada, bob = open(2*i+10, adaHome, "Ada"), open(2*i+11, bobHome, "Bob")
			_, id := bob.net.PeerIDs()
			announce := func(all ...at) {
				for _, addrs := range all {
					ada.edge.Found(peer.AddrInfo{ID: id, Addrs: addrs})
				}
			}
			linked := func() (at string, known []string) {
				if err := ada.ask(t.Context(), func(l *loop) {
					for _, d := range l.acct.devices {
						if d.queue.link != nil {
							at = d.queue.link.addr
						}
						for _, a := range d.Addrs {
							if m, err := multiaddr.NewMultiaddrBytes(a.Addr); err == nil && a.Source == sourceLAN {
								known = append(known, m.String())
							}
						}
					}
				}); err != nil {
					t.Fatal(err)
				}
				return at, known
			}
			announce(tc.before...)
			time.Sleep(tc.wait)
			if at, _ := linked(); at != "" {
				t.Fatalf("%s: linked at %q before they are found", tc.name, at)
			}
			begin, there := time.Now(), net.Host(2*i+11).LANAddr
			announce(at{there})
			time.Sleep(tc.gap)
			announce(tc.after...)
			for time.Since(begin) < 12*time.Second {
				time.Sleep(100 * time.Millisecond)
				if at, known := linked(); at != there.String() || !slices.Contains(known, at) || len(tc.after) > 0 && len(tc.after[0]) == 1 && len(known) != 1 {
					t.Errorf("%s: after %v linked at %q, known at %v", tc.name, time.Since(begin), at, known)
					break
				}
			}
			end(ada, bob)
		}
		end(eve)
	})
}
