package node_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
)

// TestReadLeavesUnreadWhatCameMeanwhile: what arrives after a timeline was looked up, and before it is marked as read,
// stays unread.
func TestReadLeavesUnreadWhatCameMeanwhile(t *testing.T) {
	withHomes(t, func(ctx context.Context, h *homes) {
		ada, bob := h.nodes[0], h.nodes[1]
		delivered(ctx, t, bob, say(ctx, t, bob, "ada", "one"))
		h.pass(time.Second)
		release, err := ada.Hold(ctx)
		if err != nil {
			t.Fatal(err)
		}
		two := say(ctx, t, bob, "ada", "two")
		h.pass(time.Second) // it waits at Ada's
		read := make(chan []node.Message)
		go func() {
			all, err := ada.Read(ctx, "bob", node.ReadQuery{})
			if err != nil {
				t.Error(err)
			}
			read <- all
		}()
		synctest.Wait() // until it is looked up, and is to be marked
		release(nil)
		if all := <-read; len(all) != 1 || all[0].Text != "one" {
			t.Fatalf("read %v, want one", all)
		}
		delivered(ctx, t, bob, two)
		for want := 1; want >= 0; want-- {
			c, err := ada.Conversation(ctx, "bob")
			if err != nil || c.Unread != want {
				t.Errorf("%d unread, %v; want %d", c.Unread, err, want)
			}
			if _, err := ada.Read(ctx, "bob", node.ReadQuery{}); err != nil {
				t.Fatal(err)
			}
		}
	})
}
