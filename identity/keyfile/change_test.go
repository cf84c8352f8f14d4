package keyfile

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// TestUpdateAtEveryCut: the power goes at any byte of a change. The file opens
// as it was or as it becomes, never not at all, and with what Repair gives it
// is whole again.
func TestUpdateAtEveryCut(t *testing.T) {
	s := testSecrets()
	old := seal(t, s, Lock{Outside: outside()})
	next := testSecrets()
	next.Files["net.db"] = fillID(9)
	writes, err := Update(&stream{n: 1000}, old, next)
	if err != nil {
		t.Fatal(err)
	}
	if all(writes) != FileSize {
		t.Fatalf("%d bytes written, want %d", all(writes), FileSize)
	}
	s.Backup = next.Backup
	step := 64
	if testing.Short() {
		step = 1024
	}
	for n := 0; n <= all(writes); n += step {
		for _, cut := range []int{n, n + 1, n + 63} {
			b := apply(old, writes, cut)
			got, err := Open(b, Lock{Outside: outside()})
			if err != nil || !same(got, s) && !same(got, next) {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			if cut >= CopySize && !same(got, next) {
				t.Fatalf("cut at %d: the change was on disk and is lost", cut)
			}
			fixed, err := Repair(b)
			if err != nil {
				t.Fatal(err)
			}
			again, err := Open(fixed, Lock{Outside: outside()})
			if info, _ := Inspect(fixed); err != nil || info.Repair || !same(again, got) {
				t.Fatalf("cut at %d, repaired: %v", cut, err)
			}
		}
	}
	done := apply(old, writes, FileSize)
	info, err := Inspect(done)
	if err != nil || info.Repair || info.Generation != 2 {
		t.Errorf("after the change: %+v, %v", info, err)
	}
}

// TestOlderCopyFirst: a second change after one that was cut off overwrites
// the copy that does not count.
func TestOlderCopyFirst(t *testing.T) {
	s := testSecrets()
	b := seal(t, s, Lock{})
	for i := range 6 {
		s.Files[fmt.Sprint(i)] = fillID(byte(i))
		writes, err := Update(&stream{n: uint64(1000 * i)}, b, s)
		if err != nil {
			t.Fatal(err)
		}
		count := func(b []byte) *fileCopy {
			f, _, err := best(b)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		before := count(b)
		torn := apply(b, writes, CopySize/2)
		if got := count(torn); !bytes.Equal(got.raw, before.raw) {
			t.Errorf("change %d: the first write hits the copy that counts", i)
		}
		b = apply(b, writes[:1], CopySize) // and is cut off again
		if got := count(b); got.generation != uint64(i+2) {
			t.Errorf("change %d: generation %d", i, got.generation)
		}
	}
	if got, err := Open(b, Lock{}); err != nil || len(got.Files) != 8 {
		t.Errorf("after six half changes: %v", err)
	}
}

// TestRelock: a changed passphrase opens, the old one does not, and no wrap
// under the old one is left in the file.
func TestRelock(t *testing.T) {
	s := testSecrets()
	was := Lock{Passphrase: []byte("old"), Params: cheap()}
	old := seal(t, s, was)
	oldSlot, err := parseCopy(old[:CopySize])
	if err != nil {
		t.Fatal(err)
	}
	to := Lock{Passphrase: []byte("new"), Outside: outside(), Params: Argon2{Time: 3, Memory: MinMemory, Threads: 2}}
	writes, err := Relock(&stream{n: 1000}, old, s, to)
	if err != nil {
		t.Fatal(err)
	}
	half, done := apply(old, writes, CopySize+100), apply(old, writes, FileSize)
	for name, b := range map[string][]byte{"half": half, "done": done} {
		_, err := Open(b, was)
		wantErr(t, name+", old passphrase", err, ErrWrongPassphrase)
		got, err := Open(b, to)
		if err != nil || !same(got, s) {
			t.Errorf("%s, new passphrase: %v", name, err)
		}
	}
	if bytes.Contains(done, oldSlot.slots[slotPassphrase].Key) {
		t.Error("the data key is still there under the old passphrase")
	}
	if info, err := Inspect(done); err != nil || !info.Outside || info.Params != to.Params {
		t.Errorf("%+v, %v", info, err)
	}

	// To an open file and back; the words open it at every step.
	for _, l := range []Lock{{}, {Outside: outside()}, {}} {
		writes, err := Relock(&stream{n: 2000}, done, s, l)
		if err != nil {
			t.Fatal(err)
		}
		done = apply(done, writes, FileSize)
		info, err := Inspect(done)
		if err != nil || info.Open != (len(l.Outside) == 0) || info.Passphrase || !info.Root {
			t.Errorf("%+v, %v", info, err)
		}
		if got, err := Open(done, Lock{Root: s.Root}); err != nil || !same(got, s) {
			t.Errorf("recovery words: %v", err)
		}
	}
}

// TestRootTakenOut: afterwards the file has no root seed, and the words still
// open it, because it is sealed to what they give.
func TestRootTakenOut(t *testing.T) {
	s := testSecrets()
	root := *s.Root
	b := seal(t, s, Lock{Outside: outside()})
	s.Root = nil
	writes, err := Update(&stream{n: 1000}, b, s)
	if err != nil {
		t.Fatal(err)
	}
	b = apply(b, writes, FileSize)
	for name, l := range map[string]Lock{"outside": {Outside: outside()}, "words": {Root: &root}} {
		if got, err := Open(b, l); err != nil || got.Root != nil || got.Log == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A change of the lock does not need the root.
	writes, err = Relock(&stream{n: 2000}, b, s, Lock{Passphrase: []byte("p"), Params: cheap()})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Open(apply(b, writes, FileSize), Lock{Root: &root}); err != nil || got.Root != nil {
		t.Errorf("words after a change of the lock: %v", err)
	}
}

func TestChangeRefuses(t *testing.T) {
	s := testSecrets()
	b := seal(t, s, Lock{})
	other := testSecrets()
	other.DataKey = fill("another data key")
	_, err := Update(&stream{}, b, other)
	wantErr(t, "other data key", err, ErrOtherKey)
	_, err = Relock(&stream{}, b, other, Lock{})
	wantErr(t, "other data key", err, ErrOtherKey)
	_, err = Relock(&stream{}, b, s, Lock{Passphrase: []byte("p"), Params: Argon2{Time: 1, Memory: MinMemory, Threads: 1}})
	wantErr(t, "cheap passphrase", err, ErrArgon2Bounds)
	s.Device = [32]byte{}
	_, err = Update(&stream{}, b, s)
	wantErr(t, "no device", err, ErrSecrets)
	_, err = Update(&stream{}, nil, s)
	wantErr(t, "no file", err, ErrNotKeyFile)
}

// TestWrongPassphraseOften is H106: nothing locks up and nothing changes.
func TestWrongPassphraseOften(t *testing.T) {
	s := testSecrets()
	b := seal(t, s, Lock{Passphrase: []byte("right"), Params: cheap()})
	before := bytes.Clone(b)
	for i := range 5 {
		_, err := Open(b, Lock{Passphrase: fmt.Appendf(nil, "wrong %d", i)})
		wantErr(t, "wrong passphrase", err, ErrWrongPassphrase)
	}
	if got, err := Open(b, Lock{Passphrase: []byte("right")}); err != nil || !same(s, got) || !bytes.Equal(b, before) {
		t.Errorf("the right one after wrong ones: %v", err)
	}
}

// TestArgon2Bounds is H107: a hostile cost is refused before any of it is
// paid, for reading, inspecting, changing and writing alike.
func TestArgon2Bounds(t *testing.T) {
	s := testSecrets()
	b := seal(t, s, Lock{Passphrase: []byte("p"), Outside: outside(), Params: cheap()})
	for _, tt := range []struct {
		params Argon2
		want   error
	}{
		{Argon2{2, 19 << 10, 1}, nil},
		{Argon2{2, 20 << 10, 8}, nil},
		{Argon2{10, 19 << 10, 1}, nil},
		{Argon2{1, 19 << 10, 1}, ErrArgon2Bounds},
		{Argon2{11, 19 << 10, 1}, ErrArgon2Bounds},
		{Argon2{1<<32 - 1, 19 << 10, 1}, ErrArgon2Bounds},
		{Argon2{2, 19<<10 - 1, 1}, ErrArgon2Bounds},
		{Argon2{2, 256<<10 + 1, 1}, ErrArgon2Bounds},
		{Argon2{2, 64 << 20, 1}, ErrArgon2Bounds}, // 64 GiB
		{Argon2{2, 1<<32 - 1, 1}, ErrArgon2Bounds},
		{Argon2{2, 19 << 10, 9}, ErrArgon2Bounds},
		{Argon2{2, 19 << 10, 255}, ErrArgon2Bounds},
		{Argon2{2, 19 << 10, 0}, ErrArgon2Bounds},
	} {
		name := fmt.Sprintf("%+v", tt.params)
		if tt.want != nil {
			_, err := Seal(&stream{}, s, Lock{Passphrase: []byte("p"), Params: tt.params})
			wantErr(t, "seal with "+name, err, tt.want)
		}
		hostile := forge(t, b, func(_ *uint16, _ *uint64, bd *body) {
			bd.Slots[0] = changeSlot(t, bd.Slots[0], func(s *slot) {
				s.Time, s.Memory, s.Threads = uint64(tt.params.Time), uint64(tt.params.Memory), uint64(tt.params.Threads)
			})
		})
		_, err := Inspect(hostile)
		wantErr(t, "inspect "+name, err, tt.want)
		if tt.want == nil {
			continue
		}
		if n := testing.AllocsPerRun(1, func() {
			_, err = Open(hostile, Lock{Passphrase: []byte("p")})
		}); n > 200 {
			t.Errorf("open %s: %v allocations", name, n)
		}
		wantErr(t, "open "+name, err, tt.want)
		_, err = Open(hostile, Lock{Outside: outside()})
		wantErr(t, "open from outside "+name, err, tt.want)
		_, err = Update(&stream{}, hostile, s)
		wantErr(t, "update "+name, err, tt.want)
	}
	if err := DefaultArgon2().check(); err != nil {
		t.Errorf("the default is out of bounds: %v", err)
	}
	if errors.Is(Argon2{}.check(), nil) {
		t.Error("no cost at all is within bounds")
	}
}

// TestDefaultArgon2 pays the default once: a file without Params has it.
func TestDefaultArgon2(t *testing.T) {
	s := testSecrets()
	b := seal(t, s, Lock{Passphrase: []byte("p")})
	if info, err := Inspect(b); err != nil || info.Params != DefaultArgon2() {
		t.Errorf("%+v, %v", info, err)
	}
	if _, err := Open(b, Lock{Passphrase: []byte("p")}); err != nil {
		t.Error(err)
	}
}
