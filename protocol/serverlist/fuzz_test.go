package serverlist

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/kinloom/kinloom/identity"
)

// FuzzParseList begins from all vectors. What is accepted has one spelling, no cut of it
// is accepted too, and nobody whom the reader believes has signed it.
func FuzzParseList(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(unhexed(f, v.Hex))
	}
	believed := []identity.ListPublic{identity.NewListKey([32]byte{99}).Public()} // of none of the vectors
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseList(b)
		if err != nil {
			if !reflect.ValueOf(l).IsZero() {
				t.Fatalf("refused (%v), yet there is a value: %+v", err, l)
			}
			return
		}
		again, err := l.Append(nil)
		if err != nil || !bytes.Equal(again, b) || !bytes.HasPrefix(b, l.Body()) {
			t.Fatalf("another spelling (%v):\n%s\n%s", err, b, again)
		}
		for _, n := range []int{0, 1, len(b) / 2, len(b) - 1} {
			if _, err := ParseList(b[:n]); err == nil {
				t.Fatalf("its first %d bytes pass too", n)
			}
		}
		if err := l.Check(time.Unix(l.Issued, 0), believed, 0); err == nil {
			t.Fatal("a list that nobody signed passes")
		}
	})
}
