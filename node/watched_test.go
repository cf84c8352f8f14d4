package node_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// TestKeyIsLeftWithItsPlace: the key that Ada took when Bob was to find her no more can
// be seen at the address that he knew. She leaves it when she leaves that address, once,
// and after a restart, too; the others find her, and what was known of her records
// stays. Without such a person she keeps her key wherever she goes, and an address that
// becomes known is no other one.
func TestKeyIsLeftWithItsPlace(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(context.Context, *node.Node) error
		off  bool // while the node does not run, so it does not know where it is
	}{
		{"removed", func(ctx context.Context, n *node.Node) error {
			_, err := n.RemoveContact(ctx, "Bob", false)
			return err
		}, false},
		{"relays only", func(ctx context.Context, n *node.Node) error {
			_, err := n.SetWays(ctx, "Bob", node.WaysRelay)
			return err
		}, false},
		{"blocked while it does not run", func(ctx context.Context, n *node.Node) error {
			_, err := n.Block(ctx, "Bob")
			return err
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
				defer cancel()
				net := testnet.New(t, 1, testnet.Options{})
				server := around(t, net, 0, "", "Server", "server")
				home := t.TempDir()
				ada, bob, carol := around(t, net, 1, home, "Ada", "home", server), around(t, net, 2, "", "Bob", "home", server), around(t, net, 3, "", "Carol", "home", server)
				befriend(ctx, t, ada, bob)
				befriend(ctx, t, ada, carol)
				time.Sleep(time.Minute)
				placed := func(n *node.Node) (secret, key [32]byte) {
					t.Helper()
					secret, key, _, err := n.Placed(ctx)
					if err != nil {
						t.Fatal(err)
					}
					return secret, key
				}
				_, first := placed(ada)
				at := func(machine int) {
					t.Helper()
					closeAll(t, ada)
					ada = around(t, net, machine, home, "", "home", server)
					time.Sleep(time.Minute)
					delivered(ctx, t, ada, say(ctx, t, ada, "Carol", "here I am"))
				}
				at(4)
				if _, key := placed(ada); key != first {
					t.Fatal("another address took the key of a node that nobody is to lose")
				}
				if tc.off {
					closeAll(t, ada)
					off, err := node.OpenOffline(ctx, node.Config{Dir: home})
					if err != nil {
						t.Fatal(err)
					}
					if err := tc.end(ctx, off); err != nil {
						t.Error(err)
					}
					closeAll(t, off)
					ada = around(t, net, 4, home, "", "home", server)
				} else if err := tc.end(ctx, ada); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				secret, seen := placed(ada)
				if seen == first {
					t.Fatal("the key that Bob knew stays")
				}
				at(4)
				if _, key := placed(ada); key != seen {
					t.Error("the key was left though the address is the same")
				}
				made, err := ada.NewInvite(ctx, node.InviteRequest{}) // which names the key that can be seen
				if err != nil || !strings.Contains(made.Warning, "ends when this node's public address changes") {
					t.Errorf("an invite that will end says %q, %v", made.Warning, err)
				}
				at(5)
				now, next := placed(ada)
				if next == seen || now != secret {
					t.Errorf("at another address the key stays: %v, the secret: %v", next == seen, now == secret)
				}
				if all, err := ada.Invites(ctx); err != nil || !slices.ContainsFunc(all, func(i node.Invite) bool { return i.Revoked && i.Uses == 0 }) {
					t.Errorf("an invite that leads nowhere is open: %+v, %v", all, err)
				}
				if made, err := ada.NewInvite(ctx, node.InviteRequest{}); err != nil || strings.Contains(made.Warning, "ends when") {
					t.Errorf("an invite that stays says %q, %v", made.Warning, err)
				}
				knows(ctx, t, carol, ada, net.Host(5).Addr.String())
				for _, machine := range []int{4, 5} {
					at(machine)
					if _, key := placed(ada); key != next {
						t.Errorf("on machine %d it was left again", machine)
					}
				}
				closeAll(t, ada, bob, carol, server)
			})
		})
	}
}

// TestMovedNodeSaysThatItsInvitesEnded: the owner is told that a move ended invites, and
// a node whose port is fixed says before what the address has to do with its key.
func TestMovedNodeSaysThatItsInvitesEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{})
		ada, bob := simulated(t, net, 1, "", "Ada"), simulated(t, net, 2, "", "Bob")
		befriend(t.Context(), t, ada, bob)
		if _, err := ada.RemoveContact(t.Context(), "Bob", false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		_, seen, _, err := ada.Placed(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		link(t.Context(), t, ada, false)
		notices := ada.Watch()
		if err := ada.Watched(t.Context(), "9.9.9.9/32"); err != nil { // so it is elsewhere now, and notices while it runs
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if _, next, _, err := ada.Placed(t.Context()); err != nil || next == seen {
			t.Errorf("the key stays, %v", err)
		}
		if all := notices(); !slices.ContainsFunc(all, func(n node.Notice) bool { return strings.Contains(n.Text, "ended an open invite") }) {
			t.Errorf("Ada was told %+v", all)
		}
		closeAll(t, ada, bob)
	})
}

func prefixes(s string) (out []netip.Prefix) {
	for p := range strings.FieldsSeq(s) {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// TestElsewhere: a node has left the places where it was when it is known to be at
// others, and at none of them.
func TestElsewhere(t *testing.T) {
	for _, tc := range []struct {
		before, now string
		want        bool
	}{
		{"1.1.1.1/32", "1.1.1.1/32", false},
		{"1.1.1.1/32", "2.2.2.2/32", true},
		{"1.1.1.1/32", "", false},
		{"", "2.2.2.2/32", false},
		{"1.1.1.1/32", "2.2.2.2/32 1.1.1.1/32", false},
		{"1.1.1.1/32", "2a00:1::/48", false},
		{"1.1.1.1/32 2a00:1::/48", "2.2.2.2/32", true},
		{"1.1.1.1/32 2a00:1::/48", "2.2.2.2/32 2a00:1::/48", false},
		{"1.1.1.1/32", "2.2.2.2/32 2a00:1::/48", true},
	} {
		if got := node.Elsewhere(prefixes(tc.before), prefixes(tc.now)); got != tc.want {
			t.Errorf("was at %q and is at %q: left %v, want %v", tc.before, tc.now, got, tc.want)
		}
	}
}

// TestPlacesThatBecomeKnown: what becomes known of where a node is counts as watched, too,
// as long as it has not left; otherwise it says nothing.
func TestPlacesThatBecomeKnown(t *testing.T) {
	for _, tc := range []struct{ before, now, want string }{
		{"", "1.1.1.1/32", "1.1.1.1/32"},
		{"2a00:1::/64", "2a00:1::/64 1.1.1.1/32", "2a00:1::/64 1.1.1.1/32"},
		{"2a00:1::/64", "1.1.1.1/32", "2a00:1::/64"},
		{"1.1.1.1/32", "", "1.1.1.1/32"},
	} {
		if got := node.With(prefixes(tc.before), prefixes(tc.now)); !slices.Equal(got, prefixes(tc.want)) {
			t.Errorf("watched at %q, and it is at %q: watched at %v, want %q", tc.before, tc.now, got, tc.want)
		}
	}
}
