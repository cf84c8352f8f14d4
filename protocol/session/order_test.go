package session

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kinloom/kinloom/protocol/wire"
)

// cells packs all items, each batch as full as it gets.
func (s *side) cells(now time.Time, to *side, items []Sealed) [][]byte {
	s.t.Helper()
	s.prepare(now, to)
	var out [][]byte
	for len(items) > 0 {
		c, n, err := s.m.Pack(now, to.dev(), items[0].Session, items, func(int) int { return wire.CellSize })
		if err != nil || n == 0 || len(c) != wire.CellSize {
			s.t.Fatalf("pack: %d items, %d bytes, %v", n, len(c), err)
		}
		out, items = append(out, c), items[n:]
	}
	return out
}

// TestReverse: H25. A whole queue of a mailbox in reverse order, of a session
// that was never answered, comes out in order, each text once.
func TestReverse(t *testing.T) {
	for _, n := range []int{60, 1700} {
		a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
		start(epoch0, a, b, false)
		want := numbered("text ", n)
		var items []Sealed
		for _, x := range want {
			items = append(items, a.seal(epoch0, b, x+string(make([]byte, 1000))))
		}
		cells := a.cells(epoch0, b, items)
		slices.Reverse(cells)
		var got []string
		for i, c := range cells {
			if i == len(cells)/2 {
				b.restart()
			}
			for _, x := range texts(b.open(epoch0, c)) {
				got = append(got, x[:len(x)-1000])
			}
		}
		if o := b.m.FlushPoll(epoch0); len(o) > 0 {
			t.Errorf("%d: the poll left %+v", n, o)
		}
		wantTexts(t, fmt.Sprint(n), got, want...)
		if len(b.m.waiting) != 0 || b.m.held != 0 {
			t.Errorf("%d: %d sessions wait, %d bytes held", n, len(b.m.waiting), b.m.held)
		}
	}
}

// TestGap: a short gap is passed after 30 s or at the end of the poll and
// named; what comes late is delivered, marked so.
func TestGap(t *testing.T) {
	for _, flush := range []bool{true, false} {
		a, b := talking(t)
		var cells [][]byte
		for _, x := range numbered("", 40) {
			cells = append(cells, a.say(epoch0, b, x))
		}
		now := epoch0
		for i, c := range cells {
			if i < 3 || i == 20 {
				continue
			}
			if o := b.open(now, c); len(o.Messages) > 0 {
				t.Fatalf("message %d before its turn", i+1)
			}
		}
		if o := b.m.Tick(now.Add(29 * time.Second)); len(o) > 0 {
			t.Fatalf("passed too early: %+v", o)
		}
		b.restart()
		var os []Opened
		if flush {
			os = b.m.FlushPoll(now)
		} else {
			now = now.Add(31 * time.Second)
			os = b.m.Tick(now)
		}
		b.save()
		want := slices.Concat(numbered("", 40)[3:20], numbered("", 40)[21:])
		wantTexts(t, "after the wait", texts(os...), want...)
		var gaps []uint64
		for _, g := range os[0].Gaps {
			gaps = append(gaps, g.Seqs...)
		}
		if x := b.session(t, a); !slices.Equal(gaps, x.Missing) || len(gaps) != 4 {
			t.Errorf("named %v, missing %v", gaps, x.Missing)
		}
		b.restart()
		for _, i := range []int{20, 1, 0, 2} {
			o := b.open(now, cells[i])
			wantTexts(t, "late", texts(o), fmt.Sprint(i+1))
			if !o.Messages[0].Late {
				t.Error("not marked late")
			}
		}
		if o := b.open(now, cells[0]); len(o.Messages) > 0 || o.Known == 0 {
			t.Errorf("late one twice: %+v", o)
		}
	}
}

// TestLongGap: H133. The last 64 arrive first. The gap is too long to be
// skipped: it fills after an hour, is answered by a repeat, or ends by renewal.
func TestLongGap(t *testing.T) {
	setup := func(t *testing.T) (a, b *side, cells [][]byte, items []Sealed, now time.Time) {
		a, b = talking(t)
		for _, x := range numbered("", 128) {
			items = append(items, a.seal(epoch0, b, x))
			cells = append(cells, a.cell(epoch0, b, items[len(items)-1]))
		}
		for _, c := range cells[64:] {
			b.open(epoch0, c)
		}
		now = epoch0.Add(time.Hour)
		os := b.m.Tick(now)
		b.save()
		if len(os) != 1 || len(os[0].Messages) > 0 || len(os[0].Gaps) != 1 || !os[0].Gaps[0].Blocked || len(os[0].Gaps[0].Seqs) != 64 || os[0].Held != 64 {
			t.Fatalf("after an hour: %+v", os)
		}
		if os := b.m.FlushPoll(now); len(os) > 0 {
			t.Fatalf("named twice: %+v", os)
		}
		b.restart()
		return a, b, cells, items, now
	}
	t.Run("fills", func(t *testing.T) {
		_, b, cells, _, now := setup(t)
		var got []string
		for _, i := range []int{1, 0} {
			got = append(got, texts(b.open(now, cells[i]))...)
		}
		for _, c := range cells[2:64] {
			got = append(got, texts(b.open(now, c))...)
		}
		wantTexts(t, "filled", got, numbered("", 128)...)
	})
	t.Run("repeated", func(t *testing.T) {
		a, b, cells, items, now := setup(t)
		x := b.session(t, a)
		ask := make([]uint64, 0, 64)
		for seq := x.Due; seq < items[64].Seq; seq++ {
			ask = append(ask, seq)
		}
		if err := b.m.AskRepeat(now, a.dev(), x.ID, ask); err != nil {
			t.Fatal(err)
		}
		b.prepare(now, a)
		o := a.open(now, b.cell(now, a))
		if len(o.Repeat) != 1 || !slices.Equal(o.Repeat[0].Seqs, ask) {
			t.Fatalf("asked: %+v", o.Repeat)
		}
		// The old ones are void: packing them again sends nothing of them.
		c, n, err := a.m.Pack(now, b.dev(), items[0].Session, items[:64], wire.Padme)
		if err != nil || n != 64 || len(c) > 1024 {
			t.Fatalf("void: %d, %d bytes, %v", n, len(c), err)
		}
		var got []string
		for i := range 64 {
			got = append(got, texts(b.open(now, a.say(now, b, fmt.Sprint("again ", i+1))))...)
		}
		wantTexts(t, "released, then repeated", got, append(numbered("", 128)[64:], numbered("again ", 64)...)...)
		if o := b.open(now, cells[3]); len(o.Messages) > 0 {
			t.Errorf("void one was delivered: %+v", o)
		}
		if x := b.session(t, a); len(x.Missing) != 0 || len(x.held) != 0 {
			t.Errorf("%d missing, %d held", len(x.Missing), len(x.held))
		}
	})
	t.Run("renewed", func(t *testing.T) {
		a, b, cells, items, now := setup(t)
		old := items[0].Session
		now = now.Add(24 * time.Hour)
		o := b.open(now, a.say(now, b, "new session"))
		if !o.Fresh || len(o.Messages) > 0 {
			t.Fatalf("renewal: %+v", o)
		}
		os := b.m.FlushPoll(now)
		b.save()
		wantTexts(t, "renewed", texts(os...), append(numbered("", 128)[64:], "new session")...)
		var named int
		for _, g := range os[0].Gaps {
			if g.Session == old {
				named += len(g.Seqs)
			}
		}
		if named != 0 { // they were named as blocked
			t.Errorf("%d named twice", named)
		}
		// Olm keeps the newest 40 keys of what was skipped.
		got := 0
		for _, c := range cells[:64] {
			o := b.open(now, c)
			if got += len(o.Messages); len(o.Messages) == 0 && (len(o.Gaps) != 1 || !o.Gaps[0].Lost) {
				t.Errorf("neither delivered nor named: %+v", o)
			}
		}
		if got != olmSkipped {
			t.Errorf("%d of the late ones opened, want %d", got, olmSkipped)
		}
	})
}

// TestSkips: at most 32 skipped seqs are waited for, and all of them open when
// they come late, in any order, though many more were skipped and voided.
func TestSkips(t *testing.T) {
	a, b := talking(t)
	var cells [][]byte
	for _, x := range numbered("", 200) {
		cells = append(cells, a.say(epoch0, b, x))
	}
	late := []int{}
	for i := range cells {
		if i%3 == 0 && len(late) < 40 {
			late = append(late, i)
		} else {
			b.open(epoch0, cells[i])
		}
	}
	os := b.m.FlushPoll(epoch0)
	b.save()
	x := b.session(t, a)
	if len(x.Missing) != MaxMissing || len(os) != 1 || len(x.held) == 0 {
		t.Fatalf("%d missing, %d held", len(x.Missing), len(x.held))
	}
	if k := x.mark(); len(k.Missing) != MaxMissing || k.Upto != x.Due-1 {
		t.Errorf("mark %+v", k)
	}
	slices.Reverse(late)
	got := 0
	for _, i := range late {
		got += len(b.open(epoch0, cells[i]).Messages)
		b.restart()
	}
	got += len(texts(b.m.FlushPoll(epoch0)...))
	if x := b.session(t, a); len(x.Missing) > 0 || len(x.held) > 0 {
		t.Errorf("%d missing, %d held at the end", len(x.Missing), len(x.held))
	}
	if got < 40 {
		t.Errorf("only %d messages in the end", got)
	}
}

// TestHeldBounds: H27. What waits is bounded in count and bytes, for a session
// and in all; what exceeds it is refused and can come again.
func TestHeldBounds(t *testing.T) {
	a, b := talking(t)
	x := a.session(t, b)
	due := b.session(t, a).Due
	big := make([]byte, 14000)
	var full uint64
	for seq := due + 1; seq < due+MaxAhead; seq++ {
		cell := a.raw(t, x, Outer{Items: []Item{{seq, big}}})
		_, err := b.m.Open(epoch0, cell)
		if errors.Is(err, ErrFull) {
			full = seq
			b.save()
			b.refuses(t, "beyond the bound", cell, ErrFull)
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		big[len(big)-1]++
	}
	if b.m.held > maxHeldBytes || b.m.held < maxHeldBytes-len(big) || full == 0 {
		t.Errorf("%d bytes held, refused at %d", b.m.held, full)
	}
	c, d := talking(t)
	d.m.held = maxHeldTotal
	cell := c.raw(t, c.session(t, d), Outer{Items: []Item{{d.session(t, c).Due + 1, big}}})
	d.refuses(t, "beyond the bound of all", cell, ErrFull)
	// Small ones: the count is bounded by the jump.
	e, f := talking(t)
	y, n := e.session(t, f), 0
	for i := range uint64(5000) {
		if _, err := f.m.Open(epoch0, e.raw(t, y, Outer{Items: []Item{{3 + i, []byte{1, byte(i), byte(i >> 8), 2}}}})); err == nil {
			n++
		}
	}
	if n > MaxAhead || len(f.session(t, e).held) > MaxAhead {
		t.Errorf("%d held", n)
	}
}

// TestDuplicates: H28. The same message by several routes, in cells of their
// own, is delivered once, also after a restart.
func TestDuplicates(t *testing.T) {
	a, b := talking(t)
	s := a.seal(epoch0, b, "once")
	wantTexts(t, "first route", texts(b.open(epoch0, a.cell(epoch0, b, s))), "once")
	for range 3 {
		b.restart()
		o := b.open(epoch0, a.cell(epoch0, b, s))
		if len(o.Messages) > 0 || o.Known == 0 {
			t.Fatalf("again: %+v", o)
		}
	}
	if len(b.m.Owing()) == 0 {
		t.Error("a message that came again is not receipted again")
	}
}

// TestClone: section 7.4. Two messages under one number close the session, on
// a message that was delivered, on one that is held, and behind a known end.
func TestClone(t *testing.T) {
	for _, kind := range []string{"delivered", "held"} {
		a, b := talking(t)
		twin := newSide(t, "alice", "1")
		twin.disk = map[string][]byte{}
		for _, r := range a.rows() {
			twin.disk[r.Key] = r.Value
		}
		twin.restart()
		if kind == "held" {
			a.say(epoch0, b, "never arrives")
			twin.say(epoch0, b, "never arrives")
		}
		b.open(epoch0, a.say(epoch0, b, "original"))
		copied := twin.say(epoch0, b, "of the copy")
		o, err := b.m.Open(epoch0, copied)
		if !errors.Is(err, ErrClone) || o.From != a.dev() || len(o.Messages) > 0 {
			t.Fatalf("%s: %+v, %v", kind, o, err)
		}
		b.save()
		b.restart()
		if b.m.CanSeal(a.dev()) {
			t.Errorf("%s: the session is still in use", kind)
		}
		b.refuses(t, "after the alarm", a.say(epoch0, b, "more"), ErrUnknown)
		// A new start works.
		start(epoch0, a, b, true)
		wantTexts(t, "new start", texts(b.open(epoch0, a.say(epoch0, b, "here I am"))), "here I am")
	}
	t.Run("behind the end", func(t *testing.T) {
		a, b := talking(t)
		twin := newSide(t, "alice", "1")
		for _, r := range a.rows() {
			twin.disk[r.Key] = r.Value
		}
		twin.restart()
		now := epoch0.Add(25 * time.Hour)
		b.open(now, a.say(now, b, "renewed"))
		var err error
		for range 3 { // the copy goes on in the old session
			if _, err = b.m.Open(epoch0, twin.say(epoch0, b, "old")); err != nil {
				break
			}
		}
		if !errors.Is(err, ErrClone) {
			t.Fatalf("behind the end: %v", err)
		}
	})
}

// TestTakenBack: what the sender dropped before it arrived holds up nothing behind it,
// in a session that was never answered neither, and is not asked for.
func TestTakenBack(t *testing.T) {
	for _, answered := range []bool{false, true} {
		a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
		start(epoch0, a, b, false)
		if answered {
			b.open(epoch0, a.say(epoch0, b, "hello"))
			a.open(epoch0, b.say(epoch0, a, "hello"))
		}
		var items []Sealed
		for _, x := range numbered("", 40) {
			items = append(items, a.seal(epoch0, b, x))
		}
		var seqs []uint64
		for _, i := range items[1:39] { // longer than a gap that is passed
			seqs = append(seqs, i.Seq)
		}
		a.m.TakeBack(items[0].Session, append(seqs, 1000))
		a.save()
		a.restart()
		var got []string
		for _, c := range a.cells(epoch0, b, items) {
			o := b.open(epoch0, c)
			got = append(got, texts(o)...)
			if len(o.Gaps) > 0 {
				t.Errorf("asked for %+v", o.Gaps)
			}
		}
		wantTexts(t, fmt.Sprint("answered ", answered), got, "1", "40")
		a.open(epoch0, b.cell(epoch0, a))
		if s := a.session(t, b); len(s.Voided) != 0 {
			t.Errorf("still void: %v", s.Voided)
		}
	}
}
