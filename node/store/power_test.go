package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
)

// powerFS remembers what the disk would hold if the power went now: for each
// file its content at the last sync and the changes since, for the directory
// the entries at its last sync and the changes since. The files below are the
// volatile view that the running system sees.
type powerFS struct {
	vfs.VFS
	name string

	mu     sync.Mutex // guards the rest
	files  map[string]*powerEntry
	events int // writes, truncations and syncs so far
	cutAt  int // event at which the power goes; 0: never
	off    bool
}

// powerEntry is one file.
type powerEntry struct {
	durable []byte
	changes []change
	entry   bool // the directory entry is durable
	gone    bool // deleted since the directory was synced
}

// change is a write, or a truncation when data is nil.
type change struct {
	data []byte
	off  int64
}

var errPower = errors.New("the power is off")

func newPowerFS(t testing.TB, dir string, block bool) *powerFS {
	f := &powerFS{VFS: vfs.Find(""), name: fmt.Sprintf("power-%x", rand.Uint64()), files: map[string]*powerEntry{}}
	names, err := os.ReadDir(dir)
	check(t, err)
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(dir, n.Name()))
		check(t, err)
		f.files[filepath.Join(dir, n.Name())] = &powerEntry{durable: b, entry: true}
	}
	registerTest(t, f.name, f, f.syncDir, block)
	return f
}

// event counts, and turns the power off at its time: the call that is under
// way then has not been confirmed, but may have reached the disk in part.
func (f *powerFS) event() bool {
	f.events++
	if f.events == f.cutAt {
		f.off = true
	}
	return f.off
}

func (f *powerFS) syncDir(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.event() {
		return errPower
	}
	for path, e := range f.files {
		if filepath.Dir(path) != dir {
			continue
		}
		if e.gone {
			delete(f.files, path)
		}
		e.entry = true
	}
	return nil
}

func (f *powerFS) Delete(path string, _ bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.event() {
		return errPower
	}
	if e := f.files[path]; e != nil {
		e.gone = true
	}
	return f.VFS.Delete(path, false)
}

func (f *powerFS) OpenFilename(n *vfs.Filename, fl vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	file, out, err := vfsutil.WrapOpenFilename(f.VFS, n, fl)
	if err != nil || n.String() == "" {
		return file, out, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.files[n.String()]
	if e == nil || e.gone {
		e = &powerEntry{entry: e != nil && e.entry} // the old entry may survive, with the new content
		f.files[n.String()] = e
	}
	return &powerFile{passFile{file}, f, e}, out, nil
}

type powerFile struct {
	passFile
	fs *powerFS
	e  *powerEntry
}

func (f *powerFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.fs.off {
		return 0, errPower
	}
	if f.fs.event() {
		f.e.changes = append(f.e.changes, change{append([]byte{}, p[:len(p)/2]...), off})
		return 0, errPower
	}
	f.e.changes = append(f.e.changes, change{append([]byte{}, p...), off})
	return f.File.WriteAt(p, off)
}

func (f *powerFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.fs.off {
		return errPower
	}
	f.e.changes = append(f.e.changes, change{nil, size})
	if f.fs.event() {
		return errPower
	}
	return f.File.Truncate(size)
}

func (f *powerFile) Sync(vfs.SyncFlag) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.fs.event() {
		return errPower
	}
	for _, c := range f.e.changes {
		f.e.durable = c.whole(f.e.durable)
	}
	f.e.changes = nil
	return nil
}

func (c change) whole(b []byte) []byte {
	if c.data == nil {
		return resize(b, c.off)
	}
	if end := c.off + int64(len(c.data)); end > int64(len(b)) {
		b = resize(b, end)
	}
	copy(b[c.off:], c.data)
	return b
}

func resize(b []byte, n int64) []byte {
	if n <= int64(len(b)) {
		return b[:n:n]
	}
	return append(b, make([]byte, n-int64(len(b)))...)
}

// torn applies a change as far as the dying disk got: each sector of 512 B was
// written with probability p, in any order.
func (c change) torn(b []byte, r *rand.Rand, p float64) []byte {
	if c.data == nil {
		if r.Float64() < p {
			return c.whole(b)
		}
		return b
	}
	for at := 0; at < len(c.data); {
		n := min(512-int(c.off+int64(at))%512, len(c.data)-at)
		if r.Float64() < p {
			b = change{c.data[at : at+n], c.off + int64(at)}.whole(b)
		}
		at += n
	}
	return b
}

// remains writes what is left on the disk into another folder; p is the share
// of what was not synced that got there. 1 is the death of the process alone.
func (f *powerFS) remains(t testing.TB, r *rand.Rand, p float64, dir string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for path, e := range f.files {
		if strings.HasSuffix(path, "-shm") || !e.entry && r.Float64() >= p || e.gone && r.Float64() < p {
			continue
		}
		b := append([]byte{}, e.durable...)
		for _, c := range e.changes {
			b = c.torn(b, r, p)
		}
		check(t, os.WriteFile(filepath.Join(dir, filepath.Base(path)), b, 0o600))
	}
}

// TestPowerCut cuts the power at a random call, several times in a row on what
// the cut before has left: every acknowledged row is there, no half group, and
// the file is whole.
func TestPowerCut(t *testing.T) {
	for layer, block := range layers {
		for seed := range uint64(25 * nightly) {
			t.Run(fmt.Sprintf("%s/seed %d", layer, seed), func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(seed, 7))
				dir := t.TempDir()
				whole := newFaultFS(t, block).name
				s, err := openAccount(t, Options{Dir: dir, vfs: whole})
				check(t, err)
				m := newModel(seed)
				check(t, m.group(t.Context(), s))
				check(t, s.account.close())
				for range 3 {
					dir = powerCut(t, r, m, dir, block, whole)
				}
			})
		}
	}
}

// powerCut works on the home until the power goes and returns the folder with
// what it finds afterwards; whole is a file system without faults.
func powerCut(t *testing.T, r *rand.Rand, m *model, dir string, block bool, whole string) string {
	t.Helper()
	fs := newPowerFS(t, dir, block)
	fs.cutAt = 1 + r.IntN(250)
	s, err := openAccount(t, Options{Dir: dir, vfs: fs.name})
	for err == nil && !fs.dead() {
		err = m.group(t.Context(), s)
		switch r.IntN(8) {
		case 0:
			_ = s.account.checkpointAs(t.Context(), sqlite3.CHECKPOINT_PASSIVE)
		case 1:
			_ = s.account.checkpointAs(t.Context(), sqlite3.CHECKPOINT_TRUNCATE)
		}
	}
	if !fs.dead() {
		t.Fatalf("stopped before the power did: %v", err)
	}
	next := t.TempDir()
	fs.remains(t, r, []float64{0, 0.05, 0.5, 0.95, 1}[r.IntN(5)], next)
	if s != nil {
		_ = s.account.close() // of the dead process
	}
	s, err = openAccount(t, Options{Dir: next, vfs: whole})
	if err != nil {
		t.Fatalf("after a cut at call %d: %v", fs.cutAt, err)
	}
	if err := errors.Join(m.verify(t.Context(), s, false), wholeFile(t.Context(), s), m.settle(t.Context(), s)); err != nil {
		t.Fatalf("after a cut at call %d: %v", fs.cutAt, err)
	}
	check(t, s.account.close())
	return next
}

// TestCrashAtEveryCall ends the process at the n-th write, truncation, sync,
// directory sync or deletion, for every n: what it had written is there, the
// call itself is half done. (H98)
func TestCrashAtEveryCall(t *testing.T) {
	for layer, block := range layers {
		t.Run(layer, func(t *testing.T) {
			t.Parallel()
			whole := newFaultFS(t, block).name
			n := 1
			for ; crashAt(t, n, block, whole); n += strideOf(block) {
				if t.Failed() {
					t.Fatalf("at call %d", n)
				}
			}
			t.Logf("%d calls", n-1)
		})
	}
}

// crashAt reports whether there was an n-th call.
func crashAt(t *testing.T, n int, block bool, whole string) bool {
	t.Helper()
	dir := t.TempDir()
	s, err := openAccount(t, Options{Dir: dir, vfs: whole})
	check(t, err)
	m := newModel(3)
	check(t, errors.Join(m.group(t.Context(), s), s.account.close()))
	fs := newPowerFS(t, dir, block)
	fs.cutAt = n
	s, err = openAccount(t, Options{Dir: dir, vfs: fs.name})
	if err == nil {
		_ = work(t.Context(), m, s)
		_ = s.account.close()
	}
	hit := fs.dead()
	next := t.TempDir()
	fs.remains(t, rand.New(rand.NewPCG(1, 1)), 1, next)
	s, err = openAccount(t, Options{Dir: next, vfs: whole})
	if err != nil {
		t.Fatalf("after a crash at call %d: %v", n, err)
	}
	check(t, errors.Join(m.verify(t.Context(), s, false), wholeFile(t.Context(), s), s.account.close()))
	return hit
}

func (f *powerFS) dead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.off
}
