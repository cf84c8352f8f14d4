package dm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/kinloom/kinloom/identity/enc"
	"github.com/kinloom/kinloom/protocol/wire"
)

// ID is the protocol of the stream.
const ID = wire.DM

// Limits of the frames (SPEC 7).
const (
	// MaxCells is how many cells fit into one frame: of the smallest size, as
	// many as wire.MaxFrame holds.
	MaxCells = (wire.MaxFrame - cellsHead) / (wire.MinCell + cellHead)
	// MaxBundle bounds a signed bundle, which is passed on unread, in bytes.
	MaxBundle = 4096
	// MaxNews bounds what certifies a bundle, which is passed on unread, in
	// bytes: as much as the body of one event holds.
	MaxNews = 13312

	// cellsHead is what a Cells frame has in front of its cells at most, and
	// cellHead what a cell has in front of itself, in bytes.
	cellsHead = 7
	cellHead  = 3
)

// Types of frames: key 1 of each.
const (
	typeCells      = 1
	typeNack       = 2
	typeWantBundle = 3
	typeBundle     = 4
	typeBye        = 5
)

// Errors of ParseFrame.
var (
	// ErrMalformed: not a frame of this protocol.
	ErrMalformed = errors.New("not a frame of a message stream")
	// ErrLimit: longer, or more of something, than SPEC 7 allows.
	ErrLimit = errors.New("frame of a message stream above its limit")
	// ErrCell: a cell in the frame has a size that no cell has.
	ErrCell = errors.New("cell of an impossible size")
)

// Frame is one of Cells, Nack, WantBundle, Bundle and Bye.
type Frame interface {
	// Append appends the encoded frame, without the length in front.
	Append(dst []byte) ([]byte, error)
}

// Cells hands cells over, each in its own byte string.
type Cells struct{ Cells [][]byte }

// Nack refuses a cell: it did not open, or could not be stored.
type Nack struct {
	Type uint8       `cbor:"1,keyasint"` // set by Append
	Cell wire.CellID `cbor:"2,keyasint"`
	Code wire.Code   `cbor:"3,keyasint"`
}

// WantBundle asks for a fresh bundle to start a session with.
type WantBundle struct {
	Type uint8 `cbor:"1,keyasint"` // set by Append
}

// Bundle answers WantBundle with a signed bundle, made for this stream and
// used once, and the news that certify it: who asks may not have heard of them.
// An empty one says no.
type Bundle struct {
	Type   uint8  `cbor:"1,keyasint"` // set by Append
	Bundle []byte `cbor:"2,keyasint,omitempty"`
	News   []byte `cbor:"3,keyasint,omitempty"`
}

// Bye is the last frame of the side that sends it.
type Bye struct {
	Type uint8 `cbor:"1,keyasint"` // set by Append
}

// Append implements Frame.
func (f Cells) Append(dst []byte) ([]byte, error) {
	if err := checkCells(f.Cells); err != nil {
		return nil, err
	}
	return appendCells(dst, f.Cells), nil
}

// Append implements Frame.
func (f Nack) Append(dst []byte) ([]byte, error) {
	f.Type = typeNack
	if err := f.check(); err != nil {
		return nil, err
	}
	return appendEncoded(dst, f)
}

// Append implements Frame.
func (f WantBundle) Append(dst []byte) ([]byte, error) {
	f.Type = typeWantBundle
	return appendEncoded(dst, f)
}

// Append implements Frame.
func (f Bundle) Append(dst []byte) ([]byte, error) {
	f.Type = typeBundle
	if err := f.check(); err != nil {
		return nil, err
	}
	return appendEncoded(dst, f)
}

// Append implements Frame.
func (f Bye) Append(dst []byte) ([]byte, error) {
	f.Type = typeBye
	return appendEncoded(dst, f)
}

func appendEncoded(dst []byte, v any) ([]byte, error) {
	b, err := enc.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(dst, b...), nil
}

// ParseFrame reads the body of one frame. Cells share memory with b. Errors:
// ErrMalformed, ErrLimit, ErrCell.
func ParseFrame(b []byte) (Frame, error) {
	if len(b) > wire.MaxFrame {
		return nil, fmt.Errorf("%w: %d bytes", ErrLimit, len(b))
	}
	if err := enc.Valid(b); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	// From here on b is one sound CBOR value. Keys are in order, so the type
	// is the first one: a map header, key 1, and a small integer.
	if len(b) < 3 || b[0]>>5 != majorMap || b[1] != 1 {
		return nil, fmt.Errorf("%w: no type", ErrMalformed)
	}
	switch b[2] {
	case typeCells:
		return parseCells(b)
	case typeNack:
		return decode[Nack](b, Nack.check)
	case typeWantBundle:
		return decode[WantBundle](b, nil)
	case typeBundle:
		return decode[Bundle](b, Bundle.check)
	case typeBye:
		return decode[Bye](b, nil)
	}
	return nil, fmt.Errorf("%w: unknown type", ErrMalformed)
}

func decode[F Frame](b []byte, check func(F) error) (Frame, error) {
	var f F
	if err := enc.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if check == nil {
		return f, nil
	}
	if err := check(f); err != nil {
		return nil, err
	}
	return f, nil
}

func (f Nack) check() error {
	if f.Code == 0 {
		return fmt.Errorf("%w: refusal without a code", ErrMalformed)
	}
	return nil
}

func (f Bundle) check() error {
	if len(f.Bundle) > MaxBundle {
		return fmt.Errorf("%w: bundle of %d bytes", ErrLimit, len(f.Bundle))
	}
	if len(f.News) > MaxNews {
		return fmt.Errorf("%w: news of %d bytes", ErrLimit, len(f.News))
	}
	return nil
}

// Major types of CBOR that a Cells frame is made of (RFC 8949, 3.1).
const (
	majorBytes = 2
	majorArray = 4
	majorMap   = 5
)

// appendCells writes {1: 1, 2: [cells]} without going through the encoder:
// it is the frame that counts, and this way a cell is copied once.
func appendCells(dst []byte, cells [][]byte) []byte {
	dst = append(dst, majorMap<<5|2, 1, typeCells, 2)
	dst = appendHead(dst, majorArray, len(cells))
	for _, c := range cells {
		dst = appendHead(dst, majorBytes, len(c))
		dst = append(dst, c...)
	}
	return dst
}

// appendHead writes a CBOR head for lengths that a frame can have.
func appendHead(dst []byte, major byte, n int) []byte {
	switch {
	case n < 24:
		return append(dst, major<<5|byte(n))
	case n < 1<<8:
		return append(dst, major<<5|24, byte(n))
	default:
		return binary.BigEndian.AppendUint16(append(dst, major<<5|25), uint16(n))
	}
}

// headSize is the length of what appendHead writes.
func headSize(n int) int {
	switch {
	case n < 24:
		return 1
	case bits.Len(uint(n)) <= 8:
		return 2
	default:
		return 3
	}
}

// appendFramed appends a frame with its length in front.
func appendFramed(dst []byte, f Frame) ([]byte, error) {
	if cells, ok := f.(Cells); ok {
		if err := checkCells(cells.Cells); err != nil {
			return nil, err
		}
		sum := 0
		for _, c := range cells.Cells {
			sum += headSize(len(c)) + len(c)
		}
		dst = binary.AppendUvarint(dst, uint64(cellsSize(len(cells.Cells), sum)))
		return appendCells(dst, cells.Cells), nil
	}
	body, err := f.Append(nil)
	if err != nil {
		return nil, err
	}
	return wire.AppendFrame(dst, body), nil
}

// cellsSize is the length of a Cells frame with count cells, whose heads and
// bytes together have length sum.
func cellsSize(count, sum int) int { return 4 + headSize(count) + sum }

// parseCells reads key 2 of a sound map whose first entry was the type.
func parseCells(b []byte) (Frame, error) {
	rest := b[3:]
	if len(rest) == 0 || rest[0] != 2 {
		return nil, fmt.Errorf("%w: no cells", ErrMalformed)
	}
	count, rest, ok := readHead(rest[1:], majorArray)
	if !ok || count == 0 {
		return nil, fmt.Errorf("%w: no cells", ErrMalformed)
	}
	if count > MaxCells {
		return nil, fmt.Errorf("%w: %d cells", ErrLimit, count)
	}
	cells := make([][]byte, count)
	for i := range cells {
		var n int
		if n, rest, ok = readHead(rest, majorBytes); !ok {
			return nil, fmt.Errorf("%w: cell %d is no byte string", ErrMalformed, i)
		}
		cells[i], rest = rest[:n:n], rest[n:]
	}
	if err := checkCells(cells); err != nil {
		return nil, err
	}
	return Cells{cells}, nil
}

// readHead reads a head that enc.Valid has passed, so its bytes and what it
// announces are there.
func readHead(b []byte, major byte) (n int, rest []byte, ok bool) {
	if len(b) == 0 || b[0]>>5 != major {
		return 0, nil, false
	}
	switch info := b[0] & 0x1f; {
	case info < 24:
		return int(info), b[1:], true
	case info == 24:
		return int(b[1]), b[2:], true
	case info == 25:
		return int(binary.BigEndian.Uint16(b[1:])), b[3:], true
	default: // longer than any frame
		return 0, nil, false
	}
}

func checkCells(cells [][]byte) error {
	if len(cells) == 0 || len(cells) > MaxCells {
		return fmt.Errorf("%w: %d cells", ErrLimit, len(cells))
	}
	sum := 0
	for _, c := range cells {
		if len(c) < wire.MinCell || len(c) > wire.CellSize {
			return fmt.Errorf("%w: %d bytes", ErrCell, len(c))
		}
		sum += headSize(len(c)) + len(c)
	}
	if n := cellsSize(len(cells), sum); n > wire.MaxFrame {
		return fmt.Errorf("%w: %d bytes", ErrLimit, n)
	}
	return nil
}
