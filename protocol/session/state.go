package session

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/kinloom/kinloom/identity"
	"maunium.net/go/mautrix/crypto/goolm/crypto"
)

// Limits of the machine, see SPEC 10.
const (
	// GapWait is the time that a gap waits where nobody calls FlushPoll.
	GapWait = 30 * time.Second
	// OldLife is the time that a session still receives after the peers went on to
	// another one, and that a used start is remembered.
	OldLife = 31 * 24 * time.Hour
	// MaxAhead is how far a seq may be ahead of the one that is due.
	MaxAhead = 2000

	clockSlack     = 48 * time.Hour
	renewAge       = 24 * time.Hour
	renewMessages  = 1000
	receiptEvery   = 50
	receiptAge     = 24 * time.Hour
	staticEvery    = 7 * 24 * time.Hour
	maxStatic      = 32
	maxOnce        = 1024
	maxPerDevice   = 64
	maxStarts      = 1024 // used static starts remembered, per device
	maxHeldBytes   = 8 << 20
	maxHeldTotal   = 64 << 20
	maxOwnHeads    = 256
	maxOwnRecords  = 8
	maxPeerRecords = 4
	askEvery       = time.Hour
	maxAsks        = 8
)

// Errors of the machine.
var (
	// ErrUnknown: no session and no bundle of this device opens the cell.
	ErrUnknown = errors.New("no session of this device opens the cell")
	// ErrReplay: the start of a session that was used up.
	ErrReplay = errors.New("start of a session came again after its end")
	// ErrJump: a seq too far ahead.
	ErrJump = errors.New("message number is too far ahead")
	// ErrFull: too much waits for messages that did not come.
	ErrFull = errors.New("too much waits for missing messages")
	// ErrClone: the peer sent two different messages under one number. Its state
	// was copied or set back. The session is closed.
	ErrClone = errors.New("two different messages under one number: the other device was copied or set back")
	// ErrHead: a start names a head of the own log that this device does not have.
	ErrHead = errors.New("own log has a head that this device does not know")
	// ErrNoSession: nothing to seal in for that device; Start one.
	ErrNoSession = errors.New("no session with this device")
	// ErrNeedBundle: the session is at its end and the device advertised no keys
	// for the next; Start one with a bundle.
	ErrNeedBundle = errors.New("session is at its end: a bundle of the device is needed")
	// ErrLimit: more starts to static bundles than are remembered of one device.
	ErrLimit = errors.New("too many sessions started by one device")
	// ErrEmpty: a cell that would start a session has no message.
	ErrEmpty = errors.New("a session starts with a message, and there is none")
	// ErrTooLong: a payload is empty or above MaxPayload.
	ErrTooLong = errors.New("payload is empty or too long")
	// ErrDamaged: a row that Load cannot read.
	ErrDamaged = errors.New("session row is damaged")
)

// UnknownDevice is the error of Open for a start by a device or with a record
// that SetRemote did not tell of. The caller fetches the log of whom it
// thinks the sender is, and opens the cell again. None of it is verified.
type UnknownDevice struct {
	Device identity.DeviceID
	Record identity.RecordHash
	Head   identity.Head
}

func (e *UnknownDevice) Error() string {
	return "session started by device " + e.Device.Short() + ", which no known log certifies"
}

// Self is this device. Head is that of the own log; Past are older heads that
// peers may still state (the machine adds those it has seen by itself).
type Self struct {
	Key        identity.DeviceKey
	Record     identity.DeviceRecord
	RecordHash identity.RecordHash
	OlmSeed    [32]byte // of identity.OlmKey
	Head       identity.Head
	Past       []identity.Head
}

// Remote is another device, as the caller verified it against a log.
type Remote struct {
	Device     identity.DeviceID
	Record     identity.DeviceRecord
	RecordHash identity.RecordHash
	Head       identity.Head
}

// Record is one row of state. A nil value deletes the row.
type Record struct {
	Key   string
	Value []byte
}

// Machine holds the sessions of one device with all others.
type Machine struct {
	self     Self
	device   identity.DeviceID
	random   io.Reader
	olm      crypto.Curve25519KeyPair
	me       ownPast
	peers    map[identity.DeviceID]*peer
	sessions map[ID]*sess
	recent   []*sess // all of them, the last used first
	bundles  []*bundle
	starts   map[[32]byte]*started
	waiting  map[ID]struct{} // sessions with a gap
	owing    map[ID]struct{} // sessions that owe a mark or control
	held     int             // bytes
	dirty    map[string]any  // rows other than those of sessions; nil: delete
	touched  map[ID]struct{}
	outer    []byte // room for the plaintext of a cell
}

// ownPast is row "me": what peers may state about this device.
type ownPast struct {
	Heads   []identity.Head       `cbor:"1,keyasint"` // newest last
	Records []identity.RecordHash `cbor:"2,keyasint"`
}

// peer is row "r/device".
type peer struct {
	Device  identity.DeviceID     `cbor:"1,keyasint"`
	Person  identity.PersonID     `cbor:"2,keyasint"`
	Key     identity.DevicePublic `cbor:"3,keyasint"`
	Olm     [32]byte              `cbor:"4,keyasint"`
	Records []identity.RecordHash `cbor:"5,keyasint"` // newest last
	Head    identity.Head         `cbor:"6,keyasint"`
	Suite   uint16                `cbor:"7,keyasint"` // highest proved
	Last    ID                    `cbor:"8,keyasint"` // session last sealed in

	sessions []*sess
}

// started is row "c/hash": a start to a static bundle, used once.
type started struct {
	Session ID                `cbor:"1,keyasint"`
	Device  identity.DeviceID `cbor:"2,keyasint"`
	At      int64             `cbor:"3,keyasint"`
}

// New returns a machine without any session. Random is drawn for nonces and
// bundles; see olm.go for what is drawn elsewhere.
func New(self Self, random io.Reader) *Machine {
	m := &Machine{
		self: self, device: self.Key.ID(), random: random, olm: olmKeyPair(self.OlmSeed),
		peers: map[identity.DeviceID]*peer{}, sessions: map[ID]*sess{}, starts: map[[32]byte]*started{},
		waiting: map[ID]struct{}{}, owing: map[ID]struct{}{}, dirty: map[string]any{}, touched: map[ID]struct{}{},
	}
	m.noteSelf()
	return m
}

// noteSelf adds what self says to what peers may state.
func (m *Machine) noteSelf() {
	changed := false
	for _, h := range append(slices.Clone(m.self.Past), m.self.Head) {
		if !slices.Contains(m.me.Heads, h) {
			m.me.Heads = append(m.me.Heads, h)
			changed = true
		}
	}
	if !slices.Contains(m.me.Records, m.self.RecordHash) {
		m.me.Records = append(m.me.Records, m.self.RecordHash)
		changed = true
	}
	if changed {
		m.me.Heads = m.me.Heads[max(0, len(m.me.Heads)-maxOwnHeads):]
		m.me.Records = m.me.Records[max(0, len(m.me.Records)-maxOwnRecords):]
		m.mark("me", m.me)
	}
}

// SetHead tells that the own log changed; past are heads between the last one
// and this that the machine was not told of. Every session is renewed before
// the next message, as far as its peer advertised keys.
func (m *Machine) SetHead(head identity.Head, past ...identity.Head) {
	m.self.Head, m.self.Past = head, past
	m.noteSelf()
	for _, s := range m.sessions {
		if s.LeftAt == 0 && !s.Stale && s.MyHead != head {
			s.Stale = true
			m.touch(s)
		}
	}
}

// SetRecord tells that the own device record was renewed.
func (m *Machine) SetRecord(r identity.DeviceRecord, h identity.RecordHash) {
	m.self.Record, m.self.RecordHash = r, h
	m.noteSelf()
}

// SetRemote tells of a device that the caller verified, or of its newer record
// or head. A changed head renews the sessions with it before the next message.
func (m *Machine) SetRemote(r Remote) error {
	if r.Record.Device.ID() != r.Device || r.Device == m.device {
		return fmt.Errorf("remote device %s: %w", r.Device.Short(), identity.ErrRecord)
	}
	if r.Record.Suite != identity.Suite1 {
		return fmt.Errorf("remote device %s: %w", r.Device.Short(), ErrSuite)
	}
	p := m.peers[r.Device]
	if p == nil {
		p = &peer{Device: r.Device, Head: r.Head}
		m.peers[r.Device] = p
	} else if p.Olm == r.Record.Olm && p.Head == r.Head && p.Records[len(p.Records)-1] == r.RecordHash {
		return nil
	}
	if p.Olm != r.Record.Olm {
		p.Records = nil // older records speak of another key
	}
	p.Person, p.Key, p.Olm = r.Record.Person, r.Record.Device, r.Record.Olm
	p.Records = slices.DeleteFunc(p.Records, func(h identity.RecordHash) bool { return h == r.RecordHash })
	p.Records = append(p.Records[max(0, len(p.Records)-maxPeerRecords+1):], r.RecordHash)
	if p.Head != r.Head {
		p.Head = r.Head
		for _, s := range p.sessions {
			if s.LeftAt == 0 && s.PeerHead != r.Head {
				s.Stale = true
				m.touch(s)
			}
		}
	}
	m.markPeer(p)
	return nil
}

// Forget drops a device with all its sessions: it was revoked, or its person
// removed. Seqs that it did not acknowledge stay with the caller. The starts that it
// used stay used, as it may be told of again and its cells be played back.
func (m *Machine) Forget(dev identity.DeviceID) {
	p := m.peers[dev]
	if p == nil {
		return
	}
	for _, s := range slices.Clone(p.sessions) {
		m.drop(s)
	}
	delete(m.peers, dev)
	m.unmark(keyPeer(dev))
}

// Doubt tells that the state may be an older copy of what it was: after Load, where
// the rows lay on a disk while nobody watched them. Nothing is sealed any more in
// a session that exists: its numbers, and the keys under them, may have been used,
// and marks may speak of other messages than those of this state. The next message
// goes into a new session, to advertised keys or a bundle. It costs a start a peer.
func (m *Machine) Doubt() {
	for _, s := range m.sessions {
		s.doubted = true
	}
}

// DoubtAs has this machine, read again from the same disk, doubt what the one of
// before did: an older copy is not a newer one for having been read twice.
func (m *Machine) DoubtAs(before *Machine) {
	for id, s := range m.sessions {
		if old := before.sessions[id]; old == nil || old.doubted {
			s.doubted = true
		}
	}
}

// Info is what a user interface or a scheduler may want to know of a session.
type Info struct {
	Session   ID
	Epoch     uint32
	Confirmed bool // the peer proved to hold the keys; before, send no secrets of others
	Weak      bool // started to keys that lay about: less forward secrecy until renewed at the first confirmed message
	Sent      uint64
	Renewable bool // the peer advertised keys for the next
	Due       bool // wants renewal: with Renewable at the next Seal, else a Start would do it
}

// Current describes the session that Seal would use or renew.
func (m *Machine) Current(now time.Time, dev identity.DeviceID) (Info, bool) {
	p := m.peers[dev]
	if p == nil {
		return Info{}, false
	}
	s := p.current()
	if s == nil {
		return Info{}, false
	}
	return Info{s.ID, s.Epoch, s.Confirmed, s.Weak, s.Sent, s.PeerAdvert != nil, s.doubted || s.due(now)}, true
}

// CanSeal reports whether Seal would find a session.
func (m *Machine) CanSeal(dev identity.DeviceID) bool {
	p := m.peers[dev]
	if p == nil {
		return false
	}
	s := p.current()
	return s != nil && (!s.full() || s.PeerAdvert != nil)
}

// Owing lists the sessions that have something to say without any message:
// a mark, or control not packed yet. Pack without items says it.
func (m *Machine) Owing() []Owed {
	var out []Owed
	for id := range m.owing {
		out = append(out, Owed{m.sessions[id].Peer, id})
	}
	return out
}

// Receipts gives what a device has acknowledged so far, session by session. It
// stands in the rows as soon as the mark was opened, so that a caller whose own
// note of it was lost can ask.
func (m *Machine) Receipts(dev identity.DeviceID) []Receipt {
	p := m.peers[dev]
	if p == nil {
		return nil
	}
	var out []Receipt
	for _, s := range p.sessions {
		if s.Acked.Upto > 0 {
			out = append(out, Receipt{s.ID, s.Acked})
		}
	}
	return out
}

// Receipt is the last mark of one session.
type Receipt struct {
	Session ID
	Mark    Mark
}

// Owed is one session of Owing.
type Owed struct {
	Device  identity.DeviceID
	Session ID
}
