package keyfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/enc"
)

// cheap is the least cost that is allowed, for tests.
func cheap() Argon2 { return Argon2{Time: MinTime, Memory: MinMemory, Threads: MinThreads} }

func fill(text string) (out [32]byte) {
	copy(out[:], bytes.Repeat([]byte(text), 32/len(text)+1))
	return out
}

func testSecrets() *Secrets {
	root, log := fill("root seed "), fill("log seed ")
	return &Secrets{
		DataKey: fill("data key "), Person: identity.NewRootKey(root).Person(), Root: &root, Log: &log,
		Device: fill("device seed "), Olm: fill("olm seed "), Rendezvous: fill("rendezvous "),
		Files: map[string][16]byte{"account.db": {7}, "index.db": {8}},
	}
}

func outside() []byte { return bytes.Repeat([]byte("outside!"), 4) }

// stream is repeatable randomness that never repeats itself.
type stream struct{ n uint64 }

func (s *stream) Read(b []byte) (int, error) {
	for i := range b {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, s.n))
		b[i] = sum[0]
		s.n++
	}
	return len(b), nil
}

func seal(t testing.TB, s *Secrets, l Lock) []byte {
	t.Helper()
	b, err := Seal(&stream{}, s, l)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != FileSize {
		t.Fatalf("sealed file has %d bytes, want %d", len(b), FileSize)
	}
	return b
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) || got != nil && want == nil {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// apply is what the disk holds after the first n bytes of the writes.
func apply(old []byte, writes []Write, n int) []byte {
	b := bytes.Clone(old)
	for _, w := range writes {
		k := min(n, len(w.Data))
		copy(b[w.Offset:], w.Data[:k])
		n -= k
	}
	return b
}

func all(writes []Write) int {
	n := 0
	for _, w := range writes {
		n += len(w.Data)
	}
	return n
}

// TestLocks opens each kind of file with each kind of key.
func TestLocks(t *testing.T) {
	s := testSecrets()
	right := []byte("correct horse")
	stranger := fill("somebody else's root")
	files := []struct {
		name string
		lock Lock
		info Info
	}{
		{"open", Lock{}, Info{Open: true}},
		{"passphrase", Lock{Passphrase: right, Params: cheap()}, Info{Passphrase: true, Params: cheap()}},
		{"outside", Lock{Outside: outside()}, Info{Outside: true}},
		{"both", Lock{Passphrase: right, Outside: outside(), Params: cheap()}, Info{Passphrase: true, Outside: true, Params: cheap()}},
	}
	keys := []struct {
		name string
		lock Lock
		want []error // by file
	}{
		{"nothing", Lock{}, []error{nil, ErrPassphraseNeeded, ErrOutsideNeeded, ErrPassphraseNeeded}},
		{"passphrase", Lock{Passphrase: right}, []error{ErrNoPassphrase, nil, ErrNoPassphrase, nil}},
		{"wrong passphrase", Lock{Passphrase: []byte("correct hors")}, []error{ErrNoPassphrase, ErrWrongPassphrase, ErrNoPassphrase, ErrWrongPassphrase}},
		{"outside", Lock{Outside: outside()}, []error{nil, ErrPassphraseNeeded, nil, nil}},
		{"wrong outside", Lock{Outside: make([]byte, 32)}, []error{nil, ErrPassphraseNeeded, ErrWrongOutside, ErrPassphraseNeeded}},
		{"short outside", Lock{Outside: make([]byte, 31)}, []error{ErrLock, ErrLock, ErrLock, ErrLock}},
		{"long passphrase", Lock{Passphrase: make([]byte, 1025)}, []error{ErrLock, ErrLock, ErrLock, ErrLock}},
		{"wrong outside, passphrase", Lock{Passphrase: right, Outside: make([]byte, 32)}, []error{ErrNoPassphrase, nil, ErrNoPassphrase, nil}},
		{"root", Lock{Root: s.Root}, []error{nil, nil, nil, nil}},
		{"another root", Lock{Root: &stranger}, []error{nil, ErrWrongRoot, ErrWrongRoot, ErrWrongRoot}},
	}
	for i, f := range files {
		b := seal(t, s, f.lock)
		f.info.Version, f.info.Generation, f.info.Root = 1, 1, true
		info, err := Inspect(b)
		if d := cmp.Diff(f.info, info); err != nil || d != "" {
			t.Errorf("inspect %s: %v (-want +got)\n%s", f.name, err, d)
		}
		for _, k := range keys {
			got, err := Open(b, k.lock)
			wantErr(t, fmt.Sprintf("file %s, key %s", f.name, k.name), err, k.want[i])
			if k.want[i] != nil {
				if got != nil {
					t.Errorf("file %s, key %s: secrets beside an error", f.name, k.name)
				}
				continue
			}
			if !same(s, got) {
				t.Errorf("file %s, key %s: other secrets came out", f.name, k.name)
			}
		}
	}
}

// same compares what the secrets are. They print as <secret>, so a diff would
// not help.
func same(a, b *Secrets) bool {
	x, err := a.marshal()
	if err != nil {
		return false
	}
	y, err := b.marshal()
	return err == nil && bytes.Equal(x, y) && a.DataKey == b.DataKey
}

// TestFurtherDevice: a device that never had root or log key.
func TestFurtherDevice(t *testing.T) {
	s := testSecrets()
	words := *s.Root
	s.Root, s.Log, s.Files = nil, nil, nil
	b := seal(t, s, Lock{Outside: outside()})
	if info, err := Inspect(b); err != nil || info.Root {
		t.Errorf("%+v, %v: no root slot was asked for", info, err)
	}
	got, err := Open(b, Lock{Outside: outside()})
	if err != nil || got.Root != nil || got.Log != nil || got.Files != nil || got.Backup != nil {
		t.Errorf("got a root, a log key or files from nowhere: %v", err)
	}
	_, err = Open(b, Lock{Root: &words})
	wantErr(t, "recovery words without a slot", err, ErrOutsideNeeded)

	s.Backup = backupKey(words).PublicKey().Bytes() // it may know the recipient alone
	b = seal(t, s, Lock{Outside: outside()})
	got, err = Open(b, Lock{Root: &words})
	if err != nil || !same(s, got) {
		t.Errorf("recovery words: %v", err)
	}
}

// TestNothingShows: a sealed file shows no secret and not whose it is.
func TestNothingShows(t *testing.T) {
	s := testSecrets()
	pass := []byte("correct horse")
	b := seal(t, s, Lock{Passphrase: pass, Outside: outside(), Params: cheap()})
	open := seal(t, s, Lock{})
	for name, secret := range map[string][]byte{
		"data key": s.DataKey[:], "root": s.Root[:], "log": s.Log[:], "device": s.Device[:], "olm": s.Olm[:],
		"rendezvous": s.Rendezvous[:], "person": s.Person[:], "did": []byte(s.Person.String()),
		"file name": []byte("account.db"), "passphrase": pass, "outside": outside(), "backup recipient": s.Backup,
	} {
		if bytes.Contains(b, secret) {
			t.Errorf("sealed file shows the %s", name)
		}
		if name != "data key" && bytes.Contains(open, secret) {
			t.Errorf("open file shows the %s", name)
		}
	}
	if !bytes.Contains(open, s.DataKey[:]) {
		t.Error("an open file has its data key somewhere else than SPEC says")
	}
	again, err := Seal(&stream{n: 1 << 20}, s, Lock{Passphrase: pass, Outside: outside(), Params: cheap()})
	if err != nil || bytes.Equal(again[headerSize:maxBody], b[headerSize:maxBody]) {
		t.Errorf("sealed twice, equal: %v", err)
	}
}

// TestOneByteFlipped: the other copy opens, and Inspect asks for repair. With
// both copies hit, nothing opens.
func TestOneByteFlipped(t *testing.T) {
	s := testSecrets()
	b := seal(t, s, Lock{Outside: outside()})
	l := Lock{Outside: outside()}
	step := 1
	if testing.Short() {
		step = 13
	}
	for i := 0; i < FileSize; i += step {
		bad := bytes.Clone(b)
		bad[i] ^= 1 << (i % 8)
		info, err := Inspect(bad)
		if err != nil || !info.Repair || info.Generation != 1 {
			t.Fatalf("byte %d flipped: %+v, %v", i, info, err)
		}
		if i%16 == 0 {
			if got, err := Open(bad, l); err != nil || !same(s, got) {
				t.Fatalf("byte %d flipped: %v", i, err)
			}
		}
		if i < CopySize {
			bad[i+CopySize] ^= 1 << (i % 8)
			_, err := Open(bad, l)
			newer, isNewer := errors.AsType[ErrNewer](err)
			switch {
			case i < len(magic):
				wantErr(t, fmt.Sprintf("byte %d flipped twice", i), err, ErrNotKeyFile)
			case i < len(magic)+2:
				if !isNewer || newer.Version == Version {
					t.Errorf("byte %d flipped twice: %v, want ErrNewer", i, err)
				}
			default:
				wantErr(t, fmt.Sprintf("byte %d flipped twice", i), err, ErrDamaged)
			}
		}
	}
	fixed, err := Repair(append(b[:CopySize:CopySize], make([]byte, CopySize)...))
	if err != nil || !bytes.Equal(fixed, b) {
		t.Errorf("repair: %v", err)
	}
	if info, err := Inspect(fixed); err != nil || info.Repair {
		t.Errorf("after repair: %+v, %v", info, err)
	}
}

// TestCutAndLonger: a file that is cut inside its first copy is refused, and
// opens from the first copy if only the second is hurt.
func TestCutAndLonger(t *testing.T) {
	s := testSecrets()
	b := seal(t, s, Lock{})
	for n := range FileSize {
		info, err := Inspect(b[:n])
		switch {
		case n >= CopySize:
			if err != nil || !info.Repair {
				t.Fatalf("%d bytes: %+v, %v", n, info, err)
			}
		case n == 0:
			wantErr(t, "empty file", err, ErrNotKeyFile)
		default:
			wantErr(t, fmt.Sprintf("%d bytes", n), err, ErrDamaged)
		}
	}
	longer := append(bytes.Clone(b), 0)
	if info, err := Inspect(longer); err != nil || !info.Repair {
		t.Errorf("a byte more: %+v, %v", info, err)
	}
	if fixed, err := Repair(longer); err != nil || !bytes.Equal(fixed, b) {
		t.Errorf("a byte more is not repaired: %v", err)
	}
	_, err := Update(&stream{}, longer, s)
	wantErr(t, "update a file of the wrong size", err, ErrDamaged)
	for name, junk := range map[string][]byte{
		"zeros": make([]byte, FileSize), "text": []byte("not a key file"), "SQLite": []byte("SQLite format 3\x00"),
		"one letter": []byte("k"), "other letter": []byte("x"),
	} {
		want := ErrNotKeyFile
		if name == "one letter" {
			want = ErrDamaged
		}
		_, err := Open(junk, Lock{})
		wantErr(t, name, err, want)
		_, err = Repair(junk)
		wantErr(t, "repair "+name, err, want)
	}
}

// forge rebuilds a copy with another body or header and a right checksum, as
// somebody does who can write the file but not open it.
func forge(t testing.TB, b []byte, change func(version *uint16, generation *uint64, bd *body)) []byte {
	t.Helper()
	f, err := parseCopy(b[:CopySize])
	if err != nil {
		t.Fatal(err)
	}
	version, generation, bd := Version, f.generation, f.body
	bd.Slots = slices.Clone(bd.Slots)
	change(&version, &generation, &bd)
	raw, err := enc.Marshal(bd)
	if err != nil {
		t.Fatal(err)
	}
	c := []byte(magic)
	c = binary.BigEndian.AppendUint16(c, version)
	c = binary.BigEndian.AppendUint64(c, generation)
	c = binary.BigEndian.AppendUint32(c, uint32(len(raw)))
	return twice(append(c, raw...))
}

// twice fills a copy with zeros, ends it with its checksum, and doubles it.
func twice(c []byte) []byte {
	c = append(bytes.Clone(c), make([]byte, CopySize)...)[:CopySize-sumSize]
	sum := sha256.Sum256(c)
	c = append(c, sum[:]...)
	return append(c, c...)
}

func changeSlot(t testing.TB, raw enc.Raw, change func(*slot)) enc.Raw {
	t.Helper()
	var s slot
	if err := enc.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	change(&s)
	b, err := enc.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestForged: checksums only find accidents. Everything that matters is
// authenticated by the data key.
func TestForged(t *testing.T) {
	s := testSecrets()
	pass := []byte("correct horse")
	l := Lock{Passphrase: pass, Outside: outside(), Params: cheap()}
	b := seal(t, s, l)
	other := seal(t, s, Lock{Passphrase: []byte("another"), Outside: outside(), Params: cheap()})
	stranger := testSecrets()
	stranger.DataKey = fill("another data key")
	foreign := seal(t, stranger, Lock{Passphrase: pass, Outside: outside(), Params: cheap()})
	slotsOf := func(b []byte) []enc.Raw {
		f, err := parseCopy(b[:CopySize])
		if err != nil {
			t.Fatal(err)
		}
		return f.body.Slots
	}
	for _, tt := range []struct {
		name   string
		change func(version *uint16, generation *uint64, bd *body)
		lock   Lock
		want   error
	}{
		{"unchanged", func(*uint16, *uint64, *body) {}, Lock{Outside: outside()}, nil},
		{"generation raised", func(_ *uint16, g *uint64, _ *body) { *g = 99 }, Lock{Outside: outside()}, ErrDamaged},
		{"generation 0", func(_ *uint16, g *uint64, _ *body) { *g = 0 }, Lock{Outside: outside()}, ErrDamaged},
		{"version 0", func(v *uint16, _ *uint64, _ *body) { *v = 0 }, Lock{Outside: outside()}, ErrDamaged},
		{"passphrase slot taken out", func(_ *uint16, _ *uint64, bd *body) { bd.Slots = bd.Slots[1:] }, Lock{Outside: outside()}, ErrDamaged},
		{"slots swapped", func(_ *uint16, _ *uint64, bd *body) { slices.Reverse(bd.Slots) }, Lock{Outside: outside()}, ErrDamaged},
		{"slot of the same data key put in", func(_ *uint16, _ *uint64, bd *body) { bd.Slots[0] = slotsOf(other)[0] }, Lock{Passphrase: []byte("another")}, ErrDamaged},
		{"slot of another data key put in", func(_ *uint16, _ *uint64, bd *body) { bd.Slots[0] = slotsOf(foreign)[0] }, Lock{Passphrase: pass}, ErrDamaged},
		{"open slot with a guessed key", func(_ *uint16, _ *uint64, bd *body) {
			bd.Slots = append(bd.Slots, changeSlot(t, bd.Slots[0], func(s *slot) { *s = slot{Kind: slotOpen, Key: make([]byte, 32)} }))
		}, Lock{}, ErrDamaged},
		{"cost lowered", func(_ *uint16, _ *uint64, bd *body) {
			bd.Slots[0] = changeSlot(t, bd.Slots[0], func(s *slot) { s.Time++ })
		}, Lock{Passphrase: pass}, ErrWrongPassphrase},
		{"salt changed", func(_ *uint16, _ *uint64, bd *body) {
			bd.Slots[0] = changeSlot(t, bd.Slots[0], func(s *slot) { s.Salt[0]++ })
		}, Lock{Passphrase: pass}, ErrWrongPassphrase},
		{"passphrase slot called outside", func(_ *uint16, _ *uint64, bd *body) {
			bd.Slots = []enc.Raw{changeSlot(t, bd.Slots[0], func(s *slot) { s.Kind = slotOutside })}
		}, Lock{Outside: outside()}, ErrWrongOutside},
		{"two slots of a kind", func(_ *uint16, _ *uint64, bd *body) { bd.Slots = append(bd.Slots, bd.Slots[0]) }, Lock{Outside: outside()}, ErrDamaged},
		{"nine slots", func(_ *uint16, _ *uint64, bd *body) {
			for len(bd.Slots) < 9 {
				bd.Slots = append(bd.Slots, changeSlot(t, bd.Slots[0], func(s *slot) { s.Kind = slotKind(20 + len(bd.Slots)) }))
			}
		}, Lock{Outside: outside()}, ErrDamaged},
		{"slot of a later kind", func(_ *uint16, _ *uint64, bd *body) {
			bd.Slots = append(bd.Slots, changeSlot(t, bd.Slots[0], func(s *slot) { s.Kind = 77 }))
		}, Lock{Outside: outside()}, ErrDamaged}, // read, but the payload does not know it
		{"slot that is no map", func(_ *uint16, _ *uint64, bd *body) { bd.Slots[0] = enc.Raw{0x80} }, Lock{Outside: outside()}, ErrDamaged},
		{"wrapped key cut", func(_ *uint16, _ *uint64, bd *body) {
			bd.Slots[1] = changeSlot(t, bd.Slots[1], func(s *slot) { s.Key = s.Key[:20] })
		}, Lock{Outside: outside()}, ErrDamaged},
		{"root slot with other bytes", func(_ *uint16, _ *uint64, bd *body) {
			bd.Slots[2] = changeSlot(t, bd.Slots[2], func(s *slot) { s.Key[5] ^= 1 })
		}, Lock{Root: s.Root}, ErrWrongRoot},
		{"payload changed", func(_ *uint16, _ *uint64, bd *body) { bd.Sealed[40] ^= 1 }, Lock{Outside: outside()}, ErrDamaged},
		{"payload cut", func(_ *uint16, _ *uint64, bd *body) { bd.Sealed = bd.Sealed[:10] }, Lock{Outside: outside()}, ErrDamaged},
		{"payload gone", func(_ *uint16, _ *uint64, bd *body) { bd.Sealed = nil }, Lock{Outside: outside()}, ErrDamaged},
	} {
		_, err := Open(forge(t, b, tt.change), tt.lock)
		wantErr(t, tt.name, err, tt.want)
	}
	padded := bytes.Clone(b)
	padded[CopySize-sumSize-1] = 1
	_, err := Open(twice(padded[:CopySize-sumSize]), Lock{Outside: outside()})
	wantErr(t, "filling", err, ErrDamaged)
	long := bytes.Clone(b[:headerSize])
	binary.BigEndian.PutUint32(long[headerSize-4:], 1<<32-1)
	_, err = Open(twice(long), Lock{Outside: outside()})
	wantErr(t, "body of 4 GB", err, ErrDamaged)
}

// TestNewer: a later format is named, whatever it has behind its version.
func TestNewer(t *testing.T) {
	b := seal(t, testSecrets(), Lock{})
	newer := bytes.Clone(b)
	newer[len(magic)+1], newer[CopySize+len(magic)+1] = 2, 2
	for _, n := range []int{FileSize, CopySize, len(magic) + 2} {
		_, err := Open(newer[:n], Lock{})
		if e, ok := errors.AsType[ErrNewer](err); !ok || e.Version != 2 || !strings.Contains(err.Error(), "newer kinloom") {
			t.Errorf("%d bytes of a newer file: %v", n, err)
		}
	}
	_, err := Relock(&stream{}, newer, testSecrets(), Lock{})
	if _, ok := errors.AsType[ErrNewer](err); !ok {
		t.Errorf("a newer file was changed: %v", err)
	}
}

// TestSecretsRefused: what Seal does not put into a file.
func TestSecretsRefused(t *testing.T) {
	for name, change := range map[string]func(*Secrets){
		"no data key":        func(s *Secrets) { s.DataKey = [32]byte{} },
		"no person":          func(s *Secrets) { s.Person = identity.PersonID{} },
		"no device":          func(s *Secrets) { s.Device = [32]byte{} },
		"no olm":             func(s *Secrets) { s.Olm = [32]byte{} },
		"no rendezvous":      func(s *Secrets) { s.Rendezvous = [32]byte{} },
		"root of another":    func(s *Secrets) { *s.Root = fill("x") },
		"file without name":  func(s *Secrets) { s.Files[""] = [16]byte{} },
		"file with long one": func(s *Secrets) { s.Files[strings.Repeat("a", MaxFileName+1)] = [16]byte{} },
		"17 files": func(s *Secrets) {
			for i := range 17 {
				s.Files[fmt.Sprint(i)] = [16]byte{}
			}
		},
		"short backup recipient": func(s *Secrets) { s.Root = nil; s.Backup = make([]byte, 5) },
		"bad backup recipient":   func(s *Secrets) { s.Root = nil; s.Backup = bytes.Repeat([]byte{0xff}, backupPublicSize) },
	} {
		s := testSecrets()
		change(s)
		_, err := Seal(&stream{}, s, Lock{})
		wantErr(t, name, err, ErrSecrets)
	}
	most := testSecrets()
	most.Files = map[string][16]byte{}
	for i := range MaxFiles {
		most.Files[strings.Repeat(string(rune('a'+i)), MaxFileName)] = fillID(byte(i))
	}
	b := seal(t, most, Lock{Passphrase: make([]byte, MaxPassphrase), Outside: outside(), Params: cheap()})
	if got, err := Open(b, Lock{Outside: outside()}); err != nil || !same(most, got) {
		t.Errorf("the most that is allowed does not fit: %v", err)
	}
	for n := range int64(60) {
		if _, err := Seal(io.LimitReader(&stream{}, n), testSecrets(), Lock{Outside: outside()}); n < 48 && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d random bytes are enough: %v", n, err)
		}
	}
}

func fillID(n byte) [16]byte { return [16]byte(bytes.Repeat([]byte{n}, 16)) }
