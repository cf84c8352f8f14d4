package store

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
	"github.com/ncruces/go-sqlite3/vfs/adiantum"
	_ "github.com/ncruces/go-sqlite3/vfs/memdb" // the VFS of stores without a folder
)

// Names under which SQLite finds our file systems.
const (
	vfsPlain = "kinloom"       // every file encrypted, WAL reads and writes excluding each other
	vfsBlock = "kinloom-block" // the same, the WAL written in whole cipher blocks
	vfsMem   = "memdb"         // no files at all
)

// register makes our file systems known to SQLite. They are process-wide only
// because SQLite finds a VFS by its name.
var register = sync.OnceFunc(func() {
	plain := encrypt(vfs.Find(""), syncDir)
	vfs.Register(vfsPlain, plain)
	vfs.Register(vfsBlock, newBlockVFS(plain))
})

// encrypt puts our layer and the cipher over a file system.
func encrypt(below vfs.VFS, syncDir func(dir string) error) vfs.VFS {
	return adiantum.Wrap(&base{VFS: below, syncDir: syncDir, locks: map[string]*walLock{}}, nil)
}

// base is the layer below the encryption. Files come to be with mode 0600, the
// directory is synced after each change of its entries (the driver syncs the
// file a second time instead), and WAL files get a lock: the cipher rewrites
// the block that holds the end of the frame before, and a reader must never
// see half of that.
type base struct {
	vfs.VFS
	syncDir func(dir string) error

	mu    sync.Mutex // guards locks
	locks map[string]*walLock
}

// OpenFilename implements [vfs.VFSFilename].
func (b *base) OpenFilename(n *vfs.Filename, fl vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	path := n.String()
	created := false
	if path != "" && fl&vfs.OPEN_CREATE != 0 {
		var err error
		if created, err = precreate(path); err != nil {
			return nil, fl, fileError(err, sqlite3.ExtendedErrorCode(sqlite3.CANTOPEN))
		}
		if fl&vfs.OPEN_MAIN_DB != 0 {
			if _, err := precreate(path + "-shm"); err != nil {
				return nil, fl, fileError(err, sqlite3.ExtendedErrorCode(sqlite3.CANTOPEN))
			}
		}
	}
	f, out, err := vfsutil.WrapOpenFilename(b.VFS, n, fl)
	if err != nil {
		return nil, out, err
	}
	if created {
		if err := b.syncDir(filepath.Dir(path)); err != nil {
			_ = f.Close()
			return nil, out, vfs.SystemError(err, sqlite3.IOERR_DIR_FSYNC)
		}
	}
	if fl&vfs.OPEN_WAL != 0 {
		f = &walFile{File: f, walLock: b.lock(path), base: b, path: path}
	}
	return f, out, nil
}

// Delete implements [vfs.VFS]; the entry is durably gone when it returns.
func (b *base) Delete(path string, _ bool) error {
	if err := b.VFS.Delete(path, false); err != nil {
		return err
	}
	return vfs.SystemError(b.syncDir(filepath.Dir(path)), sqlite3.IOERR_DIR_FSYNC)
}

// precreate makes an empty file that only its owner can read, and reports
// whether it did: the driver would leave the mode to the umask.
func precreate(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, f.Close()
}

// lock returns the lock of a WAL path, the same for all who have it open.
func (b *base) lock(path string) *walLock {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.locks[path]
	if l == nil {
		l = new(walLock)
		b.locks[path] = l
	}
	l.users++
	return l
}

func (b *base) unlock(path string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.locks[path]; l != nil {
		if l.users--; l.users == 0 {
			delete(b.locks, path)
		}
	}
}

// walLock keeps readers of one WAL away from a write in progress, and has the
// former contents of blocks whose rewriting failed. Such a block holds the end
// of a frame that was committed, and may be half old and half new, which
// decrypts to garbage: while the process lives, readers get the former one.
// After a crash the frame fails its checksum, and the same page stands, whole,
// in the frame before: commits are padded with a copy up to the block's end.
type walLock struct {
	sync.RWMutex
	former map[int64][]byte // by offset, guarded by the lock
	users  int              // guarded by base.mu
}

// walFile is a WAL as the cipher sees it. The lock lives in this process, so
// one process per home is a condition of correctness.
type walFile struct {
	vfs.File
	*walLock
	base *base
	path string

	last   []byte // the block read last
	lastAt int64
}

// ReadAt implements [vfs.File].
func (f *walFile) ReadAt(p []byte, off int64) (int, error) {
	f.walLock.RLock()
	defer f.walLock.RUnlock()
	if b := f.former[off]; b != nil && len(p) == len(b) {
		return copy(p, b), nil
	}
	n, err := f.File.ReadAt(p, off)
	if n > 0 && n < len(p) && err == io.EOF {
		// A crash can leave a file that ends within a block. SQLite would take
		// the missing rest for a broken disk; filled up, the frame just fails
		// its checksum, as any other that was not written to its end.
		clear(p[n:])
		n, err = len(p), nil
	}
	if n == cipherBlock {
		f.last, f.lastAt = append(f.last[:0], p...), off
	}
	return n, err
}

// WriteAt implements [vfs.File]. The cipher reads what it rewrites a part of,
// always one block, just before.
func (f *walFile) WriteAt(p []byte, off int64) (int, error) {
	f.walLock.Lock()
	defer f.walLock.Unlock()
	n, err := f.File.WriteAt(p, off)
	if err == nil {
		delete(f.former, off)
		return n, nil
	}
	if len(f.last) == cipherBlock && f.lastAt == off && f.former[off] == nil {
		if f.former == nil {
			f.former = map[int64][]byte{}
		}
		f.former[off] = slices.Clone(f.last)
	}
	return n, fileError(err, sqlite3.IOERR_WRITE)
}

// Truncate implements [vfs.File].
func (f *walFile) Truncate(size int64) error {
	f.walLock.Lock()
	defer f.walLock.Unlock()
	err := f.File.Truncate(size)
	if err == nil {
		clear(f.former)
	}
	return fileError(err, sqlite3.IOERR_TRUNCATE)
}

// Lock and Unlock are SQLite's file locks, not those of the embedded mutex.
func (f *walFile) Lock(l vfs.LockLevel) error   { return f.File.Lock(l) }
func (f *walFile) Unlock(l vfs.LockLevel) error { return f.File.Unlock(l) }

// Close implements [vfs.File].
func (f *walFile) Close() error {
	f.base.unlock(f.path)
	return f.File.Close()
}

// SizeHint keeps an optional method of the driver's file.
func (f *walFile) SizeHint(size int64) error {
	return fileError(vfsutil.WrapSizeHint(f.File, size), sqlite3.IOERR_TRUNCATE)
}

// fileError tags a full disk or quota, and a disk that became read-only, so that
// SQLite reports them as such, and any other cause with code. Errors that carry a code already pass.
func fileError(err error, code sqlite3.ExtendedErrorCode) error {
	var errno syscall.Errno
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), isDiskFull(err):
		return vfs.SystemError(err, sqlite3.FULL)
	case errors.Is(err, syscall.EROFS):
		return vfs.SystemError(err, sqlite3.READONLY)
	case errors.As(err, &errno):
		return vfs.SystemError(err, code)
	}
	return err
}

// syncDir makes the entries of a directory durable. Windows has no such call;
// its file system keeps entries in its own journal.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}
