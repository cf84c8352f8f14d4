package node_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/protocol/contact"
)

// TestRelayOnlyContactStaysAStrangerWhenSomebodyLeaves: while the main host waits for
// another key, because somebody else was removed, a contact who may reach Ada by relays
// only is a stranger there as before, though he comes with the key that she knows.
func TestRelayOnlyContactStaysAStrangerWhenSomebodyLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		relay := around(t, net, 0, "", "Relay", "server")
		ada, bob, carol := around(t, net, 1, "", "Ada", "client", relay), around(t, net, 2, "", "Bob", "client"), around(t, net, 3, "", "Carol", "client")
		befriend(ctx, t, ada, bob)
		befriend(ctx, t, ada, carol)
		time.Sleep(10 * time.Second)
		setWays(ctx, t, ada, "Bob", node.WaysRelay)
		if way := routeOf(ctx, t, bob, ada, "Ada", "Bob", "over the relay"); way != "relay" {
			t.Errorf("went %q", way)
		}
		status, err := ada.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, transport, _, err := ada.Placed(ctx)
		if err != nil {
			t.Fatal(err)
		}
		closeAll(t, relay)
		time.Sleep(time.Minute)
		say(ctx, t, bob, "Ada", "is it you?")
		time.Sleep(45 * time.Second) // he looks at the relay no more
		if _, err := ada.RemoveContact(ctx, "Carol", false); err != nil {
			t.Fatal(err)
		}
		before := net.Traffic(1, 2).Bytes
		for range 40 { // the key changes in 5 s, and then nobody has this one
			if err := bob.Teach(ctx, status.Person, contact.Transport(transport).PeerID(), net.Host(1).Addr.Bytes()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(200 * time.Millisecond)
		}
		if got := net.Traffic(1, 2).Bytes - before; got < 2<<10 {
			t.Errorf("Bob never tried: he was sent %d bytes", got)
		}
		if got := texts(ctx, t, ada, "Bob"); got != "over the relay" {
			t.Errorf("Ada reads %q", got)
		}
		if s, err := bob.Status(ctx); err != nil || s.Queued != 1 || s.Online != 0 {
			t.Errorf("Bob has %d waiting and %d devices online, %v", s.Queued, s.Online, err)
		}
		closeAll(t, ada, bob, carol)
	})
}
