package session

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kinloom/kinloom/identity"
)

// wholeSession is testdata/session.json: every derived value of SPEC 3, and
// the cells of a session with the secrets that open them, so that another
// implementation can be held to it. All byte strings are hex.
type wholeSession struct {
	Note       string
	Now        int64
	Sides      []wholeSide // Alice, who starts, and Bob
	Bundle     string      // of Bob
	BundleSeed string
	Cells      []wholeCell
	Schedule   wholeSchedule
	Transcript wholeTranscript
	Binding    string // of the transcript above, seq 300, Alice to Bob, in their conversation
	AAD        string // of the session of Schedule, Alice to Bob, direction 1, form 1
	Tag        string // under the first of the tags, of the first 12 bytes of Enc
}

type wholeSide struct{ DeviceSeed, OlmSeed, Person, RecordHash, Head string }

type wholeCell struct {
	From    int // 0: Alice
	Session string
	Cell    string
	Texts   []string
}

type wholeSchedule struct {
	Export, Next, Carry, Transcript string // inputs
	ID, NextOut                     string
	Keys, Tags                      []string
}

type wholeTranscript struct{ Capsule, Recipient, Bundle, OlmKey, Enc, Hash string }

func readWhole(t *testing.T) wholeSession {
	t.Helper()
	b, err := os.ReadFile("testdata/session.json")
	if err != nil {
		t.Fatal(err)
	}
	var w wholeSession
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		t.Fatal(err)
	}
	return w
}

func hex32(t *testing.T, s string) [32]byte { return [32]byte(hexBytes(t, s)) }

// TestDerivation: the values of SPEC 3 as they are frozen.
func TestDerivation(t *testing.T) {
	w := readWhole(t)
	s := w.Schedule
	k := newSchedule(hexBytes(t, s.Export), past{hex32(t, s.Next), hex32(t, s.Carry)}, hex32(t, s.Transcript))
	c, err := ParseCapsule(hexBytes(t, w.Transcript.Capsule))
	if err != nil {
		t.Fatal(err)
	}
	bob := identity.DeviceID(hex32(t, w.Transcript.Recipient))
	tr := transcript{
		capsule: &c, recipient: bob, bundle: [8]byte(hexBytes(t, w.Transcript.Bundle)),
		olmKey: hex32(t, w.Transcript.OlmKey), enc: hexBytes(t, w.Transcript.Enc),
	}
	h := tr.hash()
	a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
	bound := binding(h, 300, c.Device, bob, conv(a, b))
	tag := newTagger(k.tag[0]).tag(tr.enc[:nonceSize])
	for _, v := range []struct {
		name, want string
		got        []byte
	}{
		{"id", s.ID, k.id[:]},
		{"next", s.NextOut, k.next[:]},
		{"key 0", s.Keys[0], k.key[0][:]},
		{"key 1", s.Keys[1], k.key[1][:]},
		{"tag key 0", s.Tags[0], k.tag[0][:]},
		{"tag key 1", s.Tags[1], k.tag[1][:]},
		{"transcript", w.Transcript.Hash, h[:]},
		{"binding", w.Binding, bound[:]},
		{"aad", w.AAD, appendAAD(nil, k.id, c.Device, bob, 1, formStart)},
		{"tag", w.Tag, tag[:]},
	} {
		if got := hex.EncodeToString(v.got); got != v.want {
			t.Errorf("%s: %s, want %s", v.name, got, v.want)
		}
	}
}

// TestTranscriptFields: H14. Each field changes the hash, and so every key.
func TestTranscriptFields(t *testing.T) {
	w := readWhole(t)
	c, err := ParseCapsule(hexBytes(t, w.Transcript.Capsule))
	if err != nil {
		t.Fatal(err)
	}
	fresh := func() (*Capsule, *transcript) {
		d := c
		return &d, &transcript{capsule: &d, enc: hexBytes(t, w.Transcript.Enc)}
	}
	_, base := fresh()
	seen := map[[32]byte]string{base.hash(): "nothing"}
	for name, change := range map[string]func(*Capsule, *transcript){
		"suite":              func(c *Capsule, _ *transcript) { c.Suite++ },
		"epoch":              func(c *Capsule, _ *transcript) { c.Epoch++ },
		"previous session":   func(c *Capsule, _ *transcript) { c.Previous[15] ^= 1 },
		"sender":             func(c *Capsule, _ *transcript) { c.Device[31] ^= 1 },
		"sender's record":    func(c *Capsule, _ *transcript) { c.Record[31] ^= 1 },
		"sender's head":      func(c *Capsule, _ *transcript) { c.Head[31] ^= 1 },
		"recipient's record": func(c *Capsule, _ *transcript) { c.YourRecord[31] ^= 1 },
		"recipient's head":   func(c *Capsule, _ *transcript) { c.YourHead[31] ^= 1 },
		"base key":           func(c *Capsule, _ *transcript) { c.OlmBase[31] ^= 1 },
		"ratchet key":        func(c *Capsule, _ *transcript) { c.OlmRatchet[31] ^= 1 },
		"recipient":          func(_ *Capsule, x *transcript) { x.recipient[31] ^= 1 },
		"bundle":             func(_ *Capsule, x *transcript) { x.bundle[7] ^= 1 },
		"Olm key":            func(_ *Capsule, x *transcript) { x.olmKey[31] ^= 1 },
		"enc":                func(_ *Capsule, x *transcript) { x.enc[encSize-1] ^= 1 },
	} {
		d, x := fresh()
		change(d, x)
		if other, ok := seen[x.hash()]; ok {
			t.Errorf("%s changes no more than %s", name, other)
		}
		seen[x.hash()] = name
	}
}

// TestFrozenSession: cells that an earlier version sealed still open, from the
// secrets that were frozen with them.
func TestFrozenSession(t *testing.T) {
	w := readWhole(t)
	b := newSide(t, "bob", "1")
	a := newSide(t, "alice", "1")
	if d, o := seed32("bob1 device"), seed32("bob1 olm"); w.Sides[1].DeviceSeed != hex.EncodeToString(d[:]) || w.Sides[1].OlmSeed != hex.EncodeToString(o[:]) {
		t.Fatal("the file has other devices than this test")
	}
	meet(a, b)
	seed := hex32(t, w.BundleSeed)
	k := newSecrets(seed)
	u, err := ParseBundle(hexBytes(t, w.Bundle), b.self.Key.Public(), time.Unix(w.Now, 0))
	if err != nil || u.ID != k.id || u.OlmKey != [32]byte(olmKeyPair(k.olm).PublicKey) || u.XWing != xwingPublic(k.xwing) || u.IntroTag != k.intro {
		t.Fatalf("bundle does not come from its seed: %v", err)
	}
	b.m.bundles = append(b.m.bundles, &bundle{ID: k.id, Seed: seed, Intro: k.intro, Once: true, Expiry: u.Expiry, tag: newTagger(k.intro)})
	for i, c := range w.Cells {
		o := b.open(time.Unix(w.Now, 0), hexBytes(t, c.Cell))
		if d := cmp.Diff(c.Texts, texts(o)); d != "" || hex.EncodeToString(o.Session[:]) != c.Session {
			t.Errorf("cell %d: session %x, %s", i+1, o.Session, d)
		}
	}
}

// TestDeterministic: the same chance gives the same cells, byte for byte.
func TestDeterministic(t *testing.T) {
	run := func() (out [][]byte) {
		cryptotest.SetGlobalRandom(t, 7)
		a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
		a.rnd, b.rnd = rand.NewChaCha8(seed32("a")), rand.NewChaCha8(seed32("b"))
		start(epoch0, a, b, true)
		for range 3 {
			c := a.say(epoch0, b, "x")
			b.open(epoch0, c)
			d := b.say(epoch0, a, "y")
			a.open(epoch0, d)
			out = append(out, c, d)
		}
		return out
	}
	if d := cmp.Diff(run(), run()); d != "" {
		t.Errorf("two runs differ: %.300s", d)
	}
}
