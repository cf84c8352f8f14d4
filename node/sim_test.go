package node_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// simulated is a node on machine i of a simulated network.
func simulated(t *testing.T, net *testnet.Net, i int, dir, name string) *node.Node {
	t.Helper()
	n, err := node.Open(t.Context(), node.Config{Dir: dir, Name: name, NoLAN: true, NoDHT: true, Network: net.Host(i).Configure})
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	return n
}

func closeAll(t *testing.T, nodes ...*node.Node) {
	t.Helper()
	for _, n := range nodes {
		if err := n.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

// exchangeAll says n numbered messages each way over a network that loses and
// cuts, restarts Bob once in the middle, and wants everything on both sides
// exactly once and in order. It reports the virtual time until the last receipt.
func exchangeAll(t *testing.T, seed uint64, n int, o testnet.Options) time.Duration {
	ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour) // virtual
	defer cancel()
	r := rand.New(rand.NewPCG(seed, 1))
	net := testnet.New(t, seed, o)
	dir := t.TempDir()
	ada, bob := simulated(t, net, 0, "", "Ada"), simulated(t, net, 1, dir, "Bob")
	defer func() { closeAll(t, ada, bob) }()
	net.SetLoss(0)
	conv := befriend(ctx, t, ada, bob).Contact.Conversation
	net.SetLoss(o.Loss)
	begin := time.Now()
	for i := range n {
		for who, from := range []*node.Node{ada, bob} {
			if _, err := from.Send(ctx, conv, node.Text(fmt.Sprintf("%d/%d", who, i))); err != nil {
				t.Fatalf("seed %d: send %d: %v", seed, i, err)
			}
		}
		switch {
		case r.IntN(n) < 2:
			net.Cut([]int{0}, []int{1})
		case r.IntN(20) == 0:
			net.Heal()
		case i == n/2:
			closeAll(t, bob)
			bob = simulated(t, net, 1, dir, "Bob")
		}
		time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
	}
	net.Heal()
	for _, from := range []*node.Node{ada, bob} {
		emptied(ctx, t, from, begin.Add(time.Hour))
	}
	took := time.Since(begin)
	for who, reader := range []*node.Node{ada, bob} {
		messages, err := reader.Read(ctx, []string{"Bob", "Ada"}[who], node.ReadQuery{Peek: true})
		if err != nil {
			t.Fatal(err)
		}
		next := [2]int{}
		for _, m := range messages {
			from := 1 - who
			if m.Own {
				from = who
			}
			if want := fmt.Sprintf("%d/%d", from, next[from]); m.Text != want {
				t.Fatalf("seed %d: node %d shows %q where %q is due", seed, who, m.Text, want)
			}
			next[from]++
		}
		if next != [2]int{n, n} {
			t.Fatalf("seed %d: node %d shows %v messages, want %d of each", seed, who, next, n)
		}
	}
	return took
}

// emptied waits in virtual time until nothing is queued, until a time at most.
func emptied(ctx context.Context, t *testing.T, n *node.Node, until time.Time) {
	t.Helper()
	for {
		s, err := n.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if s.Queued == 0 {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("%d messages are still queued", s.Queued)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// TestDeliveryUnderLossAndCuts: 0 lost, 0 doubled, 0 out of a sender's order,
// with 5 % loss, cuts and a restart, for every seed. The landing gate takes 200
// seeds (KINLOOM_SEEDS); KINLOOM_SEED replays one.
func TestDeliveryUnderLossAndCuts(t *testing.T) {
	seeds, first := 40, 1
	if testing.Short() {
		seeds = 5
	}
	if s := os.Getenv("KINLOOM_SEEDS"); s != "" {
		seeds, _ = strconv.Atoi(s)
	}
	if s := os.Getenv("KINLOOM_SEED"); s != "" {
		first, _ = strconv.Atoi(s)
		seeds = 1
	}
	var mu sync.Mutex // guards slowest
	var slowest time.Duration
	t.Run("seed", func(t *testing.T) {
		for seed := first; seed < first+seeds; seed++ {
			t.Run(strconv.Itoa(seed), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					took := exchangeAll(t, uint64(seed), 200, testnet.Options{Latency: 40 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.05})
					mu.Lock()
					defer mu.Unlock()
					slowest = max(slowest, took)
				})
				if t.Failed() {
					t.Errorf("replay: KINLOOM_SEED=%d go test -run TestDeliveryUnderLossAndCuts ./node", seed)
				}
			})
		}
	})
	t.Logf("%d seeds, slowest %v of virtual time", seeds, slowest.Round(time.Millisecond))
}
