package session

import (
	"slices"
	"time"

	"github.com/kinloom/kinloom/identity"
)

// void takes the seqs that the peer will not send any more.
func (s *sess) void(r runs) {
	s.Missing = slices.DeleteFunc(slices.Clone(s.Missing), r.has)
	s.Void = s.Void.union(r).without(func(seq uint64) bool { return seq < s.Due })
}

// follow notes behind which message of another session this one goes on.
func (t *tx) follow(c *sess, f Follows) error {
	if c.PeerFollows != nil {
		if *c.PeerFollows != f {
			return broken("session follows two places")
		}
		return nil
	}
	if f.Session == c.ID {
		return broken("session follows itself")
	}
	old := t.find(f.Session)
	if old != nil {
		if old.Peer != c.Peer {
			return broken("session follows that of another device")
		}
		if uint64(len(old.prints)) > f.Seq || old.Final != 0 && old.Final != f.Seq {
			return ErrClone
		}
		old.Final = f.Seq
		t.await(old)
	}
	c.PeerFollows = &f
	if old == nil && c.Live {
		// Asked for on a stream, as there was no session to go on in. What came on a
		// stream before is here, or this side has lost it.
		c.GateOpen = true
		t.gap(lost(f))
	}
	return nil
}

// gated reports whether messages of c wait for those of the session before.
func (t *tx) gated(c *sess) bool {
	f := c.PeerFollows
	if f == nil || c.GateOpen {
		return false
	}
	old := t.peek(f.Session)
	c.GateOpen = old != nil && (old.Closed || old.Due > f.Seq)
	return !c.GateOpen
}

// drain feeds what is due, of c and then of what follows it.
func (t *tx) drain(c *sess) {
	if t.gated(c) {
		return
	}
	before := c.Due
	for {
		if b, ok := c.held[c.Due]; ok {
			c.release(c.Due)
			if err := t.feed(c, c.Due, b, false); err != nil {
				// It was authentic outside but is no message: name it, go on.
				c.Missing = append(slices.Clone(c.Missing), c.Due)
				t.gap(Gap{Session: c.ID, Seqs: []uint64{c.Due}, Lost: true})
			}
		} else if !c.Void.has(c.Due) {
			break
		}
		c.Due++
	}
	if len(c.Void) > 0 {
		c.Void = c.Void.without(func(seq uint64) bool { return seq < c.Due })
	}
	if c.Due != before {
		c.WaitSince = 0
	}
	if c.Final == 0 || c.Due <= c.Final {
		return
	}
	for _, s := range t.m.peers[c.Peer].sessions {
		if s.PeerFollows != nil && s.PeerFollows.Session == c.ID && len(s.held) > 0 {
			n := t.get(s)
			t.drain(n)
			t.await(n)
		}
	}
}

// settle is drain at the end of a cell, when voids and ends may have opened a
// way, and sets the clocks of what still waits.
func (t *tx) settle(c *sess) {
	for i := 0; i < len(t.copies); i++ {
		t.drain(t.copies[i].s)
		t.await(t.copies[i].s)
	}
	if t.started != nil {
		t.drain(c)
		t.await(c)
	}
}

// await starts or stops the clock of a gap.
func (t *tx) await(c *sess) {
	switch {
	case !c.waits():
		c.WaitSince = 0
	case c.WaitSince == 0 || c.WaitSince > t.now.UnixMilli():
		c.WaitSince = max(1, t.now.UnixMilli())
	}
}

// lost names all of a session that is not known here.
func lost(f Follows) Gap {
	g := Gap{Session: f.Session, Lost: true}
	for seq := range f.Seq {
		g.Seqs = append(g.Seqs, seq+1)
	}
	return g
}

// gap adds to what is named; seqs of one kind and session join.
func (t *tx) gap(g Gap) {
	if n := len(t.out.Gaps); n > 0 {
		last := &t.out.Gaps[n-1]
		if last.Session == g.Session && last.Blocked == g.Blocked && last.Lost == g.Lost {
			last.Seqs = append(last.Seqs, g.Seqs...)
			return
		}
	}
	t.out.Gaps = append(t.out.Gaps, g)
}

// pass ends the wait of c: gaps are skipped and named as far as Olm can still
// take what comes late.
func (t *tx) pass(c *sess) {
	if f := c.PeerFollows; f != nil && t.gated(c) {
		c.GateOpen = true // first, as a peer could let two sessions follow each other
		if old := t.find(f.Session); old != nil {
			t.pass(old)
		} else {
			t.gap(lost(*f))
		}
		t.drain(c)
	}
	for c.waits() {
		end := c.firstHeld()
		if end == 0 {
			end = c.Final + 1
		}
		var gap []uint64
		for seq := c.Due; seq < end; seq++ {
			if !c.Void.has(seq) {
				gap = append(gap, seq)
			}
		}
		if c.Final == 0 && len(c.Missing)+len(gap) > MaxMissing {
			if c.Named < end {
				c.Named = end
				t.gap(Gap{Session: c.ID, Seqs: gap, Blocked: true})
			}
			break
		}
		if unnamed := slices.DeleteFunc(slices.Clone(gap), func(seq uint64) bool { return seq < c.Named }); len(unnamed) > 0 {
			t.gap(Gap{Session: c.ID, Seqs: unnamed})
		}
		c.Missing = append(slices.Clone(c.Missing), gap...)
		c.Owes = c.Owes || len(gap) > 0
		c.Due = end
		t.drain(c)
	}
	t.await(c)
}

// acknowledge takes a mark of the peer, if it says more than the last. A
// receipt inside a session other than the cell's says nothing that its own
// cells do not say again.
func (t *tx) acknowledge(c *sess, k Mark) {
	if c.doubted && k.Upto > c.Sent {
		t.overtaken(c)
		return
	}
	if c.ID != t.out.Session || k.Upto > c.Sent || k.Upto < c.Acked.Upto || k.Upto == c.Acked.Upto && len(k.Missing) >= len(c.Acked.Missing) {
		return
	}
	c.Acked = k
	if len(c.Voided) > 0 {
		c.Voided = c.Voided.without(k.Covers)
	}
	if slices.ContainsFunc(c.Control, func(x control) bool { return k.Covers(x.Seq) }) {
		c.Control = slices.DeleteFunc(slices.Clone(c.Control), func(x control) bool { return k.Covers(x.Seq) })
		c.rows.control = true
	}
	t.out.Mark = &k
}

// overtaken takes that another copy of this state went on in a session: no mark in
// it will speak of this one, so what waits for one is to be sealed anew.
func (t *tx) overtaken(c *sess) {
	var open []uint64
	for seq := uint64(1); seq <= c.Sent; seq++ {
		if !c.Acked.Covers(seq) && !c.Voided.has(seq) {
			open = append(open, seq)
		}
	}
	if len(open) > 0 {
		t.repeat(c, c.ID, runsOf(open))
	}
}

// repeat voids own seqs that the peer wants anew. Content of the caller is named
// to it; control of the machine is sealed anew by itself, but for receipts.
func (t *tx) repeat(c *sess, id ID, r runs) {
	s := t.find(id)
	if s == nil || s.Peer != c.Peer {
		return
	}
	r = r.without(func(seq uint64) bool { return seq > s.Sent })
	s.Owes = s.Owes || len(r) > 0 // a cell tells what is void, if only by itself
	if r = r.without(s.Voided.has); len(r) == 0 {
		return
	}
	s.Voided = s.Voided.union(r)
	var again []control
	kept := slices.Clone(s.Control)
	s.Control = slices.DeleteFunc(kept, func(x control) bool {
		if r.has(x.Seq) && x.Plain[0] != innerReceipt {
			again = append(again, x)
		}
		return r.has(x.Seq)
	})
	s.rows.control = true
	for _, x := range again {
		if s.Closed || s.full() || s.LeftAt != 0 {
			break
		}
		t.reseal(s, x)
	}
	t.out.Repeat = append(t.out.Repeat, Repeat{id, r.seqs()})
}

// reseal seals control anew in the copy of its session.
func (t *tx) reseal(s *sess, x control) {
	bound := binding(s.Transcript, s.Sent+1, s.self, s.Peer, [32]byte{})
	b, err := s.olm.seal(append(bound[:], x.Plain...))
	if err != nil {
		return // no chain to seal with: a session that was never answered asks nothing
	}
	s.Sent++
	s.Control = append(s.Control, control{Seq: s.Sent, Plain: x.Plain, Olm: b})
}

// FlushPoll ends every wait: the carrier that was polled has no more. It
// returns what that released, one value a device and session.
func (m *Machine) FlushPoll(now time.Time) []Opened {
	return m.passAll(now, func(*sess) bool { return true })
}

// Tick passes gaps that waited 30 s, names again what was asked for in vain, and
// drops what is past its time: sessions and used starts after 31 days, bundles
// after their expiry. Call it about once a second.
func (m *Machine) Tick(now time.Time) []Opened {
	m.expire(now)
	limit := now.Add(-GapWait).UnixMilli()
	out := m.passAll(now, func(s *sess) bool { return s.WaitSince <= limit })
	return append(out, m.remind(now)...)
}

// remind names missing seqs again, as the answer may have been lost. It stops
// after some times: the peer may know nothing of that session any more.
func (m *Machine) remind(now time.Time) []Opened {
	var out []Opened
	for _, s := range m.recent {
		switch {
		case len(s.Missing) == 0 || s.Closed || s.asks >= maxAsks:
			continue
		case s.asked.IsZero() || s.asked.After(now):
			s.asked = now
			continue
		case now.Sub(s.asked) < askEvery || m.asking(s.Peer):
			continue
		}
		s.asked = now
		s.asks++
		gap := Gap{Session: s.ID, Seqs: slices.Clone(s.Missing), Again: true}
		out = append(out, Opened{From: s.Peer, Session: s.ID, Gaps: []Gap{gap}})
	}
	return out
}

// asking reports whether a device was asked and has not taken note yet.
func (m *Machine) asking(dev identity.DeviceID) bool {
	for _, s := range m.peers[dev].sessions {
		if !s.Closed && slices.ContainsFunc(s.Control, func(c control) bool { return c.Plain[0] == innerRepeat }) {
			return true
		}
	}
	return false
}

// askedFor reports whether a device was asked for a seq of a session and has not
// taken note yet.
func (m *Machine) askedFor(dev identity.DeviceID, session ID, seq uint64) bool {
	return slices.ContainsFunc(m.peers[dev].sessions, func(s *sess) bool {
		return !s.Closed && slices.ContainsFunc(s.Control, func(c control) bool {
			if c.Plain[0] != innerRepeat {
				return false
			}
			n, err := ParseInner(c.Plain)
			return err == nil && n.Session == session && runs(n.Runs).has(seq)
		})
	})
}

func (m *Machine) passAll(now time.Time, ripe func(*sess) bool) []Opened {
	var out []Opened
	for _, id := range sortedIDs(m.waiting) {
		s := m.sessions[id]
		if _, waits := m.waiting[id]; !waits || !ripe(s) {
			continue
		}
		t := &tx{m: m, now: now}
		t.out.From, t.out.Session = s.Peer, id
		due, named := s.Due, s.Named
		c := t.get(s)
		t.pass(c)
		if c.Due == due && c.Named == named && len(t.copies) == 1 {
			continue // still blocked
		}
		t.settle(c)
		t.out.Held = len(c.held)
		t.commit()
		out = append(out, t.out)
	}
	return out
}

func sortedIDs(set map[ID]struct{}) []ID {
	ids := make([]ID, 0, len(set))
	for id := range set {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b ID) int { return slices.Compare(a[:], b[:]) })
	return ids
}

// expire drops what is past its time.
func (m *Machine) expire(now time.Time) {
	old := now.Add(-OldLife).Unix()
	for _, s := range slices.Clone(m.recent) {
		if s.LeftAt != 0 && s.LeftAt < old {
			m.drop(s)
		}
	}
	m.bundles = slices.DeleteFunc(m.bundles, func(b *bundle) bool {
		if b.Expiry > now.Unix() {
			return false
		}
		m.unmark(keyBundle(b.ID))
		return true
	})
	for h, st := range m.starts {
		if st.At < old {
			delete(m.starts, h)
			m.unmark(keyStart(h))
		}
	}
}
