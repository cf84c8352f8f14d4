package rv

import (
	"bytes"
	"reflect"
	"testing"
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
		if len(again) != len(b) || !bytes.Equal(again, b) && bytes.Equal(again[:2], b[:2]) {
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

func FuzzParseHint(f *testing.F) {
	fuzzParser(f, ParseHint, func(h Hint) ([]byte, error) { return h.Append(nil) })
}

func FuzzParseDHTKey(f *testing.F) {
	fuzzParser(f, func(b []byte) (Point, error) { return ParseDHTKey(string(b)) },
		func(p Point) ([]byte, error) { return []byte(DHTKey(p)), nil })
}

func FuzzParseRequest(f *testing.F) {
	fuzzParser(f, ParseRequest, func(m Request) ([]byte, error) { return m.Append(nil) })
}

func FuzzParseReply(f *testing.F) {
	fuzzParser(f, ParseReply, func(m Reply) ([]byte, error) { return m.Append(nil) })
}

// FuzzValidate: of all bytes that are no record, none passes; nothing panics.
func FuzzValidate(f *testing.F) {
	d := newDevice(9) // of none of the vectors
	p := PeriodAt(epoch)
	point, sound := d.point(f, p), d.seal(f, p, 9)
	f.Add(sound)
	for _, v := range vectors(f) {
		f.Add(v.bytes(f))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := Validate(epoch, point, b)
		_, _, openErr := Open(d.public, d.secret, p, b)
		if (err == nil || openErr == nil) && !bytes.Equal(b, sound) {
			t.Fatalf("a record that nobody made passes: %v, %v\n%.80x", err, openErr, b)
		}
		if len(b) >= 32 {
			_, _ = Validate(epoch, Point(b[:32]), b[32:])
		}
	})
}
