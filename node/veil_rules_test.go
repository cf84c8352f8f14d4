package node_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/event"
)

// around is a node on a machine without a DHT, which knows a server.
func around(t *testing.T, net *testnet.Net, i int, dir, name, profile string, by ...*node.Node) *node.Node {
	t.Helper()
	var known []string
	for _, n := range by {
		known = append(known, listensAt(t, n))
	}
	n, err := node.Open(t.Context(), node.Config{Dir: dir, Name: name, NoLAN: true, NoDHT: true, Profile: profile, Bootstrap: known, Network: net.Host(i).Configure})
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	return n
}

func setWays(ctx context.Context, t *testing.T, n *node.Node, who, ways string) {
	t.Helper()
	if c, err := n.SetWays(ctx, who, ways); err != nil || c.Ways != ways {
		t.Fatalf("%s: %+v, %v", ways, c, err)
	}
}

// routeOf says something and gives the way that it came by.
func routeOf(ctx context.Context, t *testing.T, from, to *node.Node, who, by, text string) string {
	t.Helper()
	delivered(ctx, t, from, say(ctx, t, from, who, text))
	got, err := to.Read(ctx, by, node.ReadQuery{Limit: 1, Peek: true})
	if err != nil || len(got) != 1 || got[0].Text != text {
		t.Fatalf("read %+v, %v", got, err)
	}
	return got[0].Route
}

// overRelay says something, and fails unless it came over a relay.
func overRelay(ctx context.Context, t *testing.T, from, to *node.Node, who, by, text string) {
	t.Helper()
	if way := routeOf(ctx, t, from, to, who, by, text); way != "relay" {
		t.Errorf("went %q", way)
	}
}

// TestRelayOnlyOfBoth: two who may reach each other by relays only talk over a relay
// that both chose, and each knows nothing but that of the other; back again, they talk
// directly, and the veil ends.
func TestRelayOnlyOfBoth(t *testing.T) {
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
		setWays(ctx, t, bob, "Ada", node.WaysRelay)
		time.Sleep(10 * time.Second)
		quiet := net.Traffic(1, 2).Packets + net.Traffic(2, 1).Packets
		for _, way := range []string{routeOf(ctx, t, ada, bob, "Bob", "Ada", "to Bob"), routeOf(ctx, t, bob, ada, "Ada", "Bob", "to Ada")} {
			if way != "relay" {
				t.Errorf("went %q", way)
			}
		}
		if all := net.Traffic(1, 2).Packets + net.Traffic(2, 1).Packets; all != quiet {
			t.Errorf("%d packets went between them", all-quiet)
		}
		c, err := ada.Contact(ctx, "Bob")
		if err != nil || c.Unreached != "" {
			t.Errorf("%q, %v", c.Unreached, err)
		}
		ways, err := ada.Route(ctx, "Bob")
		if err != nil || len(ways) < 2 || !ways[0].Live || ways[0].Route != "relay" || ways[len(ways)-1].Source != "own" {
			t.Errorf("%+v, %v", ways, err)
		}
		peers, err := ada.Peers(ctx)
		if err != nil || !strings.Contains(strings.Join(kinds(peers), " "), "contact") {
			t.Errorf("connected with %v, %v", kinds(peers), err)
		}

		closeAll(t, ada)
		ada = around(t, net, 1, dir, "", "client", relay)
		if way := routeOf(ctx, t, ada, bob, "Bob", "Ada", "after a restart"); way != "relay" {
			t.Errorf("after a restart it went %q", way)
		}
		setWays(ctx, t, ada, "Bob", node.WaysAny)
		setWays(ctx, t, bob, "Ada", node.WaysAny)
		time.Sleep(15 * time.Minute) // the veils have ended
		if way := routeOf(ctx, t, ada, bob, "Bob", "Ada", "directly"); way != "direct" {
			t.Errorf("back again it went %q", way)
		}
		if peers, err = ada.Peers(ctx); err != nil || len(peers) > 2 {
			t.Errorf("connected with %v, %v", kinds(peers), err)
		}
		knows(ctx, t, bob, ada, net.Host(1).Addr.String())
		closeAll(t, ada, bob, relay)
	})
}

func kinds(peers []node.Peer) (out []string) {
	for _, p := range peers {
		out = append(out, p.Kind)
	}
	return out
}

// TestRelayOnlyContactIsAStrangerElsewhere: who may reach Ada by relays only, and tries
// a machine that could be hers, is answered there as a stranger is, and nothing that he
// sends is taken.
func TestRelayOnlyContactIsAStrangerElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		relay := around(t, net, 0, "", "Relay", "server")
		ada, bob := around(t, net, 1, "", "Ada", "client", relay), around(t, net, 2, "", "Bob", "client")
		befriend(ctx, t, ada, bob)
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
		setWays(ctx, t, bob, "Ada", node.WaysRelay) // by which he gets a key that she does not know
		setWays(ctx, t, bob, "Ada", node.WaysAny)
		time.Sleep(10 * time.Second)
		say(ctx, t, bob, "Ada", "is it you?")
		before := net.Traffic(1, 2).Bytes
		for range 10 {
			if err := bob.Teach(ctx, status.Person, contact.Transport(transport).PeerID(), net.Host(1).Addr.Bytes()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if got := net.Traffic(1, 2).Bytes - before; got < 4<<10 {
			t.Fatalf("Bob never tried: he was sent %d bytes", got)
		}
		if got := texts(ctx, t, ada, "Bob"); got != "over the relay" {
			t.Errorf("Ada reads %q", got)
		}
		if s, err := ada.Status(ctx); err != nil || s.Online != 0 {
			t.Errorf("%d online, %v", s.Online, err)
		}
		closeAll(t, ada, bob)
	})
}

// TestRelayOnlyTakesBack: what Ada said of where she is and did not arrive, does not
// arrive later, and who was removed knows nothing of the veil either.
func TestRelayOnlyTakesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		dir := t.TempDir()
		ada, bob, carol := around(t, net, 1, dir, "Ada", "client"), around(t, net, 2, "", "Bob", "client"), around(t, net, 3, "", "Carol", "client")
		befriend(ctx, t, ada, bob)
		befriend(ctx, t, ada, carol)
		time.Sleep(10 * time.Second)
		net.Cut([]int{1}, []int{2})
		if _, err := ada.RemoveContact(ctx, "Carol", false); err != nil { // so there is another key, to be told
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		setWays(ctx, t, ada, "Bob", node.WaysRelay)
		him, err := ada.Contact(ctx, "Bob")
		if err != nil {
			t.Fatal(err)
		}
		closeAll(t, ada)
		main := net.Host(1).Addr.Bytes()
		err = node.Rows(ctx, dir, func(tx *store.Tx) error {
			convs, err := tx.Conversations()
			if err != nil {
				return err
			}
			for _, c := range convs {
				if c.Person != him.ID {
					continue
				}
				left, err := tx.OwnOf(c.Row, event.Reach)
				if err != nil {
					return err
				}
				for _, e := range left {
					if bytes.Contains(e.Raw, main) {
						t.Errorf("her address is still there to be sent: %x", e.Raw)
					}
				}
			}
			to, err := tx.OutboxDevices()
			if err != nil || len(to) > 1 {
				return fmt.Errorf("something waits for %d devices: %w", len(to), err)
			}
			for _, d := range to {
				waiting, err := tx.Outboxes(d, 0, 100)
				if err != nil {
					return err
				}
				for _, o := range waiting {
					if e, err := tx.EventByRow(o.Event); err != nil || e.Deleted {
						t.Errorf("what was taken back is still to be sent: %+v, %v", o, err)
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		closeAll(t, bob, carol)
	})
}

// TestRelayOnlyFoundByRecord: who may reach Ada by relays only, and was away when her
// relay changed, finds her by the record for the two of them, which names the new relay
// and passed through servers of her choosing alone.
func TestRelayOnlyFoundByRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		old := onto(t, net, 0, "", "Old", "server")
		next := onto(t, net, 1, "", "Next", "server", old)
		bobHome := t.TempDir()
		ada, bob := onto(t, net, 2, "", "Ada", "client", old), onto(t, net, 3, bobHome, "Bob", "client", old, next)
		befriend(ctx, t, ada, bob)
		time.Sleep(10 * time.Second)
		setWays(ctx, t, ada, "Bob", node.WaysRelay)
		time.Sleep(10 * time.Second)
		closeAll(t, bob)
		if _, err := ada.AddBootstrap(ctx, listensAt(t, next)); err != nil {
			t.Fatal(err)
		}
		closeAll(t, old)
		time.Sleep(5 * time.Minute)
		bob = onto(t, net, 4, bobHome, "", "client", next)
		overRelay(ctx, t, bob, ada, "Ada", "Bob", "found you")
		if c := net.Traffic(2, 4).Packets + net.Traffic(4, 2).Packets; c > 0 {
			t.Errorf("%d packets went between them", c)
		}
		closeAll(t, ada, bob, next)
	})
}

// TestRelayOnlyContactIsLeftBehind: who may reach Ada by relays only and is removed
// loses the veil, which another one keeps; her main host and her invites stay. An invite
// of somebody of the veil is not answered.
func TestRelayOnlyContactIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		relay := around(t, net, 0, "", "Relay", "server")
		ada, bob, carol := around(t, net, 1, "", "Ada", "client", relay), around(t, net, 2, "", "Bob", "client"), around(t, net, 3, "", "Carol", "client")
		for _, n := range []*node.Node{bob, carol} {
			befriend(ctx, t, ada, n)
		}
		time.Sleep(10 * time.Second)
		setWays(ctx, t, ada, "Bob", node.WaysRelay)
		delivered(ctx, t, carol, say(ctx, t, carol, "Ada", "not yet"))
		setWays(ctx, t, ada, "Carol", node.WaysRelay)
		for _, n := range []*node.Node{bob, carol} {
			overRelay(ctx, t, n, ada, "Ada", map[*node.Node]string{bob: "Bob", carol: "Carol"}[n], "hello")
		}
		if _, err := ada.AddContact(ctx, link(ctx, t, bob, false), node.AddOptions{}); err == nil {
			t.Error("answered his invite")
		} else {
			wantKind(t, "his invite", err, node.KindRefused, "by relays only")
		}
		status, err := ada.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, main, _, err := ada.Placed(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ada.RemoveContact(ctx, "Bob", false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		overRelay(ctx, t, carol, ada, "Ada", "Carol", "still here")
		_, same, _, err := ada.Placed(ctx)
		if err != nil || same != main {
			t.Errorf("the main host got another key, %v", err)
		}
		known := map[string]bool{}
		for _, n := range []*node.Node{bob, carol} {
			_, _, others, err := n.Placed(ctx)
			if err != nil {
				t.Fatal(err)
			}
			known[string(others[status.Person].Transport)] = true
		}
		if len(known) != 2 {
			t.Error("Bob knows the veil that Carol knows")
		}
		say(ctx, t, bob, "Ada", "are you there?")
		time.Sleep(time.Hour)
		if got, err := bob.Status(ctx); err != nil || got.Queued != 1 || got.Online != 0 {
			t.Errorf("Bob has %d waiting and %d devices online, %v", got.Queued, got.Online, err)
		}
		closeAll(t, ada, bob, carol, relay)
	})
}

// TestRelayOnlyContactIsNoNeighbour: on one LAN, too, a contact who may reach Ada by
// relays only recognises her by nothing, and the talk takes the relay.
func TestRelayOnlyContactIsNoNeighbour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{Latency: time.Millisecond})
		relay := around(t, net, 0, "", "Relay", "server")
		var both []*node.Node
		for i, name := range []string{"Ada", "Bob"} {
			n, err := node.Open(ctx, node.Config{Name: name, NoDHT: true, Bootstrap: []string{listensAt(t, relay)}, Network: net.Host(1 + i).Configure})
			if err != nil {
				t.Fatal(err)
			}
			both = append(both, n)
		}
		ada, bob := both[0], both[1]
		befriend(ctx, t, ada, bob)
		time.Sleep(15 * time.Minute) // strangers are asked again
		status, err := ada.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, _, others, err := bob.Placed(ctx)
		if err != nil || len(others[status.Person].LAN) == 0 {
			t.Fatalf("Bob never met Ada on the LAN: %v", err)
		}
		setWays(ctx, t, ada, "Bob", node.WaysRelay)
		for range 3 {
			overRelay(ctx, t, bob, ada, "Ada", "Bob", "hello")
			time.Sleep(15 * time.Minute)
		}
		if status, err = ada.Status(ctx); err != nil {
			t.Fatal(err)
		}
		if _, _, others, err = bob.Placed(ctx); err != nil || peer.ID(others[status.Person].LAN).String() == status.LANPeerID {
			t.Errorf("Bob knows Ada's LAN host, %v", err)
		}
		closeAll(t, ada, bob, relay)
	})
}

// TestRelayOnlyContactsServerIsNotUsed: the server of a contact who may reach Ada by
// relays only relays for her no more, neither for the veil nor for her main host, and
// nothing of hers goes there.
func TestRelayOnlyContactsServerIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		relay := around(t, net, 0, "", "Relay", "server")
		ada, bob := around(t, net, 1, "", "Ada", "home", relay), around(t, net, 2, "", "Bob", "server")
		befriend(ctx, t, bob, ada)
		time.Sleep(time.Minute)
		setWays(ctx, t, ada, "Bob", node.WaysRelay)
		time.Sleep(time.Minute)
		quiet := net.Traffic(1, 2).Packets
		for range 3 {
			overRelay(ctx, t, bob, ada, "Ada", "Bob", "hello")
			time.Sleep(10 * time.Minute)
		}
		if c := net.Traffic(1, 2).Packets - quiet; c > 0 {
			t.Errorf("%d packets went to Bob's server", c)
		}
		closeAll(t, ada, bob, relay)
	})
}
