package node_test

import (
	"context"
	"testing"
	"time"

	"github.com/kinloom/kinloom/node"
)

// TestWaitForReadRests: who waits until a message is read does not look again and again while its receipt is on its way
// to the disk. In virtual time, which stands still while anybody is busy, that would never end.
func TestWaitForReadRests(t *testing.T) {
	withHomes(t, func(ctx context.Context, h *homes) {
		ada, bob := h.nodes[0], h.nodes[1]
		m := say(ctx, t, ada, "bob", "read me")
		done := make(chan error)
		go func() {
			_, err := ada.Wait(ctx, m.ID, "read")
			done <- err
		}()
		delivered(ctx, t, ada, m)
		h.pass(time.Second)
		if _, err := bob.Read(ctx, "ada", node.ReadQuery{}); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
