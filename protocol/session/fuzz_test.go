package session

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"

	"github.com/kinloom/kinloom/identity"
)

// fuzzParse checks that what a parser takes has one spelling: padding apart,
// Append gives the same bytes.
func fuzzParse(f *testing.F, message string) {
	for _, v := range vectors(f) {
		f.Add(v.bytes(f))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, again, err := vector{Message: message}.run(b)
		if err == nil && !bytes.Equal(bytes.TrimRight(b, "\x00"), bytes.TrimRight(again, "\x00")) {
			t.Fatalf("%x parses, and is written as %x", b, again)
		}
	})
}

func FuzzParseCapsule(f *testing.F) { fuzzParse(f, "Capsule") }
func FuzzParseAdvert(f *testing.F)  { fuzzParse(f, "Advert") }
func FuzzParseOuter(f *testing.F)   { fuzzParse(f, "Outer") }
func FuzzParseInner(f *testing.F)   { fuzzParse(f, "Inner") }

// FuzzParseBundle also signs what it is given, or a fuzzer would never get past
// the signature.
func FuzzParseBundle(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.bytes(f))
	}
	k := identity.NewDeviceKey([32]byte{7})
	f.Fuzz(func(t *testing.T, b []byte) {
		now := time.Unix(1_800_000_000, 0)
		v := vector{Message: "Bundle"}
		v.With.Device, v.With.Now = hex.EncodeToString(make([]byte, 32)), now.Unix()
		if _, _, err := v.run(b); err == nil {
			t.Fatal("accepted without a key")
		}
		if len(b) > identity.SignatureSize {
			body := b[identity.SignatureSize:]
			u, err := ParseBundle(append(k.Sign(identity.ContextBundle, body), body...), k.Public(), now)
			if err == nil && (u.Suite != identity.Suite1 || u.Expiry <= now.Unix()) {
				t.Fatalf("accepted %+v", u)
			}
		}
	})
}

// FuzzOpen gives bytes to a machine as a cell, and as the plaintext of one.
func FuzzOpen(f *testing.F) {
	a, b := talking(f)
	cell := a.say(epoch0, b, "seed")
	f.Add(cell)
	for _, v := range vectors(f) {
		f.Add(v.bytes(f))
	}
	f.Fuzz(func(t *testing.T, x []byte) {
		m, err := Load(b.self, b.rnd, b.rows())
		if err != nil {
			t.Fatal(err)
		}
		before := m.snapshot()
		if _, err := m.Open(epoch0, x); err != nil && !bytes.Equal(before, m.snapshot()) {
			t.Fatal("refused, yet changed")
		}
		for _, s := range m.recent {
			if o, err := m.take(epoch0, &tx{m: m, now: epoch0}, s, x); err == nil && len(o.Messages) > 0 {
				t.Fatalf("a message came out of %x", x)
			}
		}
	})
}

// FuzzLoad gives rows that were changed on disk.
func FuzzLoad(f *testing.F) {
	a, _ := talking(f)
	for _, r := range a.rows() {
		f.Add(r.Key, r.Value)
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		rows := append(a.rows(), Record{key, value})
		if m, err := Load(a.self, a.rnd, rows); err == nil {
			m.Dirty()
		}
	})
}
