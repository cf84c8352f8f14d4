package contact

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/kinloom/kinloom/identity/enc"
	"github.com/kinloom/kinloom/protocol/wire"
)

// HelloID is the protocol of hello.
const HelloID = wire.Hello

// HelloVersion is the version of all protocols of kinloom together that this
// code speaks.
const HelloVersion = 1

// Sizes of hello (SPEC 5). Each message has one length for strangers and
// contacts alike.
const (
	// TagSize is the length of a recognition tag in bytes.
	TagSize = 16
	// MaxTags is how many contacts' devices a dialer can name at once.
	MaxTags = 1024
	// MaxHello is the longest Hello, AnswerSize the only length of an answer,
	// in bytes.
	MaxHello   = MaxTags*TagSize + helloRoom
	AnswerSize = 512

	// MaxVersions and MaxCaps bound the lists, MaxCap one capability in bytes.
	MaxVersions = 8
	MaxCaps     = 8
	MaxCap      = 16

	// helloRoom is what a Hello has beside its tags: lists at their limits
	// take 205 bytes, the rest is padding.
	helloRoom = 512
)

const (
	typeHello  = 1
	typeAnswer = 2
)

var (
	// ErrHello: not a hello, or not of the one length it has to have.
	ErrHello = errors.New("not a hello")
	// ErrHelloLimit: longer, or more of something, than SPEC 7 allows.
	ErrHelloLimit = errors.New("hello above its limit")
)

// Tag names a device to another device and to nobody else.
type Tag [TagSize]byte

// tagClasses are the numbers of tags that a Hello may have.
func tagClasses() []int { return []int{64, 256, MaxTags} }

// Limits are what a device takes, as its contacts are told; 0 means the
// default of the protocol.
type Limits struct {
	// Frame is the longest frame in bytes, Cells the most cells in one.
	Frame uint32 `cbor:"1,keyasint,omitempty"`
	Cells uint32 `cbor:"2,keyasint,omitempty"`
}

// Hello is what the dialer says.
type Hello struct {
	Type     uint8    `cbor:"1,keyasint"` // set by Append
	Versions []uint16 `cbor:"2,keyasint"`
	Caps     []string `cbor:"3,keyasint,omitempty"`
	Limits   Limits   `cbor:"4,keyasint"`
	// Tags are 64, 256 or 1,024 tags one after the other; some are random.
	Tags []byte `cbor:"5,keyasint"`
}

// Answer is what the listener says. A stranger gets versions, a random tag and
// nothing else.
type Answer struct {
	Type     uint8    `cbor:"1,keyasint"` // set by Append
	Versions []uint16 `cbor:"2,keyasint"`
	Caps     []string `cbor:"3,keyasint,omitempty"`
	Limits   Limits   `cbor:"4,keyasint"`
	Tag      Tag      `cbor:"5,keyasint"`
}

// Append appends the padded hello, 512 bytes longer than its tags.
func (m Hello) Append(dst []byte) ([]byte, error) {
	m.Type = typeHello
	if err := m.check(); err != nil {
		return nil, err
	}
	return appendPadded(dst, m, len(m.Tags)+helloRoom)
}

// Append appends the padded answer, AnswerSize bytes.
func (m Answer) Append(dst []byte) ([]byte, error) {
	m.Type = typeAnswer
	if err := checkLists(m.Versions, m.Caps); err != nil {
		return nil, err
	}
	return appendPadded(dst, m, AnswerSize)
}

// appendPadded appends the length of the encoded message as two bytes, the
// message, and zeros until all is size bytes long.
func appendPadded(dst []byte, v any, size int) ([]byte, error) {
	b, err := enc.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(b)+2 > size {
		return nil, fmt.Errorf("%w: %d bytes before padding", ErrHelloLimit, len(b))
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(b)))
	dst = append(dst, b...)
	return append(dst, make([]byte, size-2-len(b))...), nil
}

// unpad undoes appendPadded. Anything but zeros behind the message is refused,
// as it would be a second spelling.
func unpad[T any](b []byte) (T, error) {
	var none T
	if len(b) < 2 {
		return none, ErrHello
	}
	n, b := int(binary.BigEndian.Uint16(b)), b[2:]
	if n > len(b) {
		return none, fmt.Errorf("%w: cut short", ErrHello)
	}
	for _, c := range b[n:] {
		if c != 0 {
			return none, fmt.Errorf("%w: padding is not zero", ErrHello)
		}
	}
	var m T
	if err := enc.Unmarshal(b[:n], &m); err != nil {
		return none, fmt.Errorf("%w: %w", ErrHello, err)
	}
	return m, nil
}

// ParseHello reads what a dialer said. Errors: ErrHello, ErrHelloLimit.
func ParseHello(b []byte) (Hello, error) {
	if len(b) > MaxHello {
		return Hello{}, fmt.Errorf("%w: %d bytes", ErrHelloLimit, len(b))
	}
	m, err := unpad[Hello](b)
	if err == nil {
		err = m.check()
	}
	if err != nil {
		return Hello{}, err
	}
	if m.Type != typeHello || len(b) != len(m.Tags)+helloRoom {
		return Hello{}, fmt.Errorf("%w: type %d, %d bytes", ErrHello, m.Type, len(b))
	}
	return m, nil
}

// ParseAnswer reads what a listener said. Errors: ErrHello, ErrHelloLimit.
func ParseAnswer(b []byte) (Answer, error) {
	if len(b) > AnswerSize {
		return Answer{}, fmt.Errorf("%w: %d bytes", ErrHelloLimit, len(b))
	}
	m, err := unpad[Answer](b)
	if err == nil {
		err = checkLists(m.Versions, m.Caps)
	}
	if err != nil {
		return Answer{}, err
	}
	if m.Type != typeAnswer || len(b) != AnswerSize {
		return Answer{}, fmt.Errorf("%w: type %d, %d bytes", ErrHello, m.Type, len(b))
	}
	return m, nil
}

func (m Hello) check() error {
	for _, n := range tagClasses() {
		if len(m.Tags) == n*TagSize {
			return checkLists(m.Versions, m.Caps)
		}
	}
	return fmt.Errorf("%w: %d bytes of tags", ErrHelloLimit, len(m.Tags))
}

func checkLists(versions []uint16, caps []string) error {
	if n := len(versions); n < 1 || n > MaxVersions {
		return fmt.Errorf("%w: %d versions", ErrHelloLimit, n)
	}
	if n := len(caps); n > MaxCaps {
		return fmt.Errorf("%w: %d capabilities", ErrHelloLimit, n)
	}
	for _, c := range caps {
		if c == "" || len(c) > MaxCap {
			return fmt.Errorf("%w: capability of %d bytes", ErrHelloLimit, len(c))
		}
	}
	return nil
}
