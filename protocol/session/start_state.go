package session

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/kinloom/kinloom/identity"
)

// bundle is row "b/id": a bundle of this device. A once bundle that was used
// stays without its seed, so that a repeated start finds its session.
type bundle struct {
	ID      [8]byte             `cbor:"1,keyasint"`
	Seed    [32]byte            `cbor:"2,keyasint"`
	Intro   [32]byte            `cbor:"3,keyasint"`
	Record  identity.RecordHash `cbor:"4,keyasint"`
	Head    identity.Head       `cbor:"5,keyasint"`
	Once    bool                `cbor:"6,keyasint"`
	Used    bool                `cbor:"7,keyasint"`
	Created int64               `cbor:"8,keyasint"` // unix seconds
	Expiry  int64               `cbor:"9,keyasint"` // when the row is dropped
	Signed  []byte              `cbor:"10,keyasint"`

	tag tagger
}

// Bundle returns a signed bundle of this device, about 1.5 KB: once for a live
// stream, good for one start within OnceLife, or the static one of the week.
// Commit Dirty before it leaves. With 1,024 once bundles out, the oldest goes.
func (m *Machine) Bundle(now time.Time, once bool) ([]byte, error) {
	for _, b := range m.bundles {
		fresh := now.Unix()-b.Created < int64(staticEvery/time.Second) && b.Created <= now.Unix()
		if !once && !b.Once && fresh && b.Head == m.self.Head && b.Record == m.self.RecordHash {
			return slices.Clone(b.Signed), nil
		}
	}
	seed, err := m.seed()
	if err != nil {
		return nil, err
	}
	life := BundleLife
	if once {
		life = OnceLife
	}
	k := newSecrets(seed)
	b := &bundle{
		ID: k.id, Seed: seed, Intro: k.intro, Record: m.self.RecordHash, Head: m.self.Head, Once: once,
		Created: now.Unix(), Expiry: now.Add(life).Unix(), tag: newTagger(k.intro),
	}
	b.Signed, err = Bundle{
		Suite: identity.Suite1, Version: Version, ID: k.id, RecordHash: b.Record, Head: b.Head,
		OlmIdentity: [32]byte(m.olm.PublicKey), OlmKey: [32]byte(olmKeyPair(k.olm).PublicKey), XWing: xwingPublic(k.xwing),
		IntroTag: k.intro, Once: once, Expiry: b.Expiry,
	}.sign(m.self.Key)
	if err != nil {
		return nil, err
	}
	signed := b.Signed
	if once {
		b.Signed = nil // nobody is given it again
	}
	m.bundles = append(m.bundles, b)
	m.mark(keyBundle(b.ID), b)
	m.trimBundles(once)
	return slices.Clone(signed), nil
}

// trimBundles drops the oldest bundle of one kind above the limit. Used ones stay,
// as they have no secrets. To refuse the newest once bundle instead would let a
// stranger with an invite, who is shown one each time, use up what all others get.
func (m *Machine) trimBundles(once bool) {
	n, most := 0, maxStatic
	if once {
		most = maxOnce
	}
	for i := len(m.bundles) - 1; i >= 0; i-- {
		b := m.bundles[i]
		if b.Once != once || b.Used {
			continue
		}
		if n++; n > most {
			m.unmark(keyBundle(b.ID))
			m.bundles = slices.Delete(m.bundles, i, i+1)
		}
	}
}

func (m *Machine) seed() ([32]byte, error) {
	var seed [32]byte
	if _, err := io.ReadFull(m.random, seed[:]); err != nil {
		return seed, fmt.Errorf("draw randomness: %w", err)
	}
	return seed, nil
}

// Start begins a session to a device that the caller verified, with a bundle
// from it. What is sealed next goes there. Errors: those of ParseBundle,
// ErrBundle where its keys are not those of the record, ErrLimit.
func (m *Machine) Start(now time.Time, to Remote, signed []byte) error {
	b, err := ParseBundle(signed, to.Record.Device, now)
	if err != nil {
		return fmt.Errorf("start session: %w", err)
	}
	if b.RecordHash != to.RecordHash || b.OlmIdentity != to.Record.Olm {
		return fmt.Errorf("start session: %w: keys other than those of the device record", ErrBundle)
	}
	if p := m.peers[to.Device]; p != nil && b.Suite < p.Suite {
		return fmt.Errorf("start session: %w", ErrSuite)
	}
	if err := m.SetRemote(to); err != nil {
		return fmt.Errorf("start session: %w", err)
	}
	keys := Advert{ID: b.ID, OlmKey: b.OlmKey, XWing: b.XWing}
	s, err := m.begin(now, m.peers[to.Device], &keys, nil)
	if err != nil {
		return fmt.Errorf("start session: %w", err)
	}
	s.StartTag, s.Weak, s.Live = b.IntroTag, !b.Once, b.Once
	return nil
}

// begin makes the session of the one who starts. old is nil or the session in
// which the keys were advertised.
func (m *Machine) begin(now time.Time, p *peer, keys *Advert, old *sess) (*sess, error) {
	o, base, ratchet, err := olmStart(m.olm, p.Olm, keys.OlmKey)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	e, err := encapsulate(keys.XWing[:], startInfo(keys.ID, p.Device))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	c := Capsule{
		Suite: identity.Suite1, Version: Version, Epoch: nextEpoch(p.epoch()), Device: m.device,
		Record: m.self.RecordHash, Head: m.self.Head, YourRecord: p.Records[len(p.Records)-1], YourHead: p.Head,
		OlmBase: base, OlmRatchet: ratchet,
	}
	var before past
	if old != nil {
		if before.carry, err = m.seed(); err != nil {
			return nil, err
		}
		if c.Carry, err = old.olm.seal(before.carry[:]); err != nil {
			return nil, err
		}
		c.Previous, before.next = old.ID, old.Next
	}
	sealed, export := e.seal(c.Append(nil))
	t := transcript{capsule: &c, recipient: p.Device, bundle: keys.ID, olmKey: keys.OlmKey, enc: e.enc}
	s := newSess(now, t, newSchedule(export, before, t.hash()), true)
	s.Peer, s.MyHead, s.PeerHead, s.olm = p.Device, c.Head, c.YourHead, o
	s.Header, s.HasHeader = append(slices.Clone(e.enc), sealed...), true
	if old != nil {
		s.StartTag, s.Weak = old.SendTag, !old.Weak
	}
	m.room(p)
	m.admit(s, p)
	m.touch(s)
	m.leaveLower(now, p)
	return s, nil
}

func nextEpoch(top uint32) uint32 {
	if top == math.MaxUint32 {
		return top
	}
	return top + 1
}

// newSess fills what both sides derive alike.
func newSess(now time.Time, t transcript, k schedule, initiator bool) *sess {
	out, in := 0, 1
	if !initiator {
		out, in = 1, 0
	}
	s := &sess{fixed: fixed{
		ID: k.id, Initiator: initiator, Epoch: t.capsule.Epoch, Transcript: t.hash(), Next: k.next,
		SendKey: k.key[out], RecvKey: k.key[in], SendTag: k.tag[out], RecvTag: k.tag[in],
		Created: now.Unix(), Start: sha256.Sum256(t.enc),
	}}
	s.Due = 1
	s.rows.fixed = true
	return s
}

// leaveLower starts the clock of every session that is not sent in any more.
func (m *Machine) leaveLower(now time.Time, p *peer) {
	top := p.current()
	for _, s := range p.sessions {
		if s != top && s.LeftAt == 0 {
			s.LeftAt = max(1, now.Unix())
			m.touch(s)
		}
	}
}

// room makes place for one more session with a device: those in which nothing
// is outstanding go first, then the oldest that is not sent in.
func (m *Machine) room(p *peer) {
	if p == nil || len(p.sessions) < maxPerDevice {
		return
	}
	var oldest *sess
	for _, s := range p.sessions {
		switch {
		case s == p.current():
		case oldest == nil, s.complete() && !oldest.complete(), s.complete() == oldest.complete() && s.Created < oldest.Created:
			oldest = s
		}
	}
	m.drop(oldest)
}

// opening is a start that was opened and not admitted yet.
type opening struct {
	s     *sess
	peer  *peer
	keep  func() // what the commit changes beside the sessions
	carry []byte
	head  *identity.Head
	rest  []byte // the sealed outer layer
}

// openStart answers a start. b stands for the bundle it was made to, or old for
// the session in which the keys were advertised. Nothing is changed.
func (m *Machine) openStart(now time.Time, b *bundle, old *sess, body []byte) (*opening, error) {
	var seed [32]byte
	if b != nil {
		seed = b.Seed
	} else {
		seed = old.OwnSeed
	}
	k := newSecrets(seed)
	plain, export, err := decapsulate(k.xwing, body[:encSize], startInfo(k.id, m.device), body[encSize:headerSize])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	c, err := ParseCapsule(plain)
	if err != nil {
		return nil, err
	}
	p := m.peers[c.Device]
	if p == nil || !slices.Contains(p.Records, c.Record) {
		return nil, &UnknownDevice{c.Device, c.Record, c.Head}
	}
	var before past
	switch {
	case c.Suite < p.Suite:
		return nil, ErrSuite
	case !slices.Contains(m.me.Records, c.YourRecord):
		return nil, broken("start names a record that is not of this device")
	case !slices.Contains(m.me.Heads, c.YourHead):
		return nil, ErrHead
	case old == nil && c.Previous != ID{}, old != nil && (c.Previous != old.ID || c.Device != old.Peer):
		return nil, broken("start names another session")
	case old != nil:
		if before, err = old.past(c.Carry); err != nil {
			return nil, err
		}
	}
	own := olmKeyPair(k.olm)
	o, err := olmAnswer(m.olm, own, p.Olm, c.OlmBase, c.OlmRatchet)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	t := transcript{capsule: &c, recipient: m.device, bundle: k.id, olmKey: [32]byte(own.PublicKey), enc: body[:encSize]}
	s := newSess(now, t, newSchedule(export, before, t.hash()), false)
	if m.sessions[s.ID] != nil {
		return nil, ErrReplay
	}
	s.Peer, s.MyHead, s.PeerHead, s.olm, s.Weak = p.Device, c.YourHead, c.Head, o, weak(b, old)
	s.Live = b != nil && b.Once
	s.self, s.conversation, s.recvAEAD = m.device, m.conversation(p), newAEAD(s.RecvKey)
	for _, other := range p.sessions {
		if f := other.PeerFollows; f != nil && f.Session == s.ID {
			s.Final = f.Seq // its end came before its beginning
		}
	}
	n := &opening{s: s, peer: p, carry: c.Carry, rest: body[headerSize:]}
	if c.Head != p.Head {
		n.head = &c.Head
	}
	return n, m.planStart(now, n, b, old)
}

// weak reports whether the keys of a start lay about, so that a thief of an
// earlier state may have them: those of a static bundle, or advertised long
// ago. Such a session is renewed at its first confirmed message, to keys that
// were made for that.
func weak(b *bundle, old *sess) bool {
	if b != nil {
		return !b.Once
	}
	return !old.Weak
}

// past is what a renewal takes along, at the side that answers it.
func (s *sess) past(carry []byte) (past, error) {
	plain, _, err := s.olm.clone().open(carry, 0, func(uint64) bool { return false })
	if err != nil {
		return past{}, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	if len(plain) != 32 {
		return past{}, broken("what a start carries over")
	}
	return past{next: s.Next, carry: [32]byte(plain)}, nil
}

// spend has the ratchet pass what a renewal carried over, or a thief of this state
// could read it once more, with keys that he stole before. It stays as it is where
// that would cost the key of a message that is still to come.
func (s *sess) spend(carry []byte) {
	o, skips := s.olm.clone(), false
	_, _, err := o.open(carry, math.MaxUint64, func(uint64) bool {
		skips = true
		return false
	})
	if err == nil && !skips {
		s.olm = o
	}
}

// planStart says what the commit of a start does: the keys are used up, or a
// static start is remembered.
func (m *Machine) planStart(now time.Time, n *opening, b *bundle, old *sess) error {
	h := n.s.Start
	switch {
	case old != nil:
		n.keep = func() {
			old.OwnSeed = [32]byte{}
			old.spend(n.carry)
			m.touch(old)
		}
	case b.Once:
		n.keep = func() {
			b.Used, b.Seed, b.Expiry = true, [32]byte{}, now.Add(OldLife).Unix()
			m.mark(keyBundle(b.ID), b)
		}
	default:
		used := 0
		for _, st := range m.starts {
			if st.Device == n.peer.Device {
				used++
			}
		}
		if used >= maxStarts {
			return ErrLimit
		}
		n.keep = func() {}
	}
	keep := n.keep
	n.keep = func() {
		keep()
		if old == nil {
			st := &started{n.s.ID, n.peer.Device, now.Unix()}
			m.starts[h] = st
			m.mark(keyStart(h), st)
		}
	}
	return nil
}
