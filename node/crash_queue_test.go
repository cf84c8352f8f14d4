package node_test

import (
	"context"
	"testing"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/store"
)

// TestReceiptThatReachedTheSessionOnly: a crash may come when the session's row already tells of a receipt and the
// outbox does not. The message is delivered, then, and nothing waits for a receipt that will not come again.
func TestReceiptThatReachedTheSessionOnly(t *testing.T) {
	withHomes(t, func(ctx context.Context, h *homes) {
		delivered(ctx, t, h.nodes[0], say(ctx, t, h.nodes[0], "bob", "first"))
		h.close(1)
		waits := say(ctx, t, h.nodes[0], "bob", "waits for Bob")
		h.close(0)
		var rows []store.Outbox
		h.rows(0, func(tx *store.Tx) error {
			all, err := tx.Contacts()
			for _, c := range all {
				if c.State == store.Self || err != nil {
					continue
				}
				devices, failed := tx.Devices(c.Person)
				if err = failed; err == nil {
					rows, err = tx.Outboxes(devices[0].Row, 0, 10)
				}
			}
			return err
		})
		if len(rows) != 1 {
			t.Fatalf("%d rows in the outbox, want one", len(rows))
		}
		h.open(0)
		h.open(1)
		delivered(ctx, t, h.nodes[0], waits)
		h.close(0, 1)
		h.rows(0, func(tx *store.Tx) error { return tx.InsertOutbox(&rows[0]) }) // as if the crash had come before
		h.open(0)
		h.pass(time.Second)
		if s, err := h.nodes[0].Status(ctx); err != nil || s.Queued != 0 {
			t.Errorf("%d messages still wait without Bob: %v", s.Queued, err)
		}
		h.open(1)
		delivered(ctx, t, h.nodes[0], say(ctx, t, h.nodes[0], "bob", "last"))
		if got := texts(ctx, t, h.nodes[1], "ada"); got != "first|waits for Bob|last" {
			t.Errorf("Bob reads %q", got)
		}
	})
}

// rows looks at the store of a closed home, or changes it, behind its back.
func (h *homes) rows(i int, f func(*store.Tx) error) {
	h.t.Helper()
	if err := node.Rows(h.t.Context(), h.dirs[i], f); err != nil {
		h.t.Fatal(err)
	}
}
