package session

import (
	"encoding/binary"
	"slices"
)

// Run is Len seqs from From on.
type Run struct {
	_    struct{} `cbor:",toarray"`
	From uint64
	Len  uint64
}

// runs is a set of seqs: ascending, apart from each other.
type runs []Run

// runsOf collects seqs, in any order.
func runsOf(seqs []uint64) runs {
	seqs = slices.Clone(seqs)
	slices.Sort(seqs)
	var r runs
	for _, s := range slices.Compact(seqs) {
		if n := len(r); n > 0 && r[n-1].From+r[n-1].Len == s {
			r[n-1].Len++
		} else {
			r = append(r, Run{From: s, Len: 1})
		}
	}
	return r
}

func (r runs) has(seq uint64) bool {
	for _, x := range r {
		if seq >= x.From && seq-x.From < x.Len {
			return true
		}
	}
	return false
}

// seqs lists the set.
func (r runs) seqs() []uint64 {
	var out []uint64
	for _, x := range r {
		for i := range x.Len {
			out = append(out, x.From+i)
		}
	}
	return out
}

// union returns both sets in a new one.
func (r runs) union(other runs) runs { return runsOf(append(r.seqs(), other.seqs()...)) }

// without returns the seqs that drop does not name.
func (r runs) without(drop func(uint64) bool) runs {
	return runsOf(slices.DeleteFunc(r.seqs(), drop))
}

// first cuts the set to what one list may carry.
func (r runs) first() runs {
	total := uint64(0)
	for i, x := range r {
		if total += x.Len; i == maxRuns || total > maxInRuns {
			return r[:i]
		}
	}
	return r
}

func appendRuns(dst []byte, r runs) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(r)))
	last := uint64(0)
	for _, x := range r {
		dst = binary.AppendUvarint(dst, x.From-last)
		dst = binary.AppendUvarint(dst, x.Len)
		last = x.From + x.Len
	}
	return dst
}

func cutRuns(b []byte) (runs, []byte, error) {
	n, b, err := cutUvarint(b)
	if err != nil {
		return nil, nil, err
	}
	if n == 0 || n > maxRuns || n > uint64(len(b)) {
		return nil, nil, broken("runs out of range")
	}
	r := make(runs, 0, n)
	last, total := uint64(0), uint64(0)
	for range n {
		var d, l uint64
		if d, b, err = cutUvarint(b); err != nil {
			return nil, nil, err
		}
		if l, b, err = cutUvarint(b); err != nil {
			return nil, nil, err
		}
		if d == 0 || d > MaxSeq || l == 0 || l > maxInRuns || last+d+l-1 > MaxSeq {
			return nil, nil, broken("run out of range")
		}
		if total += l; total > maxInRuns {
			return nil, nil, broken("runs too long")
		}
		r = append(r, Run{From: last + d, Len: l})
		last += d + l
	}
	return r, b, nil
}

// maxBriefRuns bounds the void entry of one cell, so that the largest message
// still fits beside it. What is left out goes into later cells.
const maxBriefRuns = 32

func (r runs) brief() runs {
	r = r.first()
	return r[:min(len(r), maxBriefRuns)]
}
