package session

import (
	"testing"
	"time"
)

func TestConversation(t *testing.T) {
	for _, once := range []bool{true, false} {
		a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
		now := epoch0
		start(now, a, b, once)
		o := b.open(now, a.say(now, b, "hello"))
		wantTexts(t, "first", texts(o), "hello")
		if !o.Fresh || o.From != a.dev() {
			t.Fatalf("first cell: %+v", o)
		}
		wantTexts(t, "answer", texts(a.open(now, b.say(now, a, "hi"))), "hi")
		for i := range 300 {
			now = now.Add(time.Second)
			wantTexts(t, "there", texts(b.open(now, a.say(now, b, "ping"))), "ping")
			if i%3 == 0 {
				wantTexts(t, "back", texts(a.open(now, b.say(now, a, "pong"))), "pong")
			}
			a.restart()
			b.restart()
		}
	}
}
