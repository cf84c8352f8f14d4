package session

import (
	"encoding/binary"
	"errors"
	"fmt"
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
	OnceLife = 24 * time.Hour

	xwingSize   = 1216
	encSize     = 1120
	capsuleSize = 2 + 2 + 4 + 16 + 7*32
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

// appendBundle appends the signed bundle.
func appendBundle(dst []byte, b *Bundle, k identity.DeviceKey) ([]byte, error) {
	body, err := enc.Marshal(*b)
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	dst = append(dst, k.Sign(identity.ContextBundle, body)...)
	return append(dst, body...), nil
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
	if err := enc.Unmarshal(body, &u); err != nil {
		return Bundle{}, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	if u.Suite != identity.Suite1 || u.Version != Version {
		return Bundle{}, fmt.Errorf("%w: bundle of suite %d, version %d", ErrSuite, u.Suite, u.Version)
	}
	if err := dev.Verify(identity.ContextBundle, body, sig); err != nil {
		return Bundle{}, fmt.Errorf("bundle: %w", err)
	}
	if at := now.Unix(); u.Expiry <= at || u.Expiry-at > int64((BundleLife+clockSlack)/time.Second) {
		return Bundle{}, ErrExpired
	}
	return u, nil
}

// capsule is what the start of a session says under the recipient's key.
type capsule struct {
	suite, version      uint16
	epoch               uint32
	prev                ID
	device              identity.DeviceID // of the sender, like record and head
	record              identity.RecordHash
	head                identity.Head
	yourRecord          identity.RecordHash
	yourHead            identity.Head // as the sender verified it
	olmBase, olmRatchet [32]byte
}

func (c *capsule) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, c.suite)
	dst = binary.BigEndian.AppendUint16(dst, c.version)
	dst = binary.BigEndian.AppendUint32(dst, c.epoch)
	dst = append(dst, c.prev[:]...)
	for _, f := range [][32]byte{c.device, c.record, c.head, c.yourRecord, c.yourHead, c.olmBase, c.olmRatchet} {
		dst = append(dst, f[:]...)
	}
	return dst
}

func parseCapsule(b []byte) (capsule, error) {
	var c capsule
	if len(b) != capsuleSize {
		return c, fmt.Errorf("%w: capsule of %d bytes", ErrBroken, len(b))
	}
	c.suite, c.version = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	if c.suite != identity.Suite1 || c.version != Version {
		return c, fmt.Errorf("%w: start of suite %d, version %d", ErrSuite, c.suite, c.version)
	}
	c.epoch = binary.BigEndian.Uint32(b[4:])
	if c.epoch == 0 {
		return c, fmt.Errorf("%w: start of epoch 0", ErrBroken)
	}
	c.prev = ID(b[8:24])
	b = b[24:]
	for _, f := range []*[32]byte{
		(*[32]byte)(&c.device), (*[32]byte)(&c.record), (*[32]byte)(&c.head), (*[32]byte)(&c.yourRecord),
		(*[32]byte)(&c.yourHead), &c.olmBase, &c.olmRatchet,
	} {
		b = b[copy(f[:], b):]
	}
	return c, nil
}

// advert is a bundle inside a session, for its renewal.
type advert struct {
	id     [8]byte
	olmKey [32]byte
	xwing  [xwingSize]byte
}

const advertSize = 8 + 32 + xwingSize

func (a *advert) append(dst []byte) []byte {
	dst = append(dst, a.id[:]...)
	dst = append(dst, a.olmKey[:]...)
	return append(dst, a.xwing[:]...)
}

func parseAdvert(b []byte) (advert, error) {
	var a advert
	if len(b) != advertSize {
		return a, fmt.Errorf("%w: advertised keys of %d bytes", ErrBroken, len(b))
	}
	copy(a.id[:], b)
	copy(a.olmKey[:], b[8:])
	copy(a.xwing[:], b[40:])
	return a, nil
}
