package session

import (
	"bytes"
	"crypto/cipher"
	"maps"
	"slices"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/event"
)

// sess is one session. Open works on copies of the sessions it touches, so a
// slice or map in here is replaced or cloned, never written into; fingerprints
// alone are written by the commit.
type sess struct {
	fixed
	moving
	Header     []byte  // enc and capsule, while the start is repeated
	PeerAdvert *Advert // what the peer offered for renewal
	Control    []control

	olm    olm
	held   map[uint64][]byte // Olm messages before their turn
	prints []uint32          // by seq-1; 0: never seen

	self         identity.DeviceID
	conversation event.ConversationID
	sendAEAD     cipher.AEAD
	recvAEAD     cipher.AEAD
	recvTag      tagger
	rows         dirtyRows
	saved        Mark      // what Dirty handed out last, so that a cell tells
	savedSent    uint64    // of nothing that a crash could take back
	heldOwned    bool      // held belongs to this copy
	doubted      bool      // its state may be an older copy: nothing more is sealed in it
	asked        time.Time // when missing seqs were named last, since Load
	asks         int
}

// fixed is row "k/session".
type fixed struct {
	ID         ID                `cbor:"1,keyasint"`
	Peer       identity.DeviceID `cbor:"2,keyasint"`
	Initiator  bool              `cbor:"3,keyasint"`
	Epoch      uint32            `cbor:"4,keyasint"`
	Transcript [32]byte          `cbor:"5,keyasint"`
	Next       [32]byte          `cbor:"6,keyasint"` // mixed into a renewal
	SendKey    [32]byte          `cbor:"7,keyasint"`
	RecvKey    [32]byte          `cbor:"8,keyasint"`
	SendTag    [32]byte          `cbor:"9,keyasint"`
	RecvTag    [32]byte          `cbor:"10,keyasint"`
	StartTag   [32]byte          `cbor:"11,keyasint"` // tags the repeated start
	MyHead     identity.Head     `cbor:"12,keyasint"`
	PeerHead   identity.Head     `cbor:"13,keyasint"`
	Weak       bool              `cbor:"14,keyasint"` // see weak
	Created    int64             `cbor:"15,keyasint"`
	Start      [32]byte          `cbor:"16,keyasint"` // SHA-256(enc)
	HasHeader  bool              `cbor:"17,keyasint"`
	Live       bool              `cbor:"18,keyasint,omitempty"` // made on a live stream, from a once bundle
}

// moving is row "s/session".
type moving struct {
	Sent      uint64   `cbor:"1,keyasint"` // last seq sealed
	Acked     Mark     `cbor:"2,keyasint"`
	Voided    runs     `cbor:"3,keyasint"` // own seqs that will not come, not acknowledged yet
	Follows   *Follows `cbor:"4,keyasint,omitempty"`
	Confirmed bool     `cbor:"5,keyasint"`
	Closed    bool     `cbor:"6,keyasint"`
	Stale     bool     `cbor:"7,keyasint"` // a log changed
	LeftAt    int64    `cbor:"8,keyasint"`

	Due         uint64   `cbor:"9,keyasint"` // seq to feed next
	Missing     []uint64 `cbor:"10,keyasint"`
	Void        runs     `cbor:"11,keyasint"` // of the peer, not passed yet
	Final       uint64   `cbor:"12,keyasint"` // last seq of the peer, once it went on
	PeerFollows *Follows `cbor:"13,keyasint,omitempty"`
	WaitSince   int64    `cbor:"14,keyasint"` // unix ms of the gap's begin, 0: no gap
	Named       uint64   `cbor:"15,keyasint"` // gaps below it were named as blocked

	Owes      bool     `cbor:"16,keyasint"`
	Unsealed  uint64   `cbor:"17,keyasint"` // messages opened since something was sealed
	UnsealedT int64    `cbor:"18,keyasint"`
	Told      bool     `cbor:"19,keyasint"` // advertised
	OwnSeed   [32]byte `cbor:"20,keyasint"` // of the keys advertised, zero once used
	LastSaid  uint64   `cbor:"21,keyasint"` // seq of the last message, control not counted
	GateOpen  bool     `cbor:"22,keyasint"` // waited long enough for the session before
	Pickle    []byte   `cbor:"23,keyasint"`
}

// control is what the machine itself has to tell, kept until acknowledged.
type control struct {
	_     struct{} `cbor:",toarray"`
	Seq   uint64
	Plain []byte // type and body, to seal it anew
	Olm   []byte
	Shown bool // packed since Load
}

// direction of what this side sends.
func (s *sess) direction() byte {
	if s.Initiator {
		return 0
	}
	return 1
}

// before orders sessions: the first one is sent in.
func (s *sess) before(t *sess) bool {
	if s.Epoch != t.Epoch {
		return s.Epoch > t.Epoch
	}
	return bytes.Compare(s.ID[:], t.ID[:]) < 0
}

// current is the session to seal in, nil if there is none.
func (p *peer) current() *sess {
	var best *sess
	for _, s := range p.sessions {
		if !s.Closed && s.LeftAt == 0 && (best == nil || s.before(best)) {
			best = s
		}
	}
	return best
}

func (p *peer) epoch() uint32 {
	var top uint32
	for _, s := range p.sessions {
		top = max(top, s.Epoch)
	}
	return top
}

// unknown reports whether the peer may not have the session yet.
func (s *sess) unknown() bool { return s.HasHeader && s.Acked.Upto == 0 }

// due reports whether the session wants renewal.
func (s *sess) due(now time.Time) bool {
	used := s.Sent > 0 || s.Due > 1
	old := used && now.Unix()-s.Created >= int64(renewAge/time.Second)
	return old || s.Stale || s.Weak && s.Confirmed || s.Sent >= renewMessages || s.Due > renewMessages
}

// full reports whether nothing more may be sealed in the session.
func (s *sess) full() bool { return s.doubted || s.Sent >= MaxSeq }

// mark is the receipt that this side owes.
func (s *sess) mark() Mark {
	if len(s.Missing) > MaxMissing {
		return Mark{Upto: s.Missing[MaxMissing] - 1, Missing: s.Missing[:MaxMissing]}
	}
	return Mark{Upto: s.Due - 1, Missing: s.Missing}
}

// complete reports whether nothing is outstanding in either direction.
func (s *sess) complete() bool {
	return s.Closed || s.LeftAt != 0 && s.Final != 0 && s.Due > s.Final && len(s.Missing) == 0 &&
		s.Acked.Upto >= s.LastSaid && len(s.Acked.Missing) == 0
}

// waits reports whether something is behind a gap or expected.
func (s *sess) waits() bool {
	return !s.Closed && (len(s.held) > 0 || s.Final != 0 && s.Due <= s.Final)
}

func (s *sess) clone() *sess {
	c := *s
	c.olm = s.olm.clone()
	c.heldOwned = false
	c.rows = s.rows.clone()
	return &c
}

func (s *sess) hold(seq uint64, b []byte) {
	if !s.heldOwned {
		if s.held = maps.Clone(s.held); s.held == nil {
			s.held = map[uint64][]byte{}
		}
		s.heldOwned = true
	}
	s.held[seq] = slices.Clone(b)
	s.rows.touchHeld(seq)
}

func (s *sess) release(seq uint64) {
	if !s.heldOwned {
		s.held, s.heldOwned = maps.Clone(s.held), true
	}
	delete(s.held, seq)
	s.rows.touchHeld(seq)
}

func (s *sess) heldBytes() int {
	n := 0
	for _, b := range s.held {
		n += len(b)
	}
	return n
}

// firstHeld is the lowest held seq, 0 if there is none.
func (s *sess) firstHeld() uint64 {
	var low uint64
	for seq := range s.held {
		if low == 0 || seq < low {
			low = seq
		}
	}
	return low
}

// print is the fingerprint of a message: the end of its MAC.
func print(olm []byte) uint32 {
	b := olm[max(0, len(olm)-4):]
	v := uint32(0)
	for _, c := range b {
		v = v<<8 | uint32(c)
	}
	return max(v, 1)
}

func (s *sess) seen(seq uint64) uint32 {
	if seq > uint64(len(s.prints)) {
		return 0
	}
	return s.prints[seq-1]
}

func (s *sess) see(seq uint64, v uint32) {
	if n := int(seq) - len(s.prints); n > 0 {
		s.prints = append(s.prints, make([]uint32, n)...)
	}
	s.prints[seq-1] = v
	s.rows.touchPrint(seq)
}
