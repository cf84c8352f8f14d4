package identity

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"

	"filippo.io/edwards25519"
)

// SignatureSize is the size of every signature, in bytes.
const SignatureSize = ed25519.SignatureSize

var (
	// ErrSignature: a signature is wrong, or made by another key, over other
	// bytes or for another purpose.
	ErrSignature = errors.New("signature does not match")
	// ErrKey: a public key that nobody can own alone: not on the curve, not in
	// its only encoding, or of low order (H12).
	ErrKey = errors.New("not a sound public key")
)

// RootKey is the cold key of a person. It signs genesis and log-key entries
// and nothing else, and only methods of Log use it.
type RootKey struct{ signer }

// LogKey adds, renews and revokes devices in the log of its person.
type LogKey struct{ signer }

// DeviceKey is the identity of one device.
type DeviceKey struct{ signer }

// RendezvousKey is the secret behind a device's blinded look-up records. It
// certifies nothing.
type RendezvousKey struct{ signer }

// ListKey signs lists of servers. It is nobody's identity: it belongs to a file of its
// own, and no person's log names it.
type ListKey struct{ signer }

// OlmKey is the Curve25519 identity of a device in the inner session layer.
type OlmKey struct {
	hidden
	key *ecdh.PrivateKey
}

// LogPublic is the public half of a LogKey.
type LogPublic [32]byte

// DevicePublic is the public half of a DeviceKey.
type DevicePublic [32]byte

// ListPublic is the public half of a ListKey.
type ListPublic [32]byte

// NewRootKey derives the key from a 32-byte seed, the one that the recovery
// words encode.
func NewRootKey(seed [32]byte) RootKey { return RootKey{newSigner(seed)} }

// NewLogKey derives the key from a random 32-byte seed.
func NewLogKey(seed [32]byte) LogKey { return LogKey{newSigner(seed)} }

// NewDeviceKey derives the key from a random 32-byte seed.
func NewDeviceKey(seed [32]byte) DeviceKey { return DeviceKey{newSigner(seed)} }

// NewRendezvousKey derives the key from a random 32-byte seed.
func NewRendezvousKey(seed [32]byte) RendezvousKey { return RendezvousKey{newSigner(seed)} }

// NewListKey derives the key from a random 32-byte seed.
func NewListKey(seed [32]byte) ListKey { return ListKey{newSigner(seed)} }

// NewOlmKey makes the key of 32 random bytes, which X25519 clamps by itself.
func NewOlmKey(seed [32]byte) OlmKey {
	k, err := ecdh.X25519().NewPrivateKey(seed[:])
	if err != nil {
		panic("bug: X25519 refused 32 bytes: " + err.Error())
	}
	return OlmKey{key: k}
}

// Person is who this is the root key of.
func (k RootKey) Person() PersonID { return PersonID(k.public()) }

// Seed returns the seed, for the key file and the recovery words.
func (k RootKey) Seed() [32]byte { return [32]byte(k.key.Seed()) }

// Public returns the key that a log-key entry names.
func (k LogKey) Public() LogPublic { return LogPublic(k.public()) }

// Public returns the key that verifies what k signs.
func (k DeviceKey) Public() DevicePublic { return DevicePublic(k.public()) }

// ID returns the id of the device that k is the key of.
func (k DeviceKey) ID() DeviceID { return k.Public().ID() }

// Sign returns the 64-byte signature over msg in context c. It is
// deterministic.
func (k DeviceKey) Sign(c Context, msg []byte) []byte { return k.sign(c, msg) }

// Public returns the key for DeviceRecord.Rendezvous.
func (k RendezvousKey) Public() [32]byte { return k.public() }

// Public returns the key that verifies what k signs.
func (k ListKey) Public() ListPublic { return ListPublic(k.public()) }

// Sign returns the 64-byte signature over the body of a list. It is deterministic.
func (k ListKey) Sign(body []byte) []byte { return k.sign(ContextServerList, body) }

// Public returns the key for DeviceRecord.Olm.
func (k OlmKey) Public() [32]byte { return [32]byte(k.key.PublicKey().Bytes()) }

// Shared is the X25519 value that k and the Olm key of another device have in
// common: 32 bytes that only the two devices can compute. It is material for a
// KDF, never a key by itself. A public key of low order is ErrKey.
func (k OlmKey) Shared(public [32]byte) ([32]byte, error) {
	p, err := k.key.Curve().NewPublicKey(public[:])
	if err != nil {
		return [32]byte{}, fmt.Errorf("%w: %w", ErrKey, err)
	}
	s, err := k.key.ECDH(p)
	if err != nil {
		return [32]byte{}, fmt.Errorf("%w: low order", ErrKey)
	}
	return [32]byte(s), nil
}

// ID returns the id of the device.
func (p DevicePublic) ID() DeviceID {
	b := append([]byte(deviceIDPrefix), p[:]...)
	return sha256.Sum256(b)
}

// Verify returns ErrSignature unless sig is the signature of this device over
// msg in context c.
func (p DevicePublic) Verify(c Context, msg, sig []byte) error { return verify(p, c, msg, sig) }

// Sound returns ErrKey for a key that nobody can own alone.
func (p ListPublic) Sound() error {
	_, err := soundPoint(p)
	return err
}

// Verify returns ErrSignature unless sig is the signature of this key over the body of
// a list, and ErrKey as Sound does.
func (p ListPublic) Verify(body, sig []byte) error {
	if err := p.Sound(); err != nil {
		return err
	}
	return verify(p, ContextServerList, body, sig)
}

func verify(public [32]byte, c Context, msg, sig []byte) error {
	if len(sig) != SignatureSize || !ed25519.Verify(public[:], c.input(msg), sig) {
		return ErrSignature
	}
	return nil
}

// soundPoint refuses keys under which one signature would fit many messages
// (low order), and second spellings of a key.
func soundPoint(key [32]byte) (*edwards25519.Point, error) {
	p, err := new(edwards25519.Point).SetBytes(key[:])
	if err != nil {
		return nil, fmt.Errorf("%w: not on the curve", ErrKey)
	}
	if [32]byte(p.Bytes()) != key {
		return nil, fmt.Errorf("%w: not in its only encoding", ErrKey)
	}
	if new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return nil, fmt.Errorf("%w: low order", ErrKey)
	}
	return p, nil
}

// checkX25519 refuses keys with which the shared secret would not depend on
// ours. All of them give zero with every scalar, so any scalar shows it.
func checkX25519(key [32]byte) error {
	_, err := NewOlmKey([32]byte{1}).Shared(key)
	return err
}
