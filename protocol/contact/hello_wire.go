package contact

import (
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
	// take 203 bytes, the rest is padding.
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
	Pad  []byte `cbor:"6,keyasint"` // set by Append, dropped by ParseHello
}

// Answer is what the listener says. A stranger gets versions, a random tag and
// nothing else.
type Answer struct {
	Type     uint8    `cbor:"1,keyasint"` // set by Append
	Versions []uint16 `cbor:"2,keyasint"`
	Caps     []string `cbor:"3,keyasint,omitempty"`
	Limits   Limits   `cbor:"4,keyasint"`
	Tag      Tag      `cbor:"5,keyasint"`
	Pad      []byte   `cbor:"6,keyasint"` // set by Append, dropped by ParseAnswer
}

// Append appends the encoded hello, 512 bytes longer than its tags.
func (m Hello) Append(dst []byte) ([]byte, error) {
	m.Type = typeHello
	if err := m.check(); err != nil {
		return nil, err
	}
	return appendPadded(dst, len(m.Tags)+helloRoom, func(pad []byte) any { m.Pad = pad; return m })
}

// Append appends the encoded answer, AnswerSize bytes.
func (m Answer) Append(dst []byte) ([]byte, error) {
	m.Type = typeAnswer
	if err := checkLists(m.Versions, m.Caps); err != nil {
		return nil, err
	}
	return appendPadded(dst, AnswerSize, func(pad []byte) any { m.Pad = pad; return m })
}

// appendPadded encodes to exactly size bytes. The padding is long enough for
// its own length to take three bytes, which the sizes above make sure of.
func appendPadded(dst []byte, size int, with func(pad []byte) any) ([]byte, error) {
	const header = 3
	bare, err := enc.Marshal(with(nil))
	if err != nil {
		return nil, err
	}
	pad := size - (len(bare) - 1) - header
	if pad < 256 {
		return nil, fmt.Errorf("%w: no room for padding", ErrHelloLimit)
	}
	b, err := enc.Marshal(with(make([]byte, pad)))
	if err != nil {
		return nil, err
	}
	return append(dst, b...), nil
}

// ParseHello reads what a dialer said. Errors: ErrHello, ErrHelloLimit.
func ParseHello(b []byte) (Hello, error) {
	if len(b) > MaxHello {
		return Hello{}, fmt.Errorf("%w: %d bytes", ErrHelloLimit, len(b))
	}
	m, err := decode[Hello](b)
	if err != nil {
		return Hello{}, fmt.Errorf("%w: %w", ErrHello, err)
	}
	if err := m.check(); err != nil {
		return Hello{}, err
	}
	if m.Type != typeHello || len(b) != len(m.Tags)+helloRoom {
		return Hello{}, ErrHello
	}
	m.Pad = nil
	return m, nil
}

// ParseAnswer reads what a listener said. Errors: ErrHello, ErrHelloLimit.
func ParseAnswer(b []byte) (Answer, error) {
	if len(b) > AnswerSize {
		return Answer{}, fmt.Errorf("%w: %d bytes", ErrHelloLimit, len(b))
	}
	m, err := decode[Answer](b)
	if err != nil {
		return Answer{}, fmt.Errorf("%w: %w", ErrHello, err)
	}
	if m.Type != typeAnswer || len(b) != AnswerSize {
		return Answer{}, ErrHello
	}
	m.Pad = nil
	return m, checkLists(m.Versions, m.Caps)
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
