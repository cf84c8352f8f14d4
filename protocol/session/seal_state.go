package session

import (
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
	n := inner{typ: innerOwn, payload: payload}
	if conv != s.conversation {
		n.typ, n.conversation = innerElsewhere, conv
	}
	b, err := m.sealIn(s, conv, appendInner(nil, &n))
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
	if s.PeerAdvert != nil && (s.due(now) || s.Sent >= MaxSeq) {
		old := s
		var err error
		if s, err = m.begin(now, p, old.PeerAdvert, old); err != nil {
			return nil, err
		}
		old.PeerAdvert = nil // used once
		m.unmark(keySession(rowAdvert, old.ID))
		old.rows.advert = false
		m.touch(old)
	}
	if s.Sent >= MaxSeq {
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
	if old == nil || old.Closed {
		return nil
	}
	if s.Follows = old.Follows; old.Sent > 0 {
		s.Follows = &follows{old.ID, old.Sent}
	}
	if old.LeftAt == 0 {
		old.LeftAt = max(1, now.Unix())
	}
	for _, c := range old.Control {
		if typ := c.Plain[0]; typ == innerRepeat || typ == innerLog {
			if err := m.addControl(s, c.Plain); err != nil {
				return err
			}
		}
	}
	old.Control, old.rows.control = nil, true
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
		if err := m.control(now, dev, &inner{typ: innerRepeat, session: session, runs: part}); err != nil {
			return fmt.Errorf("ask for a repeat: %w", err)
		}
		r = r[len(part):]
	}
	return nil
}

// AskLog asks a device for the log entries of its person after the head that
// is known here. Errors: ErrNoSession, ErrNeedBundle.
func (m *Machine) AskLog(now time.Time, dev identity.DeviceID, known identity.Head) error {
	if err := m.control(now, dev, &inner{typ: innerLog, head: known}); err != nil {
		return fmt.Errorf("ask for a log: %w", err)
	}
	return nil
}

func (m *Machine) control(now time.Time, dev identity.DeviceID, n *inner) error {
	s, err := m.sealing(now, dev)
	if err != nil {
		return err
	}
	return m.addControl(s, appendInner(nil, n))
}

// dueControl seals the receipt and the keys that a session owes.
func (m *Machine) dueControl(now time.Time, s *sess) error {
	p := m.peers[s.Peer]
	if s != p.current() || s.Sent >= MaxSeq-2 {
		return nil
	}
	if !s.Told && (s.Confirmed || !s.Initiator) {
		seed, err := m.seed()
		if err != nil {
			return err
		}
		if err := m.goOn(now, p, s); err != nil {
			return err
		}
		k := newSecrets(seed)
		n := inner{typ: innerAdvert, advert: advert{k.id, [32]byte(olmKeyPair(k.olm).PublicKey), xwingPublic(k.xwing)}}
		if err := m.addControl(s, appendInner(nil, &n)); err != nil {
			return err
		}
		s.Told, s.OwnSeed = true, seed
	}
	if s.receiptDue(now) {
		if err := m.goOn(now, p, s); err != nil {
			return err
		}
		return m.addControl(s, appendInner(nil, &inner{typ: innerReceipt, mark: s.mark()}))
	}
	return nil
}

// receiptDue: the ratchet turns for the first message, every 50, or after 24 h.
func (s *sess) receiptDue(now time.Time) bool {
	return s.Unsealed > 0 && (s.Sent == 0 || s.Unsealed >= receiptEvery || now.Unix()-s.UnsealedT >= int64(receiptAge/time.Second))
}

// Pack seals a cell for one carriage: the mark that is owed, control, and as
// many of items as fit, which are of this session and ascending. It returns
// how many it took, at least one. pad gives the size of the cell for a least
// size (wire.Padme, or always wire.CellSize). Items that the peer asked to
// repeat are void: they count as taken and are left out. Call it after the
// commit of what the mark tells, and commit Dirty before the cell leaves.
// Errors: ErrNoSession, after which the content is to be sealed anew.
func (m *Machine) Pack(now time.Time, to identity.DeviceID, session ID, items []Sealed, pad func(int) int) (cell []byte, n int, err error) {
	s := m.sessions[session]
	if s == nil || s.Peer != to || s.Closed {
		return nil, 0, fmt.Errorf("pack: %w", ErrNoSession)
	}
	if err := m.dueControl(now, s); err != nil {
		return nil, 0, fmt.Errorf("pack: %w", err)
	}
	form, head := byte(formPlain), 0
	if s.HasHeader {
		form, head = formStart, headerSize
	}
	buf := make([]byte, nonceSize+tagSize+head, wire.CellSize)
	body := s.appendFront(make([]byte, 0, wire.CellSize))
	room := wire.CellSize - wire.CellHeader - len(buf) - aeadTag
	if body, n, err = s.fill(body, room, items); err != nil {
		return nil, 0, fmt.Errorf("pack: %w", err)
	}
	over := wire.CellSize - room
	size := min(max(pad(over+len(body)), over+len(body)), wire.CellSize)
	body = append(body, make([]byte, size-over-len(body))...)
	if _, err := io.ReadFull(m.random, buf[:nonceSize]); err != nil {
		return nil, 0, fmt.Errorf("pack: draw randomness: %w", err)
	}
	tagKey := s.SendTag
	if s.HasHeader {
		tagKey = s.StartTag
		copy(buf[nonceSize+tagSize:], s.Header)
	}
	tag := newTagger(tagKey).tag(buf[:nonceSize])
	copy(buf[nonceSize:], tag[:])
	var aad [160]byte
	buf = s.sendAEAD.Seal(buf, buf[:nonceSize], body, appendAAD(aad[:0], s.ID, m.device, s.Peer, s.direction(), form))
	if s.Owes {
		s.Owes = false
		m.touch(s)
	}
	m.note(s)
	return wire.AppendCell(make([]byte, 0, size), buf), n, nil
}

// appendFront appends what goes before the items.
func (s *sess) appendFront(b []byte) []byte {
	if s.Follows != nil && s.Acked.Upto == 0 {
		b = append(append(b, kindFollows), s.Follows.Session[:]...)
		b = appendUvarint(b, s.Follows.Seq)
	}
	if s.Due > 1 {
		b = appendMark(append(b, kindMark), s.mark())
	}
	if len(s.Voided) > 0 {
		b = appendRuns(append(b, kindVoid), s.Voided.brief())
	}
	return b
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
		for ; next < len(s.Control) && s.Control[next].Seq < limit; next++ {
			c := &s.Control[next]
			if len(b)+itemSize(c.Seq, c.Olm)+reserve > room {
				continue
			}
			put(c.Seq, c.Olm)
			if !c.Shown {
				c.Shown, s.rows.control = true, true
			}
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
