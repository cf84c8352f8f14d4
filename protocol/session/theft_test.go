package session

import (
	"bytes"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/kinloom/kinloom/protocol/wire"
)

// thief is whoever has a copy of the rows of a device. It has the whole code
// and the device's long-term keys, and sees every cell.
func (s *side) thief() *side {
	c := *s
	c.name, c.disk = "thief of "+s.name, maps.Clone(s.disk)
	c.restart()
	return &c
}

// reads gives a cell to a copy of the thief's state as it is, and reports what
// it can read: in the machine, and by Olm alone in every session it has.
func (s *side) reads(cell []byte) bool {
	s.t.Helper()
	m, err := Load(s.self, s.rnd, s.rows())
	if err != nil {
		s.t.Fatal(err)
	}
	o, err := m.Open(epoch0, cell)
	if err == nil && len(o.Messages)+len(texts(m.FlushPoll(epoch0)...)) > 0 {
		return true
	}
	return m.answersAnew(cell) || m.ownsOuter(cell, func(x *sess, it Item) bool {
		_, _, err := x.olm.clone().open(it.Olm, it.Seq, func(uint64) bool { return false })
		return err == nil
	})
}

// answersAnew answers a start from any secret of keys that is in the rows, used
// or not, whether or not what was carried over can be read.
func (m *Machine) answersAnew(cell []byte) bool {
	type keys struct {
		seed [32]byte
		old  *sess
	}
	var all []keys
	for _, b := range m.bundles {
		all = append(all, keys{b.Seed, nil})
	}
	for _, x := range m.recent {
		all = append(all, keys{x.OwnSeed, x})
	}
	sealed := cell[33:]
	body := sealed[nonceSize+tagSize:]
	if len(body) <= headerSize {
		return false
	}
	for _, a := range all {
		k := newSecrets(a.seed)
		plain, export, err := decapsulate(k.xwing, body[:encSize], startInfo(k.id, m.device), body[encSize:headerSize])
		if err != nil {
			continue
		}
		c, err := ParseCapsule(plain)
		if err != nil || m.peers[c.Device] == nil {
			continue
		}
		var p past
		if a.old != nil {
			if p, err = a.old.past(c.Carry); err != nil {
				p = past{next: a.old.Next}
			}
		}
		own := olmKeyPair(k.olm)
		t := transcript{capsule: &c, recipient: m.device, bundle: k.id, olmKey: [32]byte(own.PublicKey), enc: body[:encSize]}
		s := newSess(epoch0, t, newSchedule(export, p, t.hash()), false)
		s.Peer, s.self, s.recvAEAD = c.Device, m.device, newAEAD(s.RecvKey)
		if s.olm, err = olmAnswer(m.olm, own, m.peers[c.Device].Olm, c.OlmBase, c.OlmRatchet); err != nil {
			continue
		}
		outer, err := s.unseal(sealed[:nonceSize], body, formStart)
		if err != nil {
			continue
		}
		if o, err := ParseOuter(outer); err == nil && len(o.Items) > 0 {
			if _, _, err := s.olm.open(o.Items[0].Olm, 1, func(uint64) bool { return false }); err == nil {
				return true
			}
		}
	}
	return false
}

// ownsOuter opens the outer layer of a cell with the keys of any session.
func (m *Machine) ownsOuter(cell []byte, each func(*sess, Item) bool) bool {
	sealed := cell[33:]
	for _, x := range m.recent {
		for form := range byte(2) {
			body := sealed[nonceSize+tagSize:]
			if form == formStart && len(body) <= headerSize {
				continue
			}
			plain, err := x.unseal(sealed[:nonceSize], body, form)
			if err != nil {
				continue
			}
			o, err := ParseOuter(plain)
			if err != nil {
				continue
			}
			for _, it := range o.Items {
				if each(x, it) {
					return true
				}
			}
		}
	}
	return false
}

// TestStolenStateReadsNoPast: of a session that was started live, nothing that
// was delivered before the theft decrypts from either side's rows, remnants of
// the start included. Renewals are among it.
func TestStolenStateReadsNoPast(t *testing.T) {
	a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
	start(epoch0, a, b, true)
	var recorded [][]byte
	now := epoch0
	for i := range 60 {
		now = now.Add(2 * time.Hour)
		c := a.say(now, b, fmt.Sprint("from a ", i))
		wantTexts(t, "b", texts(b.open(now, c)), fmt.Sprint("from a ", i))
		d := b.say(now, a, fmt.Sprint("from b ", i))
		wantTexts(t, "a", texts(a.open(now, d)), fmt.Sprint("from b ", i))
		recorded = append(recorded, c, d)
	}
	if len(a.m.sessions) < 3 {
		t.Fatalf("%d sessions: no renewal happened", len(a.m.sessions))
	}
	settle(now, a, b)
	for _, s := range []*side{a, b} {
		th := s.thief()
		for i, c := range recorded {
			if th.reads(c) {
				t.Errorf("%s reads cell %d", th.name, i)
			}
		}
	}
	// The secrets of the start are gone from the rows.
	for key, v := range b.disk {
		if key[0] == 'b' && !bytes.Contains(v, make([]byte, 32)) {
			t.Errorf("row %q keeps the seed of a used bundle", key)
		}
	}
}

// TestHealing: H33. A thief of both machines' complete state at one moment
// reads on, until a message each way; then no more, also not what a renewal to
// keys that it stole begins with; and after that renewal not even the outer
// layer, with all of Olm broken.
func TestHealing(t *testing.T) {
	for _, victim := range []string{"alice", "bob"} {
		a, b := talking(t)
		for range 5 {
			b.open(epoch0, a.say(epoch0, b, "x"))
			a.open(epoch0, b.say(epoch0, a, "y"))
		}
		settle(epoch0, a, b)
		s := map[string]*side{"alice": a, "bob": b}[victim]
		th := s.thief()
		other := a
		if s == a {
			other = b
		}
		c := other.say(epoch0, s, "before healing")
		if !th.reads(c) {
			t.Fatalf("%s: the thief is too weak for this test", victim)
		}
		s.open(epoch0, c)
		// One message each way.
		other.open(epoch0, s.say(epoch0, other, "new ratchet key"))
		after := func(what string, c []byte) {
			t.Helper()
			if th.reads(c) {
				t.Errorf("thief of %s reads %s", victim, what)
			}
		}
		c = other.say(epoch0, s, "healed")
		after("after the round trip", c)
		s.open(epoch0, c)
		// The renewal is made to keys that were advertised before the theft.
		now := epoch0.Add(25 * time.Hour)
		before := epochOf(other, s)
		for i := range 4 {
			c := other.say(now, s, "renewed")
			after(fmt.Sprint("cell ", i, " of the renewal"), c)
			s.open(now, c)
			d := s.say(now, other, "answer")
			after(fmt.Sprint("answer ", i), d)
			other.open(now, d)
		}
		if n := epochOf(other, s) - before; n != 2 {
			t.Errorf("renewal took %d starts, want 2", n)
		}
		c = other.say(now, s, "post-quantum")
		if m, err := Load(th.self, th.rnd, th.rows()); err != nil || m.ownsOuter(c, func(*sess, Item) bool { return true }) {
			t.Errorf("thief of %s opens the outer layer after the renewal: %v", victim, err)
		}
		// The keys to which it started are gone, and none that the thief knows
		// is waiting to be used.
		for _, x := range s.m.recent {
			for _, y := range th.m.recent {
				if x.OwnSeed != [32]byte{} && x.OwnSeed == y.OwnSeed && x == s.session(t, other) {
					t.Errorf("keys that the thief of %s has are still offered", victim)
				}
			}
		}
	}
}

// TestTwoThefts: the state of one moment has the keys that were advertised, that of a
// later one the session in which they were, after it has healed and was renewed to
// them. Both together do not read what the renewal began with.
func TestTwoThefts(t *testing.T) {
	a, b := talking(t)
	round := func(now time.Time) (first []byte) {
		first = a.say(now, b, "x")
		b.open(now, first)
		a.open(now, b.say(now, a, "y"))
		return first
	}
	for range 5 {
		round(epoch0)
	}
	settle(epoch0, a, b)
	before := b.thief()
	round(epoch0)
	settle(epoch0, a, b)
	now := epoch0.Add(25 * time.Hour)
	c := round(now)
	round(now)
	settle(now, a, b)
	both := b.thief()
	n := 0
	for _, x := range both.m.recent {
		if y := before.m.sessions[x.ID]; y != nil && y.OwnSeed != [32]byte{} && x.OwnSeed == [32]byte{} {
			x.OwnSeed = y.OwnSeed
			n++
		}
	}
	if n != 1 {
		t.Fatalf("the first thief has the keys of %d renewals, want 1", n)
	}
	if both.m.answersAnew(c) {
		t.Error("the first cell of the renewal is read")
	}
}

// TestRenewalWithAGap: what a renewal carries over comes before messages of the session
// that it left. They open all the same.
func TestRenewalWithAGap(t *testing.T) {
	a, b := talking(t)
	round := func(now time.Time) {
		b.open(now, a.say(now, b, "x"))
		a.open(now, b.say(now, a, "y"))
	}
	round(epoch0)
	round(epoch0)
	settle(epoch0, a, b)
	var late [][]byte
	for _, x := range numbered("late ", 3) {
		late = append(late, a.say(epoch0, b, x))
	}
	now := epoch0.Add(25 * time.Hour)
	old := a.current(t, b)
	first := a.say(now, b, "renewed")
	if a.current(t, b) == old {
		t.Fatal("no renewal")
	}
	o := b.open(now, first)
	got := texts(o)
	for _, c := range late {
		got = append(got, texts(b.open(now, c))...)
		b.restart()
	}
	wantTexts(t, "behind the renewal", got, append(numbered("late ", 3), "renewed")...)
}

// TestStaticStartIsWeak states the known limit: the first flight to a static
// bundle can be read by a thief of its secrets, and nothing after the renewal.
func TestStaticStartIsWeak(t *testing.T) {
	a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
	start(epoch0, a, b, false)
	th := b.thief()
	c := a.say(epoch0, b, "first flight")
	if !th.reads(c) {
		t.Fatal("the thief is too weak for this test")
	}
	b.open(epoch0, c)
	for range 3 {
		a.open(epoch0, b.say(epoch0, a, "y"))
		b.open(epoch0, a.say(epoch0, b, "x"))
	}
	if c := a.say(epoch0, b, "renewed"); th.reads(c) || th.m.ownsOuter(c, func(*sess, Item) bool { return true }) {
		t.Error("read after the renewal")
	}
}

// TestCrash: H30, H31. A crash before the commit loses the step whole: what was
// sealed did not leave, what came is taken again, and no number is used twice.
func TestCrash(t *testing.T) {
	a, b := talking(t)
	used := map[uint64][]byte{}
	for i := range 200 {
		s := a.seal(epoch0, b, fmt.Sprint(i))
		if i%3 == 0 {
			a.restart() // before the commit
			continue
		}
		a.prepare(epoch0, b)
		if old := used[s.Seq]; old != nil {
			t.Fatalf("seq %d left twice", s.Seq)
		}
		used[s.Seq] = s.Inner
		c := a.cell(epoch0, b, s)
		if _, err := b.m.Open(epoch0, c); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			b.restart() // before the commit: it comes again
			wantTexts(t, "again", texts(b.open(epoch0, a.cell(epoch0, b, s))), fmt.Sprint(i))
		} else {
			b.save()
		}
	}
	// A cell packed before the commit tells nothing of what is not committed.
	b.open(epoch0, a.say(epoch0, b, "acknowledged"))
	c := a.say(epoch0, b, "not committed")
	if _, err := b.m.Open(epoch0, c); err != nil {
		t.Fatal(err)
	}
	due := b.session(t, a).Due
	s := b.session(t, a)
	tell, _, err := b.m.Pack(epoch0, a.dev(), s.ID, nil, wire.Padme)
	if err != nil {
		t.Fatal(err)
	}
	if o := a.open(epoch0, tell); o.Mark == nil || o.Mark.Upto >= due-1 {
		t.Errorf("mark %+v tells of seq %d, which is not on disk", o.Mark, due-1)
	}
}
