package node_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
)

// liveLatency is one way of the route in these tests, so a round trip is 100 ms.
// liveWithin is how long it may take on such a route until all is delivered that
// was sealed in sessions which one side or both do not have: a few round trips,
// those of the connection among them.
const (
	liveLatency = 50 * time.Millisecond
	liveWithin  = 3 * time.Second
)

// TestRecoveryOnALiveRoute: sessions are lost on one side or on both while each has
// many messages for the other, so both may begin a session at once. All arrive
// once and in order, within a few round trips after both are online.
func TestRecoveryOnALiveRoute(t *testing.T) {
	const each = 20
	for i, tc := range []struct {
		name             string
		adaLost, bobLost bool
		adaSays, bobSays int
		adaFirst         bool // is online before Bob, so Bob dials
		unsealed         bool // what Bob says is said when the sessions are lost
	}{
		{"both begin", true, true, each, each, true, false},
		{"both begin, nothing was sealed", true, true, each, each, false, true},
		{"Ada lost, Bob has messages", true, false, 0, each, true, false},
		{"Ada lost, Bob has messages that are not sealed", true, false, 0, each, true, true},
		{"Ada lost, both have messages", true, false, each, each, true, false},
		{"Ada lost, both have messages, Ada dials", true, false, each, each, false, true},
		{"Bob lost, Ada has messages", false, true, each, 0, true, false},
		{"Bob lost, both have messages", false, true, each, each, false, false},
		{"Bob lost, both have messages, Bob dials", false, true, each, each, true, true},
		{"Bob lost, Bob has messages", false, true, 0, each, false, true},
	} {
		if testing.Short() && i%8 != 0 { // beside the race detector
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			stagedAt(t, liveLatency, func(ctx context.Context, t *testing.T, s *stage, ada, bob *home) {
				want := []string{"one", "two"}
				delivered(ctx, t, bob.Node, say(ctx, t, bob.Node, "ada", "one"))
				delivered(ctx, t, ada.Node, say(ctx, t, ada.Node, "bob", "two"))
				waiting := map[*home][]node.Message{}
				queue := func(h *home, to string, n int) {
					for range n {
						text := fmt.Sprintf("%s %d", h.name, len(waiting[h]))
						waiting[h] = append(waiting[h], say(ctx, t, h.Node, to, text))
						want = append(want, text)
					}
				}
				s.stop(t, bob)
				queue(ada, "bob", tc.adaSays)
				s.stop(t, ada)
				s.pass(time.Minute)
				for range 2 { // the second half is said after a restart, in another session
					if !tc.unsealed {
						s.start(t, bob)
						queue(bob, "ada", tc.bobSays/2)
						s.stop(t, bob)
					}
				}
				for h, lost := range map[*home]bool{ada: tc.adaLost, bob: tc.bobLost} {
					if lost {
						s.dropSessions(t, h)
					}
				}
				if tc.unsealed {
					s.start(t, bob)
					queue(bob, "ada", tc.bobSays)
					s.stop(t, bob)
				}
				first, second := ada, bob
				if !tc.adaFirst {
					first, second = bob, ada
				}
				s.start(t, first)
				s.pass(20 * time.Minute)
				heard := map[*home]func() []string{first: arrivals(ctx, first)}
				s.start(t, second)
				heard[second] = arrivals(ctx, second)
				recovers(ctx, t, ada, bob, waiting, want, liveWithin)
				for h, from := range map[*home]*home{ada: bob, bob: ada} {
					var sent []string
					for _, m := range waiting[from] {
						sent = append(sent, m.Text)
					}
					sent = append(sent, map[*home]string{ada: "three", bob: "four"}[from])
					if got := heard[h](); !slices.Equal(got, sent) {
						t.Errorf("%s hears %q, want %q", h.name, got, sent)
					}
				}
			})
		})
	}
}

// arrivals collects what others say to a node, as it comes.
func arrivals(ctx context.Context, h *home) (stop func() []string) {
	ctx, cancel := context.WithCancel(ctx)
	var heard []string
	done := make(chan struct{})
	messages := h.Messages(ctx)
	go func() {
		defer close(done)
		for m, err := range messages {
			if err != nil {
				return
			}
			heard = append(heard, m.Text)
		}
	}()
	return func() []string {
		synctest.Wait()
		cancel()
		<-done
		return heard
	}
}
