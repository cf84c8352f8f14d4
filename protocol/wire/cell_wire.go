package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
)

// cellVersion is the version of the cell format.
const cellVersion = 1

// Errors of ParseCell.
var (
	// ErrCellSize: not a size that a cell can have.
	ErrCellSize = errors.New("not a cell size")
	// ErrCellVersion: a version other than 1.
	ErrCellVersion = errors.New("unknown cell version")
	// ErrCellID: the id is not the hash of the sealed part.
	ErrCellID = errors.New("cell id does not fit its content")
)

// CellID names one carriage of a cell: the SHA-256 of its sealed part.
type CellID [32]byte

// String returns the first 8 bytes in hex, enough for a log line.
func (id CellID) String() string { return hex.EncodeToString(id[:8]) }

// AppendCell appends the cell around sealed, whose length must be a Padmé size
// less CellHeader; see Padme.
func AppendCell(dst, sealed []byte) []byte {
	id := sha256.Sum256(sealed)
	dst = append(dst, cellVersion)
	dst = append(dst, id[:]...)
	return append(dst, sealed...)
}

// HeadCell is AppendCell in place: it writes the header of a cell whose sealed part
// lies behind the CellHeader bytes for it, and gives the id.
func HeadCell(cell []byte) CellID {
	id := CellID(sha256.Sum256(cell[CellHeader:]))
	cell[0] = cellVersion
	copy(cell[1:], id[:])
	return id
}

// ParseCell checks a whole cell and returns its id and sealed part, which
// shares memory with b. Errors: ErrCellSize, ErrCellVersion, ErrCellID. Routes
// that carry cells of one size only ask for CellSize themselves.
func ParseCell(b []byte) (CellID, []byte, error) {
	if len(b) > CellSize || Padme(len(b)) != len(b) {
		return CellID{}, nil, fmt.Errorf("%w: %d bytes", ErrCellSize, len(b))
	}
	if b[0] != cellVersion {
		return CellID{}, nil, fmt.Errorf("%w: %d", ErrCellVersion, b[0])
	}
	id := CellID(b[1:CellHeader])
	sealed := b[CellHeader:]
	if sha256.Sum256(sealed) != id {
		return CellID{}, nil, ErrCellID
	}
	return id, sealed, nil
}

// Padme returns the size of the bucket that n bytes are padded to, at least
// MinCell. There are 97 such sizes up to CellSize, and above MinCell they add at
// most 6.3 %. The scheme is that of Nikitin et al., "Reducing Metadata Leakage
// from Encrypted Files and Communication with PURBs" (PoPETs 2019).
func Padme(n int) int {
	if n <= MinCell {
		return MinCell
	}
	e := bits.Len(uint(n)) - 1 // floor(log2 n)
	s := bits.Len(uint(e))     // bits to write e down
	last := 1<<max(e-s, 0) - 1 // the low bits that become zero
	return (n + last) &^ last
}
