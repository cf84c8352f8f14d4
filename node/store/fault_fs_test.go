package store

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
)

// op is a call that a faulty file system can refuse.
type op string

const (
	opRead     op = "read"
	opWrite    op = "write"
	opSync     op = "sync"
	opTruncate op = "truncate"
)

// faultFS lies below our own layer and the cipher. Every call of a file passes
// through fault, which may refuse it. Shared memory and locks pass untouched,
// or SQLite would not use a WAL at all.
type faultFS struct {
	vfs.VFS
	name string

	mu    sync.Mutex // guards the rest
	calls map[op]int
	fault func(o op, nth int, path string) error // nil: none
	torn  bool                                   // a refused write leaves its first half
}

// newFaultFS registers one for a test, with the plain or the block layer.
func newFaultFS(t testing.TB, block bool) *faultFS {
	f := &faultFS{VFS: vfs.Find(""), name: fmt.Sprintf("fault-%x", rand.Uint64()), calls: map[op]int{}}
	registerTest(t, f.name, f, func(string) error { return nil }, block)
	return f
}

func registerTest(t testing.TB, name string, below vfs.VFS, syncDir func(string) error, block bool) {
	v := encrypt(below, syncDir)
	if block {
		v = newBlockVFS(v)
	}
	vfs.Register(name, v)
	t.Cleanup(func() { vfs.Unregister(name) })
}

// arm sets the fault and starts counting anew.
func (f *faultFS) arm(fault func(o op, nth int, path string) error, torn bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.torn, f.calls = fault, torn, map[op]int{}
}

func (f *faultFS) count(o op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[o]
}

func (f *faultFS) ask(o op, path string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[o]++
	if f.fault == nil {
		return false, nil
	}
	return f.torn, f.fault(o, f.calls[o], path)
}

func (f *faultFS) OpenFilename(n *vfs.Filename, fl vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	file, out, err := vfsutil.WrapOpenFilename(f.VFS, n, fl)
	if err != nil {
		return nil, out, err
	}
	return &faultFile{passFile{file}, f, n.String()}, out, nil
}

type faultFile struct {
	passFile
	fs   *faultFS
	path string
}

func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	if _, err := f.fs.ask(opRead, f.path); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	torn, err := f.fs.ask(opWrite, f.path)
	if err == nil {
		return f.File.WriteAt(p, off)
	}
	if torn {
		n, _ := f.File.WriteAt(p[:len(p)/2], off)
		return n, err
	}
	return 0, err
}

func (f *faultFile) Truncate(size int64) error {
	if _, err := f.fs.ask(opTruncate, f.path); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *faultFile) Sync(vfs.SyncFlag) error {
	_, err := f.fs.ask(opSync, f.path)
	return err // the process lives, so nothing needs the disk
}

// passFile hands on the optional methods of a file.
type passFile struct{ vfs.File }

func (f passFile) SharedMemory() vfs.SharedMemory { return vfsutil.WrapSharedMemory(f.File) }
func (f passFile) LockState() vfs.LockLevel       { return vfsutil.WrapLockState(f.File) }
func (f passFile) SizeHint(size int64) error      { return vfsutil.WrapSizeHint(f.File, size) }
func (f passFile) HasMoved() (bool, error)        { return vfsutil.WrapHasMoved(f.File) }
func (f passFile) PersistWAL() bool               { return vfsutil.WrapPersistWAL(f.File) }
func (f passFile) SetPersistWAL(keep bool)        { vfsutil.WrapSetPersistWAL(f.File, keep) }
