package identity

import (
	"crypto/ed25519"
	"fmt"
)

// secretText is what every printed form of a private key says.
const secretText = "<secret>"

// hidden keeps a private key out of logs, errors, dumps and JSON. It makes the
// type it is embedded in incomparable, so that == on keys does not compile.
type hidden struct{ _ [0]func() }

func (hidden) String() string               { return secretText }
func (hidden) GoString() string             { return secretText }
func (hidden) Format(s fmt.State, _ rune)   { _, _ = s.Write([]byte(secretText)) }
func (hidden) MarshalText() ([]byte, error) { return []byte(secretText), nil }

// signer is an Ed25519 private key of one purpose. Its zero value signs
// nothing: using it panics, as it is a bug of ours to have no key.
type signer struct {
	hidden
	key ed25519.PrivateKey
}

func newSigner(seed [32]byte) signer { return signer{key: ed25519.NewKeyFromSeed(seed[:])} }

func (s signer) public() [32]byte {
	if len(s.key) == 0 {
		panic("bug: key without a seed")
	}
	return [32]byte(s.key[32:])
}

func (s signer) sign(c Context, msg []byte) []byte {
	if len(s.key) == 0 {
		panic("bug: key without a seed")
	}
	return ed25519.Sign(s.key, c.input(msg))
}
