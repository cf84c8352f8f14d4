package session

import (
	"errors"
	"maps"
	"testing"

	"github.com/kinloom/kinloom/protocol/wire"
)

// TestDoubt: a device is set back to an older copy of its rows. What it says then
// goes under none of the numbers that it used, so no mark of before covers it; the
// other side finds out where more had been said.
func TestDoubt(t *testing.T) {
	for _, said := range []int{0, 1, 3} {
		a, b, now := newSide(t, "ann", ""), newSide(t, "bob", ""), epoch0
		start(now, a, b, true)
		b.open(now, a.say(now, b, "1"))
		settle(now, a, b)
		settle(now, b, a)
		copied := maps.Clone(b.disk)
		for range said {
			a.open(now, b.say(now, a, "lost"))
		}
		a.prepare(now, b)
		marks, _, err := a.m.Pack(now, b.dev(), a.current(t, b), nil, wire.Padme)
		if err != nil {
			t.Fatal(err)
		}
		b.disk = copied
		b.restart()
		b.m.Doubt()
		before := b.current(t, a)
		var items []Sealed
		for range 5 {
			items = append(items, b.seal(now, a, "new"))
		}
		if items[0].Session == before {
			t.Fatalf("sealed in a session that may be older than it was")
		}
		b.save()
		if o := b.open(now, marks); o.Session != before {
			t.Errorf("mark of session %x, want %x", o.Session, before)
		}
		o, err := a.m.Open(now, b.cell(now, a, items...))
		if said == 0 {
			if err != nil || len(o.Messages) != 5 {
				t.Errorf("nothing was lost: %d messages, %v", len(o.Messages), err)
			}
			continue
		}
		// Refused by where the new session claims to follow, or as the ratchet that the
		// start carries a secret over in has moved on.
		if !errors.Is(err, ErrClone) && !errors.Is(err, ErrBroken) {
			t.Fatalf("%d were lost: %d messages, %v; want ErrClone or ErrBroken", said, len(o.Messages), err)
		}
		if !b.m.Abandon(now, a.dev(), items[0].Session) || b.m.CanSeal(a.dev()) {
			t.Fatal("after the refusal a session is left to seal in")
		}
		start(now, b, a, true)
		wantTexts(t, "in a new session", texts(a.open(now, b.say(now, a, "new"))), "new")
		wantTexts(t, "back", texts(b.open(now, a.say(now, b, "hello"))), "hello")
	}
}

// current is the session that a side would seal in.
func (s *side) current(t *testing.T, to *side) ID {
	t.Helper()
	i, ok := s.m.Current(epoch0, to.dev())
	if !ok {
		t.Fatalf("%s: no session", s.name)
	}
	return i.Session
}

// TestStartAfterLoss: a device that lost its sessions, but not what it knows of the
// peer, takes a session that follows one of the lost at once if it was made on a
// live stream, and asks for what it may lack.
func TestStartAfterLoss(t *testing.T) {
	for _, once := range []bool{true, false} {
		a, b, now := newSide(t, "ann", ""), newSide(t, "bob", ""), epoch0
		start(now, a, b, true)
		b.open(now, a.say(now, b, "1"))
		settle(now, a, b)
		a.restart()
		a.m.Doubt()
		b.disk = map[string][]byte{}
		b.m = New(b.self, b.rnd)
		start(now, a, b, once)
		o := b.open(now, a.say(now, b, "2"))
		switch {
		case once:
			wantTexts(t, "live", texts(o), "2")
			if len(o.Gaps) != 1 || !o.Gaps[0].Lost || len(o.Gaps[0].Seqs) == 0 {
				t.Errorf("gaps: %+v", o.Gaps)
			}
		case len(o.Messages) > 0:
			t.Error("a start that may have come before what it follows was opened at once")
		default:
			wantTexts(t, "after the wait", texts(b.m.Tick(now.Add(GapWait))...), "2")
		}
	}
}
