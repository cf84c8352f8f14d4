package event

import (
	"testing"
	"time"
)

// TestClosedNumbers: Bob's phone says five events, is set back to the second, and
// goes on. Ann keeps what she holds, refuses the rest under the used numbers and
// above, and takes it under new ones, without a gap between.
func TestClosedNumbers(t *testing.T) {
	a, b := machine(ann, annPhone), machine(bob, bobPhone)
	var first []Made
	for range 5 {
		made := say(t, b, noon, "first")
		if seen := hear(t, a, noon, b.self, made); seen.Verdict != New {
			t.Fatalf("event %d: %+v", made.Seq, seen)
		}
		first = append(first, made)
	}
	clock, heads, _ := b.stored()
	back := LoadMachine(b.self, clock, heads, []Latest{{Device: bobPhone, Seq: 2, ID: first[1].ID, Clock: first[1].Clock}})
	later := noon.Add(time.Hour)
	var again []Made
	for range 5 {
		again = append(again, say(t, back, later, "again"))
	}
	observe := func(m Made) Seen {
		var held ID
		if m.Seq <= 5 {
			held = first[m.Seq-1].ID
		}
		return a.Observe(later, bobPhone, m.ID, m.Event, held)
	}
	if seen := observe(again[0]); again[0].Seq != 3 || seen.Verdict != Equivocation {
		t.Fatalf("event %d after the set-back: %+v", again[0].Seq, seen)
	}
	const upto = 1000
	a.Close(bobPhone, upto)
	for _, m := range again {
		if seen := observe(m); seen.Verdict != Equivocation {
			t.Errorf("event %d under a closed number: %+v", m.Seq, seen)
		}
	}
	if seen := observe(first[1]); seen.Verdict != Duplicate {
		t.Errorf("event 2, which is held: %+v", seen)
	}
	back.Close(bobPhone, upto)
	if back.Seq() != upto+1 || back.Closed(bobPhone) != upto {
		t.Fatalf("Bob goes on at %d, closed up to %d", back.Seq(), back.Closed(bobPhone))
	}
	for i := range again {
		made := say(t, back, later, "once more")
		if seen := hear(t, a, later, b.self, made); made.Seq != upto+1+uint64(i) || seen.Verdict != New || seen.GapTo != 0 || seen.Late {
			t.Errorf("event %d under a new number: %+v", made.Seq, seen)
		}
	}
	if seen := observe(again[4]); seen.Verdict != Equivocation {
		t.Errorf("event %d came late: %+v", again[4].Seq, seen)
	}
	say(t, back, later, "lost")
	if seen := hear(t, a, later, b.self, say(t, back, later, "shows a gap")); seen.GapFrom != upto+6 || seen.GapTo != upto+6 {
		t.Errorf("gap: %+v", seen)
	}
	back.Close(bobPhone, 5) // never opens again
	if back.Seq() != upto+8 {
		t.Errorf("next is %d, want %d", back.Seq(), upto+8)
	}
	back.Close(bobPhone, MaxSeq)
	if _, err := back.Next(later, Message, "", must(Text{Text: "x"}.Append())); err != ErrSeqs {
		t.Errorf("with all numbers closed: %v, want ErrSeqs", err)
	}
}
