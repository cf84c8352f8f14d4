package session

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/wire"
)

// The model drives two machines as a node does, over a network that loses,
// doubles and reorders, with restarts and renewals, and compares with what an
// ideal channel promises: every text arrives, under one number once, in order
// but for what was named before.

// modelItem is one row of an outbox.
type modelItem struct {
	text   int
	sealed Sealed
}

type modelCell struct {
	session ID
	cell    []byte
}

type modelSide struct {
	*side
	peer  *modelSide
	said  int // texts 1 to said
	box   []modelItem
	net   []modelCell // on the way to this side
	heard map[int]bool
	once  map[string]bool // session and seq of what was delivered
	named map[string]bool
	top   int // highest text delivered in order
	heads int
	stats map[string]int
}

type model struct {
	t     testing.TB
	now   time.Time
	next  func() int // a byte of the input, 0 at its end
	sides [2]*modelSide
}

func newModel(t testing.TB, next func() int) *model {
	m := &model{t: t, now: epoch0, next: next}
	stats := map[string]int{}
	for i, name := range []string{"alice", "bob"} {
		m.sides[i] = &modelSide{
			side: newSide(t, name, "1"), heard: map[int]bool{}, once: map[string]bool{}, named: map[string]bool{}, stats: stats,
		}
	}
	m.sides[0].peer, m.sides[1].peer = m.sides[1], m.sides[0]
	meet(m.sides[0].side, m.sides[1].side)
	for _, s := range m.sides {
		s.save()
	}
	return m
}

// dump describes all sessions of both sides, for a failing seed.
func (m *model) dump() string {
	var out []byte
	for _, s := range m.sides {
		for _, x := range s.m.recent {
			x := *x
			x.Pickle, x.OwnSeed = nil, [32]byte{}
			out = fmt.Appendf(out, "%s %x initiator=%v epoch=%d header=%v held=%d control=%d %+v\n",
				s.name, x.ID[:4], x.Initiator, x.Epoch, x.HasHeader, len(x.held), len(x.Control), x.moving)
		}
	}
	return string(out)
}

func at(id ID, seq uint64) string { return fmt.Sprintf("%x/%d", id[:4], seq) }

// seal seals a text, in a new session to a static bundle where there is none.
func (m *model) seal(s *modelSide, text int) Sealed {
	payload := fmt.Appendf(nil, "%s %d", s.name, text)
	if text%7 == 0 {
		payload = append(payload, make([]byte, 3000)...)
	}
	x, err := s.m.Seal(m.now, s.peer.dev(), conv(s.side, s.peer.side), payload)
	if errors.Is(err, ErrNoSession) || errors.Is(err, ErrNeedBundle) {
		s.stats["start"]++
		once := m.next()%2 == 0
		if err := s.m.Start(m.now, m.view(s), s.peer.bundle(m.now, once)); err != nil {
			m.t.Fatalf("start: %v", err)
		}
		x, err = s.m.Seal(m.now, s.peer.dev(), conv(s.side, s.peer.side), payload)
	}
	if err != nil {
		m.t.Fatalf("seal: %v", err)
	}
	return x
}

// view is what s knows of its peer: perhaps not the newest head.
func (m *model) view(s *modelSide) Remote {
	r := s.peer.remote()
	r.Head = s.m.peers[s.peer.dev()].Head
	return r
}

func (m *model) commit(s *modelSide) { s.prepare(m.now, s.peer.side) }

func (m *model) say(s *modelSide) {
	s.said++
	s.box = append(s.box, modelItem{s.said, m.seal(s, s.said)})
	m.commit(s)
}

// send packs what is in the outbox from some row on.
func (m *model) send(s *modelSide, from int) {
	m.commit(s)
	for from < len(s.box) {
		id := s.box[from].sealed.Session
		var items []Sealed
		for i := from; i < len(s.box) && s.box[i].sealed.Session == id; i++ {
			if len(items) > 0 && s.box[i].sealed.Seq <= items[len(items)-1].Seq {
				break
			}
			items = append(items, s.box[i].sealed)
		}
		cell, n, err := s.m.Pack(m.now, s.peer.dev(), id, items, wire.Padme)
		if errors.Is(err, ErrNoSession) {
			m.reseal(s, func(x Sealed) bool { return x.Session == id })
			m.commit(s)
			continue
		}
		if err != nil || n == 0 {
			m.t.Fatalf("pack: %d, %v", n, err)
		}
		s.peer.net = append(s.peer.net, modelCell{id, cell})
		from += n
		if m.next()%8 == 0 {
			return
		}
	}
}

func (m *model) reseal(s *modelSide, which func(Sealed) bool) {
	for i := range s.box {
		if which(s.box[i].sealed) {
			s.box[i].sealed = m.seal(s, s.box[i].text)
		}
	}
}

// tell packs what is owed without messages.
func (m *model) tell(s *modelSide) {
	m.commit(s)
	for _, o := range s.m.Owing() {
		cell, _, err := s.m.Pack(m.now, o.Device, o.Session, nil, wire.Padme)
		if err != nil {
			m.t.Fatalf("pack alone: %v", err)
		}
		s.peer.net = append(s.peer.net, modelCell{o.Session, cell})
	}
}

// deliver opens one cell; crash loses what it changed.
func (m *model) deliver(s *modelSide, c modelCell, crash bool) bool {
	before := len(s.m.dirty) + len(s.m.touched)
	if before != 0 {
		m.t.Fatal("not committed")
	}
	o, err := s.m.OpenFrom(m.now, c.cell, s.peer.dev())
	switch {
	case errors.Is(err, ErrFull), errors.Is(err, ErrJump):
		s.stats["refused"]++
		return false
	case errors.Is(err, ErrUnknown), errors.Is(err, ErrReplay):
		m.nack(s.peer, c.session)
		return true
	case err != nil:
		m.t.Fatalf("%s: open: %v\n%s", s.name, err, m.dump())
	}
	if crash {
		s.restart()
		s.stats["crash"]++
		return false
	}
	m.opened(s, o)
	return true
}

// nack tells a side that the other one knows nothing of a session.
func (m *model) nack(s *modelSide, id ID) {
	s.stats["nack"]++
	s.m.Abandon(m.now, s.peer.dev(), id)
	m.reseal(s, func(x Sealed) bool { return x.Session == id })
	m.commit(s)
}

func (m *model) opened(s *modelSide, o Opened) {
	for _, g := range o.Gaps {
		for _, seq := range g.Seqs {
			s.named[at(g.Session, seq)] = true
		}
	}
	for _, x := range o.Messages {
		m.heard(s, x)
	}
	if o.Mark != nil {
		s.box = slices.DeleteFunc(s.box, func(i modelItem) bool {
			return i.sealed.Session == o.Session && o.Mark.Covers(i.sealed.Seq)
		})
	}
	for _, r := range o.Repeat {
		s.stats["repeat"] += len(r.Seqs)
		m.reseal(s, func(x Sealed) bool { return x.Session == r.Session && slices.Contains(r.Seqs, x.Seq) })
	}
	for _, g := range o.Gaps {
		s.stats["gap"]++
		if err := s.m.AskRepeat(m.now, s.peer.dev(), g.Session, g.Seqs); err != nil && !errors.Is(err, ErrNoSession) && !errors.Is(err, ErrNeedBundle) {
			m.t.Fatalf("ask: %v", err)
		}
	}
	m.commit(s)
}

// heard compares a message with the ideal.
func (m *model) heard(s *modelSide, x Message) {
	var name string
	var text int
	if _, err := fmt.Sscanf(string(x.Payload[:min(30, len(x.Payload))]), "%s %d", &name, &text); err != nil || name != s.peer.name || text < 1 || text > s.peer.said {
		m.t.Fatalf("%s heard %.40q, which nobody said", s.name, x.Payload)
	}
	where := at(x.Session, x.Seq)
	if s.once[where] {
		m.t.Fatalf("%s: %s delivered twice", s.name, where)
	}
	s.once[where] = true
	if x.Late != s.named[where] && x.Late {
		m.t.Fatalf("%s: %s is late but was not named", s.name, where)
	}
	switch {
	case s.heard[text]: // sealed anew, and the first one came too
		s.stats["again"]++
	case text > s.top:
		for skipped := s.top + 1; skipped < text; skipped++ {
			if !s.heard[skipped] && len(s.named) == 0 && s.stats["nack"] == 0 {
				m.t.Fatalf("%s: text %d (%s) before %d, and no gap was named\n%s", s.name, text, where, skipped, m.dump())
			}
		}
		s.top = text
	case len(s.named) == 0 && s.stats["nack"] == 0:
		m.t.Fatalf("%s: text %d behind %d, and no gap was named", s.name, text, s.top)
	}
	s.heard[text] = true
}

// step does one thing that can happen.
func (m *model) step() {
	s := m.sides[m.next()%2]
	pick := func() int { return m.next() % len(s.net) }
	switch op := m.next() % 32; {
	case op < 8:
		m.say(s)
	case op < 13:
		m.send(s, 0)
	case op < 14 && len(s.box) > 0:
		m.send(s, m.next()%len(s.box))
	case op < 22 && len(s.net) > 0:
		i := pick()
		if op < 17 {
			i = 0
		}
		if m.deliver(s, s.net[i], false) || m.next()%4 == 0 {
			s.net = slices.Delete(s.net, i, i+1)
		}
	case op < 23 && len(s.net) > 0:
		m.deliver(s, s.net[pick()], false)
	case op < 24 && len(s.net) > 0:
		m.deliver(s, s.net[pick()], true)
	case op < 25 && len(s.net) > 0:
		i := pick()
		s.net = slices.Delete(s.net, i, i+1)
	case op < 26:
		s.restart()
	case op < 27:
		m.wait(s, 31*time.Second)
	case op < 28:
		for _, o := range s.m.FlushPoll(m.now) {
			m.opened(s, o)
		}
		m.commit(s)
	case op < 29:
		m.wait(s, time.Duration(m.next())*10*time.Minute)
	case op < 30:
		s.heads++
		s.self.Head = identity.Head(seed32(fmt.Sprint(s.name, s.heads)))
		s.m.SetHead(s.self.Head)
		m.commit(s)
		if m.next()%2 == 0 {
			if err := s.peer.m.SetRemote(s.remote()); err != nil {
				m.t.Fatal(err)
			}
			m.commit(s.peer)
		}
	case op < 31:
		m.tell(s)
	default:
		if m.next()%8 == 0 { // both may do so at once
			s.stats["start"]++
			if err := s.m.Start(m.now, m.view(s), s.peer.bundle(m.now, m.next()%2 == 0)); err != nil {
				m.t.Fatal(err)
			}
			m.commit(s)
		}
	}
}

func (m *model) wait(s *modelSide, d time.Duration) {
	m.now = m.now.Add(d)
	for _, o := range s.m.Tick(m.now) {
		m.opened(s, o)
	}
	m.commit(s)
}

// finish has everything arrive: the network is sound from here on.
func (m *model) finish() {
	for round := range 60 {
		done := true
		for _, s := range m.sides {
			m.send(s, 0)
			m.tell(s)
			done = done && len(s.box) == 0
		}
		for _, s := range m.sides {
			cells := s.net
			s.net = nil
			for _, c := range cells {
				if !m.deliver(s, c, false) {
					s.net = append(s.net, c)
				}
			}
			done = done && len(s.net) == 0
			m.wait(s, 31*time.Second)
		}
		if done && round > 3 {
			break
		}
	}
	for _, s := range m.sides {
		if len(s.box) > 0 {
			m.t.Fatalf("%s: %d texts are not acknowledged: %x %+v\n%s", s.name, len(s.box), s.box[0].sealed.Session[:4], s.box[0].sealed.Seq, m.dump())
		}
		for text := 1; text <= s.said; text++ {
			if !s.peer.heard[text] {
				m.t.Fatalf("%s: text %d of %d is lost", s.name, text, s.said)
			}
		}
		for _, x := range s.m.recent {
			if other := s.peer.m.sessions[x.ID]; other == nil || other.Closed || x.Closed {
				continue
			}
			if len(x.held) > 0 || len(x.Missing) > 0 {
				m.t.Fatalf("%s: %x: %d held, %d missing at the end\n%s", s.name, x.ID[:4], len(x.held), len(x.Missing), m.dump())
			}
		}
	}
}

func runModel(t testing.TB, steps int, next func() int) map[string]int {
	m := newModel(t, next)
	for range steps {
		m.step()
	}
	m.next = func() int { return 1 }
	m.finish()
	m.sides[0].stats["said"] += m.sides[0].said + m.sides[1].said
	m.sides[0].stats["sessions"] += len(m.sides[0].m.sessions)
	return m.sides[0].stats
}

// TestModel runs the model from seeds; a failing one is printed and rerun with
// its number.
func TestModel(t *testing.T) {
	seeds, steps := 60, 400
	if testing.Short() {
		seeds = 10
	}
	total := map[string]int{}
	for seed := range seeds {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(seed), 24))
			for k, v := range runModel(t, steps, func() int { return r.IntN(256) }) {
				total[k] += v
			}
		}) {
			return
		}
	}
	t.Log(total)
	for _, k := range []string{"said", "gap", "repeat", "again", "crash", "start"} {
		if total[k] == 0 {
			t.Errorf("the model never had: %s", k)
		}
	}
}

// FuzzModel looks for a course of events that breaks the promises.
func FuzzModel(f *testing.F) {
	for seed := range 8 {
		b := make([]byte, 300)
		r := rand.NewChaCha8(seed32(fmt.Sprint(seed)))
		if _, err := r.Read(b); err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		i := 0
		runModel(t, min(len(b)/2, 150), func() int {
			if i++; i > len(b) {
				return 1
			}
			return int(b[i-1])
		})
	})
}
