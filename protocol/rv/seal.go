package rv

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kinloom/kinloom/identity"
)

const (
	blindPrefix = "kinloom/rv/1"
	encryptInfo = "rv-enc"
)

// ErrSealed means that the record is not encrypted for this key, secret and period.
var ErrSealed = errors.New("record does not open")

// material is A | S | p, which all that belongs to one record is derived from.
func material(a [32]byte, s Secret, p Period) []byte {
	b := make([]byte, 0, len(a)+len(s)+4)
	b = append(b, a[:]...)
	b = append(b, s[:]...)
	return binary.BigEndian.AppendUint32(b, uint32(p))
}

// factor is what the rendezvous key is blinded with.
func factor(material []byte) [64]byte {
	return sha512.Sum512(append([]byte(blindPrefix), material...))
}

// key encrypts the hint.
func key(material []byte) []byte {
	k, err := hkdf.Key(sha256.New, material, nil, encryptInfo, chacha20poly1305.KeySize)
	if err != nil {
		panic("bug: HKDF refused 32 bytes: " + err.Error())
	}
	return k
}

// PointOf is where the record of period p lies, of the device with the public
// rendezvous key a and the contact secret s. ErrPoint: a is no sound key, or p
// is after the last period.
func PointOf(a [32]byte, s Secret, p Period) (Point, error) {
	if p > lastPeriod {
		return Point{}, fmt.Errorf("%w: period %d", ErrPoint, p)
	}
	b, err := identity.BlindRendezvous(a, factor(material(a, s, p)))
	if err != nil {
		return Point{}, fmt.Errorf("%w: %w", ErrPoint, err)
	}
	return b, nil
}

// Seal makes the record of the device with rendezvous key k and contact secret
// s for period p. seq is minutes since p began, or what Machine says. random
// gives 24 bytes. Errors: ErrHintLimit, ErrSeq, ErrNotAfter for a period after
// the last, those of random.
func Seal(k identity.RendezvousKey, s Secret, p Period, seq uint64, h Hint, random io.Reader) ([]byte, error) {
	if p > lastPeriod {
		return nil, fmt.Errorf("%w: period %d", ErrNotAfter, p)
	}
	if seq > MaxSeq {
		return nil, fmt.Errorf("%w: %d", ErrSeq, seq)
	}
	plain, err := h.Append(nil)
	if err != nil {
		return nil, err
	}
	m := material(k.Public(), s, p)
	blinded, err := k.Blind(factor(m))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPoint, err)
	}
	b := make([]byte, 0, RecordSize)
	b = append(b, Version)
	b = binary.BigEndian.AppendUint32(b, uint32(p.NotAfter().Unix()))
	b = binary.BigEndian.AppendUint64(b, seq)
	b = b[:headSize]
	nonce := b[headSize-nonceSize:]
	if _, err := io.ReadFull(random, nonce); err != nil {
		return nil, fmt.Errorf("draw nonce of record: %w", err)
	}
	aead, err := chacha20poly1305.NewX(key(m))
	if err != nil {
		panic("bug: key of a wrong size: " + err.Error())
	}
	b = aead.Seal(b, nonce, plain, nil)
	return append(b, blinded.Sign(signInput(blinded.Public(), b))...), nil
}

// Open verifies and decrypts the record of period p. It needs no clock: the
// reader chose p, and a record of another period is ErrNotAfter. Other errors
// are those of Verify and ParseHint, and ErrSealed.
func Open(a [32]byte, s Secret, p Period, record []byte) (Hint, Stamp, error) {
	r, err := split(record)
	if err != nil {
		return Hint{}, Stamp{}, err
	}
	if r.stamp().Period != p {
		return Hint{}, Stamp{}, fmt.Errorf("%w: of another period", ErrNotAfter)
	}
	point, err := PointOf(a, s, p)
	if err != nil {
		return Hint{}, Stamp{}, err
	}
	if err := r.verify(point); err != nil {
		return Hint{}, Stamp{}, err
	}
	aead, err := chacha20poly1305.NewX(key(material(a, s, p)))
	if err != nil {
		panic("bug: key of a wrong size: " + err.Error())
	}
	plain, err := aead.Open(nil, r.nonce, r.sealed, nil)
	if err != nil {
		return Hint{}, Stamp{}, ErrSealed
	}
	h, err := ParseHint(plain)
	if err != nil {
		return Hint{}, Stamp{}, err
	}
	return h, r.stamp(), nil
}
