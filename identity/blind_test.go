package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"filippo.io/edwards25519"
	"pgregory.net/rapid"
)

func factor(n int) [64]byte { return sha512.Sum512(fmt.Append(nil, "factor ", n)) }

// TestBlindBothSides: owner and reader come to the same point, and what the
// owner signs verifies under it as plain Ed25519 and under no other.
func TestBlindBothSides(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s [32]byte
		copy(s[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "seed"))
		var f [64]byte
		copy(f[:], rapid.SliceOfN(rapid.Byte(), 64, 64).Draw(t, "factor"))
		f[1] |= 1
		msg := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "message")
		k := NewRendezvousKey(s)
		b, err := k.Blind(f)
		if err != nil {
			t.Fatal(err)
		}
		p, err := BlindRendezvous(k.Public(), f)
		if err != nil || p != b.Public() {
			t.Fatalf("reader has %x, %v; owner %x", p, err, b.Public())
		}
		if err := CheckKey(p); err != nil {
			t.Fatal(err)
		}
		sig := b.Sign(msg)
		if !ed25519.Verify(p[:], msg, sig) {
			t.Fatal("signature does not verify as plain Ed25519")
		}
		if a := k.Public(); ed25519.Verify(a[:], msg, sig) || ed25519.Verify(p[:], append(msg, 0), sig) {
			t.Fatal("signature verifies under the wrong key or message")
		}
	})
}

// TestBlindNonces is H138: no two signatures over different messages, or
// under different factors, share a nonce; the same one again is the same.
func TestBlindNonces(t *testing.T) {
	seen := map[[32]byte]string{}
	for key := range 3 {
		k := NewRendezvousKey(seed("rendezvous", key))
		for f := range 20 {
			b, err := k.Blind(factor(f))
			if err != nil {
				t.Fatal(err)
			}
			for msg := range 5 {
				sig := b.Sign([]byte{byte(msg)})
				name := fmt.Sprintf("key %d, factor %d, message %d", key, f, msg)
				if before := seen[[32]byte(sig)]; before != "" {
					t.Fatalf("%s has the nonce of %s", name, before)
				}
				seen[[32]byte(sig)] = name
				// After a restart, or on a clone, all is computed again.
				again, err := NewRendezvousKey(seed("rendezvous", key)).Blind(factor(f))
				if err != nil || !bytes.Equal(again.Sign([]byte{byte(msg)}), sig) {
					t.Fatalf("%s: another signature the second time (%v)", name, err)
				}
			}
		}
	}
}

// TestBlindRefusesKeys: no key of low order, no second spelling, and none with
// a part of low order, which would be the same through all factors.
func TestBlindRefusesKeys(t *testing.T) {
	low := []string{
		"0100000000000000000000000000000000000000000000000000000000000000",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	}
	sound, err := new(edwards25519.Point).SetBytes(publicOf(NewRendezvousKey(seed("rendezvous", 1))))
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range low {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		_, err = BlindRendezvous([32]byte(b), factor(1))
		wantErr(t, "low order "+s, err, ErrKey)
		if i == 0 {
			continue // a sum with zero changes nothing
		}
		torsion, err := new(edwards25519.Point).SetBytes(b)
		if err != nil {
			t.Fatal(err)
		}
		mixed := [32]byte(torsion.Add(torsion, sound).Bytes())
		if err := CheckKey(mixed); err != nil {
			t.Errorf("the mixed key is refused for another reason: %v", err)
		}
		_, err = BlindRendezvous(mixed, factor(1))
		wantErr(t, "mixed with "+s, err, ErrKey)
	}
	for _, s := range []string{
		strings.Repeat("ff", 32), "f0" + strings.Repeat("ff", 30) + "7f", "02" + strings.Repeat("00", 31),
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := BlindRendezvous([32]byte(b), factor(1)); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v, want %v", s, err, ErrKey)
		}
	}
}

func publicOf(k RendezvousKey) []byte {
	p := k.Public()
	return p[:]
}

// TestBlindToZero: a factor that is a multiple of the order leaves no key.
func TestBlindToZero(t *testing.T) {
	k := NewRendezvousKey(seed("rendezvous", 1))
	_, err := k.Blind([64]byte{})
	wantErr(t, "Blind", err, ErrKey)
	_, err = BlindRendezvous(k.Public(), [64]byte{})
	wantErr(t, "BlindRendezvous", err, ErrKey)
}

func BenchmarkBlind(b *testing.B) {
	k := NewRendezvousKey(seed("rendezvous", 1))
	b.Run("public", func(b *testing.B) {
		for b.Loop() {
			if _, err := BlindRendezvous(k.Public(), factor(1)); err != nil {
				b.Fatal(err)
			}
		}
	})
	blinded, err := k.Blind(factor(1))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("sign", func(b *testing.B) {
		for b.Loop() {
			blinded.Sign(make([]byte, 1100))
		}
	})
}
