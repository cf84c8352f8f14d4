package node_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// TestRelayOnlyContactShedsNoKey: a contact who may reach Ada by relays only, and has had
// as many transport keys as she notes, gets rid of the one that he has neither by telling
// another nor by having her answer an invite: his server, which she named, stays known as
// his, after a restart, too. What he writes still arrives.
func TestRelayOnlyContactShedsNoKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		relay := around(t, net, 0, "", "Relay", "server")
		bob := around(t, net, 2, "", "Bob", "server", relay)
		dir := t.TempDir()
		ada := around(t, net, 1, dir, "Ada", "home", relay)
		if _, err := ada.AddBootstrap(ctx, listensAt(t, bob)); err != nil {
			t.Fatal(err)
		}
		befriend(ctx, t, bob, ada)
		time.Sleep(time.Minute)
		setWays(ctx, t, ada, "Bob", node.WaysRelay)
		him, err := bob.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		his, err := peer.Decode(him.PeerID)
		if err != nil {
			t.Fatal(err)
		}
		if err := ada.FillFormer(ctx, him.Person); err != nil {
			t.Fatal(err)
		}
		hidden := func(when string) {
			t.Helper()
			if !ada.Hides(his) {
				t.Errorf("%s: his server is nobody's", when)
			}
		}
		hidden("before")
		setWays(ctx, t, bob, "Ada", node.WaysRelay) // by which he gets another key
		time.Sleep(20 * time.Second)
		setWays(ctx, t, bob, "Ada", node.WaysAny)
		time.Sleep(20 * time.Second)
		overRelay(ctx, t, bob, ada, "Ada", "Bob", "with another key")
		hidden("once he told another key")
		setWays(ctx, t, ada, "Bob", node.WaysAny) // or she would not call him at all
		if _, err := ada.AddContact(ctx, link(ctx, t, bob, false), node.AddOptions{}); err == nil {
			t.Error("his invite was answered")
		} else {
			wantKind(t, "his invite", err, node.KindRefused, "too often")
		}
		setWays(ctx, t, ada, "Bob", node.WaysRelay)
		hidden("after his invite")
		closeAll(t, ada)
		ada = around(t, net, 1, dir, "", "home", relay)
		time.Sleep(time.Minute)
		hidden("after a restart")
		closeAll(t, ada, bob, relay)
	})
}
