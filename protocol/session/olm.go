package session

import (
	"errors"
	"fmt"
	"slices"

	"maunium.net/go/mautrix/crypto/goolm/crypto"
	"maunium.net/go/mautrix/crypto/goolm/goolmbase64"
	"maunium.net/go/mautrix/crypto/goolm/message"
	olmsession "maunium.net/go/mautrix/crypto/goolm/session"
)

// This file and hpke.go are the only places where chance enters a session from
// elsewhere than Machine.random: goolm and crypto/hpke draw theirs themselves.

// errOlm hides which check inside Olm failed.
var errOlm = errors.New("olm refuses it")

// olmSkipped is how many skipped keys goolm keeps.
const olmSkipped = 40

// olm is one end of an Olm session. Its messages are raw bytes, and all of them
// normal ones: what a prekey message adds is in the capsule of the start.
type olm struct{ s *olmsession.OlmSession }

func olmKeyPair(private [32]byte) crypto.Curve25519KeyPair {
	return must(crypto.Curve25519GenerateFromPrivate(slices.Clone(private[:])))
}

// soundKey reports whether a key has an effect on a shared secret.
func soundKey(key [32]byte) bool {
	_, err := olmKeyPair([32]byte{1}).SharedSecret(key[:])
	return err == nil
}

// olmStart begins a session to the two keys of the peer, and returns the base
// and ratchet key that the peer needs to answer it.
func olmStart(own crypto.Curve25519KeyPair, peer, oneTime [32]byte) (o olm, base, ratchet [32]byte, err error) {
	s, err := olmsession.NewOutboundOlmSession(own, slices.Clone(peer[:]), slices.Clone(oneTime[:]))
	if err != nil {
		return olm{}, base, ratchet, fmt.Errorf("%w: %w", errOlm, err)
	}
	return olm{s}, [32]byte(s.AliceBaseKey), [32]byte(s.Ratchet.SenderChains.RKey.PublicKey), nil
}

// olmAnswer is the other side of olmStart. peer, the identity that the sender
// must have, is no pointer: an inbound session without it would accept anyone.
func olmAnswer(own, oneTime crypto.Curve25519KeyPair, peer, base, ratchet [32]byte) (olm, error) {
	if !soundKey(ratchet) {
		return olm{}, fmt.Errorf("%w: ratchet key of low order", errOlm)
	}
	const version = 3
	// Only the ratchet key of the message is read; nothing is decrypted here.
	first := message.Encoder{}
	first.PutByte(version)
	first.PutVarInt(0x0A)
	first.PutVarBytes(ratchet[:])
	pre := message.PreKeyMessage{
		Version: version, IdentityKey: peer[:], BaseKey: base[:], OneTimeKey: oneTime.PublicKey,
		Message: append(first.Bytes(), make([]byte, 8)...),
	}
	b, err := pre.Encode()
	if err != nil {
		return olm{}, fmt.Errorf("%w: %w", errOlm, err)
	}
	expected := crypto.Curve25519PublicKey(slices.Clone(peer[:]))
	s, err := olmsession.NewInboundOlmSession(&expected, goolmbase64.Encode(b), func(k crypto.Curve25519PublicKey) *crypto.OneTimeKey {
		if !k.Equal(oneTime.PublicKey) {
			return nil
		}
		return &crypto.OneTimeKey{Key: oneTime}
	}, own)
	if err != nil {
		return olm{}, fmt.Errorf("%w: %w", errOlm, err)
	}
	return olm{s}, nil
}

// clone returns a copy that shares nothing that changes. goolm replaces keys,
// it does not write into them.
func (o olm) clone() olm {
	s := *o.s
	s.Ratchet.ReceiverChains = slices.Clone(s.Ratchet.ReceiverChains)
	s.Ratchet.SkippedMessageKeys = slices.Clone(s.Ratchet.SkippedMessageKeys)
	return olm{&s}
}

func (o olm) seal(plain []byte) ([]byte, error) {
	b, err := o.s.Ratchet.Encrypt(plain)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errOlm, err)
	}
	return b, nil
}

// open decrypts the message with the given seq. Messages between it and the
// one before were skipped; their keys are kept where wanted says so. goolm by
// itself keeps the newest 40, so a long skip of seqs that never come would
// push out the ones that do. turned reports a new key of the peer.
func (o olm) open(b []byte, seq uint64, wanted func(uint64) bool) (plain []byte, turned bool, err error) {
	r := &o.s.Ratchet
	before, chain := r.SkippedMessageKeys, crypto.Curve25519PublicKey(nil)
	if len(r.ReceiverChains) > 0 {
		chain = r.ReceiverChains[0].RKey
	}
	// goolm appends to, trims and deletes in this slice: give it its own.
	r.SkippedMessageKeys = slices.Clone(before)
	plain, err = r.Decrypt(b)
	if err != nil {
		r.SkippedMessageKeys = before
		return nil, false, fmt.Errorf("%w: %w", errOlm, err)
	}
	turned = !chain.Equal(r.ReceiverChains[0].RKey)
	after := r.SkippedMessageKeys
	if len(after) < len(before) || len(after) == 0 {
		return plain, turned, nil // one of the kept keys was used, or there are none
	}
	// Skipped just now are those at the end that were not there before: same
	// chain, ascending, the last one right before seq.
	fresh := len(after)
	for fresh > 0 {
		known := false
		for _, k := range before {
			known = known || k.MKey.Index == after[fresh-1].MKey.Index && k.RKey.Equal(after[fresh-1].RKey)
		}
		if known {
			break
		}
		fresh--
	}
	if fresh == len(after) {
		return plain, turned, nil
	}
	kept := slices.Clone(before)
	last := after[len(after)-1].MKey.Index
	for _, k := range after[fresh:] {
		if back := uint64(last-k.MKey.Index) + 1; back < seq && wanted(seq-back) {
			kept = append(kept, k)
		}
	}
	r.SkippedMessageKeys = kept[max(0, len(kept)-olmSkipped):]
	return plain, turned, nil
}

func (o olm) pickle() []byte { return o.s.PickleLibOlm() }

func olmUnpickle(b []byte) (olm, error) {
	s := olmsession.NewOlmSession()
	if err := s.UnpickleLibOlm(b); err != nil {
		return olm{}, fmt.Errorf("%w: %w", errOlm, err)
	}
	if !s.Ratchet.SenderChains.IsSet && len(s.Ratchet.ReceiverChains) == 0 {
		return olm{}, fmt.Errorf("%w: no chain", errOlm)
	}
	return olm{s}, nil
}
