package identity

import "fmt"

// Shared is the X25519 value that k and the Olm key of another device have in
// common: 32 bytes that only the two devices can compute. It is key material
// for a KDF, never a key by itself. A public key of low order is ErrKey.
func (k OlmKey) Shared(public [32]byte) ([32]byte, error) {
	if err := checkX25519(public); err != nil {
		return [32]byte{}, err
	}
	p, err := k.key.Curve().NewPublicKey(public[:])
	if err != nil {
		return [32]byte{}, fmt.Errorf("shared Olm value: %w", err)
	}
	s, err := k.key.ECDH(p)
	if err != nil {
		return [32]byte{}, fmt.Errorf("shared Olm value: %w", err)
	}
	return [32]byte(s), nil
}
