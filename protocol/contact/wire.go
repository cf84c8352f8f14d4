package contact

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/enc"
	"github.com/kinloom/kinloom/protocol/wire"
)

// ID is the protocol of the exchange.
const ID = wire.Contact

// Limits of the messages, in bytes unless said otherwise (SPEC 7).
const (
	// MaxMessage bounds one message. It is four times the usual frame: a log
	// has to fit into one message for all the years that it grows, and it is
	// taken only from who showed a good token, or was dialled.
	MaxMessage = 131072
	// MaxBundle bounds a signed bundle, which is passed on unread.
	MaxBundle = 4096
	// MaxName bounds a profile name in bytes of UTF-8.
	MaxName = 128
	// MaxReach is how many addresses a material carries.
	MaxReach = 8
	// MaxSuites is how many suites an Ask offers.
	MaxSuites = 8
	// MaxShort bounds the messages without material. A stranger sends the
	// first one, so it is small.
	MaxShort = 512

	// materialSize leaves room for what stands around a material.
	materialSize = MaxMessage - MaxShort
)

// Refusals of this protocol, beside those of wire that it uses too: CodeUsed,
// CodeExpired, CodeVersion, CodeProof, CodeBusy, CodeMalformed, CodeStorage,
// CodeRefused.
const (
	// CodeTokenUnknown: no invite of this node has that token.
	CodeTokenUnknown wire.Code = 64
	// CodeTokenRevoked: the inviter took the invite back.
	CodeTokenRevoked wire.Code = 65
	// CodeOwnInvite: the invite is from the same person.
	CodeOwnInvite wire.Code = 66
)

// Types of messages: key 1 of each.
const (
	typeAsk    = 1
	typeOffer  = 2
	typeReveal = 3
	typeAccept = 4
	typeRefuse = 5
)

// Errors of ParseMessage and ParseMaterial.
var (
	// ErrMalformed: not a message of this protocol.
	ErrMalformed = errors.New("not a message of the contact exchange")
	// ErrLimit: longer, or more of something, than SPEC 7 allows.
	ErrLimit = errors.New("contact message above its limit")
)

// Message is one of Ask, Offer, Reveal, Accept and Refuse.
type Message interface {
	// Append appends the encoded message, unframed.
	Append(dst []byte) ([]byte, error)
}

// Ask opens the exchange: the initiator shows the token and commits to a nonce
// and to its material, of which it tells nothing yet.
type Ask struct {
	Type   uint8    `cbor:"1,keyasint"` // set by Append
	Suites []uint16 `cbor:"2,keyasint"`
	Token  Token    `cbor:"3,keyasint"`
	Commit [32]byte `cbor:"4,keyasint"`
}

// Offer answers a good token: the suite, a nonce, and who the responder is.
type Offer struct {
	Type     uint8    `cbor:"1,keyasint"` // set by Append
	Suite    uint16   `cbor:"2,keyasint"`
	Nonce    [32]byte `cbor:"3,keyasint"`
	Material []byte   `cbor:"4,keyasint"`
}

// Reveal opens the commitment and signs the transcript.
type Reveal struct {
	Type     uint8    `cbor:"1,keyasint"` // set by Append
	Nonce    [32]byte `cbor:"2,keyasint"`
	Material []byte   `cbor:"3,keyasint"`
	Sig      [64]byte `cbor:"4,keyasint"`
}

// Accept ends the exchange: the responder has stored the initiator, as a
// contact or as a request that a person has to look at first.
type Accept struct {
	Type    uint8    `cbor:"1,keyasint"` // set by Append
	Request bool     `cbor:"2,keyasint"`
	Sig     [64]byte `cbor:"3,keyasint"`
}

// Refuse ends the exchange without a contact. Either side may send it.
type Refuse struct {
	Type uint8     `cbor:"1,keyasint"` // set by Append
	Code wire.Code `cbor:"2,keyasint"`
}

// Material is what one side says about itself. It travels as a byte string
// inside a message, so that it is hashed as it was received.
type Material struct {
	// Entries are the person's log from genesis on.
	Entries [][]byte `cbor:"1,keyasint"`
	// Record is the signed DeviceRecord of the device that speaks.
	Record []byte `cbor:"2,keyasint"`
	// Static is the signed weekly bundle, Once a fresh one for this stream.
	// Neither is read here; either may be missing.
	Static []byte `cbor:"3,keyasint,omitempty"`
	Once   []byte `cbor:"4,keyasint,omitempty"`
	// Name is the profile name: a claim, shown until a petname is given, and
	// only after CleanName.
	Name string `cbor:"5,keyasint,omitempty"`
	// Addresses are binary multiaddrs where the device can be dialled.
	Addresses [][]byte `cbor:"6,keyasint,omitempty"`
}

// Append implements Message.
func (m Ask) Append(dst []byte) ([]byte, error) {
	m.Type = typeAsk
	return appendChecked(dst, m, m.check())
}

// Append implements Message.
func (m Offer) Append(dst []byte) ([]byte, error) {
	m.Type = typeOffer
	return appendChecked(dst, m, checkMaterialSize(m.Material))
}

// Append implements Message.
func (m Reveal) Append(dst []byte) ([]byte, error) {
	m.Type = typeReveal
	return appendChecked(dst, m, checkMaterialSize(m.Material))
}

// Append implements Message.
func (m Accept) Append(dst []byte) ([]byte, error) {
	m.Type = typeAccept
	return appendChecked(dst, m, nil)
}

// Append implements Message.
func (m Refuse) Append(dst []byte) ([]byte, error) {
	m.Type = typeRefuse
	return appendChecked(dst, m, m.check())
}

// Append appends the encoded material. Error: ErrLimit.
func (m Material) Append(dst []byte) ([]byte, error) {
	start := len(dst)
	dst, err := appendChecked(dst, m, m.check())
	if err != nil {
		return nil, err
	}
	if err := checkMaterialSize(dst[start:]); err != nil {
		return nil, err
	}
	return dst, nil
}

func appendChecked(dst []byte, v any, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	b, err := enc.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(dst, b...), nil
}

// ParseMessage reads one message. Errors: ErrMalformed, ErrLimit.
func ParseMessage(b []byte) (Message, error) {
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes", ErrLimit, len(b))
	}
	var head struct {
		Type uint8 `cbor:"1,keyasint"`
	}
	if err := enc.Unmarshal(b, &head); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if head.Type != typeOffer && head.Type != typeReveal && len(b) > MaxShort {
		return nil, fmt.Errorf("%w: message of %d bytes without material", ErrLimit, len(b))
	}
	switch head.Type {
	case typeAsk:
		return decode[Ask](b, Ask.check)
	case typeOffer:
		return decode[Offer](b, func(m Offer) error { return checkMaterialSize(m.Material) })
	case typeReveal:
		return decode[Reveal](b, func(m Reveal) error { return checkMaterialSize(m.Material) })
	case typeAccept:
		return decode[Accept](b, nil)
	case typeRefuse:
		return decode[Refuse](b, Refuse.check)
	}
	return nil, fmt.Errorf("%w: type %d", ErrMalformed, head.Type)
}

// ParseMaterial reads the form of a material; who it belongs to and whether
// its signatures hold is for verify. Errors: ErrMalformed,
// ErrLimit.
func ParseMaterial(b []byte) (Material, error) {
	if err := checkMaterialSize(b); err != nil {
		return Material{}, err
	}
	var m Material
	if err := enc.Unmarshal(b, &m); err != nil {
		return Material{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := m.check(); err != nil {
		return Material{}, err
	}
	return m, nil
}

func decode[M Message](b []byte, check func(M) error) (Message, error) {
	var m M
	if err := enc.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if check == nil {
		return m, nil
	}
	if err := check(m); err != nil {
		return nil, err
	}
	return m, nil
}

func (m Ask) check() error {
	if n := len(m.Suites); n < 1 || n > MaxSuites {
		return fmt.Errorf("%w: %d suites", ErrLimit, n)
	}
	return nil
}

func (m Refuse) check() error {
	if m.Code == 0 {
		return fmt.Errorf("%w: refusal without a code", ErrMalformed)
	}
	return nil
}

func checkMaterialSize(b []byte) error {
	if len(b) == 0 || len(b) > materialSize {
		return fmt.Errorf("%w: material of %d bytes", ErrLimit, len(b))
	}
	return nil
}

func (m Material) check() error {
	if n := len(m.Entries); n < 1 || n > identity.MaxEntries {
		return fmt.Errorf("%w: %d log entries", ErrLimit, n)
	}
	for _, e := range m.Entries {
		if len(e) == 0 || len(e) > identity.MaxEntry {
			return fmt.Errorf("%w: log entry of %d bytes", ErrLimit, len(e))
		}
	}
	if n := len(m.Record); n == 0 || n > identity.MaxRecord {
		return fmt.Errorf("%w: device record of %d bytes", ErrLimit, n)
	}
	if n := max(len(m.Static), len(m.Once)); n > MaxBundle {
		return fmt.Errorf("%w: bundle of %d bytes", ErrLimit, n)
	}
	if n := len(m.Addresses); n > MaxReach {
		return fmt.Errorf("%w: %d addresses", ErrLimit, n)
	}
	for _, a := range m.Addresses {
		if len(a) == 0 || len(a) > MaxAddress {
			return fmt.Errorf("%w: address of %d bytes", ErrLimit, len(a))
		}
	}
	if len(m.Name) > MaxName {
		return fmt.Errorf("%w: profile name of %d bytes", ErrLimit, len(m.Name))
	}
	return nil
}

// CleanName makes a profile name fit to send: characters that do not show or
// that turn the direction of writing go, white space becomes single blanks,
// and what is above MaxName bytes is cut at a character.
func CleanName(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case r == utf8.RuneError, unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs):
			return -1
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	for len(s) > MaxName {
		_, n := utf8.DecodeLastRuneInString(s)
		s = strings.TrimRight(s[:len(s)-n], " ")
	}
	return s
}
