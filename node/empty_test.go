package node_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/store"
)

// TestDeletedLeavesTheDisk: what is cleared is deleted when the call returns, however much it is, and what a call could
// not finish goes within seconds of the next start.
func TestDeletedLeavesTheDisk(t *testing.T) {
	const notes = 200 // more than three steps
	dir := t.TempDir()
	if _, err := node.Init(t.Context(), node.Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	with := func(ctx context.Context, f func(*node.Node)) {
		t.Helper()
		n, err := node.OpenOffline(ctx, node.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		f(n)
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	write := func(n *node.Node) {
		self, err := n.Conversation(t.Context(), "me")
		if err != nil {
			t.Fatal(err)
		}
		for i := range notes {
			if _, err := n.Send(t.Context(), self.ID, node.Text(fmt.Sprint("note ", i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := func(f func(*store.Tx) error) (n int) {
		t.Helper()
		err := node.Rows(t.Context(), dir, func(tx *store.Tx) (err error) {
			if err = f(tx); err == nil {
				n, err = tx.Expire(time.Now())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	with(t.Context(), func(n *node.Node) {
		write(n)
		if removed, err := n.ClearConversation(t.Context(), "me"); err != nil || removed != notes {
			t.Errorf("cleared %d messages, %v; want %d", removed, err, notes)
		}
	})
	if n := left(func(*store.Tx) error { return nil }); n != 0 {
		t.Errorf("%d messages or more were left after the call", n)
	}
	with(t.Context(), write)
	clear := func(tx *store.Tx) error {
		all, err := tx.Conversations()
		if err == nil {
			_, err = tx.ClearConversation(all[0].Row)
		}
		return err
	}
	if n := left(clear); n == 0 {
		t.Fatal("nothing was left for the next start")
	}
	synctest.Test(t, func(t *testing.T) {
		with(t.Context(), func(*node.Node) { time.Sleep(10 * time.Second) })
	})
	if n := left(func(*store.Tx) error { return nil }); n != 0 {
		t.Errorf("%d messages or more were left by the ticks of the next start", n)
	}
}
