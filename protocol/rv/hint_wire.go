package rv

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/enc"
)

// Limits of a hint (SPEC 4). All of it has to fit into HintSize too.
const (
	// MaxPlaces is how many devices a hint may name.
	MaxPlaces = 16
	// MaxAddresses is how many addresses a place may have, MaxAddress the
	// longest in bytes.
	MaxAddresses = 6
	MaxAddress   = 127
)

var (
	// ErrHint: what a record holds is not a hint.
	ErrHint = errors.New("not a hint")
	// ErrHintLimit: more of something than SPEC 4 allows, or too much in all.
	ErrHintLimit = errors.New("hint above its limit")
)

// Caps says what a device is good for: a set of bits, of which unknown ones
// mean nothing.
type Caps uint32

// The capabilities that there are.
const (
	CapAlwaysOn Caps = 1 << iota // meant to be reachable at any hour: tried first
	CapRelay                     // relays for its contacts
)

// Place is where a device was when the hint was made.
type Place struct {
	Transport [32]byte `cbor:"1,keyasint"`           // Ed25519 key of its libp2p host
	Addrs     [][]byte `cbor:"2,keyasint,omitempty"` // binary multiaddrs, unread here; by a relay first
	Caps      Caps     `cbor:"3,keyasint,omitempty"`
	// Proof is the signature of Transport over identity.ReachInput of the device; zero
	// if there is none. It is unread here: whoever reads the hint knows the device.
	Proof [identity.SignatureSize]byte `cbor:"4,keyasint,omitzero"`
}

// Hint is what a record tells those who can open it. It is never more than a
// hint: whoever dials by it finds out by the session who is there.
type Hint struct {
	// Devices are the device whose record it is, first, and siblings of it.
	Devices []Place `cbor:"1,keyasint,omitempty"`
	// Bundle is the SHA-256 of the device's static bundle, zero if it has none.
	Bundle [32]byte `cbor:"3,keyasint,omitzero"`
	// Head is that of the person's log.
	Head identity.Head `cbor:"4,keyasint"`
	// Made is when the device wrote this, in unix seconds by its clock, 0 if it does not
	// say. Seq does not tell: of a record that goes out before its period begins it is 0.
	Made uint32 `cbor:"5,keyasint,omitempty"`
}

// Append appends the padded hint, HintSize bytes: a length of two bytes, one
// map, and zeros. Error: ErrHintLimit.
func (h Hint) Append(dst []byte) ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	return appendPadded(dst, h, HintSize, ErrHintLimit)
}

// ParseHint reads a padded hint. Errors: ErrHint, ErrHintLimit.
func ParseHint(b []byte) (Hint, error) {
	if len(b) != HintSize {
		return Hint{}, fmt.Errorf("%w: %d bytes", ErrHint, len(b))
	}
	h, err := unpad[Hint](b, ErrHint)
	if err == nil {
		err = h.check()
	}
	if err != nil {
		return Hint{}, err
	}
	return h, nil
}

// Hash tells hints apart, for Machine; not by when they were made.
func (h Hint) Hash() ([32]byte, error) {
	h.Made = 0
	b, err := h.Append(nil)
	return sha256.Sum256(b), err
}

func (h Hint) check() error {
	if n := len(h.Devices); n > MaxPlaces {
		return fmt.Errorf("%w: %d devices", ErrHintLimit, n)
	}
	for _, p := range h.Devices {
		if n := len(p.Addrs); n > MaxAddresses {
			return fmt.Errorf("%w: %d addresses", ErrHintLimit, n)
		}
		for _, a := range p.Addrs {
			if len(a) == 0 || len(a) > MaxAddress {
				return fmt.Errorf("%w: address of %d bytes", ErrHintLimit, len(a))
			}
		}
	}
	return nil
}

// appendPadded appends the length of the encoded value as two bytes, the
// value, and zeros until all is size bytes long.
func appendPadded(dst []byte, v any, size int, above error) ([]byte, error) {
	b, err := enc.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(b)+2 > size {
		return nil, fmt.Errorf("%w: %d bytes before padding", above, len(b))
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(b)))
	dst = append(dst, b...)
	return append(dst, make([]byte, size-2-len(b))...), nil
}

// unpad undoes appendPadded. Anything but zeros behind the value is refused,
// as it would be a second spelling. Whoever calls has checked the size.
func unpad[T any](b []byte, malformed error) (T, error) {
	var none T
	n, b := int(binary.BigEndian.Uint16(b)), b[2:]
	if n > len(b) {
		return none, fmt.Errorf("%w: cut short", malformed)
	}
	for _, c := range b[n:] {
		if c != 0 {
			return none, fmt.Errorf("%w: padding is not zero", malformed)
		}
	}
	var v T
	if err := enc.Unmarshal(b[:n], &v); err != nil {
		return none, fmt.Errorf("%w: %w", malformed, err)
	}
	return v, nil
}
