package session

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/wire"
)

// Sealed is a message under Olm: what the outbox keeps until a mark covers it.
// Each carriage packs it anew.
type Sealed struct {
	Session ID
	Seq     uint64
	Inner   []byte
}

// Seal encrypts a payload of 1 to 14,336 bytes to a device, in the session
// that is in use, or in a new one where that is due and the peer advertised
// keys. Commit Dirty together with the outbox row. Errors: ErrNoSession,
// ErrNeedBundle, ErrTooLong.
func (m *Machine) Seal(now time.Time, to identity.DeviceID, conv event.ConversationID, payload []byte) (Sealed, error) {
	if len(payload) == 0 || len(payload) > MaxPayload {
		return Sealed{}, fmt.Errorf("seal %d bytes: %w", len(payload), ErrTooLong)
	}
	s, err := m.sealing(now, to)
	if err != nil {
		return Sealed{}, fmt.Errorf("seal: %w", err)
	}
	n := Inner{Type: innerOwn, Payload: payload}
	if conv != s.conversation {
		n.Type, n.Conversation = innerElsewhere, conv
	}
	b, err := m.sealIn(s, conv, n.Append(nil))
	if err != nil {
		return Sealed{}, fmt.Errorf("seal: %w", err)
	}
	s.LastSaid = s.Sent
	return Sealed{s.ID, s.Sent, b}, nil
}

// sealing is the session that the next message goes into.
func (m *Machine) sealing(now time.Time, to identity.DeviceID) (*sess, error) {
	p := m.peers[to]
	if p == nil {
		return nil, ErrNoSession
	}
	s := p.current()
	if s == nil {
		return nil, ErrNoSession
	}
	if s.PeerAdvert != nil && (s.due(now) || s.full()) {
		old := s
		next, err := m.begin(now, p, old.PeerAdvert, old)
		switch {
		case err == nil:
			s = next
		case !errors.Is(err, ErrBundle):
			return nil, err
		} // else: keys that are none harm only the one who advertised them; the session goes on to its end
		old.PeerAdvert = nil // used once
		m.unmark(keySession(rowAdvert, old.ID))
		old.rows.advert = false
		m.touch(old)
	}
	if s.full() {
		return nil, ErrNeedBundle
	}
	return s, m.goOn(now, p, s)
}

// goOn makes s the session that is sealed in: it says where it follows, and
// takes over the control that the one before did not get through.
func (m *Machine) goOn(now time.Time, p *peer, s *sess) error {
	if p.Last == s.ID {
		return nil
	}
	old := m.sessions[p.Last]
	p.Last = s.ID
	m.markPeer(p)
	if old == nil {
		return nil
	}
	if !old.Closed {
		// Behind a start that held nothing but control there is nothing to wait for.
		if s.Follows = old.Follows; old.LastSaid > 0 || old.Sent > 0 && !old.HasHeader {
			s.Follows = &Follows{old.ID, old.Sent}
		}
	}
	if old.LeftAt == 0 {
		old.LeftAt = max(1, now.Unix())
	}
	var gone []uint64
	for _, c := range old.Control {
		gone = append(gone, c.Seq)
		if typ := c.Plain[0]; typ == innerRepeat || typ == innerLog {
			if err := m.addControl(s, c.Plain); err != nil {
				return err
			}
		}
	}
	if len(gone) > 0 {
		old.Voided, old.Owes = old.Voided.union(runsOf(gone)), true
		old.Control, old.rows.control = nil, true
	}
	m.touch(old)
	m.note(old)
	return nil
}

// sealIn seals type and body of an inner plaintext as the next seq.
func (m *Machine) sealIn(s *sess, conv event.ConversationID, plain []byte) ([]byte, error) {
	bound := binding(s.Transcript, s.Sent+1, m.device, s.Peer, conv)
	b, err := s.olm.seal(append(bound[:], plain...))
	if err != nil {
		return nil, err
	}
	s.Sent++
	s.Unsealed, s.UnsealedT = 0, 0
	m.touch(s)
	return b, nil
}

// addControl seals something that the machine keeps until it is acknowledged.
func (m *Machine) addControl(s *sess, plain []byte) error {
	if s.Sent >= MaxSeq {
		return ErrNeedBundle
	}
	b, err := m.sealIn(s, event.ConversationID{}, plain)
	if err != nil {
		return err
	}
	s.Control = append(s.Control, control{Seq: s.Sent, Plain: plain, Olm: b})
	s.rows.control = true
	m.note(s)
	return nil
}

// AskRepeat asks a device to seal the content of some seqs of a session anew:
// those of a gap. Errors: ErrNoSession, ErrNeedBundle.
func (m *Machine) AskRepeat(now time.Time, dev identity.DeviceID, session ID, seqs []uint64) error {
	r := runsOf(slices.DeleteFunc(slices.Clone(seqs), func(s uint64) bool { return s == 0 || s > MaxSeq }))
	for len(r) > 0 {
		part := r.first()
		if err := m.control(now, dev, &Inner{Type: innerRepeat, Session: session, Runs: part}); err != nil {
			return fmt.Errorf("ask for a repeat: %w", err)
		}
		r = r[len(part):]
	}
	return nil
}

// Refuse takes back that messages of a session came: they opened, and the caller
// could not keep them. From then on they are missing, so no mark covers them, and
// the device is asked to seal their content anew or, where it has none any more,
// to void them. It belongs into the commit of what opened them. Errors: those of
// AskRepeat; they are missing then all the same.
func (m *Machine) Refuse(now time.Time, session ID, seqs []uint64) error {
	s := m.sessions[session]
	if s == nil {
		return fmt.Errorf("refuse messages: %w", ErrNoSession)
	}
	seqs = slices.DeleteFunc(slices.Clone(seqs), func(seq uint64) bool { return seq == 0 || seq >= s.Due })
	slices.Sort(seqs)
	s.Missing = append(slices.Clone(s.Missing), seqs...)
	slices.Sort(s.Missing)
	s.Missing = slices.Compact(s.Missing)
	m.touch(s)
	m.note(s)
	return m.AskRepeat(now, s.Peer, session, slices.Compact(seqs))
}

// AskLog asks a device for the log entries of its person after the head that
// is known here. Errors: ErrNoSession, ErrNeedBundle.
func (m *Machine) AskLog(now time.Time, dev identity.DeviceID, known identity.Head) error {
	if err := m.control(now, dev, &Inner{Type: innerLog, Head: known}); err != nil {
		return fmt.Errorf("ask for a log: %w", err)
	}
	return nil
}

func (m *Machine) control(now time.Time, dev identity.DeviceID, n *Inner) error {
	s, err := m.sealing(now, dev)
	if err != nil {
		return err
	}
	return m.addControl(s, n.Append(nil))
}

// Prepare seals the control that the session in use with a device owes: the
// receipt inside Olm, and the keys for the next session. Call it before Dirty,
// so that both are in the commit of what they tell about. It reports whether
// there was anything. A caller that never does forgoes healing and renewal.
func (m *Machine) Prepare(now time.Time, dev identity.DeviceID) (bool, error) {
	p := m.peers[dev]
	if p == nil {
		return false, nil
	}
	s := p.current()
	if s == nil || s.full() || s.Sent >= MaxSeq-2 {
		return false, nil
	}
	before := s.Sent
	if err := m.prepare(now, p, s); err != nil {
		return false, fmt.Errorf("prepare: %w", err)
	}
	return s.Sent != before, nil
}

func (m *Machine) prepare(now time.Time, p *peer, s *sess) error {
	tell, receipt := !s.Told && (s.Confirmed || !s.Initiator), s.receiptDue(now)
	if !tell && !receipt {
		return nil
	}
	if err := m.goOn(now, p, s); err != nil {
		return err
	}
	if tell {
		seed, err := m.seed()
		if err != nil {
			return err
		}
		k := newSecrets(seed)
		n := Inner{Type: innerAdvert, Advert: &Advert{k.id, [32]byte(olmKeyPair(k.olm).PublicKey), xwingPublic(k.xwing)}}
		if err := m.addControl(s, n.Append(nil)); err != nil {
			return err
		}
		s.Told, s.OwnSeed = true, seed
	}
	if !receipt {
		return nil
	}
	mark := s.mark()
	n := Inner{Type: innerReceipt, Mark: &mark}
	return m.addControl(s, n.Append(nil))
}

// receiptDue: the ratchet turns for the first message, every 50, or after 24 h.
func (s *sess) receiptDue(now time.Time) bool {
	return s.Unsealed > 0 && (s.Sent == 0 || s.Unsealed >= receiptEvery || now.Unix()-s.UnsealedT >= int64(receiptAge/time.Second))
}

// Pack seals a cell for one carriage: the mark that is owed, control, and as
// many of items as fit, which are of this session and ascending. It returns
// how many it took, at least one of those given. pad gives the size of the cell
// for a least size (wire.Padme, or always wire.CellSize). Items that the peer
// asked to repeat are void: they count as taken and are left out.
//
// Pack seals nothing under Olm, and tells of nothing that Dirty has not handed
// out: call it after the commit. Errors: ErrNoSession, after which the content
// is to be sealed anew; ErrEmpty for a start without any message, as only that
// shows who started.
func (m *Machine) Pack(now time.Time, to identity.DeviceID, session ID, items []Sealed, pad func(int) int) (cell []byte, n int, err error) {
	s := m.sessions[session]
	if s == nil || s.Peer != to || s.Closed {
		return nil, 0, fmt.Errorf("pack: %w", ErrNoSession)
	}
	form, head := byte(formPlain), 0
	if s.HasHeader {
		form, head = formStart, headerSize
	}
	start := wire.CellHeader + nonceSize + tagSize + head // of what the AEAD seals
	room := wire.CellSize - start - aeadTag
	front := s.front().Append(m.outer[:0])
	body, n, err := s.fill(front, room, items)
	if err != nil {
		return nil, 0, fmt.Errorf("pack: %w", err)
	}
	if s.unknown() && len(body) == len(front) {
		return nil, n, fmt.Errorf("pack: %w", ErrEmpty)
	}
	over := wire.CellSize - room
	cell = make([]byte, min(max(pad(over+len(body)), over+len(body)), wire.CellSize))
	copy(cell[start:], body)
	clear(body) // texts under one layer less
	m.outer = body
	nonce := cell[wire.CellHeader : wire.CellHeader+nonceSize]
	if _, err := io.ReadFull(m.random, nonce); err != nil {
		return nil, 0, fmt.Errorf("pack: draw randomness: %w", err)
	}
	tagKey := s.SendTag
	if s.HasHeader {
		tagKey = s.StartTag
		copy(cell[start-head:], s.Header)
	}
	tag := newTagger(tagKey).tag(nonce)
	copy(cell[wire.CellHeader+nonceSize:], tag[:])
	var aad [160]byte
	s.sendAEAD.Seal(cell[start:start], nonce, cell[start:len(cell)-aeadTag], appendAAD(aad[:0], s.ID, m.device, s.Peer, s.direction(), form))
	if k := s.mark(); k.Upto == s.saved.Upto && len(k.Missing) == len(s.saved.Missing) {
		s.Owes = false // the mark went along
	}
	m.note(s)
	wire.HeadCell(cell)
	return cell, n, nil
}

// front is what a cell says beside its items.
func (s *sess) front() *Outer {
	o := &Outer{Void: s.Voided.brief()}
	if s.Acked.Upto == 0 {
		o.Follows = s.Follows
	}
	if s.saved.Upto > 0 {
		o.Mark = &s.saved
	}
	return o
}

// Abandon closes a session that the peer says it has lost: nothing is sealed or
// opened in it any more. It reports whether there was such a session in use.
// What it held unacknowledged is the caller's to seal anew.
func (m *Machine) Abandon(now time.Time, dev identity.DeviceID, session ID) bool {
	s := m.sessions[session]
	if s == nil || s.Peer != dev || s.Closed {
		return false
	}
	m.close(now, s)
	return true
}

// TakeBack voids own seqs of a session: the caller has dropped their content, and the
// peer is told not to wait for it. What came there already stays there. It belongs into
// the commit of what drops them.
func (m *Machine) TakeBack(session ID, seqs []uint64) {
	s := m.sessions[session]
	if s == nil {
		return
	}
	r := runsOf(seqs).without(func(seq uint64) bool { return seq == 0 || seq > s.Sent || s.Acked.Covers(seq) })
	if len(r) == 0 {
		return
	}
	s.Voided, s.Owes = s.Voided.union(r), true
	m.touch(s)
	m.note(s)
}

// fill appends items and control in order of seq. The first item always finds
// room; control that does not is left for the next cell.
func (s *sess) fill(b []byte, room int, items []Sealed) (out []byte, n int, err error) {
	reserve := 0
	for len(items) > n && s.Voided.has(items[n].Seq) {
		n++
	}
	if len(items) > n {
		reserve = itemSize(items[n].Seq, items[n].Inner)
	}
	last, next := uint64(0), 0
	put := func(seq uint64, olm []byte) {
		b = appendItem(b, seq, olm)
		last = seq
	}
	shown := func(limit uint64) {
		for ; next < len(s.Control) && s.Control[next].Seq < min(limit, s.savedSent+1); next++ {
			c := &s.Control[next]
			if len(b)+itemSize(c.Seq, c.Olm)+reserve > room {
				continue
			}
			put(c.Seq, c.Olm)
			c.Shown = true
		}
	}
	for ; n < len(items); n++ {
		it := items[n]
		if it.Session != s.ID || it.Seq <= last && last != 0 || it.Seq > s.Sent {
			return nil, 0, fmt.Errorf("%w: items of another session or out of order", ErrNoSession)
		}
		if s.Voided.has(it.Seq) {
			continue
		}
		shown(it.Seq)
		if len(b)+itemSize(it.Seq, it.Inner) > room {
			return b, n, nil
		}
		put(it.Seq, it.Inner)
		reserve = 0
	}
	shown(MaxSeq + 1)
	return b, n, nil
}
