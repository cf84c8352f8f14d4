package node_test

import (
	"context"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/store"
)

// Messages that are confirmed within a second share a row, and so its times; what Why tells of each is never before it was
// said.
func TestWhyTellsStagesInOrder(t *testing.T) {
	pair(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, conv node.Added) {
		for range 4 {
			m := say(ctx, t, bob, "Ada", "hello")
			delivered(ctx, t, bob, m)
			stages, err := bob.Why(ctx, hex.EncodeToString(m.ID[:]))
			if err != nil || len(stages) != 3 {
				t.Fatalf("why: %+v, %v; want 3 stages", stages, err)
			}
			for i, s := range stages[1:] {
				if s.At.Before(stages[i].At) {
					t.Errorf("%s at %v, before %s at %v", s.Stage, s.At, stages[i].Stage, stages[i].At)
				}
			}
			<-time.After(300 * time.Millisecond) // virtual
		}
	})
}

// What failed because a person was removed cannot be sent again before they are added again.
func TestWhyOfRemovedSaysToAddAgain(t *testing.T) {
	pair(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, conv node.Added) {
		delivered(ctx, t, bob, say(ctx, t, bob, "Ada", "first"))
		if err := ada.Close(); err != nil {
			t.Fatal(err)
		}
		m := say(ctx, t, bob, "Ada", "too late")
		if _, err := bob.RemoveContact(ctx, "Ada", false); err != nil {
			t.Fatal(err)
		}
		stages, err := bob.Why(ctx, hex.EncodeToString(m.ID[:]))
		if err != nil || len(stages) == 0 {
			t.Fatalf("why: %v", err)
		}
		if last := stages[len(stages)-1]; last.Stage != "failed" || !strings.Contains(last.Next, "contact add") {
			t.Errorf("%+v; want failed, and to add them again", last)
		}
		if shown, err := bob.Message(ctx, hex.EncodeToString(m.ID[:])); err != nil || !strings.Contains(shown.Next, "contact add") {
			t.Errorf("next %q, %v; want to add them again", shown.Next, err)
		}
	})
}

// A reader of changes that keeps what it read learns which messages a clear took away, though no message changes by it.
func TestClearIsToldToReadersOfChanges(t *testing.T) {
	pair(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, conv node.Added) {
		for _, text := range []string{"one", "two"} {
			delivered(ctx, t, bob, say(ctx, t, bob, "Ada", text))
		}
		first := map[string]uint64{} // numbers under which the messages came
		last := follow(ctx, t, ada, 0, first)
		if _, err := ada.ClearConversation(ctx, "Bob"); err != nil {
			t.Fatal(err)
		}
		delivered(ctx, t, bob, say(ctx, t, bob, "Ada", "three"))
		follow(ctx, t, ada, last, first)
		c, err := ada.Conversation(ctx, "Bob")
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			text    string
			deleted bool
		}{{"one", true}, {"two", true}, {"three", false}} {
			if at := first[test.text]; at == 0 || (at <= c.ClearedTo) != test.deleted {
				t.Errorf("%q came under %d, cleared to %d; want deleted %v", test.text, at, c.ClearedTo, test.deleted)
			}
		}
	})
}

// follow reads on in the changes and notes the numbers of messages.
func follow(ctx context.Context, t *testing.T, n *node.Node, since uint64, first map[string]uint64) uint64 {
	t.Helper()
	changes, err := n.Changes(ctx, since, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		since = c.Changed
		if m := c.Message; m != nil && !m.Deleted && first[m.Text] == 0 {
			first[m.Text] = c.Changed
		}
	}
	return since
}

// TestWhyReadNeedsDelivery: a mark names a number, and why believes it no more than read does.
func TestWhyReadNeedsDelivery(t *testing.T) {
	withHomes(t, func(ctx context.Context, h *homes) {
		h.close(1)
		m := say(ctx, t, h.nodes[0], "bob", "queued")
		h.close(0)
		h.rows(0, func(tx *store.Tx) error {
			all, err := tx.Contacts()
			if err != nil {
				return err
			}
			convs, err := tx.Conversations()
			if err != nil {
				return err
			}
			return tx.PutReadMark(store.ReadMark{Conversation: convs[1].Row, Person: all[1].Person, Upto: 99, At: time.Now()})
		})
		h.open(0)
		stages, err := h.nodes[0].Why(ctx, m.ID.String())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range stages {
			if s.Stage == "read" {
				t.Errorf("a message that nobody has is told as read: %+v", stages)
			}
		}
	})
}
