package node_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

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
		overRelay(ctx, t, bob, ada, "Ada", "Bob", "over the relay")
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

// TestRelayOnlyContactsNamedServerIsNotUsed: the server of a contact who may reach Ada by
// relays only is left alone although she named it, and she is told; under a key that its
// owner's device has no more, after a restart and as a carrier of the veil, too. It is
// not taken when it is named again.
func TestRelayOnlyContactsNamedServerIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		relay := around(t, net, 0, "", "Relay", "server")
		bob := around(t, net, 2, "", "Bob", "server", relay)
		dir := t.TempDir()
		ada := around(t, net, 1, dir, "Ada", "home", relay)
		old := listensAt(t, bob)
		if _, err := ada.AddBootstrap(ctx, old); err != nil {
			t.Fatal(err)
		}
		befriend(ctx, t, bob, ada)
		time.Sleep(time.Minute)
		notices := ada.Watch()
		setWays(ctx, t, ada, "Bob", node.WaysRelay)
		if all := notices(); !slices.ContainsFunc(all, func(n node.Notice) bool { return strings.Contains(n.Text, "no way into the network any more") }) {
			t.Errorf("Ada was told %+v", all)
		}
		time.Sleep(time.Minute)
		quiet := net.Traffic(1, 2).Packets
		silent := func(when string) {
			t.Helper()
			if c := net.Traffic(1, 2).Packets - quiet; c > 0 {
				t.Errorf("%s: %d packets went from Ada to Bob's server", when, c)
			}
			quiet = net.Traffic(1, 2).Packets
		}
		overRelay(ctx, t, bob, ada, "Ada", "Bob", "hello")
		silent("under the rule")
		setWays(ctx, t, bob, "Ada", node.WaysRelay) // by which he gets another key
		time.Sleep(20 * time.Second)
		setWays(ctx, t, bob, "Ada", node.WaysAny)
		time.Sleep(20 * time.Second)
		overRelay(ctx, t, bob, ada, "Ada", "Bob", "with another key")
		silent("once he has another key")
		closeAll(t, ada)
		ada = around(t, net, 1, dir, "", "home", relay)
		time.Sleep(2 * time.Minute)
		silent("after a restart")
		if got := ada.Carriers(); len(got) != 1 || strings.Contains(old, got[0].String()) {
			t.Errorf("the veil is carried by %v", got)
		}
		if _, err := ada.AddBootstrap(ctx, old); err == nil {
			t.Error("his server may be named again")
		} else {
			wantKind(t, "his server", err, node.KindRefused, "by relays only")
		}
		closeAll(t, ada, bob, relay)
	})
}

// TestRelayOnlyContactReturns: who may reach Ada by relays only and was blocked, or
// removed, for so long that the veil ended, is reached over the relay when she takes that
// back; after a restart, too. Their invite is answered then, and the key that it showed
// them is soon left.
func TestRelayOnlyContactReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		relay := around(t, net, 0, "", "Relay", "server")
		dir := t.TempDir()
		ada, bob := around(t, net, 1, dir, "Ada", "client", relay), around(t, net, 2, "", "Bob", "client", relay)
		befriend(ctx, t, ada, bob)
		time.Sleep(10 * time.Second)
		setWays(ctx, t, ada, "Bob", node.WaysRelay)
		talk := func(when string) {
			t.Helper()
			quiet := net.Traffic(1, 2).Packets + net.Traffic(2, 1).Packets
			for _, way := range []string{routeOf(ctx, t, ada, bob, "Bob", "Ada", when), routeOf(ctx, t, bob, ada, "Ada", "Bob", when)} {
				if way != "relay" {
					t.Errorf("%s went %q", when, way)
				}
			}
			if all := net.Traffic(1, 2).Packets + net.Traffic(2, 1).Packets; all != quiet {
				t.Errorf("%s: %d packets went between them", when, all-quiet)
			}
		}
		talk("under the rule")
		if _, err := ada.Block(ctx, "Bob"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Minute)
		if _, err := ada.Unblock(ctx, "Bob"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		talk("unblocked")
		closeAll(t, ada)
		ada = around(t, net, 1, dir, "", "client", relay)
		time.Sleep(time.Minute)
		talk("after a restart")

		if _, err := ada.RemoveContact(ctx, "Bob", false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Minute)
		notices := ada.Watch()
		_, main, _, err := ada.Placed(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ada.AddContact(ctx, link(ctx, t, bob, false), node.AddOptions{}); err != nil {
			t.Fatal(err)
		}
		if all := notices(); !slices.ContainsFunc(all, func(n node.Notice) bool { return strings.Contains(n.Text, "could see where this node is") }) {
			t.Errorf("Ada was told %+v", all)
		}
		if c, err := ada.Contact(ctx, "Bob"); err != nil || c.Ways != node.WaysRelay {
			t.Errorf("the rule is %q, %v", c.Ways, err)
		}
		time.Sleep(time.Minute)
		talk("added again")
		if _, next, _, err := ada.Placed(ctx); err != nil || next == main {
			t.Errorf("the key that Bob was shown stays, %v", err)
		}
		closeAll(t, ada, bob, relay)
	})
}

// TestRelayOnlyContactAnswersAnInvite: who may reach Ada by relays only and answers an
// invite of hers sees where she is by that. She is told, leaves the key that it showed,
// and so ends the invite, whatever kind it is: they cannot do it twice. They reach her
// over the relay as before. What she was told when she made it says whom to keep it from.
func TestRelayOnlyContactAnswersAnInvite(t *testing.T) {
	for _, many := range []bool{false, true} {
		t.Run(map[bool]string{false: "for one", true: "for many"}[many], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
				defer cancel()
				net := testnet.New(t, 1, testnet.Options{})
				relay := around(t, net, 0, "", "Relay", "server")
				ada, bob := around(t, net, 1, "", "Ada", "client", relay), around(t, net, 2, "", "Bob", "client", relay)
				befriend(ctx, t, ada, bob)
				time.Sleep(10 * time.Second)
				made, err := ada.NewInvite(ctx, node.InviteRequest{})
				if err != nil || made.Warning != "" {
					t.Errorf("without anybody to hide from: %q, %v", made.Warning, err)
				}
				setWays(ctx, t, ada, "Bob", node.WaysRelay)
				overRelay(ctx, t, bob, ada, "Ada", "Bob", "over the relay")
				if made, err = ada.NewInvite(ctx, node.InviteRequest{Many: many}); err != nil || !strings.Contains(made.Warning, "Keep it from the contact") {
					t.Errorf("the invite says %q, %v", made.Warning, err)
				}
				_, main, _, err := ada.Placed(ctx)
				if err != nil {
					t.Fatal(err)
				}
				notices := ada.Watch()
				if _, err := bob.AddContact(ctx, made.Link, node.AddOptions{}); err != nil {
					t.Error(err)
				}
				if all := notices(); !slices.ContainsFunc(all, func(n node.Notice) bool {
					return strings.Contains(n.Text, "could see where this node is, by an invite")
				}) {
					t.Errorf("Ada was told %+v", all)
				}
				time.Sleep(time.Minute)
				_, next, _, err := ada.Placed(ctx)
				if err != nil || next == main {
					t.Errorf("the key that the invite shows stays, %v", err)
				}
				quiet := net.Traffic(1, 2).Packets + net.Traffic(2, 1).Packets
				overRelay(ctx, t, bob, ada, "Ada", "Bob", "over the relay again")
				overRelay(ctx, t, ada, bob, "Bob", "Ada", "and back")
				if all := net.Traffic(1, 2).Packets + net.Traffic(2, 1).Packets; all != quiet {
					t.Errorf("%d packets went between them", all-quiet)
				}
				if all, err := ada.Invites(ctx); err != nil || !all[0].Revoked || all[0].Uses != 1 {
					t.Errorf("the invite is open: %+v, %v", all, err)
				}
				closeAll(t, ada, bob, relay)
			})
		})
	}
}

// TestRelayOnlyContactIsToldAgain: Ada takes back what she said of her veil before it
// arrived, as Bob may reach her by any way again, and then puts him under the rule once
// more: he is told of the veil, which is the same.
func TestRelayOnlyContactIsToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		relay := around(t, net, 0, "", "Relay", "server")
		ada, bob, carol := around(t, net, 1, "", "Ada", "client", relay), around(t, net, 2, "", "Bob", "client", relay), around(t, net, 3, "", "Carol", "client", relay)
		befriend(ctx, t, ada, bob)
		befriend(ctx, t, ada, carol)
		time.Sleep(10 * time.Second)
		setWays(ctx, t, ada, "Carol", node.WaysRelay) // so the veil is there
		overRelay(ctx, t, carol, ada, "Ada", "Carol", "hello")
		delivered(ctx, t, ada, say(ctx, t, ada, "Bob", "hello"))
		status, err := ada.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, _, others, err := carol.Placed(ctx)
		if err != nil {
			t.Fatal(err)
		}
		veil := string(others[status.Person].Transport)
		net.Cut([]int{0, 1}, []int{2})
		for range 2 {
			setWays(ctx, t, ada, "Bob", node.WaysRelay)
			time.Sleep(10 * time.Second)
			setWays(ctx, t, ada, "Bob", node.WaysAny)
		}
		setWays(ctx, t, ada, "Bob", node.WaysRelay)
		net.Heal()
		time.Sleep(5 * time.Minute)
		if _, _, others, err = bob.Placed(ctx); err != nil || string(others[status.Person].Transport) != veil {
			t.Errorf("Bob knows %s, and Carol %s, %v", peer.ID(others[status.Person].Transport), peer.ID(veil), err)
		}
		for _, way := range []string{routeOf(ctx, t, ada, bob, "Bob", "Ada", "to Bob"), routeOf(ctx, t, bob, ada, "Ada", "Bob", "to Ada")} {
			if way != "relay" {
				t.Errorf("went %q", way)
			}
		}
		closeAll(t, ada, bob, carol, relay)
	})
}

// TestRelayOnlyContactIsNotPartedYet: where the wait for the old connections ends before
// they do, that is no success; the rule stands, status warns until it is done.
func TestRelayOnlyContactIsNotPartedYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{})
		ada, bob := around(t, net, 1, "", "Ada", "client"), around(t, net, 2, "", "Bob", "client")
		befriend(t.Context(), t, ada, bob)
		time.Sleep(10 * time.Second)
		short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		c, err := ada.SetWays(short, "Bob", node.WaysRelay)
		if err == nil || c.Ways != node.WaysRelay {
			t.Errorf("before they are parted: %+v, %v", c, err)
		} else {
			wantKind(t, "not parted", err, node.KindTimeout, "not parted")
		}
		for _, want := range []bool{true, false} {
			s, err := ada.Status(t.Context())
			if got := strings.Contains(strings.Join(s.Warnings, " "), "not parted"); err != nil || got != want {
				t.Errorf("status warns %q, want that they are not parted: %v, %v", s.Warnings, want, err)
			}
			time.Sleep(10 * time.Second)
		}
		closeAll(t, ada, bob)
	})
}

// TestRelayOnlyRuleThatCannotBeSaved: where the disk does not take the rule, nobody is
// said to be parted from for ever after, and the rule can be given once more.
func TestRelayOnlyRuleThatCannotBeSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		net := testnet.New(t, 1, testnet.Options{})
		ada, bob := around(t, net, 1, "", "Ada", "client"), around(t, net, 2, "", "Bob", "client")
		befriend(ctx, t, ada, bob)
		time.Sleep(10 * time.Second)
		if _, err := ada.FailCommits(ctx, node.Faults{Nth: 1, Cause: errors.New("no")}); err != nil {
			t.Fatal(err)
		}
		if c, err := ada.SetWays(ctx, "Bob", node.WaysRelay); err == nil {
			t.Errorf("saved: %+v", c)
		}
		time.Sleep(time.Minute)
		if s, err := ada.Status(ctx); err != nil || strings.Contains(strings.Join(s.Warnings, " "), "not parted") {
			t.Errorf("status warns %q, %v", s.Warnings, err)
		}
		setWays(ctx, t, ada, "Bob", node.WaysRelay)
		closeAll(t, ada, bob)
	})
}
