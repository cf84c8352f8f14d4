package session

import (
	"bytes"
	"fmt"
	"testing"
)

// The regressions of goolm that the session relies on; run against each new pin.

func olmPair(t testing.TB) (a, b olm) {
	t.Helper()
	ka, kb, one := olmKeyPair(seed32("a")), olmKeyPair(seed32("b")), olmKeyPair(seed32("one"))
	a, base, ratchet, err := olmStart(ka, [32]byte(kb.PublicKey), [32]byte(one.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	if b, err = olmAnswer(kb, one, [32]byte(ka.PublicKey), base, ratchet); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func all(uint64) bool { return true }

func olmSeal(t testing.TB, o olm, text string) []byte {
	t.Helper()
	b, err := o.seal([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOlmReplay(t *testing.T) {
	a, b := olmPair(t)
	m := olmSeal(t, a, "once")
	if p, _, err := b.open(m, 1, all); err != nil || string(p) != "once" {
		t.Fatalf("%q, %v", p, err)
	}
	if p, _, err := b.open(m, 1, all); err == nil {
		t.Fatalf("replayed: %q", p)
	}
	m2, m3 := olmSeal(t, a, "two"), olmSeal(t, a, "three")
	for _, x := range [][]byte{m3, m2} {
		if _, _, err := b.open(x, 3, all); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range [][]byte{m2, m3} {
		if p, _, err := b.open(x, 3, all); err == nil {
			t.Fatalf("replayed: %q", p)
		}
	}
}

func TestOlmTruncated(t *testing.T) {
	a, b := olmPair(t)
	m := olmSeal(t, a, "hello")
	for n := range m {
		if p, _, err := b.clone().open(m[:n], 1, all); err == nil {
			t.Errorf("first %d bytes open: %q", n, p)
		}
		for bit := range 8 {
			c := bytes.Clone(m)
			c[n] ^= 1 << bit
			if p, _, err := b.clone().open(c, 1, all); err == nil {
				t.Errorf("bit %d of byte %d changed: %q", bit, n, p)
			}
		}
	}
	pickle := b.pickle()
	for n := range pickle {
		if _, err := olmUnpickle(pickle[:n]); err == nil && n < len(pickle)-4 {
			t.Errorf("first %d of %d bytes of a pickle pass", n, len(pickle))
		}
	}
}

func TestOlmExpectsTheSender(t *testing.T) {
	ka, kb, one := olmKeyPair(seed32("a")), olmKeyPair(seed32("b")), olmKeyPair(seed32("one"))
	a, base, ratchet, err := olmStart(ka, [32]byte(kb.PublicKey), [32]byte(one.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	b, err := olmAnswer(kb, one, [32]byte(olmKeyPair(seed32("mallory")).PublicKey), base, ratchet)
	if err != nil {
		t.Fatal(err)
	}
	if p, _, err := b.open(olmSeal(t, a, "hello"), 1, all); err == nil {
		t.Fatalf("opened as from another identity: %q", p)
	}
}

// TestOlmKeepsWanted: of a long skip only the wanted keys are kept, so that it
// does not push out those of before.
func TestOlmKeepsWanted(t *testing.T) {
	a, b := olmPair(t)
	var ms [][]byte
	for i := range 500 {
		ms = append(ms, olmSeal(t, a, fmt.Sprint(i+1)))
	}
	wanted := map[uint64]bool{2: true, 3: true, 480: true}
	want := func(seq uint64) bool { return wanted[seq] }
	for _, seq := range []uint64{1, 5, 300, 490} {
		if _, _, err := b.open(ms[seq-1], seq, want); err != nil {
			t.Fatal(err)
		}
	}
	c, err := olmUnpickle(b.pickle())
	if err != nil {
		t.Fatal(err)
	}
	for seq := range wanted {
		if p, _, err := c.open(ms[seq-1], seq, want); err != nil || string(p) != fmt.Sprint(seq) {
			t.Errorf("%d: %q, %v", seq, p, err)
		}
	}
	for _, seq := range []uint64{4, 299, 489} {
		if _, _, err := c.open(ms[seq-1], seq, want); err == nil {
			t.Errorf("key of %d was kept", seq)
		}
	}
}

// TestOlmClone: a copy shares nothing that changes.
func TestOlmClone(t *testing.T) {
	a, b := olmPair(t)
	ms := [][]byte{olmSeal(t, a, "1"), olmSeal(t, a, "2"), olmSeal(t, a, "3")}
	before := b.pickle()
	c := b.clone()
	for _, i := range []int{2, 0, 1} {
		if _, _, err := c.open(ms[i], uint64(i+1), all); err != nil {
			t.Fatal(err)
		}
	}
	olmSeal(t, c, "answer")
	if !bytes.Equal(before, b.pickle()) {
		t.Error("the original changed")
	}
}

func BenchmarkOlm(b *testing.B) {
	x, y := olmPair(b)
	p := make([]byte, 1024)
	for i := uint64(1); b.Loop(); i++ {
		m, err := x.seal(p)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := y.open(m, i, all); err != nil {
			b.Fatal(err)
		}
	}
}
