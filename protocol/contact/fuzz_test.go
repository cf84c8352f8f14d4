package contact

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/kinloom/kinloom/identity/enc"
)

// fuzzParser feeds a parser, beginning from all vectors. What it accepts is
// written again with the same value and, without unknown keys, in the very
// same bytes; no cut of it is accepted too.
func fuzzParser[M any](f *testing.F, parse func([]byte) (M, error), write func(M) ([]byte, error)) {
	f.Helper()
	for _, v := range vectors(f) {
		f.Add(v.bytes(f))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil {
			if v := reflect.ValueOf(&m).Elem(); !v.IsZero() {
				t.Fatalf("refused (%v), yet there is a value: %+v", err, m)
			}
			return
		}
		again, err := write(m)
		if err != nil {
			t.Fatalf("parsed, but not written: %v", err)
		}
		if len(again) > len(b) || len(again) == len(b) && !bytes.Equal(again, b) && !unknown(b) {
			t.Fatalf("another spelling:\n%x\n%x", b, again)
		}
		second, err := parse(again)
		if err != nil || !reflect.DeepEqual(second, m) {
			t.Fatalf("not the same value: %+v, %v; was %+v", second, err, m)
		}
		for _, n := range []int{0, 1, len(b) / 2, len(b) - 1} {
			if _, err := parse(b[:n]); err == nil {
				t.Fatalf("its first %d bytes pass too", n)
			}
		}
	})
}

// unknown tells whether b may have parts of a later version that leave its
// length as it is: flags of an invite, or keys in place of a hello's padding.
func unknown(b []byte) bool { return enc.Valid(b) != nil }

func appending[M Message](m M) ([]byte, error) { return m.Append(nil) }

func FuzzParseMessage(f *testing.F)  { fuzzParser(f, ParseMessage, appending[Message]) }
func FuzzParseMaterial(f *testing.F) { fuzzParser(f, ParseMaterial, appending[Material]) }
func FuzzParseHello(f *testing.F)    { fuzzParser(f, ParseHello, appending[Hello]) }
func FuzzParseAnswer(f *testing.F)   { fuzzParser(f, ParseAnswer, appending[Answer]) }

func FuzzParsePayload(f *testing.F) {
	fuzzParser(f, ParsePayload, func(v Invite) ([]byte, error) { return AppendInvite(nil, v) })
}

func FuzzParseTransport(f *testing.F) {
	fuzzParser(f, ParseTransport, func(t Transport) ([]byte, error) { return t.PeerID(), nil })
}

// FuzzParseInvite reads texts. One that passes has two forms, and both give
// the same invite.
func FuzzParseInvite(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(string(v.bytes(f)))
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ParseInvite(text)
		if err != nil {
			return
		}
		link, err := v.Link()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseInvite(link)
		if err != nil || !reflect.DeepEqual(again, v) {
			t.Fatalf("%q gives %+v, %v; was %+v", link, again, err, v)
		}
		code, err := v.QR()
		if err != nil {
			return
		}
		if again, err = ParseInvite(code); err != nil || !reflect.DeepEqual(again, v) {
			t.Fatalf("%q gives %+v, %v; was %+v", code, again, err, v)
		}
		if strings.ToUpper(code) != code {
			t.Fatalf("QR text %q is not upper case", code)
		}
	})
}

// FuzzExchange plays two honest sides with one message changed by the fuzzer:
// no side panics, and none ends with a contact unless nothing was changed.
func FuzzExchange(f *testing.F) {
	f.Add(byte(1), uint16(3), byte(1), false)
	f.Add(byte(2), uint16(40), byte(0x80), true)
	f.Add(byte(3), uint16(900), byte(0), false)
	f.Add(byte(4), uint16(10), byte(7), true)
	f.Fuzz(func(t *testing.T, which byte, at uint16, xor byte, cut bool) {
		a, b := newParty(t, 1), newParty(t, 2)
		changed := false
		got, _, err := newPair(t, a, b).play(func(n int, m []byte) []byte {
			if n != int(which) || int(at) >= len(m) || xor == 0 && !cut {
				return m
			}
			changed = true
			m = bytes.Clone(m)
			if m[at] ^= xor; cut {
				m = m[:at]
			}
			return m
		})
		if changed == (err == nil) || changed && got != nil {
			t.Fatalf("message %d, byte %d ^ %#x, cut %v: %+v, %v", which, at, xor, cut, got, err)
		}
	})
}
