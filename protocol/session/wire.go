package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/enc"
)

// Version is the version of bundles and capsules.
const Version uint16 = 1

// Sizes in bytes and lifetimes.
const (
	// MaxPayload bounds what one message carries.
	MaxPayload = 14336
	// MaxBundle bounds a signed bundle, unknown fields included.
	MaxBundle = 4096
	// BundleLife is the longest time that a bundle may be good for.
	BundleLife = 31 * 24 * time.Hour
	// OnceLife is the time that a once bundle waits to be used.
	OnceLife = 72 * time.Hour

	xwingSize   = 1216
	encSize     = 1120
	carrySize   = 96
	capsuleSize = 2 + 2 + 4 + 16 + 7*32 + 1 + carrySize
	aeadTag     = 16
	nonceSize   = 12
	tagSize     = 8
	headerSize  = encSize + capsuleSize + aeadTag
)

// Errors of reading and checking what a peer made.
var (
	// ErrBundle: not a sound bundle of that device.
	ErrBundle = errors.New("bundle is not sound: ask the device for a fresh one")
	// ErrExpired: the bundle is past its time, or good for longer than allowed.
	ErrExpired = errors.New("bundle is out of its time: ask the device for a fresh one")
	// ErrSuite: a suite other than 1, or below what the device proved before.
	ErrSuite = errors.New("unknown or weaker suite: update kinloom on both sides")
	// ErrBroken: a cell or message whose content breaks a rule of SPEC 4 to 6.
	ErrBroken = errors.New("opened, but its content breaks the protocol")
)

// ID names a session; both sides derive the same.
type ID [16]byte

// Bundle is what a device offers for a session to it.
type Bundle struct {
	Suite       uint16              `cbor:"1,keyasint"`
	Version     uint16              `cbor:"2,keyasint"`
	ID          [8]byte             `cbor:"3,keyasint"`
	RecordHash  identity.RecordHash `cbor:"4,keyasint"`
	Head        identity.Head       `cbor:"5,keyasint"` // of the device's own log
	OlmIdentity [32]byte            `cbor:"6,keyasint"`
	OlmKey      [32]byte            `cbor:"7,keyasint"`
	XWing       [xwingSize]byte     `cbor:"8,keyasint"`
	IntroTag    [32]byte            `cbor:"9,keyasint"`
	Once        bool                `cbor:"10,keyasint"`
	Expiry      int64               `cbor:"11,keyasint"` // unix seconds
}

// sign returns the signed bundle.
func (b Bundle) sign(k identity.DeviceKey) ([]byte, error) {
	body, err := enc.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	return append(k.Sign(identity.ContextBundle, body), body...), nil
}

// ParseBundle checks form, suite, signature and time of a bundle of the device
// with the key dev. Errors: ErrBundle, ErrSuite, ErrExpired, and ErrSignature
// of identity. That its Olm identity is the one of the device's record is
// checked by Start.
func ParseBundle(b []byte, dev identity.DevicePublic, now time.Time) (Bundle, error) {
	var u Bundle
	if len(b) <= identity.SignatureSize || len(b) > MaxBundle {
		return Bundle{}, fmt.Errorf("%w: %d bytes", ErrBundle, len(b))
	}
	sig, body := b[:identity.SignatureSize], b[identity.SignatureSize:]
	// These two first: nothing else of a later suite can be relied on.
	var first struct {
		Suite   uint16 `cbor:"1,keyasint"`
		Version uint16 `cbor:"2,keyasint"`
	}
	if err := enc.Unmarshal(body, &first); err != nil {
		return Bundle{}, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	if first.Suite != identity.Suite1 || first.Version != Version {
		return Bundle{}, fmt.Errorf("%w: bundle of suite %d, version %d", ErrSuite, first.Suite, first.Version)
	}
	if err := enc.Unmarshal(body, &u); err != nil {
		return Bundle{}, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	if err := dev.Verify(identity.ContextBundle, body, sig); err != nil {
		return Bundle{}, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	if at := now.Unix(); u.Expiry <= at || u.Expiry-at > int64((BundleLife+clockSlack)/time.Second) {
		return Bundle{}, ErrExpired
	}
	return u, nil
}

// Capsule is what the start of a session says under the recipient's key.
type Capsule struct {
	Suite, Version uint16
	Epoch          uint32
	Previous       ID                // session in which the keys were advertised, zero for those of a bundle
	Device         identity.DeviceID // of the sender, like Record and Head
	Record         identity.RecordHash
	Head           identity.Head
	YourRecord     identity.RecordHash // of the recipient, like YourHead
	YourHead       identity.Head       // as the sender verified it
	OlmBase        [32]byte
	OlmRatchet     [32]byte
	Carry          []byte // of a renewal: 32 random bytes, as an Olm message of the previous session
}

// keys lists the fields of 32 bytes in their order on the wire.
func (c *Capsule) keys() [7]*[32]byte {
	return [7]*[32]byte{
		(*[32]byte)(&c.Device), (*[32]byte)(&c.Record), (*[32]byte)(&c.Head), (*[32]byte)(&c.YourRecord),
		(*[32]byte)(&c.YourHead), &c.OlmBase, &c.OlmRatchet,
	}
}

// Append appends the 345 bytes of the capsule. Carry has at most 96 bytes.
func (c *Capsule) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, c.Suite)
	dst = binary.BigEndian.AppendUint16(dst, c.Version)
	dst = binary.BigEndian.AppendUint32(dst, c.Epoch)
	dst = append(dst, c.Previous[:]...)
	for _, f := range c.keys() {
		dst = append(dst, f[:]...)
	}
	dst = append(append(dst, byte(len(c.Carry))), c.Carry...)
	return append(dst, make([]byte, carrySize-len(c.Carry))...)
}

// ParseCapsule reads what Append wrote. Errors: ErrBroken, ErrSuite.
func ParseCapsule(b []byte) (Capsule, error) {
	var c Capsule
	if len(b) != capsuleSize {
		return Capsule{}, fmt.Errorf("%w: capsule of %d bytes", ErrBroken, len(b))
	}
	c.Suite, c.Version = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	if c.Suite != identity.Suite1 || c.Version != Version {
		return Capsule{}, fmt.Errorf("%w: start of suite %d, version %d", ErrSuite, c.Suite, c.Version)
	}
	if c.Epoch = binary.BigEndian.Uint32(b[4:]); c.Epoch == 0 {
		return Capsule{}, fmt.Errorf("%w: start of epoch 0", ErrBroken)
	}
	c.Previous = ID(b[8:24])
	b = b[24:]
	for _, f := range c.keys() {
		b = b[copy(f[:], b):]
	}
	n := int(b[0])
	if n > carrySize || (n == 0) != (c.Previous == ID{}) {
		return Capsule{}, fmt.Errorf("%w: what a start carries over", ErrBroken)
	}
	for _, x := range b[1+n:] {
		if x != 0 {
			return Capsule{}, fmt.Errorf("%w: padding of a start", ErrBroken)
		}
	}
	if n > 0 {
		c.Carry = slices.Clone(b[1 : 1+n])
	}
	return c, nil
}

// Advert is a bundle inside a session, for its renewal.
type Advert struct {
	ID     [8]byte
	OlmKey [32]byte
	XWing  [xwingSize]byte
}

const advertSize = 8 + 32 + xwingSize

// Append appends the 1,256 bytes of the keys.
func (a *Advert) Append(dst []byte) []byte {
	dst = append(dst, a.ID[:]...)
	dst = append(dst, a.OlmKey[:]...)
	return append(dst, a.XWing[:]...)
}

// ParseAdvert reads what Append wrote. Errors: ErrBroken.
func ParseAdvert(b []byte) (Advert, error) {
	var a Advert
	if len(b) != advertSize {
		return a, fmt.Errorf("%w: advertised keys of %d bytes", ErrBroken, len(b))
	}
	copy(a.ID[:], b)
	copy(a.OlmKey[:], b[8:])
	copy(a.XWing[:], b[40:])
	return a, nil
}
