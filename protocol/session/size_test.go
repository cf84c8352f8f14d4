package session

import (
	"errors"
	"testing"

	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/wire"
)

// exact pads to nothing, but for the smallest buckets that ParseCell would ask.
func exact(n int) int { return n }

// TestOverhead: the fixed part per 1 KiB message in a batch is at most 120 bytes
// before padding, whatever the number it has.
func TestOverhead(t *testing.T) {
	a, b := talking(t)
	settle(epoch0, a, b)
	for range 950 { // two-byte numbers, and none of the control of the beginning
		b.open(epoch0, a.say(epoch0, b, "x"))
		settle(epoch0, a, b)
	}
	var items []Sealed
	for range 13 {
		items = append(items, a.seal(epoch0, b, string(make([]byte, 1024))))
	}
	a.prepare(epoch0, b)
	size := func(n int) int {
		c, got, err := a.m.Pack(epoch0, b.dev(), items[0].Session, items[:n], exact)
		if err != nil || got != n {
			t.Fatal(got, err)
		}
		return len(c)
	}
	if per := (size(13)-size(1))/12 - 1024; per > 120 {
		t.Errorf("%d bytes for each message beyond its own", per)
	} else {
		t.Logf("%d bytes for each message, %d for a cell of one", per, size(1)-1024)
	}
	if n := wire.Padme(size(1)); n > 1638 {
		t.Errorf("one message of 1,024 bytes takes a cell of %d", n)
	}
	// The explicit conversation costs 32 more.
	other, err := a.m.Seal(epoch0, b.dev(), event.ConversationID{1}, make([]byte, 1024))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(other.Inner) - len(items[0].Inner); n != 32 {
		t.Errorf("another conversation costs %d bytes", n)
	}
}

// TestLargest: the largest payload fits into a cell with everything that can be
// beside it: a repeated start, a full mark, a void list, and where it follows.
func TestLargest(t *testing.T) {
	a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
	start(epoch0, a, b, true)
	c := conv(a, b)
	for _, n := range []int{0, MaxPayload + 1} {
		if _, err := a.m.Seal(epoch0, b.dev(), c, make([]byte, n)); !errors.Is(err, ErrTooLong) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	s, err := a.m.Seal(epoch0, b.dev(), event.ConversationID{1}, make([]byte, MaxPayload))
	if err != nil {
		t.Fatal(err)
	}
	a.prepare(epoch0, b)
	x := a.session(t, b)
	x.Follows = &Follows{ID{1}, MaxSeq}
	x.saved = Mark{Upto: MaxSeq}
	for i := range uint64(MaxMissing) {
		x.saved.Missing = append(x.saved.Missing, 200*i/2+129)
	}
	for i := range uint64(40) {
		x.Voided = append(x.Voided, Run{From: 1000 + 200*i/2, Len: 1})
	}
	cell, n, err := a.m.Pack(epoch0, b.dev(), s.Session, []Sealed{s}, wire.Padme)
	if err != nil || n != 1 || len(cell) != wire.CellSize {
		t.Fatalf("%d items, %d bytes, %v", n, len(cell), err)
	}
}

// TestLengths: H35. Texts of every length make cells of the size of the route:
// always the same, or one of the buckets.
func TestLengths(t *testing.T) {
	a, b := talking(t)
	for n := 1; n <= wire.MaxText; n += 97 {
		s, err := a.m.Seal(epoch0, b.dev(), conv(a, b), make([]byte, n))
		if err != nil {
			t.Fatal(err)
		}
		a.prepare(epoch0, b)
		for _, pad := range []func(int) int{wire.Padme, func(int) int { return wire.CellSize }} {
			c, _, err := a.m.Pack(epoch0, b.dev(), s.Session, []Sealed{s}, pad)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := wire.ParseCell(c); err != nil || pad(1) == wire.CellSize && len(c) != wire.CellSize {
				t.Fatalf("text of %d bytes: cell of %d, %v", n, len(c), err)
			}
			b.open(epoch0, c)
		}
	}
}
