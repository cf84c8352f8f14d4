package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/mr-tron/base58"
)

// PersonID is a person: the Ed25519 root public key, shown as did:key.
type PersonID [32]byte

// DeviceID is a device: SHA-256("kinloom/device-id/1" | device public key).
type DeviceID [32]byte

// Head is the state of a log: SHA-256 of its last entry, signature included.
type Head [32]byte

// RecordHash names one DeviceRecord: SHA-256 of its signed bytes.
type RecordHash [32]byte

// ErrDID is returned by ParsePersonID for everything but a person's did:key.
var ErrDID = errors.New("not a did:key of a person")

const (
	didPrefix = "did:key:z" // z: multibase base58btc
	// maxDID bounds the text given to base58. A person's did:key has 56 bytes.
	maxDID = 64
)

// didCodec is the multicodec number of an Ed25519 public key, as a uvarint.
func didCodec() []byte { return []byte{0xed, 0x01} }

// ParsePersonID reads a did:key (method did:key of the W3C credentials group,
// Ed25519 only). It has one spelling; upper case, blanks and fragments are
// refused, and so is a key that is no sound Ed25519 public key.
func ParsePersonID(s string) (PersonID, error) {
	rest, ok := strings.CutPrefix(s, didPrefix)
	if !ok || len(s) > maxDID {
		return PersonID{}, ErrDID
	}
	b, err := base58.Decode(rest)
	if err != nil {
		return PersonID{}, ErrDID
	}
	key, ok := strings.CutPrefix(string(b), string(didCodec()))
	if !ok || len(key) != len(PersonID{}) {
		return PersonID{}, ErrDID
	}
	p := PersonID([]byte(key))
	if p.String() != s {
		return PersonID{}, ErrDID
	}
	if err := CheckKey(p); err != nil {
		return PersonID{}, fmt.Errorf("%w: %w", ErrDID, err)
	}
	return p, nil
}

// String returns the did:key, 56 bytes for a sound key.
func (p PersonID) String() string {
	return didPrefix + base58.Encode(append(didCodec(), p[:]...))
}

// Hash16 is the first 16 bytes of SHA-256 of the key: enough to recognise a
// person whose key is already known or about to be shown, in an invite.
func (p PersonID) Hash16() [16]byte {
	h := sha256.Sum256(p[:])
	return [16]byte(h[:16])
}

// IsZero reports whether p names nobody.
func (p PersonID) IsZero() bool { return p == PersonID{} }

// MarshalText writes the did:key, so that JSON shows it.
func (p PersonID) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is ParsePersonID.
func (p *PersonID) UnmarshalText(b []byte) error {
	q, err := ParsePersonID(string(b))
	if err != nil {
		return err
	}
	*p = q
	return nil
}

// String returns 64 lower-case hex digits.
func (d DeviceID) String() string { return hex.EncodeToString(d[:]) }

// Short returns the first 8 hex digits, for logs and screens.
func (d DeviceID) Short() string { return hex.EncodeToString(d[:4]) }

// String returns 64 lower-case hex digits.
func (h Head) String() string { return hex.EncodeToString(h[:]) }

// String returns 64 lower-case hex digits.
func (h RecordHash) String() string { return hex.EncodeToString(h[:]) }
