package event

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/kinloom/kinloom/identity/enc"
)

// ErrMalformed means that the bytes are no deterministic CBOR of the shape that
// is asked for: a rule of identity/enc is broken, or a field is missing or of
// another type or length.
var ErrMalformed = errors.New("malformed event")

// Major types of CBOR that this package uses (RFC 8949, 3.1).
const (
	majorUint  = 0
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorMap   = 5
)

// The events of a conversation are the hot path, and identity/enc goes by way
// of reflection: for a message of 1 KiB it takes twice the time of this file
// (measured: 15 us of CPU to write and read one, against 7) and four times the
// allocations. So this package writes and walks its few maps itself, and leaves
// to enc what must not exist twice, the check of what is canonical.

// appendHead appends the head of a CBOR item: major type and argument, as short
// as it can be.
func appendHead(b []byte, major byte, n uint64) []byte {
	m := major << 5
	switch {
	case n < 24:
		return append(b, m|byte(n))
	case n < 1<<8:
		return append(b, m|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, m|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, m|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, m|27), n)
}

// headSize bounds the size of any head.
const headSize = 9

// appendField appends a key of a map; its value follows.
func appendField(b []byte, key uint64) []byte { return appendHead(b, majorUint, key) }

func appendUint(b []byte, key, v uint64) []byte {
	return appendHead(appendField(b, key), majorUint, v)
}

func appendText(b []byte, key uint64, s string) []byte {
	return append(appendHead(appendField(b, key), majorText, uint64(len(s))), s...)
}

func appendItem(b, s []byte) []byte {
	return append(appendHead(b, majorBytes, uint64(len(s))), s...)
}

// fields walks over one map with integer keys that enc.Valid has passed, so
// that lengths, order of keys and UTF-8 need no second look. The first value of
// a type that is not asked for sets err, and nothing is read after that.
type fields struct {
	b       []byte
	left    uint64 // pairs not yet begun
	unknown int    // keys that were skipped
	seen    uint64 // bit n: key n was there
	err     error
}

// readFields checks that b is one canonical map of at most limit bytes.
func readFields(b []byte, limit int) (fields, error) {
	if len(b) > limit {
		return fields{}, fmt.Errorf("%w: %d bytes, at most %d", ErrSize, len(b), limit)
	}
	if err := enc.Valid(b); err != nil {
		if errors.Is(err, enc.ErrUTF8) {
			return fields{}, fmt.Errorf("%w: %w", ErrUTF8, err)
		}
		return fields{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	f := fields{b: b}
	f.left = f.head(majorMap)
	return f, f.err
}

// next returns the next key from 1 to 63, or 0 at the end of the map or after
// an error. Other keys are passed over, values and all.
func (f *fields) next() uint64 {
	for f.err == nil && f.left > 0 {
		f.left--
		major, key := f.raw()
		if major == majorUint && key > 0 && key < 64 {
			f.seen |= 1 << key
			return key
		}
		if major == majorText {
			f.b = f.b[key:]
		}
		f.pass()
	}
	return 0
}

// pass passes over the value of an unknown key.
func (f *fields) pass() {
	f.unknown++
	f.value()
}

// end returns the first error, or one if a key of the set need was not there.
func (f *fields) end(need ...uint64) error {
	for _, key := range need {
		if f.err == nil && f.seen>>key&1 == 0 {
			f.err = fmt.Errorf("%w: no field %d", ErrMalformed, key)
		}
	}
	return f.err
}

// raw takes the next head, whatever it is. Only valid input comes here.
func (f *fields) raw() (major byte, n uint64) {
	major, info := f.b[0]>>5, f.b[0]&0x1f
	f.b = f.b[1:]
	if info < 24 {
		return major, uint64(info)
	}
	size := 1 << (info - 24)
	for _, c := range f.b[:size] {
		n = n<<8 | uint64(c)
	}
	f.b = f.b[size:]
	return major, n
}

// head takes the head of an item that has to be of the type want.
func (f *fields) head(want byte) uint64 {
	if f.err != nil {
		return 0
	}
	major, n := f.raw()
	if major != want {
		f.err = fmt.Errorf("%w: CBOR type %d where %d belongs", ErrMalformed, major, want)
		return 0
	}
	return n
}

func (f *fields) uint() uint64 { return f.head(majorUint) }

// bytes takes a byte string; it shares memory with the input.
func (f *fields) bytes() []byte { return f.take(f.head(majorBytes)) }

func (f *fields) text() string { return string(f.take(f.head(majorText))) }

// hash takes a byte string of 32 bytes.
func (f *fields) hash() (h [32]byte) {
	b := f.bytes()
	if f.err == nil && len(b) != len(h) {
		f.err = fmt.Errorf("%w: %d bytes where 32 belong", ErrMalformed, len(b))
	}
	copy(h[:], b)
	return h
}

// array takes the head of an array and refuses counts outside 1 to most, before
// anything is allocated for them.
func (f *fields) array(most int, refuse error) int {
	n := f.head(majorArray)
	if f.err == nil && (n == 0 || n > uint64(most)) {
		f.err = fmt.Errorf("%w: %d, at most %d", refuse, n, most)
	}
	if f.err != nil {
		return 0
	}
	return int(n)
}

// value takes one item of any type and returns its bytes.
func (f *fields) value() []byte {
	start := f.b
	for items := uint64(1); items > 0 && f.err == nil; items-- {
		switch major, n := f.raw(); major {
		case majorBytes, majorText:
			f.b = f.b[n:]
		case majorArray:
			items += n
		case majorMap:
			items += 2 * n
		}
	}
	n := len(start) - len(f.b)
	return start[:n:n]
}

// sub takes one map and returns a walk over it.
func (f *fields) sub() fields {
	g := fields{b: f.value(), err: f.err}
	g.left = g.head(majorMap)
	return g
}

func (f *fields) take(n uint64) []byte {
	if f.err != nil {
		return nil
	}
	s := f.b[:n:n]
	f.b = f.b[n:]
	return s
}
