package node_test

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// TestBackAtOnceAfterCrashes: a node that dies again and again without a goodbye, faster than the other side notices, is
// served each time as soon as it is back: a device's newest link takes the place of those that it left behind.
func TestBackAtOnceAfterCrashes(t *testing.T) {
	withHomes(t, func(ctx context.Context, h *homes) {
		for i := range 20 {
			h.net.Cut([]int{0}, []int{1}) // what it would say at its end is lost
			h.close(0)
			h.net.Heal()
			h.open(0)
			begin := time.Now()
			delivered(ctx, t, h.nodes[0], say(ctx, t, h.nodes[0], "bob", fmt.Sprint("crash ", i)))
			if took := time.Since(begin); took > time.Second {
				t.Errorf("crash %d: delivered after %v, want at most 1 s", i, took)
			}
			h.pass(500 * time.Millisecond)
		}
	})
}
