package session

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/wire"
)

// forge builds the first cell of a session as begin and Pack do, with lies:
// before changes what goes into the transcript too, after what the recipient
// reads alone.
func forge(t *testing.T, a, b *side, signed []byte, before, after func(*Capsule), payload string) []byte {
	t.Helper()
	return forgeSeq(t, a, b, signed, 1, before, after, payload)
}

// forgeSeq is forge with another number for the message.
func forgeSeq(t *testing.T, a, b *side, signed []byte, seq uint64, before, after func(*Capsule), payload string) []byte {
	t.Helper()
	u, err := ParseBundle(signed, b.self.Key.Public(), epoch0)
	if err != nil {
		t.Fatal(err)
	}
	o, base, ratchet, err := olmStart(a.m.olm, b.self.Record.Olm, u.OlmKey)
	if err != nil {
		t.Fatal(err)
	}
	e, err := encapsulate(u.XWing[:], startInfo(u.ID, b.dev()))
	if err != nil {
		t.Fatal(err)
	}
	c := Capsule{
		Suite: identity.Suite1, Version: Version, Epoch: 1, Device: a.dev(), Record: a.self.RecordHash, Head: a.self.Head,
		YourRecord: b.self.RecordHash, YourHead: b.self.Head, OlmBase: base, OlmRatchet: ratchet,
	}
	before(&c)
	if !soundKey(c.OlmRatchet) { // such a key would be in the message as well
		o.s.Ratchet.SenderChains.RKey.PublicKey = c.OlmRatchet[:]
	}
	tr := transcript{capsule: &c, recipient: b.dev(), bundle: u.ID, olmKey: u.OlmKey, enc: e.enc}
	h, sender := tr.hash(), c.Device
	after(&c)
	sealed, export := e.seal(c.Append(nil))
	k := newSchedule(export, past{}, h)
	bound := binding(h, seq, sender, b.dev(), conv(a, b))
	msg, err := o.seal(append(append(bound[:], innerOwn), payload...))
	if err != nil {
		t.Fatal(err)
	}
	body := appendItem(nil, seq, msg)
	buf := make([]byte, nonceSize)
	if _, err := a.rnd.Read(buf); err != nil {
		t.Fatal(err)
	}
	tag := newTagger(u.IntroTag).tag(buf)
	buf = append(append(append(buf, tag[:]...), e.enc...), sealed...)
	over := wire.CellHeader + len(buf) + aeadTag
	body = append(body, make([]byte, wire.Padme(over+len(body))-over-len(body))...)
	buf = newAEAD(k.key[0]).Seal(buf, buf[:nonceSize], body, appendAAD(nil, k.id, sender, b.dev(), 0, formStart))
	return wire.AppendCell(nil, buf)
}

func none(*Capsule) {}

// refuses opens a cell that must be refused with want, without any change.
func (s *side) refuses(t *testing.T, what string, cell []byte, want error) error {
	t.Helper()
	before := s.m.snapshot()
	o, err := s.m.Open(epoch0, cell)
	if err == nil || want != nil && !errors.Is(err, want) {
		t.Errorf("%s: %v, %d messages; want %v", what, err, len(o.Messages), want)
	}
	if len(o.Messages) > 0 || !bytes.Equal(before, s.m.snapshot()) || len(s.m.Dirty()) > 0 {
		t.Errorf("%s: refused, yet something changed", what)
	}
	return err
}

// TestStartLies: H14, H23, H130. Every field of a start that is not the truth
// makes it fail, whether the liar counts it into the transcript or not.
func TestStartLies(t *testing.T) {
	a, b, c := newSide(t, "alice", "1"), newSide(t, "bob", "1"), newSide(t, "carol", "1")
	meet(a, b)
	meet(c, b)
	b.save()
	other := ID{1}
	lies := []struct {
		name   string
		lie    func(*Capsule)
		honest error // where the transcript has the lie too
	}{
		{"suite", func(x *Capsule) { x.Suite = 2 }, ErrSuite},
		{"version", func(x *Capsule) { x.Version = 2 }, ErrSuite},
		{"epoch 0", func(x *Capsule) { x.Epoch = 0 }, ErrBroken},
		{"another sender", func(x *Capsule) { x.Device, x.Record = c.dev(), c.self.RecordHash }, ErrBroken},
		{"sender's record", func(x *Capsule) { x.Record[0] ^= 1 }, nil},
		{"unknown sender", func(x *Capsule) { x.Device[0] ^= 1 }, nil},
		{"recipient as sender", func(x *Capsule) { x.Device, x.Record = b.dev(), b.self.RecordHash }, nil},
		{"recipient's record", func(x *Capsule) { x.YourRecord[0] ^= 1 }, ErrBroken},
		{"recipient's head", func(x *Capsule) { x.YourHead[0] ^= 1 }, ErrHead},
		{"previous session", func(x *Capsule) { x.Previous, x.Carry = other, []byte{1} }, ErrBroken},
		{"base key", func(x *Capsule) { x.OlmBase = c.self.Record.Olm }, ErrBroken},
		{"ratchet key", func(x *Capsule) { x.OlmRatchet = c.self.Record.Olm }, nil},
		{"base key zero", func(x *Capsule) { x.OlmBase = [32]byte{} }, ErrBroken},
		{"ratchet key zero", func(x *Capsule) { x.OlmRatchet = [32]byte{} }, ErrBroken},
	}
	for _, l := range lies {
		for _, once := range []bool{true, false} {
			b.refuses(t, l.name, forge(t, a, b, b.bundle(epoch0, once), l.lie, none, "hi"), l.honest)
			if l.name != "epoch" {
				b.refuses(t, l.name+", not in the transcript", forge(t, a, b, b.bundle(epoch0, once), none, l.lie, "hi"), nil)
			}
		}
	}
	// A message that would have to wait does not start a session unread.
	b.refuses(t, "another sender, later message", forgeSeq(t, a, b, b.bundle(epoch0, true), 5,
		func(x *Capsule) { x.Device, x.Record = c.dev(), c.self.RecordHash }, none, "hi"), ErrBroken)
	b.refuses(t, "message too far ahead", forgeSeq(t, a, b, b.bundle(epoch0, true), MaxAhead+1, none, none, "hi"), ErrJump)
	for _, l := range []struct {
		name string
		lie  func(*Capsule)
	}{{"epoch", func(x *Capsule) { x.Epoch++ }}, {"sender's head", func(x *Capsule) { x.Head[0] ^= 1 }}} {
		b.refuses(t, l.name+", not in the transcript", forge(t, a, b, b.bundle(epoch0, true), none, l.lie, "hi"), nil)
	}
	var unknown *UnknownDevice
	stranger := newSide(t, "mallory", "1")
	err := b.refuses(t, "stranger", forge(t, stranger, b, b.bundle(epoch0, true), none, none, "hi"), nil)
	if !errors.As(err, &unknown) || unknown.Device != stranger.dev() || unknown.Record != stranger.self.RecordHash {
		t.Errorf("stranger: %v", err)
	}
	// All that honest, and the head of the sender unknown: it opens and says so.
	o := b.open(epoch0, forge(t, a, b, b.bundle(epoch0, true), func(x *Capsule) { x.Head[0] ^= 1 }, none, "hi"))
	if len(o.Messages) != 1 || o.NewHead == nil {
		t.Errorf("new head: %+v", o)
	}
}

// TestLowOrder: H12. No key that has no effect on a secret is used.
func TestLowOrder(t *testing.T) {
	points := map[string][32]byte{
		"zero": {}, "one": {1},
		"order 8":       [32]byte(hexBytes(t, "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")),
		"order 8 again": [32]byte(hexBytes(t, "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157")),
		"p-1":           [32]byte(hexBytes(t, "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")),
		"p":             [32]byte(hexBytes(t, "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")),
		"p+1":           [32]byte(hexBytes(t, "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")),
	}
	a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
	meet(a, b)
	b.save()
	for name, p := range points {
		if soundKey(p) {
			t.Errorf("%s passes for a key", name)
		}
		for _, lie := range []func(*Capsule){func(c *Capsule) { c.OlmBase = p }, func(c *Capsule) { c.OlmRatchet = p }} {
			b.refuses(t, name, forge(t, a, b, b.bundle(epoch0, true), lie, none, "hi"), ErrBroken)
		}
		u, err := ParseBundle(b.bundle(epoch0, true), b.self.Key.Public(), epoch0)
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range []func(){func() { u.OlmKey = p }, func() { copy(u.XWing[1184:], p[:]) }} {
			change()
			signed, err := u.sign(b.self.Key)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.m.Start(epoch0, b.remote(), signed); !errors.Is(err, ErrBundle) {
				t.Errorf("bundle with %s: %v", name, err)
			}
		}
		r := b.remote()
		r.Record.Olm = p
		u.OlmIdentity = p
		signed, err := u.sign(b.self.Key)
		if err != nil {
			t.Fatal(err)
		}
		if err := newSide(t, "alice", "1").m.Start(epoch0, r, signed); !errors.Is(err, ErrBundle) {
			t.Errorf("identity %s: %v", name, err)
		}
	}
}

// TestHostileBundle: H130, H18. A bundle whose Olm keys are not those of the
// device's record, or that is not signed as a bundle, is refused before use.
func TestHostileBundle(t *testing.T) {
	a, b, c := newSide(t, "alice", "1"), newSide(t, "bob", "1"), newSide(t, "carol", "1")
	u, err := ParseBundle(b.bundle(epoch0, false), b.self.Key.Public(), epoch0)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name string
		lie  func(*Bundle)
	}{
		{"identity of another", func(u *Bundle) { u.OlmIdentity = c.self.Record.Olm }},
		{"no identity", func(u *Bundle) { u.OlmIdentity = [32]byte{} }},
		{"another record", func(u *Bundle) { u.RecordHash = c.self.RecordHash }},
		{"no Olm key", func(u *Bundle) { u.OlmKey = [32]byte{} }},
	} {
		bad := u
		x.lie(&bad)
		signed, err := bad.sign(b.self.Key)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.m.Start(epoch0, b.remote(), signed); !errors.Is(err, ErrBundle) {
			t.Errorf("%s: %v, want %v", x.name, err, ErrBundle)
		}
		if a.m.CanSeal(b.dev()) {
			t.Errorf("%s: a session came of it", x.name)
		}
	}
	// Carol's bundle shown as Bob's.
	if err := a.m.Start(epoch0, b.remote(), c.bundle(epoch0, false)); !errors.Is(err, identity.ErrSignature) {
		t.Errorf("bundle of another device: %v", err)
	}
	body := b.bundle(epoch0, false)[identity.SignatureSize:]
	for _, ctx := range []identity.Context{
		identity.ContextLog, identity.ContextDeviceRecord, identity.ContextDeviceProof, identity.ContextContact, identity.ContextServerList,
	} {
		signed := append(b.self.Key.Sign(ctx, body), body...)
		if err := a.m.Start(epoch0, b.remote(), signed); !errors.Is(err, identity.ErrSignature) {
			t.Errorf("bundle signed as %s: %v", ctx, err)
		}
	}
	// A substituted Olm key, signed by its device, opens nowhere but there.
	bad := u
	bad.OlmKey = c.self.Record.Olm
	signed, err := bad.sign(b.self.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.m.Start(epoch0, b.remote(), signed); err != nil {
		t.Fatal(err)
	}
	meet(a, b)
	b.save()
	b.refuses(t, "start to a substituted Olm key", a.say(epoch0, b, "hi"), nil)
}

// raw packs items as they are, into a cell of the session from a to its peer.
func (s *side) raw(t *testing.T, x *sess, o Outer) []byte {
	t.Helper()
	buf := make([]byte, nonceSize)
	if _, err := s.rnd.Read(buf); err != nil {
		t.Fatal(err)
	}
	tag := newTagger(x.SendTag).tag(buf)
	buf = append(buf, tag[:]...)
	body := o.Append(nil)
	over := wire.CellHeader + len(buf) + aeadTag
	body = append(body, make([]byte, wire.Padme(over+len(body))-over-len(body))...)
	return wire.AppendCell(nil, newAEAD(x.SendKey).Seal(buf, buf[:nonceSize], body,
		appendAAD(nil, x.ID, s.dev(), x.Peer, x.direction(), formPlain)))
}

func (s *side) session(t *testing.T, to *side) *sess {
	t.Helper()
	x := s.m.peers[to.dev()].current()
	if x == nil {
		t.Fatal("no session")
	}
	return x
}

// TestBinding: H14. Every input of the inner binding is checked, and every type
// of inner plaintext that does not exist is refused.
func TestBinding(t *testing.T) {
	a, b := talking(t)
	c := newSide(t, "carol", "1")
	x := a.session(t, b)
	own, elsewhere := conv(a, b), event.ConversationID{9}
	seq := x.Sent + 1
	good := func() [32]byte { return binding(x.Transcript, seq, a.dev(), b.dev(), own) }
	flipped := x.Transcript
	flipped[0] ^= 1
	cases := []struct {
		name  string
		bound [32]byte
		plain []byte
	}{
		{"transcript", binding(flipped, seq, a.dev(), b.dev(), own), []byte{1, 'x'}},
		{"seq", binding(x.Transcript, seq+1, a.dev(), b.dev(), own), []byte{1, 'x'}},
		{"sender", binding(x.Transcript, seq, c.dev(), b.dev(), own), []byte{1, 'x'}},
		{"receiver", binding(x.Transcript, seq, a.dev(), c.dev(), own), []byte{1, 'x'}},
		{"direction", binding(x.Transcript, seq, b.dev(), a.dev(), own), []byte{1, 'x'}},
		{"conversation", binding(x.Transcript, seq, a.dev(), b.dev(), elsewhere), []byte{1, 'x'}},
		{"other conversation than named", good(), append(append([]byte{2}, elsewhere[:]...), 'x')},
		{"own conversation by name", good(), append(append([]byte{2}, own[:]...), 'x')},
		{"control in a conversation", good(), append([]byte{16}, 0, 0)},
		{"message as control", binding(x.Transcript, seq, a.dev(), b.dev(), event.ConversationID{}), []byte{1, 'x'}},
		{"unknown type", good(), []byte{7, 'x'}},
		{"key forward", binding(x.Transcript, seq, a.dev(), b.dev(), event.ConversationID{}), []byte{20, 'x'}},
		{"empty", good(), nil},
	}
	for _, v := range cases {
		o := x.olm.clone()
		msg, err := o.seal(append(v.bound[:], v.plain...))
		if err != nil {
			t.Fatal(err)
		}
		b.refuses(t, v.name, a.raw(t, x, Outer{Items: []Item{{seq, msg}}}), ErrBroken)
	}
	o := x.olm.clone()
	msg, err := o.seal([]byte("short"))
	if err != nil {
		t.Fatal(err)
	}
	b.refuses(t, "no binding", a.raw(t, x, Outer{Items: []Item{{seq, msg}}}), ErrBroken)
	// Transplanted: an Olm message of this session under the seq of another.
	s := a.seal(epoch0, b, "mine")
	b.refuses(t, "transplanted", a.raw(t, x, Outer{Items: []Item{{s.Seq, append(s.Inner[:len(s.Inner)-1:len(s.Inner)-1], s.Inner[len(s.Inner)-1]^1)}}}), ErrBroken)
	wantTexts(t, "after all that", texts(b.open(epoch0, a.cell(epoch0, b, s))), "mine")
}

// TestCellBits: H35. No bit of a cell can change, and no part of it passes.
func TestCellBits(t *testing.T) {
	for _, started := range []bool{true, false} {
		var a, b *side
		if started {
			a, b = talking(t)
		} else {
			a, b = newSide(t, "alice", "1"), newSide(t, "bob", "1")
			start(epoch0, a, b, true)
		}
		cell := a.say(epoch0, b, "hello")
		for n := range cell {
			b.refuses(t, fmt.Sprintf("first %d bytes", n), cell[:n], nil)
		}
		for i := range len(cell) * 8 {
			if i > 1000 && i%5 != 0 && !started || testing.Short() && i%31 != 0 {
				continue
			}
			c := bytes.Clone(cell)
			c[i/8] ^= 1 << (i % 8)
			b.refuses(t, fmt.Sprintf("bit %d", i), c, nil)
			// And with the id made to fit.
			if i >= 8*wire.CellHeader && i%3 == 0 {
				b.refuses(t, fmt.Sprintf("bit %d, new id", i), wire.AppendCell(nil, c[wire.CellHeader:]), nil)
			}
		}
		wantTexts(t, "the cell itself", texts(b.open(epoch0, cell)), "hello")
	}
}

// TestForeignCells: a cell opens for its recipient only, and not for who sent
// it. Nothing of one session passes in another.
func TestForeignCells(t *testing.T) {
	a, b := talking(t)
	c := newSide(t, "carol", "1")
	start(epoch0, a, c, true)
	c.open(epoch0, a.say(epoch0, c, "hello"))
	cell := a.say(epoch0, b, "for bob")
	c.refuses(t, "at carol's", cell, ErrUnknown)
	a.refuses(t, "reflected", cell, ErrUnknown)
	item := a.seal(epoch0, b, "x")
	if _, _, err := a.m.Pack(epoch0, c.dev(), item.Session, []Sealed{item}, wire.Padme); !errors.Is(err, ErrNoSession) {
		t.Errorf("packed for another device: %v", err)
	}
	other := a.session(t, c)
	if _, _, err := a.m.Pack(epoch0, c.dev(), other.ID, []Sealed{item}, wire.Padme); !errors.Is(err, ErrNoSession) {
		t.Errorf("packed into another session: %v", err)
	}
	o := Outer{Items: []Item{{other.Sent + 1, item.Inner}}}
	y := *a.session(t, c)
	y.HasHeader = false
	c.refuses(t, "inner message of another session", a.raw(t, &y, o), ErrBroken)
}

// TestJump: H26. A seq too far ahead is refused at once.
func TestJump(t *testing.T) {
	a, b := talking(t)
	x := a.session(t, b)
	due := b.session(t, a).Due
	for _, seq := range []uint64{due + MaxAhead, MaxSeq + 1, 1<<32 - 1, 1<<64 - 1} {
		cell := a.raw(t, x, Outer{Items: []Item{{seq, bytes.Repeat([]byte{1}, 100)}}})
		b.refuses(t, fmt.Sprint("seq ", seq), cell, ErrJump)
		best := time.Hour
		for range 50 {
			began := time.Now()
			if _, err := b.m.Open(epoch0, cell); !errors.Is(err, ErrJump) {
				t.Fatal(err)
			}
			best = min(best, time.Since(began))
		}
		if best > time.Millisecond {
			t.Errorf("seq %d took %v to refuse", seq, best)
		}
	}
}

// TestSuite: a device that proved a suite is not accepted below it.
func TestSuite(t *testing.T) {
	a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
	meet(a, b)
	a.m.peers[b.dev()].Suite, b.m.peers[a.dev()].Suite = 2, 2
	b.save()
	if err := a.m.Start(epoch0, b.remote(), b.bundle(epoch0, true)); !errors.Is(err, ErrSuite) {
		t.Errorf("bundle of a weaker suite: %v", err)
	}
	b.refuses(t, "start of a weaker suite", forge(t, a, b, b.bundle(epoch0, true), none, none, "hi"), ErrSuite)
}

// TestErrorsTellNothing: no error text has key or content in it.
func TestErrorsTellNothing(t *testing.T) {
	a, b := talking(t)
	x := a.session(t, b)
	_, err := b.m.Open(epoch0, a.raw(t, x, Outer{Items: []Item{{x.Sent + 1, []byte("a secret text")}}}))
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
}

// TestLateRubbish: what comes for a missing seq and does not open is asked for again
// once, not with each copy of it: the questions would fill the sender's disk.
func TestLateRubbish(t *testing.T) {
	a, b := talking(t)
	gone := a.seal(epoch0, b, "never sent")
	b.open(epoch0, a.say(epoch0, b, "behind it"))
	ask := func(os ...Opened) {
		for _, o := range os {
			for _, g := range o.Gaps {
				if err := b.m.AskRepeat(epoch0, a.dev(), g.Session, g.Seqs); err != nil {
					t.Fatal(err)
				}
			}
		}
		b.save()
	}
	ask(b.m.FlushPoll(epoch0)...)
	end := len(gone.Inner) - 2
	wrong := gone.Inner[end] ^ 1
	for i := range 200 {
		gone.Inner = append(gone.Inner[:end:end], wrong, byte(i))
		cell, _, err := a.m.Pack(epoch0, b.dev(), gone.Session, []Sealed{gone}, wire.Padme)
		if err != nil {
			t.Fatal(err)
		}
		ask(b.open(epoch0, cell))
	}
	asks := 0
	for _, s := range b.m.sessions {
		for _, c := range s.Control {
			if c.Plain[0] == innerRepeat {
				asks++
			}
		}
	}
	if asks != 1 {
		t.Errorf("%d questions for one message wait, want 1", asks)
	}
}
