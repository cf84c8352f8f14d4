package node_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/protocol/contact"
)

// knows fails unless a knows where b is: its secret, its transport key, and the
// address that it has now.
func knows(ctx context.Context, t *testing.T, a, b *node.Node, address string) {
	t.Helper()
	_, _, others, err := a.Placed(ctx)
	if err != nil {
		t.Fatal(err)
	}
	secret, transport, _, err := b.Placed(ctx)
	if err != nil {
		t.Fatal(err)
	}
	status, err := b.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	d := others[status.Person]
	if d.Secret != secret || secret == [32]byte{} {
		t.Errorf("%s's secret is %x, known as %x", status.Name, secret, d.Secret)
	}
	if id := peer.ID(contact.Transport(transport).PeerID()); string(d.Transport) != string(id) || id.String() != status.PeerID {
		t.Errorf("%s's transport is %s, running %s, known as %x", status.Name, id, status.PeerID, d.Transport)
	}
	if len(d.Addrs) == 0 || d.Told.IsZero() {
		t.Fatalf("no address is known of %s, told %s", status.Name, d.Told)
	}
	ways, err := a.Route(ctx, status.Name)
	if err != nil || len(ways) == 0 || ways[0].Address != address {
		t.Errorf("ways to %s are %+v, %v, want %s first", status.Name, ways, err, address)
	}
}

// TestToldWhereabouts: two who met know by what the other is found again, and hear
// of it when that changes.
func TestToldWhereabouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		net := testnet.New(t, 1, testnet.Options{})
		dir := t.TempDir()
		ada, bob := simulated(t, net, 0, "", "Ada"), simulated(t, net, 1, dir, "Bob")
		befriend(ctx, t, ada, bob)
		time.Sleep(5 * time.Second)
		knows(ctx, t, ada, bob, net.Host(1).Addr.String())
		knows(ctx, t, bob, ada, net.Host(0).Addr.String())

		closeAll(t, bob) // and he moves: the same home on another machine
		bob = simulated(t, net, 2, dir, "")
		time.Sleep(time.Minute)
		knows(ctx, t, ada, bob, net.Host(2).Addr.String())
		knows(ctx, t, bob, ada, net.Host(0).Addr.String())
		closeAll(t, ada, bob)
	})
}

// TestRemovedContactIsLeftBehind: who was removed, or blocked, knows neither the
// secret nor the transport key any more, and reaches nobody by what they knew; the
// others are told, also those who were away.
func TestRemovedContactIsLeftBehind(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(context.Context, *node.Node) (node.Contact, error)
	}{
		{"removed", func(ctx context.Context, n *node.Node) (node.Contact, error) {
			return n.RemoveContact(ctx, "Bob", false)
		}},
		{"blocked", func(ctx context.Context, n *node.Node) (node.Contact, error) { return n.Block(ctx, "Bob") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				net := testnet.New(t, 1, testnet.Options{})
				dave := t.TempDir()
				ada, bob, carol, away := simulated(t, net, 0, "", "Ada"), simulated(t, net, 1, "", "Bob"), simulated(t, net, 2, "", "Carol"), simulated(t, net, 3, dave, "Dave")
				for _, n := range []*node.Node{bob, carol, away} {
					befriend(ctx, t, ada, n)
				}
				time.Sleep(5 * time.Second)
				closeAll(t, away)
				secret, transport, _, err := ada.Placed(ctx)
				if err != nil {
					t.Fatal(err)
				}
				open := link(ctx, t, ada, false)
				if _, err := tc.end(ctx, ada); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				next, other, _, err := ada.Placed(ctx)
				if err != nil || next == secret || other == transport {
					t.Fatalf("after it the secret is the same: %v, the transport: %v; %v", next == secret, other == transport, err)
				}
				knows(ctx, t, carol, ada, net.Host(0).Addr.String())
				delivered(ctx, t, carol, say(ctx, t, carol, "Ada", "still here"))
				delivered(ctx, t, ada, say(ctx, t, ada, "Carol", "me too"))

				_, _, others, err := bob.Placed(ctx)
				if err != nil {
					t.Fatal(err)
				}
				status, err := ada.Status(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if d := others[status.Person]; d.Secret != secret || d.Secret == next || string(d.Transport) == string(contact.Transport(other).PeerID()) {
					t.Errorf("Bob knows the secret %x and the transport %x", d.Secret, d.Transport)
				}
				say(ctx, t, bob, "Ada", "are you there?")
				time.Sleep(time.Hour)
				if got, err := bob.Status(ctx); err != nil || got.Queued != 1 || got.Online != 0 {
					t.Errorf("Bob has %d waiting and %d devices online, %v", got.Queued, got.Online, err)
				}
				// Dave was away: Ada dials him, and says where she is now.
				away = simulated(t, net, 3, dave, "")
				say(ctx, t, ada, "Dave", "welcome back")
				time.Sleep(15 * time.Minute)
				knows(ctx, t, away, ada, net.Host(0).Addr.String())
				// The open invite led to a key that nobody has any more.
				stranger := simulated(t, net, 4, "", "Eve")
				if _, err := stranger.AddContact(ctx, open, node.AddOptions{}); err == nil {
					t.Error("an invite of before was answered")
				}
				closeAll(t, ada, bob, carol, away, stranger)
			})
		})
	}
}
