package session

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/wire"
)

// Opened is what a cell, or the end of a wait, brought. Commit it together
// with Dirty, then acknowledge the cell to its carrier.
type Opened struct {
	From     identity.DeviceID
	Session  ID // the one of the cell; messages may belong to others of the same device
	Messages []Message
	Mark     *Mark           // of the peer for Session, where it says more than the last
	Gaps     []Gap           // seqs to name to the user and to ask for with AskRepeat
	Repeat   []Repeat        // own seqs, void from now on: seal their content anew, drop the old
	WantLog  []identity.Head // the peer asks for the own log after these heads
	NewHead  *identity.Head  // the peer's session states this head, not the one known here
	Fresh    bool            // the cell started the session
	Held     int             // messages that wait behind a gap in Session
	Known    int             // messages of the cell that had come before
}

// Message is one payload. Within a session messages come in order of Seq but
// for those that are late.
type Message struct {
	Session      ID
	Seq          uint64
	Conversation event.ConversationID
	Payload      []byte
	Late         bool // it was skipped before and named as a gap
}

// Gap names seqs that did not come. Blocked: what is behind them waits. Lost:
// it came, but too late for its key. Again: named before, and still missing.
// AskRepeat ends all of them.
type Gap struct {
	Session              ID
	Seqs                 []uint64
	Blocked, Lost, Again bool
}

// tx is one change of the machine: it works on copies until commit.
type tx struct {
	m       *Machine
	now     time.Time
	may     func(identity.DeviceID) bool // whose cells are taken; nil: everybody's
	copies  []copied
	started *opening
	prints  []seenAt
	out     Opened
}

type copied struct{ orig, s *sess }

type seenAt struct {
	s     *sess
	seq   uint64
	print uint32
}

// get returns the copy of a session of this machine.
func (t *tx) get(s *sess) *sess {
	for _, c := range t.copies {
		if c.orig == s || c.s == s {
			return c.s
		}
	}
	c := s.clone()
	t.copies = append(t.copies, copied{s, c})
	return c
}

// find returns the copy of a session by its id, nil if there is none.
func (t *tx) find(id ID) *sess {
	if t.started != nil && t.started.s.ID == id {
		return t.started.s
	}
	if s := t.m.sessions[id]; s != nil {
		return t.get(s)
	}
	return nil
}

// peek is find for reading only: it makes no copy.
func (t *tx) peek(id ID) *sess {
	for _, c := range t.copies {
		if c.s.ID == id {
			return c.s
		}
	}
	return t.m.sessions[id]
}

func (t *tx) commit() {
	m := t.m
	if n := t.started; n != nil {
		m.room(n.peer)
		n.peer.Suite = max(n.peer.Suite, identity.Suite1)
		m.markPeer(n.peer)
		m.admit(n.s, n.peer)
		m.touch(n.s)
	}
	for _, c := range t.copies {
		if m.sessions[c.orig.ID] != c.orig {
			continue // made room for the new one
		}
		m.held += c.s.heldBytes() - c.orig.heldBytes()
		c.s.heldOwned = false
		*c.orig = *c.s
		m.touch(c.orig)
		m.note(c.orig)
	}
	for _, p := range t.prints {
		for _, c := range t.copies {
			if c.s == p.s {
				p.s = c.orig
			}
		}
		p.s.see(p.seq, p.print)
	}
	if n := t.started; n != nil {
		n.keep() // after the copies, or one would bring back the keys that were used
		m.leaveLower(t.now, n.peer)
		m.note(n.s)
	}
}

// Open opens a cell. See OpenFrom.
func (m *Machine) Open(now time.Time, cell []byte) (Opened, error) {
	return m.OpenFrom(now, cell, identity.DeviceID{})
}

// OpenFrom opens a cell that probably comes from the device hint: its sessions
// are tried first. A cell whose messages all came before is no error. Errors:
// those of wire.ParseCell, and of SPEC 8. After an error no state has changed,
// but for ErrClone: commit Dirty then too.
func (m *Machine) OpenFrom(now time.Time, cell []byte, hint identity.DeviceID) (Opened, error) {
	return m.OpenIf(now, cell, hint, nil)
}

// OpenIf is OpenFrom on a way that not everybody may come by: a cell of a device of
// which may says no is ErrUnknown, as one for somebody else is, and changes nothing.
func (m *Machine) OpenIf(now time.Time, cell []byte, hint identity.DeviceID, may func(identity.DeviceID) bool) (Opened, error) {
	_, sealed, err := wire.ParseCell(cell)
	if err != nil {
		return Opened{}, fmt.Errorf("open cell: %w", err)
	}
	if len(sealed) < nonceSize+tagSize+aeadTag {
		return Opened{}, fmt.Errorf("open cell: %w", ErrUnknown)
	}
	o, err := m.open(now, sealed, hint, may)
	if err != nil {
		return o, fmt.Errorf("open cell: %w", err)
	}
	return o, nil
}

func (m *Machine) open(now time.Time, sealed []byte, hint identity.DeviceID, may func(identity.DeviceID) bool) (Opened, error) {
	nonce, tag, body := sealed[:nonceSize], [tagSize]byte(sealed[nonceSize:]), sealed[nonceSize+tagSize:]
	failed := ErrUnknown
	// done reports whether a tag that matched settled the cell.
	try := func(s *sess) (o Opened, done bool, err error) {
		if s.Closed || s.recvTag.tag(nonce) != tag {
			return o, false, nil
		}
		if plain, err := s.unseal(nonce, body, formPlain); err == nil {
			o, err = m.take(now, &tx{m: m, now: now, may: may}, s, plain)
			return o, true, err
		}
		if len(body) <= headerSize {
			return o, false, nil
		}
		return m.openHeader(now, nonce, body, nil, s, may)
	}
	if p := m.peers[hint]; p != nil {
		for i := len(p.sessions) - 1; i >= 0; i-- {
			if o, done, err := try(p.sessions[i]); done {
				return o, err
			} else if err != nil {
				failed = err
			}
		}
	}
	for _, s := range m.recent {
		if s.Peer == hint {
			continue
		}
		if o, done, err := try(s); done {
			m.use(s)
			return o, err
		} else if err != nil {
			failed = err
		}
	}
	if len(body) <= headerSize {
		return Opened{}, failed
	}
	for _, b := range m.bundles {
		if b.tag.tag(nonce) != tag {
			continue
		}
		if o, done, err := m.openHeader(now, nonce, body, b, nil, may); done {
			return o, err
		} else if err != nil {
			failed = err
		}
	}
	return Opened{}, failed
}

// use moves a session to the front of those that are tried.
func (m *Machine) use(s *sess) {
	if i := slices.Index(m.recent, s); i > 0 {
		copy(m.recent[1:i+1], m.recent[:i])
		m.recent[0] = s
	}
}

// unseal opens the outer layer; body is what follows the tag.
func (s *sess) unseal(nonce, body []byte, form byte) ([]byte, error) {
	if form == formStart {
		body = body[headerSize:]
	}
	d := byte(0)
	if s.Initiator {
		d = 1
	}
	var aad [160]byte
	plain, err := s.recvAEAD.Open(nil, nonce, body, appendAAD(aad[:0], s.ID, s.Peer, s.self, d, form))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return plain, nil
}

// openHeader opens a cell in start form: of a session that exists, or a new
// one. An error that is not final lets other keys be tried.
func (m *Machine) openHeader(now time.Time, nonce, body []byte, b *bundle, old *sess, may func(identity.DeviceID) bool) (o Opened, done bool, err error) {
	h := sha256.Sum256(body[:encSize])
	if s := m.startedSession(h, old); s != nil {
		if s.Closed {
			return o, false, ErrUnknown
		}
		plain, err := s.unseal(nonce, body, formStart)
		if err != nil {
			return o, false, err
		}
		o, err = m.take(now, &tx{m: m, now: now, may: may}, s, plain)
		return o, true, err
	}
	if m.starts[h] != nil || b != nil && b.Used {
		return o, false, ErrReplay
	}
	if old != nil && old.OwnSeed == [32]byte{} {
		return o, false, ErrUnknown
	}
	n, err := m.openStart(now, b, old, body)
	if err != nil {
		return o, false, err
	}
	plain, err := n.s.unseal(nonce, body, formStart)
	if err != nil {
		return o, false, err
	}
	if err := n.authentic(plain); err != nil {
		return o, true, err
	}
	t := &tx{m: m, now: now, may: may, started: n}
	t.out.Fresh, t.out.NewHead = true, n.head
	o, err = m.take(now, t, n.s, plain)
	return o, true, err
}

// startedSession finds the session of a start that came before.
func (m *Machine) startedSession(h [32]byte, old *sess) *sess {
	if st := m.starts[h]; st != nil {
		return m.sessions[st.Session]
	}
	if old != nil {
		for _, s := range m.peers[old.Peer].sessions {
			if s.Start == h && !s.Initiator {
				return s
			}
		}
	}
	return nil
}

// authentic checks that Olm opens one message of the cell: only that proves who
// started, as everybody can encrypt to a bundle.
func (n *opening) authentic(plain []byte) error {
	o, err := ParseOuter(plain)
	if err != nil {
		return err
	}
	if len(o.Items) == 0 {
		return broken("start without a message")
	}
	it := o.Items[0]
	if it.Seq > MaxAhead {
		return ErrJump
	}
	c := n.s.clone()
	_, _, err = c.decrypt(it.Seq, it.Olm)
	return err
}

// decrypt opens one Olm message and checks its binding. s is a copy.
func (s *sess) decrypt(seq uint64, b []byte) (n Inner, turned bool, err error) {
	plain, turned, err := s.olm.open(b, seq, func(x uint64) bool {
		_, wanted := slices.BinarySearch(s.Missing, x)
		return wanted
	})
	if err != nil {
		return n, false, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	if len(plain) < bindSize {
		return n, false, broken("message without binding")
	}
	if n, err = ParseInner(plain[bindSize:]); err != nil {
		return n, false, err
	}
	conv := event.ConversationID{}
	switch n.Type {
	case innerOwn:
		n.Conversation = s.conversation
		conv = n.Conversation
	case innerElsewhere:
		if n.Conversation == s.conversation {
			return n, false, broken("conversation named needlessly")
		}
		conv = n.Conversation
	}
	if binding(s.Transcript, seq, s.Peer, s.self, conv) != [bindSize]byte(plain[:bindSize]) {
		return n, false, broken("message is bound to another place")
	}
	return n, turned, nil
}

// take processes the plaintext of a cell and commits.
func (m *Machine) take(now time.Time, t *tx, s *sess, plain []byte) (Opened, error) {
	if t.may != nil && !t.may(s.Peer) {
		return Opened{}, ErrUnknown
	}
	o, err := ParseOuter(plain)
	if err != nil {
		return Opened{}, err
	}
	c := s
	if t.started == nil {
		c = t.get(s)
	}
	t.out.From, t.out.Session = s.Peer, s.ID
	if err := t.outer(c, &o); err != nil {
		if !errors.Is(err, ErrClone) {
			return Opened{}, err
		}
		if t.started == nil {
			m.close(now, s)
		}
		return Opened{From: s.Peer, Session: s.ID}, err
	}
	t.settle(c)
	t.out.Held = len(c.held)
	t.commit()
	return t.out, nil
}

// close ends a session whose peer was copied or set back.
func (m *Machine) close(now time.Time, s *sess) {
	s.Closed, s.LeftAt = true, max(1, now.Unix())
	m.touch(s)
	m.note(s)
}

// outer applies what a cell says, in the order in which it has effect.
func (t *tx) outer(c *sess, o *Outer) error {
	if len(o.Void) > 0 {
		c.void(o.Void)
	}
	if o.Follows != nil {
		if err := t.follow(c, *o.Follows); err != nil {
			return err
		}
	}
	if o.Mark != nil {
		t.acknowledge(c, *o.Mark)
	}
	for _, it := range o.Items {
		if err := t.item(c, it); err != nil {
			return err
		}
	}
	return nil
}

// item takes one Olm message: feeds it if it is due, keeps it if it is early.
func (t *tx) item(c *sess, it Item) error {
	if it.Seq > MaxSeq || it.Seq >= c.Due+MaxAhead {
		return ErrJump
	}
	v := print(it.Olm)
	switch old := c.seen(it.Seq); {
	case old == v:
		t.out.Known++
		if it.Seq < c.Due {
			c.Owes = true
		}
		return nil
	case old != 0, c.Final != 0 && it.Seq > c.Final:
		return ErrClone
	}
	t.prints = append(t.prints, seenAt{c, it.Seq, v})
	switch {
	case it.Seq < c.Due:
		return t.late(c, it)
	case it.Seq == c.Due && !t.gated(c):
		if err := t.feed(c, it.Seq, it.Olm, false); err != nil {
			return err
		}
		c.Due++
		t.drain(c)
		return nil
	}
	if t.m.held+len(it.Olm) > maxHeldTotal || c.heldBytes()+len(it.Olm) > maxHeldBytes {
		return ErrFull
	}
	c.hold(it.Seq, it.Olm)
	return nil
}

// late takes what was skipped before. Its key may be gone: that is no fault of
// the cell, and the content comes again when it is asked for.
func (t *tx) late(c *sess, it Item) error {
	i, missing := slices.BinarySearch(c.Missing, it.Seq)
	if !missing {
		t.out.Known++ // void
		c.Owes = true
		return nil
	}
	n, turned, err := c.decrypt(it.Seq, it.Olm)
	if err != nil {
		t.prints = t.prints[:len(t.prints)-1] // it may come again
		if t.m.askedFor(c.Peer, c.ID, it.Seq) {
			return nil // or each copy of it, from whoever makes them up, would be one more question
		}
		t.gap(Gap{Session: c.ID, Seqs: []uint64{it.Seq}, Lost: true})
		return nil
	}
	c.Missing = slices.Delete(slices.Clone(c.Missing), i, i+1)
	t.opened(c, it.Seq, &n, turned, true)
	return nil
}

// feed decrypts the message that is due.
func (t *tx) feed(c *sess, seq uint64, b []byte, late bool) error {
	n, turned, err := c.decrypt(seq, b)
	if err != nil {
		return err
	}
	t.opened(c, seq, &n, turned, late)
	return nil
}

// opened applies an authentic message.
func (t *tx) opened(c *sess, seq uint64, n *Inner, turned, late bool) {
	if !c.Confirmed && (c.Initiator || turned) {
		c.Confirmed = true
		if c.HasHeader {
			c.HasHeader, c.Header, c.rows.fixed = false, nil, true
		}
	}
	switch n.Type {
	case innerOwn, innerElsewhere:
		t.out.Messages = append(t.out.Messages, Message{c.ID, seq, n.Conversation, n.Payload, late})
		c.Owes = true
		if c.Unsealed == 0 {
			c.UnsealedT = t.now.Unix()
		}
		c.Unsealed++
	case innerReceipt:
		t.acknowledge(c, *n.Mark)
	case innerAdvert:
		if c.PeerAdvert == nil && c.LeftAt == 0 {
			c.PeerAdvert, c.rows.advert = n.Advert, true
		}
	case innerRepeat:
		t.repeat(c, n.Session, n.Runs)
	case innerLog:
		t.out.WantLog = append(t.out.WantLog, n.Head)
	}
}
