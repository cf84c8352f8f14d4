package keyfile

import (
	"bytes"
	"testing"

	"github.com/kinloom/kinloom/identity"
)

// cheap is the least cost that is allowed, for tests.
func cheap() Argon2 { return Argon2{Time: MinTime, Memory: MinMemory, Threads: 1} }

func testSecrets() *Secrets {
	root := [32]byte{1}
	log := [32]byte{2}
	return &Secrets{
		DataKey: [32]byte{3}, Person: identity.NewRootKey(root).Person(), Root: &root, Log: &log,
		Device: [32]byte{4}, Olm: [32]byte{5}, Rendezvous: [32]byte{6},
		Files: map[string][16]byte{"account.db": {7}, "index.db": {8}},
	}
}

// stream is repeatable randomness.
type stream struct{ n byte }

func (s *stream) Read(b []byte) (int, error) {
	for i := range b {
		s.n++
		b[i] = s.n
	}
	return len(b), nil
}

func TestRoundTrip(t *testing.T) {
	s := testSecrets()
	outside := bytes.Repeat([]byte{9}, 32)
	b, err := Seal(&stream{}, s, Lock{Passphrase: []byte("correct horse"), Outside: outside, Params: cheap()})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []Lock{{Passphrase: []byte("correct horse")}, {Outside: outside}, {Root: s.Root}} {
		got, err := Open(b, l)
		if err != nil {
			t.Fatal(err)
		}
		if got.Device != s.Device || *got.Root != *s.Root || got.Files["index.db"] != s.Files["index.db"] {
			t.Fatal("other secrets came out")
		}
	}
}
