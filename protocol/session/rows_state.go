package session

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/enc"
	"github.com/kinloom/kinloom/protocol/event"
)

// printsPerRow is how many fingerprints, of 4 bytes each, one row has.
const printsPerRow = 128

// dirtyRows says which rows of a session changed.
type dirtyRows struct {
	fixed, control, advert bool
	held                   map[uint64]struct{}
	prints                 map[uint64]struct{} // by number of the row
}

func (d dirtyRows) clone() dirtyRows {
	d.held, d.prints = maps.Clone(d.held), maps.Clone(d.prints)
	return d
}

func (d *dirtyRows) touchHeld(seq uint64) {
	if d.held == nil {
		d.held = map[uint64]struct{}{}
	}
	d.held[seq] = struct{}{}
}

func (d *dirtyRows) touchPrint(seq uint64) {
	if d.prints == nil {
		d.prints = map[uint64]struct{}{}
	}
	d.prints[(seq-1)/printsPerRow] = struct{}{}
}

func keyPeer(d identity.DeviceID) string { return "r/" + d.String() }
func keyBundle(id [8]byte) string        { return "b/" + hex.EncodeToString(id[:]) }
func keyStart(h [32]byte) string         { return "c/" + hex.EncodeToString(h[:]) }
func keySession(kind byte, id ID) string { return string(kind) + "/" + hex.EncodeToString(id[:]) }

// keyPart is the key of one of many rows of a session.
func keyPart(kind byte, id ID, n uint64) string {
	return fmt.Sprintf("%s/%04x", keySession(kind, id), n)
}

// Kinds of rows that a session has once each.
const (
	rowFixed   = 'k'
	rowMoving  = 's'
	rowControl = 'o'
	rowAdvert  = 'a'
	rowHeader  = 't'
	rowHeld    = 'h'
	rowPrints  = 'f'
)

func (m *Machine) mark(key string, v any) { m.dirty[key] = v }
func (m *Machine) unmark(key string)      { m.dirty[key] = nil }
func (m *Machine) markPeer(p *peer)       { m.mark(keyPeer(p.Device), p) }
func (m *Machine) touch(s *sess)          { m.touched[s.ID] = struct{}{} }

// Dirty returns the rows that changed since the last call, deletions included.
// They belong in the transaction of what changed them; where that fails, drop
// the machine and Load another. The rows are secret.
func (m *Machine) Dirty() []Record {
	out := make([]Record, 0, len(m.dirty)+2*len(m.touched))
	put := func(key string, v any) { out = append(out, Record{key, must(enc.Marshal(v))}) }
	for key, v := range m.dirty {
		if v == nil {
			out = append(out, Record{Key: key})
		} else {
			put(key, v)
		}
	}
	clear(m.dirty)
	for id := range m.touched {
		s := m.sessions[id]
		if s.rows.fixed {
			put(keySession(rowFixed, id), s.fixed)
			if s.HasHeader {
				out = append(out, Record{keySession(rowHeader, id), s.Header})
			} else {
				out = append(out, Record{Key: keySession(rowHeader, id)})
			}
		}
		s.Pickle = s.olm.pickle()
		put(keySession(rowMoving, id), s.moving)
		s.Pickle = nil
		if s.rows.control {
			put(keySession(rowControl, id), s.Control)
		}
		if s.rows.advert {
			out = append(out, Record{keySession(rowAdvert, id), s.PeerAdvert.Append(nil)})
		}
		for seq := range s.rows.held {
			out = append(out, Record{keyPart(rowHeld, id, seq), s.held[seq]})
		}
		for n := range s.rows.prints {
			out = append(out, Record{keyPart(rowPrints, id, n), s.printRow(n)})
		}
		s.rows, s.saved, s.savedSent = dirtyRows{}, s.mark(), s.Sent
	}
	clear(m.touched)
	return out
}

func (s *sess) printRow(n uint64) []byte {
	part := s.prints[n*printsPerRow : min((n+1)*printsPerRow, uint64(len(s.prints)))]
	b := make([]byte, 0, 4*len(part))
	for _, v := range part {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// drop forgets a session with all its rows.
func (m *Machine) drop(s *sess) {
	for _, kind := range []byte{rowFixed, rowMoving, rowControl, rowAdvert, rowHeader} {
		m.unmark(keySession(kind, s.ID))
	}
	for seq := range s.held {
		m.unmark(keyPart(rowHeld, s.ID, seq))
	}
	for n := range (len(s.prints) + printsPerRow - 1) / printsPerRow {
		m.unmark(keyPart(rowPrints, s.ID, uint64(n)))
	}
	for seq := range s.rows.held { // given out before and released since
		m.unmark(keyPart(rowHeld, s.ID, seq))
	}
	m.held -= s.heldBytes()
	delete(m.sessions, s.ID)
	delete(m.touched, s.ID)
	delete(m.waiting, s.ID)
	delete(m.owing, s.ID)
	m.recent = slices.DeleteFunc(m.recent, func(x *sess) bool { return x == s })
	if p := m.peers[s.Peer]; p != nil {
		p.sessions = slices.DeleteFunc(p.sessions, func(x *sess) bool { return x == s })
	}
}

// Load returns the machine whose rows these are, in any order. Errors:
// ErrDamaged with the key of the row.
func Load(self Self, random io.Reader, rows []Record) (*Machine, error) {
	m := New(self, random)
	m.me = ownPast{}
	for _, part := range []func(Record) error{m.loadRow, m.loadPart} {
		for _, r := range rows {
			if err := part(r); err != nil {
				return nil, fmt.Errorf("%w: %q: %w", ErrDamaged, r.Key, err)
			}
		}
	}
	for _, s := range m.sessions {
		if s.olm.s == nil {
			return nil, fmt.Errorf("%w: %q has no %q", ErrDamaged, keySession(rowFixed, s.ID), keySession(rowMoving, s.ID))
		}
		p := m.peers[s.Peer]
		if p == nil {
			return nil, fmt.Errorf("%w: %q has no %q", ErrDamaged, keySession(rowFixed, s.ID), keyPeer(s.Peer))
		}
		s.settled()
		m.admit(s, p)
	}
	slices.SortFunc(m.recent, func(a, b *sess) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	slices.SortFunc(m.bundles, func(a, b *bundle) int { return int(a.Created - b.Created) })
	clear(m.dirty)
	m.noteSelf()
	return m, nil
}

// admit puts a whole session into the tables.
func (m *Machine) admit(s *sess, p *peer) {
	s.self, s.conversation = m.device, m.conversation(p)
	s.sendAEAD, s.recvAEAD, s.recvTag = newAEAD(s.SendKey), newAEAD(s.RecvKey), newTagger(s.RecvTag)
	m.sessions[s.ID] = s
	m.recent = append(m.recent, s)
	p.sessions = append(p.sessions, s)
	m.held += s.heldBytes()
	m.note(s)
}

// settled is what a session that was just loaded has on disk.
func (s *sess) settled() {
	s.saved, s.savedSent = s.mark(), s.Sent
	for i := range s.Control {
		s.Control[i].Shown = false
	}
}

// note keeps the sets of sessions with a gap and of those that owe something.
func (m *Machine) note(s *sess) {
	set := func(in map[ID]struct{}, member bool) {
		if member {
			in[s.ID] = struct{}{}
		} else {
			delete(in, s.ID)
		}
	}
	set(m.waiting, s.waits())
	set(m.owing, !s.Closed && (s.Owes && !s.unknown() || slices.ContainsFunc(s.Control, func(c control) bool { return !c.Shown })))
}

// conversation is the one that messages with p are in unless they say other.
func (m *Machine) conversation(p *peer) event.ConversationID {
	return event.PairID(m.self.Record.Person, p.Person)
}

// loadRow reads the rows that stand alone.
func (m *Machine) loadRow(r Record) error {
	kind, name, _ := strings.Cut(r.Key, "/")
	switch kind {
	case "me":
		return enc.Unmarshal(r.Value, &m.me)
	case "r":
		p := new(peer)
		if err := enc.Unmarshal(r.Value, p); err != nil {
			return err
		}
		if keyPeer(p.Device) != r.Key || len(p.Records) == 0 {
			return errRow
		}
		m.peers[p.Device] = p
	case "b":
		b := new(bundle)
		if err := enc.Unmarshal(r.Value, b); err != nil {
			return err
		}
		if keyBundle(b.ID) != r.Key {
			return errRow
		}
		b.tag = newTagger(b.Intro)
		m.bundles = append(m.bundles, b)
	case "c":
		st := new(started)
		h, err := hex.DecodeString(name)
		if err != nil || len(h) != 32 {
			return errRow
		}
		if err := enc.Unmarshal(r.Value, st); err != nil {
			return err
		}
		m.starts[[32]byte(h)] = st
	case string(rowFixed):
		s := &sess{}
		if err := enc.Unmarshal(r.Value, &s.fixed); err != nil {
			return err
		}
		if keySession(rowFixed, s.ID) != r.Key {
			return errRow
		}
		m.sessions[s.ID] = s
	}
	return nil
}

// errRow is for a row whose content does not fit its key.
var errRow = fmt.Errorf("content does not fit the key")

// loadPart reads the rows that belong to a session.
func (m *Machine) loadPart(r Record) error {
	kind, name, _ := strings.Cut(r.Key, "/")
	switch kind {
	case "me", "r", "b", "c", string(rowFixed):
		return nil
	}
	name, part, _ := strings.Cut(name, "/")
	id, err := hex.DecodeString(name)
	if err != nil || len(id) != len(ID{}) || len(kind) != 1 {
		return errRow
	}
	s := m.sessions[ID(id)]
	if s == nil {
		return fmt.Errorf("no session of that name")
	}
	n := uint64(0)
	if part != "" {
		if n, err = strconv.ParseUint(part, 16, 16); err != nil {
			return errRow
		}
	}
	switch kind[0] {
	case rowMoving:
		if err := enc.Unmarshal(r.Value, &s.moving); err != nil {
			return err
		}
		if s.Due == 0 || s.Due > MaxSeq+1 || s.Sent > MaxSeq {
			return errRow
		}
		s.olm, err = olmUnpickle(s.Pickle)
		s.Pickle = nil
		return err
	case rowControl:
		return enc.Unmarshal(r.Value, &s.Control)
	case rowAdvert:
		a, err := ParseAdvert(r.Value)
		s.PeerAdvert = &a
		return err
	case rowHeader:
		s.Header = r.Value
		if len(s.Header) != headerSize {
			return errRow
		}
	case rowHeld:
		s.hold(n, r.Value)
		s.rows = dirtyRows{}
	case rowPrints:
		if len(r.Value)%4 != 0 || len(r.Value) > 4*printsPerRow || n > MaxSeq/printsPerRow {
			return errRow
		}
		for i := 0; i < len(r.Value); i += 4 {
			s.see(n*printsPerRow+uint64(i/4)+1, binary.BigEndian.Uint32(r.Value[i:]))
		}
		s.rows = dirtyRows{}
	default:
		return errRow
	}
	return nil
}
