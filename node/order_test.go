package node_test

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// TestToldInOrderOverCrashes: whoever follows what changes hears each sender's messages in their order, however often
// either node dies and comes back in between: it is not enough that a timeline puts them in order afterwards.
func TestToldInOrderOverCrashes(t *testing.T) {
	seeds, first := 8, 1
	if testing.Short() {
		seeds = 1
	}
	if os.Getenv("KINLOOM_NIGHTLY") == "1" {
		seeds = 500
	}
	if s := os.Getenv("KINLOOM_SEED"); s != "" {
		first, _ = strconv.Atoi(s)
		seeds = 1
	}
	for seed := first; seed < first+seeds; seed++ {
		synctest.Test(t, func(t *testing.T) { crashes(t, uint64(seed)) })
		if t.Failed() {
			t.Fatalf("replay: KINLOOM_SEED=%d go test -run TestToldInOrderOverCrashes ./node", seed)
		}
	}
}

func crashes(t *testing.T, seed uint64) {
	ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour) // virtual
	defer cancel()
	r := rand.New(rand.NewPCG(seed, 1))
	net := testnet.New(t, seed, testnet.Options{Latency: 5 * time.Millisecond, Jitter: 5 * time.Millisecond})
	dirs := [2]string{t.TempDir(), t.TempDir()}
	var nodes [2]*node.Node
	for i := range nodes {
		nodes[i] = simulated(t, net, i, dirs[i], homeNames[i])
	}
	defer func() { closeAll(t, nodes[0], nodes[1]) }()
	befriend(ctx, t, nodes[0], nodes[1])
	said, rounds := [2]int{}, 500
	if testing.Short() { // beside the race detector
		rounds = 150
	}
	for range rounds {
		who := r.IntN(2)
		say(ctx, t, nodes[who], homeNames[1-who], strconv.Itoa(said[who]))
		said[who]++
		time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
		if r.IntN(30) != 0 {
			continue
		}
		dies := r.IntN(2)
		for again := true; again; again = r.IntN(2) == 0 { // in a row, too, before the two have met again
			net.Cut([]int{0}, []int{1})
			time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
			closeAll(t, nodes[dies])
			net.Heal()
			nodes[dies] = simulated(t, net, dies, dirs[dies], homeNames[dies])
			say(ctx, t, nodes[dies], homeNames[1-dies], strconv.Itoa(said[dies]))
			said[dies]++
		}
	}
	for _, n := range nodes {
		emptied(ctx, t, n, time.Now().Add(time.Hour))
	}
	for i, n := range nodes {
		toldInOrder(ctx, t, n, said[1-i])
		if t.Failed() {
			t.Fatalf("seed %d, %s", seed, homeNames[i])
		}
	}
}

// toldInOrder wants n to tell of messages of others whose texts count up to the wanted number.
func toldInOrder(ctx context.Context, t *testing.T, n *node.Node, want int) {
	t.Helper()
	next := 0
	for since := uint64(0); ; {
		page, err := n.Changes(ctx, since, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range page {
			since = c.Changed
			if c.Message == nil || c.Message.Own {
				continue
			}
			if c.Message.Text != strconv.Itoa(next) {
				t.Errorf("told of %q where %d is due", c.Message.Text, next)
				return
			}
			next++
		}
		if len(page) == 0 {
			break
		}
	}
	if next != want {
		t.Errorf("told of %d messages, want %d", next, want)
	}
}

// TestToldInOrderFromALongQueue: more waits for a session than lies in memory, and the node dies in between. What is said
// then is not told before what waits.
func TestToldInOrderFromALongQueue(t *testing.T) {
	for what, waits := range map[string]struct{ sealed, unsealed int }{"sealed in memory": {2100, 10}, "unsealed in memory": {2, 2200}} {
		if testing.Short() { // beside the race detector: memory holds all of it
			waits.sealed, waits.unsealed = waits.sealed/10, waits.unsealed/10
		}
		t.Run(what, func(t *testing.T) { longQueue(t, waits.sealed, waits.unsealed) })
	}
}

func longQueue(t *testing.T, sealed, unsealed int) {
	withHomes(t, func(ctx context.Context, h *homes) {
		delivered(ctx, t, h.nodes[0], say(ctx, t, h.nodes[0], "bob", "0"))
		h.close(1)
		said := 1
		more := func(n int) {
			for range n {
				say(ctx, t, h.nodes[0], "bob", strconv.Itoa(said))
				said++
			}
		}
		more(sealed)
		for _, n := range []int{2, 2, unsealed, 10} { // the keys that Bob gave are used up by the first two
			h.close(0)
			h.open(0)
			more(n)
		}
		h.open(1)
		for range 200 {
			h.pass(5 * time.Millisecond)
			more(1)
		}
		emptied(ctx, t, h.nodes[0], time.Now().Add(time.Hour))
		toldInOrder(ctx, t, h.nodes[1], said)
	})
}
