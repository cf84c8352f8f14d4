package session

import (
	"crypto/hpke"
	"fmt"
)

// exportSize is the size of what HPKE gives to the key schedule.
const exportSize = 32

// encapsulation is a finished start of the outer layer.
type encapsulation struct {
	enc    []byte
	sender *hpke.Sender
}

// encapsulate draws the randomness of X-Wing.
func encapsulate(public, info []byte) (encapsulation, error) {
	k, err := hpke.MLKEM768X25519().NewPublicKey(public)
	if err != nil {
		return encapsulation{}, fmt.Errorf("X-Wing key: %w", err)
	}
	enc, s, err := hpke.NewSender(k, hpke.HKDFSHA256(), hpke.AES256GCM(), info)
	if err != nil {
		return encapsulation{}, fmt.Errorf("X-Wing key: %w", err)
	}
	return encapsulation{enc, s}, nil
}

// seal encrypts the capsule and returns it with the export of SPEC 3.
func (e encapsulation) seal(capsule []byte) (sealed, export []byte) {
	return must(e.sender.Seal(nil, capsule)), must(e.sender.Export(labelSession, exportSize))
}

// decapsulate is the other side of both.
func decapsulate(private [32]byte, enc, info, sealed []byte) (capsule, export []byte, err error) {
	k := must(hpke.MLKEM768X25519().NewPrivateKey(private[:]))
	r, err := hpke.NewRecipient(enc, k, hpke.HKDFSHA256(), hpke.AES256GCM(), info)
	if err != nil {
		return nil, nil, fmt.Errorf("open start: %w", err)
	}
	capsule, err = r.Open(nil, sealed)
	if err != nil {
		return nil, nil, fmt.Errorf("open start: %w", err)
	}
	return capsule, must(r.Export(labelSession, exportSize)), nil
}

// xwingPublic derives the public key, 1216 B.
func xwingPublic(private [32]byte) [xwingSize]byte {
	return [xwingSize]byte(must(hpke.MLKEM768X25519().NewPrivateKey(private[:])).PublicKey().Bytes())
}
