package identity

import "fmt"

// ReachInput is what a transport key signs to show that the device uses it: a plain
// Ed25519 signature over these bytes. Without it, a device could name the key of another
// one, and would be taken for whoever answers there.
func ReachInput(d DeviceID) []byte { return ContextReach.input(d[:]) }

// VerifyReach returns ErrSignature unless proof is the signature of a transport key
// over ReachInput(d), and ErrKey for a key under which it would prove nothing.
func VerifyReach(transport [32]byte, d DeviceID, proof [SignatureSize]byte) error {
	if _, err := soundPoint(transport); err != nil {
		return fmt.Errorf("transport key: %w", err)
	}
	return verify(transport, ContextReach, d[:], proof[:])
}
