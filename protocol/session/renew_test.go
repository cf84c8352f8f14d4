package session

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/wire"
)

// TestStartTwice: H131. A recorded start gives one session and its text once:
// at once, after a restart, after 30 days, after the bundle is gone, and at a
// sibling device never.
func TestStartTwice(t *testing.T) {
	for _, once := range []bool{true, false} {
		a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
		sibling := newSide(t, "bob", "2")
		meet(a, sibling)
		sibling.bundle(epoch0, false)
		start(epoch0, a, b, once)
		cell := a.say(epoch0, b, "hello")
		wantTexts(t, "first", texts(b.open(epoch0, cell)), "hello")
		again := func(now time.Time, what string) {
			t.Helper()
			if o, err := b.m.Open(now, cell); err == nil && (len(o.Messages) > 0 || o.Fresh) {
				t.Errorf("%s: %+v", what, o)
			}
			b.save()
			if len(b.m.sessions) > 1 {
				t.Errorf("%s: %d sessions", what, len(b.m.sessions))
			}
		}
		again(epoch0, "at once")
		b.restart()
		again(epoch0, "after a restart")
		for day := range 70 {
			now := epoch0.Add(time.Duration(day) * 24 * time.Hour)
			b.m.Tick(now)
			b.bundle(now, false)
			if day%10 == 0 {
				b.restart()
			}
			again(now, fmt.Sprint("day ", day))
		}
		b.m.Forget(a.dev())
		b.save()
		again(epoch0.Add(71*24*time.Hour), "forgotten")
		sibling.save()
		sibling.refuses(t, "sibling", cell, ErrUnknown)
	}
}

// TestStartTwiceOfForgottenDevice: a start stays used when its device is forgotten,
// and known again. Otherwise a recording would begin a second session of it.
func TestStartTwiceOfForgottenDevice(t *testing.T) {
	for _, once := range []bool{true, false} {
		a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
		start(epoch0, a, b, once)
		cell := a.say(epoch0, b, "hello")
		b.open(epoch0, cell)
		b.m.Forget(a.dev())
		meet(a, b)
		b.save()
		b.restart()
		b.refuses(t, fmt.Sprintf("known again, once bundle %v", once), cell, ErrReplay)
		b.m.Tick(epoch0.Add(OldLife + BundleLife))
		b.save()
		for key := range b.disk {
			if key[0] == 'c' || key[0] == 'b' {
				t.Errorf("row %q is kept for ever", key)
			}
		}
	}
}

// TestStartTwiceOfDroppedSession: the table outlives the session.
func TestStartTwiceOfDroppedSession(t *testing.T) {
	a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
	start(epoch0, a, b, false)
	cell := a.say(epoch0, b, "hello")
	b.open(epoch0, cell)
	b.m.drop(b.session(t, a))
	b.save()
	b.refuses(t, "after its session", cell, ErrReplay)
}

// TestBothStart: H34. Both start at once, with messages on their way: both
// receive, and both go on in the session with the lower id.
func TestBothStart(t *testing.T) {
	for _, once := range []bool{true, false} {
		a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
		start(epoch0, a, b, once)
		start(epoch0, b, a, once)
		ca, cb := a.say(epoch0, b, "from a"), b.say(epoch0, a, "from b")
		a.restart()
		b.restart()
		wantTexts(t, "at b", texts(b.open(epoch0, ca)), "from a")
		wantTexts(t, "at a", texts(a.open(epoch0, cb)), "from b")
		for i := range 5 {
			wantTexts(t, "at b", texts(b.open(epoch0, a.say(epoch0, b, fmt.Sprint(i)))), fmt.Sprint(i))
			wantTexts(t, "at a", texts(a.open(epoch0, b.say(epoch0, a, fmt.Sprint(i)))), fmt.Sprint(i))
		}
		x, _ := a.m.Current(epoch0, b.dev())
		y, _ := b.m.Current(epoch0, a.dev())
		if x.Session != y.Session || !x.Confirmed || !y.Confirmed {
			t.Errorf("a sends in %x (%v), b in %x (%v)", x.Session[:4], x.Confirmed, y.Session[:4], y.Confirmed)
		}
	}
}

// TestUnconfirmed: every cell repeats the start, so any one of them opens; the
// sender is confirmed by an answer only.
func TestUnconfirmed(t *testing.T) {
	a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
	start(epoch0, a, b, true)
	var cells [][]byte
	for _, x := range numbered("", 5) {
		cells = append(cells, a.say(epoch0, b, x))
		a.restart()
	}
	if i, _ := a.m.Current(epoch0, b.dev()); i.Confirmed {
		t.Error("confirmed without an answer")
	}
	var got []string
	for _, i := range []int{3, 1, 4, 0, 2} {
		got = append(got, texts(b.open(epoch0, cells[i]))...)
		b.restart()
	}
	wantTexts(t, "any order", got, numbered("", 5)...)
	if i, _ := b.m.Current(epoch0, a.dev()); i.Confirmed {
		t.Error("answering side confirmed without an answer to it")
	}
	a.open(epoch0, b.say(epoch0, a, "answer"))
	if i, _ := a.m.Current(epoch0, b.dev()); !i.Confirmed {
		t.Error("not confirmed by the answer")
	}
	b.open(epoch0, a.say(epoch0, b, "with keys for the next"))
	settle(epoch0, a, b)
	if c := a.say(epoch0, b, "x"); len(c) > wire.MinCell {
		t.Errorf("start repeated after the answer: %d bytes", len(c))
	}
	if i, _ := b.m.Current(epoch0, a.dev()); !i.Confirmed {
		t.Error("answering side not confirmed")
	}
	// No message, no start: nothing would show who started.
	c := newSide(t, "carol", "1")
	start(epoch0, a, c, true)
	i, _ := a.m.Current(epoch0, c.dev())
	if _, _, err := a.m.Pack(epoch0, c.dev(), i.Session, nil, wire.Padme); !errors.Is(err, ErrEmpty) {
		t.Errorf("empty start: %v", err)
	}
}

// epochOf is the epoch that a sends in.
func epochOf(a, b *side) uint32 {
	i, _ := a.m.Current(epoch0, b.dev())
	return i.Epoch
}

// TestRenewal: after 24 h of use, 1,000 messages, a change of either log, and at
// the first confirmed message of a start from a static bundle.
func TestRenewal(t *testing.T) {
	talk := func(a, b *side, now time.Time) {
		b.open(now, a.say(now, b, "x"))
		a.open(now, b.say(now, a, "y"))
		settle(now, a, b)
	}
	t.Run("age", func(t *testing.T) {
		a, b := talking(t)
		talk(a, b, epoch0.Add(23*time.Hour))
		if epochOf(a, b) != 1 {
			t.Error("renewed too early")
		}
		talk(a, b, epoch0.Add(24*time.Hour))
		if epochOf(a, b) < 2 {
			t.Error("not renewed after 24 h")
		}
	})
	t.Run("count", func(t *testing.T) {
		a, b := talking(t)
		for range 990 {
			b.open(epoch0, a.say(epoch0, b, "x"))
		}
		if epochOf(a, b) != 1 {
			t.Error("renewed too early")
		}
		for range 20 {
			b.open(epoch0, a.say(epoch0, b, "x"))
		}
		if epochOf(a, b) != 2 {
			t.Errorf("epoch %d after 1,010 messages", epochOf(a, b))
		}
	})
	t.Run("own log", func(t *testing.T) {
		a, b := talking(t)
		a.self.Head = identity.Head{1}
		a.m.SetHead(a.self.Head)
		o := b.open(epoch0, a.say(epoch0, b, "x"))
		if !o.Fresh || o.NewHead == nil || *o.NewHead != a.self.Head {
			t.Errorf("after a change of the own log: %+v", o)
		}
	})
	t.Run("log of the peer", func(t *testing.T) {
		a, b := talking(t)
		b.self.Head = identity.Head{2}
		b.m.SetHead(b.self.Head)
		b.save()
		if err := a.m.SetRemote(b.remote()); err != nil {
			t.Fatal(err)
		}
		if o := b.open(epoch0, a.say(epoch0, b, "x")); !o.Fresh || o.NewHead != nil {
			t.Errorf("after a change of the peer's log: %+v", o)
		}
	})
	t.Run("static start", func(t *testing.T) {
		a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
		start(epoch0, a, b, false)
		talk(a, b, epoch0)
		if i, _ := a.m.Current(epoch0, b.dev()); i.Epoch == 1 && (!i.Weak || !i.Due) {
			t.Errorf("static start: %+v", i)
		}
		talk(a, b, epoch0)
		talk(a, b, epoch0)
		if i, _ := a.m.Current(epoch0, b.dev()); i.Epoch != 2 || i.Weak || i.Due {
			t.Errorf("not renewed at the first confirmed message: %+v", i)
		}
	})
}

// TestRenewalCrossed: H34. Renewals lost, doubled, reordered and crossed, with
// messages still out in the old session for 30 days: none is lost, and both
// sides end in one session.
func TestRenewalCrossed(t *testing.T) {
	a, b := talking(t)
	old := a.say(epoch0, b, "out for a month")
	now := epoch0.Add(25 * time.Hour)
	lost, doubled := a.say(now, b, "a1"), b.say(now, a, "b1")
	_ = lost // never arrives
	a.open(now, doubled)
	a.open(now, doubled)
	a.restart()
	b.restart()
	b.open(now, a.say(now, b, "a2"))
	a.open(now, b.say(now, a, "b2"))
	os := b.m.FlushPoll(now)
	b.save()
	if len(os) == 0 {
		t.Fatal("nothing was waited for")
	}
	for range 4 {
		b.open(now, a.say(now, b, "a"))
		a.open(now, b.say(now, a, "b"))
	}
	x, _ := a.m.Current(now, b.dev())
	y, _ := b.m.Current(now, a.dev())
	if x.Session != y.Session {
		t.Errorf("a sends in %x, b in %x", x.Session[:4], y.Session[:4])
	}
	now = now.Add(30 * 24 * time.Hour)
	b.m.Tick(now)
	b.save()
	wantTexts(t, "after a month", texts(b.open(now, old)), "out for a month")
	wantTexts(t, "lost one, packed anew", texts(b.open(now, lost)), "a1")
	now = now.Add(3 * 24 * time.Hour)
	b.m.Tick(now)
	b.save()
	b.refuses(t, "after 31 days", old, ErrUnknown)
}

// TestSilentPeer: without an answer the session goes on up to 4,000 messages,
// and then a bundle is needed.
func TestSilentPeer(t *testing.T) {
	a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
	start(epoch0, a, b, false)
	now := epoch0
	for i := range MaxSeq {
		now = now.Add(time.Minute)
		if _, err := a.m.Seal(now, b.dev(), conv(a, b), []byte("x")); err != nil {
			t.Fatalf("message %d: %v", i+1, err)
		}
	}
	if _, err := a.m.Seal(now, b.dev(), conv(a, b), []byte("x")); !errors.Is(err, ErrNeedBundle) {
		t.Fatalf("message 4,001: %v", err)
	}
	if a.m.CanSeal(b.dev()) {
		t.Error("CanSeal at the end of the session")
	}
	if err := a.m.Start(now, b.remote(), b.bundle(now, false)); err != nil {
		t.Fatal(err)
	}
	if o := b.open(now, a.say(now, b, "again")); !o.Fresh {
		t.Errorf("new start: %+v", o)
	}
}

// TestReceipts: H134. Receipts answer messages only; marks for what was never
// sent are ignored; two nodes alone fall silent.
func TestReceipts(t *testing.T) {
	a, b := talking(t)
	b.open(epoch0, a.say(epoch0, b, "one"))
	if n := settle(epoch0, a, b); n != 1 {
		t.Errorf("%d cells to receipt one message", n)
	}
	if n := settle(epoch0, a, b); n != 0 {
		t.Errorf("%d cells about nothing", n)
	}
	x, y := a.session(t, b), b.session(t, a)
	for _, k := range []Mark{{Upto: y.Sent + 1}, {Upto: MaxSeq}, {Upto: 0}, {Upto: 1, Missing: []uint64{1}}} {
		acked := y.Acked
		for range 100 {
			o := b.open(epoch0, a.raw(t, x, Outer{Mark: &k}))
			if o.Mark != nil || len(b.m.Owing()) > 0 {
				t.Fatalf("mark %+v: %+v, owing %d", k, o.Mark, len(b.m.Owing()))
			}
		}
		if y := b.session(t, a); y.Acked.Upto != acked.Upto {
			t.Errorf("mark %+v taken", k)
		}
	}
	sent := 0
	for range 500 { // one-sided: a receipt inside Olm for every 50
		now := epoch0
		o := b.open(now, a.say(now, b, "x"))
		if len(o.Messages) != 1 {
			t.Fatal("lost")
		}
		before := b.session(t, a).Sent
		sent += settle(now, b, a)
		if n := b.session(t, a).Sent - before; n > 1 {
			t.Fatalf("%d control messages for one", n)
		}
	}
	if n := b.session(t, a).Sent; n < 10 || n > 14 {
		t.Errorf("%d Olm messages to receipt 500", n)
	}
	if sent != 500 {
		t.Errorf("%d cells to receipt 500 messages one by one", sent)
	}
}

// TestOldReceiptAge: a one-sided conversation heals within 24 h of a message.
func TestOldReceiptAge(t *testing.T) {
	a, b := talking(t)
	b.open(epoch0, a.say(epoch0, b, "x"))
	before := b.session(t, a).Sent
	b.prepare(epoch0.Add(23*time.Hour), a)
	if b.session(t, a).Sent != before {
		t.Error("too early")
	}
	b.prepare(epoch0.Add(24*time.Hour), a)
	if b.session(t, a).Sent != before+1 {
		t.Error("no receipt inside Olm after 24 h")
	}
}

// TestControlIsRepeated: what the machine itself tells survives losses and
// restarts without an outbox, and a request reaches the peer.
func TestControlIsRepeated(t *testing.T) {
	a, b := talking(t)
	id := a.session(t, b).ID
	seq := a.seal(epoch0, b, "lost").Seq
	if err := b.m.AskRepeat(epoch0, a.dev(), id, []uint64{seq, seq + 100, 0}); err != nil {
		t.Fatal(err)
	}
	if err := b.m.AskLog(epoch0, a.dev(), identity.Head{7}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		b.prepare(epoch0, a)
		b.cell(epoch0, a) // lost
		b.restart()
	}
	o := a.open(epoch0, b.say(epoch0, a, "with it"))
	if len(o.Repeat) != 1 || !slices.Equal(o.Repeat[0].Seqs, []uint64{seq}) || len(o.WantLog) != 1 || o.WantLog[0] != (identity.Head{7}) {
		t.Errorf("asked: %+v", o)
	}
	settle(epoch0, a, b)
	if n := len(b.session(t, a).Control); n != 0 {
		t.Errorf("%d still kept", n)
	}
}

// TestManySessions: old sessions are bounded, those in which nothing is
// outstanding go first, and nothing is lost by it.
func TestManySessions(t *testing.T) {
	a, b := talking(t)
	now := epoch0
	for i := range 200 {
		now = now.Add(25 * time.Hour)
		wantTexts(t, "there", texts(b.open(now, a.say(now, b, fmt.Sprint(i)))), fmt.Sprint(i))
		a.open(now, b.say(now, a, "y"))
		settle(now, a, b)
		if i%20 == 0 {
			a.restart()
			b.restart()
		}
	}
	for _, s := range []*side{a, b} {
		if n := len(s.m.sessions); n > maxPerDevice {
			t.Errorf("%s keeps %d sessions", s.name, n)
		}
		s.m.Tick(now.Add(32 * 24 * time.Hour))
		s.save()
		if n := len(s.m.sessions); n != 1 {
			t.Errorf("%s: %d sessions after 31 days", s.name, n)
		}
	}
	a.m.Forget(b.dev())
	a.save()
	for key := range a.disk {
		if key[0] != 'b' && key != "me" && key[0] != 'c' {
			t.Errorf("row %q is left of a forgotten device", key)
		}
	}
}
