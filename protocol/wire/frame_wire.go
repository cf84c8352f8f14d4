package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Errors of ParseFrame and ReadFrame.
var (
	// ErrFrameVarint: the length is not a minimal uvarint of at most 9 bytes.
	ErrFrameVarint = errors.New("frame length is not a minimal varint")
	// ErrFrameSize: the length is 0 or above the limit.
	ErrFrameSize = errors.New("frame size outside its limits")
	// ErrFrameCut: the input ends inside the frame.
	ErrFrameCut = errors.New("frame cut short")
)

// maxVarint is the longest length that is looked at, as in the multiformats
// varint: 9 bytes hold 63 bits.
const maxVarint = 9

// firstRead is what ReadFrame allocates for a length alone, before any byte of
// the body has come.
const firstRead = 4096

// AppendFrame appends body as one frame: its length as a uvarint, then the
// bytes. A body is 1 to MaxFrame bytes; anything else is a bug of ours.
func AppendFrame(dst, body []byte) []byte {
	if len(body) == 0 || len(body) > MaxFrame {
		panic(fmt.Sprintf("bug: frame of %d bytes", len(body)))
	}
	dst = binary.AppendUvarint(dst, uint64(len(body)))
	return append(dst, body...)
}

// ParseFrame splits the first frame, of at most limit bytes, off b. The body
// shares memory with b. Errors: ErrFrameVarint, ErrFrameSize, ErrFrameCut.
func ParseFrame(b []byte, limit int) (body, rest []byte, err error) {
	var l length
	for i, c := range b {
		done, err := l.add(c, limit)
		if err != nil {
			return nil, nil, err
		}
		if !done {
			continue
		}
		if b = b[i+1:]; l.n > uint64(len(b)) {
			return nil, nil, fmt.Errorf("%w: %d of %d bytes", ErrFrameCut, len(b), l.n)
		}
		return b[:l.n:l.n], b[l.n:], nil
	}
	return nil, nil, fmt.Errorf("%w: in its length", ErrFrameCut)
}

// ReadFrame reads one frame of at most limit bytes. It returns io.EOF only
// where the stream ended between frames; a frame cut short is ErrFrameCut. The
// length is refused before anything is allocated for it, and at most 4 KiB are
// allocated before the bytes come in. Deadlines are the caller's: without one a
// peer that sends nothing holds the reader for ever.
func ReadFrame(r *bufio.Reader, limit int) ([]byte, error) {
	var l length
	for {
		c, err := r.ReadByte()
		if err != nil {
			if err == io.EOF && l.bytes > 0 {
				return nil, fmt.Errorf("%w: in its length", ErrFrameCut)
			}
			return nil, err
		}
		done, err := l.add(c, limit)
		if err != nil {
			return nil, err
		}
		if done {
			break
		}
	}
	n := int(l.n)
	first := min(n, max(firstRead, r.Buffered()))
	body := make([]byte, first)
	if err := readBody(r, body, n); err != nil {
		return nil, err
	}
	if first == n {
		return body, nil
	}
	body = append(make([]byte, 0, n), body...)[:n]
	if err := readBody(r, body[first:], n); err != nil {
		return nil, err
	}
	return body, nil
}

func readBody(r io.Reader, b []byte, n int) error {
	_, err := io.ReadFull(r, b)
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: of %d bytes", ErrFrameCut, n)
	}
	return err
}

// length decodes a uvarint byte by byte.
type length struct {
	n     uint64
	bytes int
}

// add takes the next byte and reports whether it was the last.
func (l *length) add(c byte, limit int) (done bool, err error) {
	if l.bytes == maxVarint || c == 0 && l.bytes > 0 {
		return false, ErrFrameVarint
	}
	l.n |= uint64(c&0x7f) << (7 * l.bytes)
	l.bytes++
	done = c < 0x80
	// A length only grows, so one above the limit is refused at once, however
	// it would have gone on.
	if l.n > uint64(max(limit, 0)) || done && l.n == 0 {
		return false, fmt.Errorf("%w: %d bytes, at most %d", ErrFrameSize, l.n, limit)
	}
	return done, nil
}
