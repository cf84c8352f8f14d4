package node_test

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// TestCrashBeforeConversationRow: what messages changed in their conversation may
// not be on the disk when the process is killed; the next start derives it from
// them.
func TestCrashBeforeConversationRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		net := testnet.New(t, 1, testnet.Options{Latency: time.Millisecond}) // the receipts are back before the rows are written
		dir, copied := t.TempDir(), t.TempDir()
		ada, bob := simulated(t, net, 0, dir, "Ada"), simulated(t, net, 1, "", "Bob")
		defer func() { closeAll(t, ada, bob) }()
		conv := befriend(ctx, t, ada, bob).Contact.Conversation
		var last node.Message
		for _, text := range []string{"one", "two", "three"} {
			m, err := bob.Send(ctx, conv, node.Text(text))
			if err != nil {
				t.Fatal(err)
			}
			if last, err = bob.Wait(ctx, m.ID, "delivered"); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil { // as a kill leaves it: time stands still
			t.Fatal(err)
		}
		after, err := node.OpenOffline(ctx, node.Config{Dir: copied})
		if err != nil {
			t.Fatal(err)
		}
		defer closeAll(t, after)
		for name, n := range map[string]*node.Node{"running": ada, "killed": after} {
			c, err := n.Conversation(ctx, "bob")
			if err != nil {
				t.Fatal(err)
			}
			if c.Unread != 3 || c.Last == nil || c.Last.ID != last.ID || c.LastAt.IsZero() {
				t.Errorf("%s: %d unread, last at %v: %+v; want 3 unread, the last one %x", name, c.Unread, c.LastAt, c.Last, last.ID)
			}
		}
		live, err := ada.Conversation(ctx, "bob")
		if err != nil {
			t.Fatal(err)
		}
		if c, err := after.Conversation(ctx, "bob"); err != nil || !c.LastAt.Equal(live.LastAt) {
			t.Errorf("after the kill the last message came at %v, %v; it did at %v", c.LastAt, err, live.LastAt)
		}
	})
}
