package node_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// overRelays has two nodes become contacts that only a relay of strangers can join, and
// gives those relays, the one in use first, and their machines.
func overRelays(ctx context.Context, t *testing.T, net *testnet.Net) (ada, bob *node.Node, relays []*node.Node, machines []int) {
	t.Helper()
	relays, machines = []*node.Node{onto(t, net, 0, "", "One", "server"), onto(t, net, 1, "", "Two", "server")}, []int{0, 1}
	for _, i := range []int{2, 3} {
		net.Host(i).Firewall(true)
	}
	net.Cut([]int{2}, []int{3})
	ada, bob = onto(t, net, 2, "", "Ada", "home", relays...), onto(t, net, 3, "", "Bob", "home", relays...)
	time.Sleep(30 * time.Second)
	befriend(ctx, t, ada, bob)
	delivered(ctx, t, ada, say(ctx, t, ada, "Bob", "first"))
	ways, err := ada.Route(ctx, "Bob")
	if err != nil {
		t.Fatal(err)
	}
	second, err := relays[1].Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range ways {
		if w.Live && w.Route != "relay" {
			t.Fatalf("they have a way without a relay: %+v", w)
		}
		if w.Live && strings.Contains(w.Address, second.PeerID) {
			return ada, bob, []*node.Node{relays[1], relays[0]}, []int{1, 0}
		}
	}
	return ada, bob, relays, machines
}

// stream says n texts of 10 KiB, which is more than a stranger's circuit carries from
// the thirteenth on.
func stream(ctx context.Context, t *testing.T, from *node.Node, to string, n int) {
	t.Helper()
	for i := range n {
		say(ctx, t, from, to, fmt.Sprintf("%d ", i)+strings.Repeat("x", 10<<10))
	}
}

// inOrder wants n texts of a stream, each once and in order.
func inOrder(ctx context.Context, t *testing.T, at *node.Node, from string, n int) {
	t.Helper()
	messages, err := at.Read(ctx, from, node.ReadQuery{Peek: true})
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	for _, m := range messages {
		if number, _, ok := strings.Cut(m.Text, " "); ok && !m.Own {
			if number != fmt.Sprint(next) {
				t.Errorf("%s comes where %d is due", number, next)
			}
			next++
		}
	}
	if next != n {
		t.Errorf("%d of %d came", next, n)
	}
}

// TestRelayDiesMidMessage: the relay in use falls silent amid a stream of messages.
// All come over another one, soon, once and in order.
func TestRelayDiesMidMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		ada, bob, relays, machines := overRelays(ctx, t, net)
		stream(ctx, t, ada, "Bob", 8)
		time.Sleep(100 * time.Millisecond) // they are on their way
		net.Cut(machines[:1], []int{2, 3})
		began := time.Now()
		say(ctx, t, ada, "Bob", "8 after the cut")
		emptied(ctx, t, ada, began.Add(time.Minute))
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("resumed after %v, want at most 15 s", took)
		} else {
			t.Logf("resumed after %v", took)
		}
		inOrder(ctx, t, bob, "Ada", 9)
		closeAll(t, append(relays, ada, bob)...)
	})
}

// TestCircuitLimitsLoseNothing: a stranger's relay ends a circuit after 128 KiB, and
// after 2 minutes. What is said goes on in the next one.
func TestCircuitLimitsLoseNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		ada, bob, relays, _ := overRelays(ctx, t, net)
		const n = 30 // 300 KiB, each way
		began := time.Now()
		stream(ctx, t, ada, "Bob", n)
		stream(ctx, t, bob, "Ada", n)
		emptied(ctx, t, ada, began.Add(2*time.Minute))
		emptied(ctx, t, bob, began.Add(2*time.Minute))
		t.Logf("%d KiB each way in %v", 10*n, time.Since(began))
		inOrder(ctx, t, bob, "Ada", n)
		inOrder(ctx, t, ada, "Bob", n)
		time.Sleep(3 * time.Minute) // what circuit there was has ended
		began = time.Now()
		delivered(ctx, t, ada, say(ctx, t, ada, "Bob", "later"))
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("after the 2 minutes it took %v", took)
		}
		closeAll(t, append(relays, ada, bob)...)
	})
}

// TestShortenedLater: the connection without a relay comes at a moment when the link over
// one cannot be replaced, and nothing tells of it again. Both go over to it all the same.
func TestShortenedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		ada, bob, relays, _ := overRelays(ctx, t, net)
		live := func(n *node.Node, who string) (route string) {
			ways, err := n.Route(ctx, who)
			if err != nil || len(ways) == 0 || !ways[0].Live {
				t.Fatalf("%s has no way: %v, %v", who, ways, err)
			}
			return ways[0].Route
		}
		var frees []func() error
		for _, n := range []*node.Node{ada, bob} {
			free, err := n.Busy(ctx)
			if err != nil {
				t.Fatal(err)
			}
			frees = append(frees, free)
		}
		net.Heal()
		for _, i := range []int{2, 3} {
			net.Host(i).Firewall(false)
		}
		before := net.Traffic(2, 3).Packets
		time.Sleep(20 * time.Second) // another hole is tried 8 s after the circuit was opened
		if got := []string{live(ada, "Bob"), live(bob, "Ada")}; got[0] != "relay" || got[1] != "relay" || net.Traffic(2, 3).Packets == before {
			t.Fatalf("before it can be replaced: %v, %d packets without a relay", got, net.Traffic(2, 3).Packets-before)
		}
		for _, free := range frees {
			if err := free(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(12 * time.Second)
		if got := []string{live(ada, "Bob"), live(bob, "Ada")}; got[0] != "direct" || got[1] != "direct" {
			t.Errorf("with a connection that needs no relay: %v", got)
		}
		delivered(ctx, t, ada, say(ctx, t, ada, "Bob", "later"))
		closeAll(t, append(relays, ada, bob)...)
	})
}
