package session

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Limits of what a cell says.
const (
	// MaxSeq is the last seq of a session, in each direction.
	MaxSeq = 4000
	// MaxMissing bounds the skipped seqs that a session still waits for, and
	// so the list in a mark. Olm keeps 40 skipped keys.
	MaxMissing = 32

	maxRuns   = 64
	maxInRuns = 2000
)

// Kinds of entries in the outer layer.
const (
	kindEnd     = 0
	kindOlm     = 1
	kindMark    = 3
	kindFollows = 4
	kindVoid    = 5
)

// Mark is the cumulative receipt of a session: every seq up to and including
// Upto is on the peer's disk, but for those in Missing.
type Mark struct {
	Upto    uint64   `cbor:"1,keyasint"`
	Missing []uint64 `cbor:"2,keyasint"` // ascending, at most 32
}

// Covers reports whether the mark acknowledges seq.
func (k Mark) Covers(seq uint64) bool {
	if seq == 0 || seq > k.Upto {
		return false
	}
	_, missing := slices.BinarySearch(k.Missing, seq)
	return !missing
}

// Follows says where a session goes on: behind Seq of another one.
type Follows struct {
	Session ID     `cbor:"1,keyasint"`
	Seq     uint64 `cbor:"2,keyasint"`
}

// Item is one message of Olm in a cell.
type Item struct {
	Seq uint64
	Olm []byte
}

// Outer is the plaintext of a cell.
type Outer struct {
	Mark    *Mark
	Follows *Follows
	Void    []Run // seqs of this session that will not come
	Items   []Item
}

// Append appends the entries, without padding.
func (o *Outer) Append(dst []byte) []byte {
	if o.Mark != nil {
		dst = appendMark(append(dst, kindMark), *o.Mark)
	}
	if o.Follows != nil {
		dst = append(append(dst, kindFollows), o.Follows.Session[:]...)
		dst = binary.AppendUvarint(dst, o.Follows.Seq)
	}
	if len(o.Void) > 0 {
		dst = appendRuns(append(dst, kindVoid), o.Void)
	}
	for _, it := range o.Items {
		dst = appendItem(dst, it.Seq, it.Olm)
	}
	return dst
}

func broken(what string) error { return fmt.Errorf("%w: %s", ErrBroken, what) }

// cutUvarint reads a minimal uvarint.
func cutUvarint(b []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 {
		return 0, nil, broken("number")
	}
	return v, b[n:], nil
}

func appendItem(dst []byte, seq uint64, olm []byte) []byte {
	dst = binary.AppendUvarint(append(dst, kindOlm), seq)
	dst = binary.AppendUvarint(dst, uint64(len(olm)))
	return append(dst, olm...)
}

// itemSize is what appendItem adds.
func itemSize(seq uint64, olm []byte) int {
	return 1 + uvarintSize(seq) + uvarintSize(uint64(len(olm))) + len(olm)
}

func uvarintSize(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

func appendMark(dst []byte, k Mark) []byte {
	dst = binary.AppendUvarint(dst, k.Upto)
	dst = binary.AppendUvarint(dst, uint64(len(k.Missing)))
	last := uint64(0)
	for _, seq := range k.Missing {
		dst = binary.AppendUvarint(dst, seq-last)
		last = seq
	}
	return dst
}

func cutMark(b []byte) (Mark, []byte, error) {
	var k Mark
	var err error
	if k.Upto, b, err = cutUvarint(b); err != nil {
		return k, nil, err
	}
	n, b, err := cutUvarint(b)
	if err != nil {
		return k, nil, err
	}
	if k.Upto > MaxSeq || n > MaxMissing || n > uint64(len(b)) {
		return k, nil, broken("mark out of range")
	}
	last := uint64(0)
	for range n {
		var d uint64
		if d, b, err = cutUvarint(b); err != nil {
			return k, nil, err
		}
		if d == 0 || d > MaxSeq || last+d > k.Upto {
			return k, nil, broken("mark out of order")
		}
		last += d
		k.Missing = append(k.Missing, last)
	}
	return k, b, nil
}

// ParseOuter reads the plaintext of a cell, padding included; items share
// memory with b. Errors: ErrBroken.
func ParseOuter(b []byte) (Outer, error) {
	o := Outer{Items: make([]Item, 0, 16)}
	last := byte(0)
	for len(b) > 0 {
		kind := b[0]
		b = b[1:]
		if kind > kindOlm {
			if kind <= last || len(o.Items) > 0 {
				return Outer{}, broken("entries out of order")
			}
			last = kind
		}
		var err error
		switch kind {
		case kindEnd:
			for _, c := range b {
				if c != 0 {
					return Outer{}, broken("padding")
				}
			}
			return o, nil
		case kindOlm:
			b, err = o.cutItem(b)
		case kindMark:
			o.Mark = new(Mark)
			*o.Mark, b, err = cutMark(b)
		case kindFollows:
			b, err = o.cutFollows(b)
		case kindVoid:
			o.Void, b, err = cutRuns(b)
		default:
			return Outer{}, broken(fmt.Sprintf("entry of kind %d", kind))
		}
		if err != nil {
			return Outer{}, err
		}
	}
	return o, nil
}

func (o *Outer) cutItem(b []byte) ([]byte, error) {
	seq, b, err := cutUvarint(b)
	if err != nil {
		return nil, err
	}
	n, b, err := cutUvarint(b)
	if err != nil {
		return nil, err
	}
	if n > uint64(len(b)) || n == 0 {
		return nil, broken("cut entry")
	}
	if seq == 0 || len(o.Items) > 0 && o.Items[len(o.Items)-1].Seq >= seq {
		return nil, broken("seq out of order")
	}
	o.Items = append(o.Items, Item{seq, b[:n:n]})
	return b[n:], nil
}

func (o *Outer) cutFollows(b []byte) ([]byte, error) {
	if len(b) < len(ID{}) {
		return nil, broken("follows")
	}
	f := Follows{Session: ID(b[:16])}
	var err error
	if f.Seq, b, err = cutUvarint(b[16:]); err != nil {
		return nil, err
	}
	if f.Seq == 0 || f.Seq > MaxSeq {
		return nil, broken("follows out of range")
	}
	o.Follows = &f
	return b, nil
}
