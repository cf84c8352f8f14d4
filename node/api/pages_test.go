package api

import (
	"strconv"
	"testing"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/client"
)

// TestLongTimeline: a timeline of more than one reply is read whole, in order, and so are its newest messages.
func TestLongTimeline(t *testing.T) {
	n := alone(t)
	me, err := n.ConversationID(t.Context(), node.Me)
	if err != nil {
		t.Fatal(err)
	}
	const said = 1234
	for i := range said {
		if _, err := n.Send(t.Context(), me, node.Text(strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	path, _ := serve(t, n, Options{})
	c := client.Dial(path)
	for limit, want := range map[int]int{0: said, 1: 1, 500: 500, 501: 501, 1234: said, 5000: said} {
		all, err := c.Read(t.Context(), node.Me, client.Page{Limit: limit, Peek: true})
		if err != nil || len(all) != want {
			t.Errorf("limit %d: %d messages, %v; want %d", limit, len(all), err, want)
		}
		for i, m := range all {
			if m.Text != strconv.Itoa(said-want+i) {
				t.Errorf("limit %d: message %d is %q", limit, i, m.Text)
				break
			}
		}
	}
}
