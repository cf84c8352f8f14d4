package node

import (
	"testing"
	"time"
)

// TestMovesWithoutEndAreCheap: a node whose own addresses change again and again, as by
// a relay that comes and goes, does not look each time as hard for whoever was not found
// the first time.
func TestMovesWithoutEndAreCheap(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	l, d := new(loop), new(device)
	hard := 0
	for range 24 * 4 { // a day
		l.movedAt = now
		for s := time.Duration(0); s < movedFor; s += 10 * time.Second {
			if l.insist(&d.queue, now.Add(s)) {
				hard++
			} else if s > 0 && d.queue.insisted.Equal(now) {
				t.Fatalf("gave up %v after a move", s)
			}
		}
		if l.insist(&d.queue, now.Add(movedFor)) {
			t.Fatal("goes on when the move is over")
		}
		now = now.Add(15 * time.Minute)
	}
	if each := int(movedFor / (10 * time.Second)); hard != 4*each {
		t.Errorf("looked hard %d times in a day of moves, want %d", hard/each, 4)
	}
	d.queue.insisted = time.Time{} // as when it was met
	l.movedAt = now
	if !l.insist(&d.queue, now) {
		t.Error("a device that was met since is not looked for")
	}
}
