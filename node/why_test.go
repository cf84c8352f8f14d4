package node_test

import (
	"context"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/kinloom/kinloom/node"
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
