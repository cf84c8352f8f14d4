package enc

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// MaxDepth is how many arrays and maps may lie in each other, the outermost
// one included. No format of ours needs more than 5.
const MaxDepth = 8

// Errors of Valid and Unmarshal. They are compared with errors.Is; the text
// around them says at which byte.
var (
	// ErrTruncated: the input ends inside the value, or a length or count in
	// it is larger than the bytes that are left could hold.
	ErrTruncated = errors.New("CBOR ends too early")
	// ErrTrailing: there are bytes behind the value.
	ErrTrailing = errors.New("bytes behind the CBOR value")
	// ErrNotCanonical: the value is spelled in a way that is not the only
	// allowed one: a long form of an integer or length, keys out of order, an
	// optional field that is there and empty.
	ErrNotCanonical = errors.New("CBOR not in its only allowed form")
	// ErrDuplicate: a map has the same key twice.
	ErrDuplicate = errors.New("CBOR map has a key twice")
	// ErrForbidden: float, tag, null, undefined, another simple value,
	// indefinite length, key of a kind that is not allowed, integer below -2^63.
	ErrForbidden = errors.New("CBOR feature that is not allowed")
	// ErrDepth: nested deeper than MaxDepth.
	ErrDepth = errors.New("CBOR nested too deep")
	// ErrUTF8: text that is not valid UTF-8.
	ErrUTF8 = errors.New("CBOR text is not valid UTF-8")
	// ErrMissing: a key is absent that the Go type does not mark as optional.
	ErrMissing = errors.New("CBOR map lacks a key that must be there")
	// ErrType: sound CBOR, but not what the Go type asks for.
	ErrType = errors.New("CBOR value of another type than expected")
)

// Major types of CBOR (RFC 8949, 3.1).
const (
	majorUint = iota
	majorNegative
	majorBytes
	majorText
	majorArray
	majorMap
	majorTag
	majorSimple
)

const (
	simpleFalse = 20
	simpleTrue  = 21
)

// Valid reports whether b is exactly one value in the only allowed form. It
// allocates nothing unless it fails, and reads each byte once.
func Valid(b []byte) error {
	c := cursor{b: b}
	if err := c.value(0); err != nil {
		return err
	}
	if c.i != len(b) {
		return c.fail(ErrTrailing)
	}
	return nil
}

// cursor walks over encoded bytes.
type cursor struct {
	b []byte
	i int // next byte to read
}

func (c *cursor) fail(err error) error {
	return fmt.Errorf("%w (at byte %d of %d)", err, c.i, len(c.b))
}

func (c *cursor) left() uint64 { return uint64(len(c.b) - c.i) }

// head reads the first byte of a value and its argument.
func (c *cursor) head() (major byte, arg uint64, err error) {
	if c.i >= len(c.b) {
		return 0, 0, c.fail(ErrTruncated)
	}
	major, info := c.b[c.i]>>5, c.b[c.i]&0x1f
	if major == majorSimple && info != simpleFalse && info != simpleTrue {
		return 0, 0, c.fail(ErrForbidden)
	}
	if info > 27 {
		return 0, 0, c.fail(ErrForbidden)
	}
	if info < 24 {
		c.i++
		return major, uint64(info), nil
	}
	n := 1 << (info - 24) // 1, 2, 4 or 8 bytes of argument
	if c.left() < uint64(1+n) {
		return 0, 0, c.fail(ErrTruncated)
	}
	for _, x := range c.b[c.i+1 : c.i+1+n] {
		arg = arg<<8 | uint64(x)
	}
	least := uint64(24)
	if n > 1 {
		least = 1 << (8 * n / 2)
	}
	if arg < least {
		return 0, 0, c.fail(ErrNotCanonical)
	}
	c.i += 1 + n
	return major, arg, nil
}

// value walks over one value that lies in depth containers.
func (c *cursor) value(depth int) error {
	start := c.i
	major, arg, err := c.head()
	if err != nil {
		return err
	}
	switch major {
	case majorUint, majorSimple:
		return nil
	case majorNegative:
		if arg > math.MaxInt64 {
			c.i = start
			return c.fail(ErrForbidden)
		}
		return nil
	case majorBytes, majorText:
		if arg > c.left() {
			return c.fail(ErrTruncated)
		}
		if major == majorText && !utf8.Valid(c.b[c.i:c.i+int(arg)]) {
			return c.fail(ErrUTF8)
		}
		c.i += int(arg)
		return nil
	case majorArray:
		return c.array(arg, depth+1)
	case majorMap:
		return c.pairs(arg, depth+1)
	default: // a tag
		c.i = start
		return c.fail(ErrForbidden)
	}
}

func (c *cursor) array(n uint64, depth int) error {
	if depth > MaxDepth {
		return c.fail(ErrDepth)
	}
	if n > c.left() { // an element has at least one byte
		return c.fail(ErrTruncated)
	}
	for range n {
		if err := c.value(depth); err != nil {
			return err
		}
	}
	return nil
}

func (c *cursor) pairs(n uint64, depth int) error {
	if depth > MaxDepth {
		return c.fail(ErrDepth)
	}
	if n > c.left()/2 { // a pair has at least two bytes
		return c.fail(ErrTruncated)
	}
	var last []byte
	for range n {
		start := c.i
		if start < len(c.b) {
			if m := c.b[start] >> 5; m != majorUint && m != majorNegative && m != majorText {
				return c.fail(ErrForbidden)
			}
		}
		if err := c.value(depth); err != nil {
			return err
		}
		key := c.b[start:c.i]
		if last != nil {
			switch cmp := bytes.Compare(last, key); {
			case cmp == 0:
				c.i = start
				return c.fail(ErrDuplicate)
			case cmp > 0:
				c.i = start
				return c.fail(ErrNotCanonical)
			}
		}
		last = key
		if err := c.value(depth); err != nil {
			return err
		}
	}
	return nil
}

// skip passes over one value of input that Valid has accepted.
func (c *cursor) skip() error { return c.value(0) }
