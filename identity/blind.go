package identity

import (
	"crypto/ed25519"
	"crypto/sha512"
	"fmt"

	"filippo.io/edwards25519"
)

// BlindedKey signs the look-up records of one period. Its public half shows to
// nobody who lacks the factor that it belongs to a rendezvous key.
//
// It must not leave the device: whoever has it and knows the factor can divide
// and has the rendezvous key.
type BlindedKey struct {
	hidden
	scalar *edwards25519.Scalar
	prefix [32]byte
	public [32]byte
}

// Blind returns the key h*a for the private scalar a of k, where h is factor, a
// hash, as a little-endian integer reduced modulo the order of the group
// (SPEC 1.1). The prefix of its signing nonces is derived from the prefix of k
// and from factor, so no two factors share one. ErrKey: h*a is zero, which no
// hash has given yet.
func (k RendezvousKey) Blind(factor [64]byte) (BlindedKey, error) {
	if len(k.key) == 0 {
		panic("bug: key without a seed")
	}
	wide := sha512.Sum512(k.key.Seed())
	a, err := edwards25519.NewScalar().SetBytesWithClamping(wide[:32])
	if err != nil {
		panic("bug: 32 bytes are no scalar: " + err.Error())
	}
	b := BlindedKey{scalar: a.Multiply(a, reduce(factor[:]))}
	if b.public, err = encodeBlinded(new(edwards25519.Point).ScalarBaseMult(b.scalar)); err != nil {
		return BlindedKey{}, err
	}
	d := sha512.New()
	d.Write([]byte(blindNoncePrefix))
	d.Write(wide[32:])
	d.Write(factor[:])
	copy(b.prefix[:], d.Sum(nil))
	return b, nil
}

// BlindRendezvous returns the public half of the key that Blind gives for the
// same factor, from the public half of the rendezvous key. ErrKey: public is
// not a canonical point of the group of prime order, so a part of it would
// show through every factor.
func BlindRendezvous(public [32]byte, factor [64]byte) ([32]byte, error) {
	p, err := soundPoint(public)
	if err != nil {
		return [32]byte{}, err
	}
	// The order of the group is -1 + 1, and p is multiplied by -1 as an integer,
	// order - 1.
	minusOne := edwards25519.NewScalar()
	minusOne.Subtract(minusOne, one())
	q := new(edwards25519.Point).ScalarMult(minusOne, p)
	if q.Add(q, p).Equal(edwards25519.NewIdentityPoint()) != 1 {
		return [32]byte{}, fmt.Errorf("%w: has a part of low order", ErrKey)
	}
	return encodeBlinded(q.ScalarMult(reduce(factor[:]), p))
}

// CheckKey returns ErrKey for an Ed25519 public key that is not on the curve,
// not in its only encoding, or of low order.
func CheckKey(key [32]byte) error {
	_, err := soundPoint(key)
	return err
}

// Public returns the key that verifies what b signs, with plain Ed25519.
func (b BlindedKey) Public() [32]byte { return b.public }

// Sign returns the 64-byte Ed25519 signature over msg as it is, without a
// context: the key has one purpose already. It is deterministic, and different
// messages have different nonces.
func (b BlindedKey) Sign(msg []byte) []byte {
	if b.scalar == nil {
		panic("bug: blinded key without a scalar")
	}
	r := digest(b.prefix[:], msg)
	nonce := new(edwards25519.Point).ScalarBaseMult(r).Bytes()
	k := digest(nonce, b.public[:], msg)
	s := edwards25519.NewScalar().MultiplyAdd(k, b.scalar, r)
	return append(append(make([]byte, 0, ed25519.SignatureSize), nonce...), s.Bytes()...)
}

// digest is SHA-512 over all parts, as a scalar.
func digest(parts ...[]byte) *edwards25519.Scalar {
	d := sha512.New()
	for _, p := range parts {
		d.Write(p)
	}
	return reduce(d.Sum(nil))
}

// reduce reads 64 bytes as a little-endian integer modulo the group order.
func reduce(b []byte) *edwards25519.Scalar {
	s, err := edwards25519.NewScalar().SetUniformBytes(b)
	if err != nil {
		panic("bug: 64 bytes are no scalar: " + err.Error())
	}
	return s
}

func one() *edwards25519.Scalar {
	s, err := edwards25519.NewScalar().SetCanonicalBytes(append([]byte{1}, make([]byte, 31)...))
	if err != nil {
		panic("bug: 1 is no scalar: " + err.Error())
	}
	return s
}

func encodeBlinded(p *edwards25519.Point) ([32]byte, error) {
	if p.Equal(edwards25519.NewIdentityPoint()) == 1 {
		return [32]byte{}, fmt.Errorf("%w: blinded to zero", ErrKey)
	}
	return [32]byte(p.Bytes()), nil
}
