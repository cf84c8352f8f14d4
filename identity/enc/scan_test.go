package enc

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestValid(t *testing.T) {
	for _, tt := range []struct {
		name, hex string
		want      error
	}{
		{"zero", "00", nil},
		{"23 in one byte", "17", nil},
		{"24 in two bytes", "1818", nil},
		{"largest integer", "1bffffffffffffffff", nil},
		{"-1", "20", nil},
		{"smallest integer", "3b7fffffffffffffff", nil},
		{"empty bytes", "40", nil},
		{"bytes", "43010203", nil},
		{"text", "63616263", nil},
		{"text beyond ASCII", "64f09f98 80", nil},
		{"false", "f4", nil},
		{"true", "f5", nil},
		{"empty array", "80", nil},
		{"array", "83010203", nil},
		{"empty map", "a0", nil},
		{"map", "a201020304", nil},
		{"map, integers of growing length", "a3 01 00 17 00 1818 00", nil},
		{"map, integers before negatives before text", "a3 01 00 20 00 6161 00", nil},
		{"map, short text before long", "a2 6162 00 626161 00", nil},
		{"depth 8", "8181818181818180", nil},
		{"depth 8 of maps", "a100a100a100a100a100a100a100a0", nil},

		{"nothing", "", ErrTruncated},
		{"integer cut", "18", ErrTruncated},
		{"long integer cut", "1b00000001000000", ErrTruncated},
		{"bytes cut", "430102", ErrTruncated},
		{"bytes longer than memory", "5bffffffffffffffff", ErrTruncated},
		{"bytes of 2^63", "5b8000000000000000", ErrTruncated},
		{"text cut", "626 1", ErrTruncated},
		{"array cut", "8201", ErrTruncated},
		{"array of 2^64-1", "9bffffffffffffffff01", ErrTruncated},
		{"array of more than is there", "850102", ErrTruncated},
		{"map cut before the value", "a101", ErrTruncated},
		{"map of 2^64-1", "bbffffffffffffffff0101", ErrTruncated},
		{"map of more than is there", "a3010203", ErrTruncated},

		{"two values", "0000", ErrTrailing},
		{"array and a byte", "8000", ErrTrailing},

		{"0 in two bytes", "1800", ErrNotCanonical},
		{"23 in two bytes", "1817", ErrNotCanonical},
		{"255 in three bytes", "1900ff", ErrNotCanonical},
		{"65535 in five bytes", "1a0000ffff", ErrNotCanonical},
		{"2^32-1 in nine bytes", "1b00000000ffffffff", ErrNotCanonical},
		{"-1 in two bytes", "3800", ErrNotCanonical},
		{"length in two bytes", "580101", ErrNotCanonical},
		{"count in two bytes", "980101", ErrNotCanonical},
		{"keys out of order", "a203040102", ErrNotCanonical},
		{"negative before positive", "a2 20 00 01 00", ErrNotCanonical},
		{"text before integer", "a2 6161 00 01 00", ErrNotCanonical},
		{"long text before short", "a2 626161 00 6162 00", ErrNotCanonical},
		{"nested keys out of order", "81a203040102", ErrNotCanonical},

		{"key twice", "a201020103", ErrDuplicate},
		{"text key twice", "a2616100616101", ErrDuplicate},

		{"null", "f6", ErrForbidden},
		{"undefined", "f7", ErrForbidden},
		{"simple 0", "e0", ErrForbidden},
		{"simple 32", "f820", ErrForbidden},
		{"false in two bytes", "f814", ErrForbidden},
		{"half float", "f90000", ErrForbidden},
		{"float", "fa00000000", ErrForbidden},
		{"double", "fb0000000000000000", ErrForbidden},
		{"break", "ff", ErrForbidden},
		{"tag", "c000", ErrForbidden},
		{"bignum", "c24101", ErrForbidden},
		{"self-described", "d9d9f700", ErrForbidden},
		{"indefinite bytes", "5f4101ff", ErrForbidden},
		{"indefinite text", "7f6161ff", ErrForbidden},
		{"indefinite array", "9f01ff", ErrForbidden},
		{"indefinite map", "bf0102ff", ErrForbidden},
		{"reserved 28", "1c", ErrForbidden},
		{"reserved 30", "5e", ErrForbidden},
		{"below -2^63", "3b8000000000000000", ErrForbidden},
		{"bytes as key", "a1410100", ErrForbidden},
		{"array as key", "a18000", ErrForbidden},
		{"bool as key", "a1f400", ErrForbidden},
		{"null inside", "a101f6", ErrForbidden},

		{"depth 9", "818181818181818180", ErrDepth},
		{"depth 9 of maps", "a100a100a100a100a100a100a100a100a0", ErrDepth},
		{"depth 100000", strings.Repeat("81", 100000), ErrDepth},

		{"lone continuation byte", "6180", ErrUTF8},
		{"surrogate", "63eda080", ErrUTF8},
		{"overlong slash", "62c0af", ErrUTF8},
		{"cut rune", "62f09f", ErrUTF8},
		{"bad text as key", "a1618000", ErrUTF8},
	} {
		b := unhex(t, tt.hex)
		if err := Valid(b); !errors.Is(err, tt.want) {
			t.Errorf("%s: Valid(%.40x) = %v, want %v", tt.name, b, err, tt.want)
		}
		if tt.want != nil {
			var v any
			if err := Unmarshal(b, &v); !errors.Is(err, tt.want) {
				t.Errorf("%s: Unmarshal(%.40x) = %v, want %v", tt.name, b, err, tt.want)
			}
			continue
		}
		for n := range b {
			if Valid(b[:n]) == nil {
				t.Errorf("%s: prefix %x of %x is valid", tt.name, b[:n], b)
			}
		}
	}
}

func TestValidAllocatesNothing(t *testing.T) {
	b, err := Marshal(map[int]any{1: []string{"a", "b"}, 2: bytes.Repeat([]byte{1}, 1000), 3: map[string]int{"x": 1}})
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _ = Valid(b) }); n != 0 {
		t.Errorf("Valid allocates %v times, want 0", n)
	}
}

// FuzzValid holds Valid against the library: what is valid decodes, and
// encodes to the same bytes again.
func FuzzValid(f *testing.F) {
	for _, s := range []string{"00", "a201020304", "8181818181818180", "1bffffffffffffffff", "3b7fffffffffffffff", "a3010020006161f5", "c000", "9f01ff"} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if Valid(b) != nil {
			return
		}
		var v any
		if err := decMode.Unmarshal(b, &v); err != nil {
			t.Fatalf("valid, but the library says %v: %x", err, b)
		}
		again, err := encMode.Marshal(v)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x became %x, %v", b, again, err)
		}
		if len(b) > 0 && Valid(b[:len(b)-1]) == nil {
			t.Fatalf("valid without its last byte: %x", b)
		}
	})
}

func BenchmarkValid(b *testing.B) {
	v, err := Marshal(map[int]any{1: uint64(math.MaxUint64), 2: make([]byte, 1024), 3: "hello"})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := Valid(v); err != nil {
			b.Fatal(err)
		}
	}
}
