package node

import (
	"crypto/rand"
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
		link, err := ada.Invite(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bob.AddContact(t.Context(), link, AddOptions{}); err != nil {
			t.Fatal(err)
		}
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
		bob, err = Open(t.Context(), Config{Dir: bobHome, NoDHT: true, Network: func(c *p2p.Config) {
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
	g.greeted(first, true, now)
	if g.found(at(2, 0), now); len(g.waiting) != waitingAt-1 {
		t.Error("a stranger is asked again at once")
	}
	for j := range 2 * strangersMax {
		g.greeted(peer.AddrInfo{ID: peer.ID([]byte{3, byte(j), byte(j >> 8)}), Addrs: second.Addrs}, true, now.Add(time.Duration(j)))
	}
	if len(g.strangers) != strangersMax {
		t.Errorf("%d strangers are remembered, want %d", len(g.strangers), strangersMax)
	}
}
