package node_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/kinloom/kinloom/node"
)

// TestGapIsNamed: what is missing before a message is told with it until it comes.
func TestGapIsNamed(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, _ *node.Node, m *mallory) {
		m.meet(ctx, link(ctx, t, ada, false))
		one, two, three, four, five := m.text("one"), m.text("two"), m.text("three"), m.text("four"), m.text("five")
		told := func(want string) {
			t.Helper()
			m.receipts()
			all, err := ada.Read(ctx, "Mallory", node.ReadQuery{Peek: true})
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, message := range all {
				got.WriteString(fmt.Sprint(message.Text, " ", message.Gap, "|"))
			}
			if got.String() != want {
				t.Errorf("Ada reads %q, want %q", got.String(), want)
			}
		}
		m.say(one)
		told("one 0|")
		m.say(four, five)
		told("one 0|four 2|five 0|")
		m.say(two)
		told("one 0|two 0|four 1|five 0|")
		m.say(three)
		told("one 0|two 0|three 0|four 0|five 0|")
	})
}
