package node_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/node/p2p"
)

// TestPeersNamesContacts: both sides of a connection see whose device the other is,
// and which of them dialled.
func TestPeersNamesContacts(t *testing.T) {
	pair(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, conv node.Added) {
		delivered(ctx, t, bob, say(ctx, t, bob, "Ada", "hello"))
		for _, side := range []struct {
			n    *node.Node
			name string
		}{{ada, "Bob"}, {bob, "Ada"}} {
			peers, err := side.n.Peers(ctx)
			if err != nil || len(peers) != 1 {
				t.Fatalf("peers of the one beside %s: %+v, %v", side.name, peers, err)
			}
			p := peers[0]
			if p.Kind != "contact" || p.Name != side.name || p.Device == "" || p.Transport != "quic" || p.Inbound != (side.name == "Bob") || p.Since.IsZero() || p.Address == "" {
				t.Errorf("%+v", p)
			}
		}
		if _, err := bob.RemoveContact(ctx, "Ada", false); err != nil {
			t.Fatal(err)
		}
		peers, err := bob.Peers(ctx)
		for _, p := range peers {
			if p.Name != "" || p.Kind != "stranger" {
				t.Errorf("after she was removed: %+v", p)
			}
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// TestPing: a round trip takes what the wire takes, also to a device that has to be
// dialled first; who is away has a reason, and who nothing may be said to is refused.
func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		net := testnet.New(t, 1, testnet.Options{Latency: 40 * time.Millisecond})
		dir := t.TempDir()
		ada, bob := simulated(t, net, 0, "", "Ada"), simulated(t, net, 1, dir, "Bob")
		befriend(ctx, t, ada, bob)
		ping := func(who string) node.Pong {
			t.Helper()
			bounded, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			pongs, err := ada.Ping(bounded, who)
			if err != nil || len(pongs) != 1 {
				t.Fatalf("ping: %+v, %v", pongs, err)
			}
			return pongs[0]
		}
		good := func(p node.Pong) {
			t.Helper()
			if !p.Answered || p.RTT < 80*time.Millisecond || p.RTT > 90*time.Millisecond || p.Name != "Bob" || p.Transport != "quic" || p.Address == "" || p.Reason != "" {
				t.Errorf("got %+v, want 80 ms", p)
			}
		}
		good(ping("bob"))

		closeAll(t, bob)
		time.Sleep(time.Minute)
		begin := time.Now()
		away := ping("bob")
		if away.Answered || away.Reason == "" || away.Next == "" || time.Since(begin) > 25*time.Second {
			t.Errorf("nobody there, after %v: %+v", time.Since(begin), away)
		}
		t.Log(away.Reason, "|", away.Next)

		bob = simulated(t, net, 1, dir, "")
		good(ping("bob")) // nobody has dialled yet

		if _, err := ada.Block(ctx, "bob"); err != nil {
			t.Fatal(err)
		}
		for who, want := range map[string]error{"bob": node.ErrRefused, "eve": node.ErrNotFound, "me": node.ErrNotFound} {
			if _, err := ada.Ping(ctx, who); !errors.Is(err, want) {
				t.Errorf("ping %s: %v", who, err)
			}
		}
		closeAll(t, ada, bob)
	})
}

// TestRouteOrder: the live way comes first, then what is tried first, each with its
// source; what the owner's rule forbids is said to be so.
func TestRouteOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		net := testnet.New(t, 1, testnet.Options{})
		dir := t.TempDir()
		ada, bob := onto(t, net, 0, "", "Ada", "home"), onto(t, net, 1, dir, "Bob", "home")
		befriend(ctx, t, ada, bob)
		delivered(ctx, t, ada, say(ctx, t, ada, "Bob", "hello"))
		time.Sleep(5 * time.Second)
		ways, err := bob.Route(ctx, "ada")
		if err != nil || len(ways) == 0 {
			t.Fatalf("%+v, %v", ways, err)
		}
		if w := ways[0]; !w.Live || w.Source != "told" || w.Result != "connected" || w.Transport != "quic" || w.LastTry.IsZero() {
			t.Errorf("live: %+v", w)
		}
		for _, w := range ways[1:] {
			if w.Live || w.Address == ways[0].Address {
				t.Errorf("the live way is told twice: %+v", ways)
			}
		}
		closeAll(t, ada)
		time.Sleep(time.Minute)
		say(ctx, t, bob, "ada", "are you there?")
		time.Sleep(time.Minute)
		ways, err = bob.Route(ctx, "ada")
		if err != nil || len(ways) == 0 || ways[0].Live || ways[0].Result == "worked" || ways[0].Result == "" {
			t.Errorf("away: %+v, %v", ways, err)
		}
		if last := ways[len(ways)-1]; last.Route != "lookup" || last.Source != "record" || last.LastTry.IsZero() || last.Result == "" || last.Address != "" {
			t.Errorf("the look-up comes after all that is known: %+v", ways)
		}
		// What the rule forbids is not tried, and does not look as if it had been.
		if _, err := bob.SetWays(ctx, "ada", "lan"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // a try that is under way ends
		forbidden := time.Now()
		time.Sleep(time.Hour)
		if ways, err = bob.Route(ctx, "ada"); err != nil || len(ways) == 0 {
			t.Fatal(ways, err)
		}
		for _, w := range ways {
			if w.Route == "direct" && (!strings.HasPrefix(w.Result, "not used") || w.LastTry.After(forbidden)) {
				t.Errorf("forbidden: %+v", w)
			}
		}
		closeAll(t, bob)
	})
}

// TestRelayedIsSaidToBe: what runs over a relay is nowhere called direct, and who may
// be reached by a relay alone is reached by it.
func TestRelayedIsSaidToBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		net := testnet.New(t, 1, testnet.Options{Latency: 20 * time.Millisecond})
		server := onto(t, net, 0, "", "Server", "server")
		status, err := server.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.Decode(status.PeerID)
		if err != nil {
			t.Fatal(err)
		}
		behind := func(i int, name string) *node.Node {
			net.Host(i).Firewall(true)
			n, err := node.Open(ctx, node.Config{Name: name, NoLAN: true, Bootstrap: []string{status.Listening[0] + "/p2p/" + status.PeerID}, Network: func(cfg *p2p.Config) {
				net.Host(i).Configure(cfg)
				cfg.Relays = func() []peer.AddrInfo {
					return []peer.AddrInfo{{ID: id, Addrs: []ma.Multiaddr{net.Host(0).Addr}}}
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		net.Cut([]int{1}, []int{2}) // no hole leads anywhere
		ada, bob := behind(1, "Ada"), behind(2, "Bob")
		time.Sleep(time.Minute)
		befriend(ctx, t, ada, bob)
		time.Sleep(time.Minute)
		m := say(ctx, t, bob, "Ada", "over the relay")
		delivered(ctx, t, bob, m)
		if got, err := bob.Wait(ctx, m.ID, "delivered"); err != nil || got.Route != "relay" {
			t.Errorf("a message over a relay went %q, %v", got.Route, err)
		}
		ways, err := bob.Route(ctx, "Ada")
		if err != nil || len(ways) == 0 || !ways[0].Live || ways[0].Route != "relay" {
			t.Errorf("ways: %+v, %v", ways, err)
		}
		pongs, err := bob.Ping(ctx, "Ada")
		if err != nil || len(pongs) != 1 || !pongs[0].Answered || pongs[0].Route != "relay" || pongs[0].RTT < 80*time.Millisecond {
			t.Errorf("pongs: %+v, %v", pongs, err)
		}
		closeAll(t, ada, bob, server)
	})
}
