package enc

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

type id [4]byte

// String and MarshalText must not change how an id is encoded.
func (id) String() string               { return "id" }
func (id) MarshalText() ([]byte, error) { return []byte("id"), nil }

type inner struct {
	ID   id     `cbor:"1,keyasint"`
	Note string `cbor:"2,keyasint,omitempty"`
}

type pair struct {
	_ struct{} `cbor:",toarray"`
	A uint8
	B []byte
}

type sample struct {
	N       uint16             `cbor:"1,keyasint"`
	I       int64              `cbor:"2,keyasint"`
	Flag    bool               `cbor:"3,keyasint,omitempty"`
	Bytes   []byte             `cbor:"4,keyasint,omitempty"`
	ID      id                 `cbor:"5,keyasint,omitzero"`
	Ptr     *id                `cbor:"6,keyasint,omitempty"`
	List    []inner            `cbor:"7,keyasint,omitempty"`
	Files   map[string][2]byte `cbor:"8,keyasint,omitempty"`
	Raw     Raw                `cbor:"9,keyasint,omitempty"`
	Trio    *[3]uint8          `cbor:"10,keyasint,omitempty"`
	Pair    *pair              `cbor:"11,keyasint,omitempty"`
	Strings *[2]string         `cbor:"24,keyasint,omitempty"`
	Hidden  int                `cbor:"-"`
}

func full() sample {
	return sample{
		N: 65535, I: math.MinInt64, Flag: true, Bytes: []byte{1}, ID: id{1, 2, 3, 4}, Ptr: &id{},
		List: []inner{{ID: id{9}}, {Note: "é"}}, Files: map[string][2]byte{"b": {1}, "a": {}, "aa": {2}},
		Raw: Raw{0x82, 0x01, 0x02}, Trio: &[3]uint8{1, 2, 3}, Pair: &pair{A: 1, B: []byte{2}}, Strings: &[2]string{"x", ""},
	}
}

func TestRoundTrip(t *testing.T) {
	for _, want := range []sample{{}, {Ptr: &id{}}, full()} {
		b, err := Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got sample
		if err := Unmarshal(b, &got); err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		if d := cmp.Diff(want, got, cmpopts.IgnoreUnexported(pair{})); d != "" {
			t.Errorf("%x: (-want +got)\n%s", b, d)
		}
		for n := range b {
			if Unmarshal(b[:n], &sample{}) == nil {
				t.Errorf("prefix of %d bytes of %x is accepted", n, b)
			}
		}
	}
}

func TestGolden(t *testing.T) {
	b, err := Marshal(sample{N: 1, ID: id{1, 2, 3, 4}, Pair: &pair{A: 7, B: nil}})
	if want := unhex(t, "a4 0101 0200 0544 01020304 0b 82 07 40"); err != nil || !bytes.Equal(b, want) {
		t.Errorf("got %x, %v, want %x", b, err, want)
	}
}

// TestUnmarshalRefuses: one value has one spelling, by type as well.
func TestUnmarshalRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, hex string
		want      error
	}{
		{"smallest", "a201000200", nil},
		{"unknown key", "a3010002001864f5", nil},
		{"unknown text key", "a301000200617801", nil},

		{"needed key missing", "a10100", ErrMissing},
		{"all keys missing", "a0", ErrMissing},
		{"key missing within", "a3 0100 0200 07 81 a0", ErrMissing},
		{"no map", "00", ErrType},
		{"array for struct", "820000", ErrType},
		{"integer too large", "a2011a000100000200", ErrType},
		{"negative for unsigned", "a201200200", ErrType},
		{"text for integer", "a20160 0200", ErrType},
		{"bool for integer", "a201f50200", ErrType},
		{"integer for bool", "a3010002000301", ErrType},
		{"text for bytes", "a30100020004 6161", ErrType},
		{"array for bytes", "a30100020004 8101", ErrType},
		{"array for byte array", "a30100020005 8401020304", ErrType},
		{"byte array too short", "a30100020005 43010203", ErrType},
		{"byte array too long", "a30100020005 450102030405", ErrType},
		{"byte array too short behind a pointer", "a30100020006 43010203", ErrType},
		{"bytes for list", "a30100020007 40", ErrType},
		{"bytes in the list", "a30100020007 8140", ErrType},
		{"array for map", "a30100020008 80", ErrType},
		{"integer key for text key", "a30100020008 a101420000", ErrType},
		{"map value too short", "a30100020008 a161614100", ErrType},
		{"tuple too short", "a3010002000b 8101", ErrType},
		{"tuple too long", "a3010002000b 83014000", ErrType},
		{"tuple of other types", "a3010002000b 82 01 80", ErrType},
		{"array too short", "a3010002001818 8160", ErrType},
		{"array of bytes too short", "a3010002000a 420102", ErrType},

		{"optional false", "a30100020003f4", ErrNotCanonical},
		{"optional empty bytes", "a30100020004 40", ErrNotCanonical},
		{"optional zero id", "a30100020005 4400000000", ErrNotCanonical},
		{"optional empty list", "a30100020007 80", ErrNotCanonical},
		{"optional empty map", "a30100020008 a0", ErrNotCanonical},
		{"optional empty text within", "a30100020007 81 a2 01 44 00000000 02 60", ErrNotCanonical},
		{"key twice", "a3010001000200", ErrDuplicate},
		{"zero behind a pointer", "a30100020006 4400000000", nil},
	} {
		b := unhex(t, tt.hex)
		var v sample
		err := Unmarshal(b, &v)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %x: got %v, want %v", tt.name, b, err, tt.want)
		}
	}
}

func TestMarshalRefuses(t *testing.T) {
	type optional struct {
		P *int `cbor:"1,keyasint"`
	}
	type floating struct {
		F float64 `cbor:"1,keyasint"`
	}
	deep := any(1)
	for range MaxDepth + 1 {
		deep = []any{deep}
	}
	for name, tt := range map[string]struct {
		v    any
		want error
	}{
		"nil pointer": {optional{}, ErrForbidden},
		"nil":         {nil, ErrForbidden},
		"float":       {floating{1.5}, ErrForbidden},
		"bad text":    {"\xff", ErrUTF8},
		"deep":        {deep, ErrDepth},
		"bool key":    {map[bool]int{true: 1}, ErrForbidden},
		"bad raw":     {Raw{0x18, 0x01}, ErrNotCanonical},
		"channel":     {make(chan int), nil},
	} {
		b, err := Marshal(tt.v)
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: Marshal = %x, %v, want %v", name, b, err, tt.want)
		}
	}
}

// TestShapesRefused: a Go type that could not keep the rules is refused before
// it decodes anything, so its author notices.
func TestShapesRefused(t *testing.T) {
	type loop struct {
		Next *loop `cbor:"1,keyasint"`
	}
	for name, v := range map[string]any{
		"no pointer":  sample{},
		"nil pointer": (*sample)(nil),
		"nil":         nil,
		"no tag":      &struct{ A int }{},
		"text key": &struct {
			A int `cbor:"a"`
		}{},
		"key twice": &struct {
			A int `cbor:"1,keyasint"`
			B int `cbor:"1,keyasint"`
		}{},
		"embedded": &struct{ inner }{},
		"float": &struct {
			A float32 `cbor:"1,keyasint"`
		}{},
		"omitempty array": &struct {
			A id `cbor:"1,keyasint,omitempty"`
		}{},
		"optional struct": &struct {
			A inner `cbor:"1,keyasint,omitzero"`
		}{},
		"optional array of others": &struct {
			A [2]uint16 `cbor:"1,keyasint,omitzero"`
		}{},
		"contains itself": &loop{},
		"within a list": &struct {
			A []struct{ B int } `cbor:"1,keyasint"`
		}{},
	} {
		if err := Unmarshal([]byte{0xa0}, v); !errors.Is(err, ErrType) {
			t.Errorf("%s: got %v, want ErrType", name, err)
		}
	}
}

// TestBoundedAllocation: counts that promise much allocate little (H2, H4).
func TestBoundedAllocation(t *testing.T) {
	for name, head := range map[string]string{
		"bytes":           "a3010002000 45bffffffffffffffff",
		"bytes of 2 GB":   "a30100020004 5a7fffffff",
		"list":            "a30100020007 9affffffff",
		"map":             "a30100020008 baffffffff",
		"text":            "a30100020007 81a2014400000000 02 7a7fffffff",
		"raw":             "a30100020009 9a0fffffff",
		"unknown":         "a301000200 1864 9a0fffffff",
		"list of structs": "a30100020007 99ffff",
	} {
		b := append(unhex(t, head), make([]byte, 1000)...)
		if got := allocated(func() { _ = Unmarshal(b, &sample{}) }); got > 64<<10 {
			t.Errorf("%s: %d bytes allocated for %d of input", name, got, len(b))
		}
	}
	// The worst that is accepted: many small elements.
	many := sample{List: make([]inner, 5000)}
	b, err := Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	if got, most := allocated(func() { _ = Unmarshal(b, &sample{}) }), uint64(16*len(b)); got > most {
		t.Errorf("%d bytes allocated for %d of input, want at most %d", got, len(b), most)
	}
}

func allocated(f func()) uint64 {
	f() // what is built once per type does not count
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// FuzzUnmarshal: what is accepted encodes to itself, unless it has keys that
// this version does not know, and then to something with the same meaning.
func FuzzUnmarshal(f *testing.F) {
	b, err := Marshal(full())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(unhex(f, "a3010002001864f5"))
	f.Add(unhex(f, "a30100020007 81 a2 01 44 00000000 02 6161"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var v, w sample
		if Unmarshal(b, &v) != nil {
			return
		}
		again, err := Marshal(v)
		if err != nil {
			t.Fatalf("%x: accepted, but %v", b, err)
		}
		if len(again) == len(b) && !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
		if len(again) > len(b) {
			t.Fatalf("%x grew to %x", b, again)
		}
		if err := Unmarshal(again, &w); err != nil || !reflect.DeepEqual(v, w) {
			t.Fatalf("%x: %v, then %v, %v", b, v, w, err)
		}
	})
}

func BenchmarkUnmarshal(b *testing.B) {
	v, err := Marshal(full())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		var s sample
		if err := Unmarshal(v, &s); err != nil {
			b.Fatal(err)
		}
	}
}
