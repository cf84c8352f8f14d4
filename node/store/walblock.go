package store

import (
	"errors"
	"io"
	"sync"

	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
)

const (
	cipherBlock = 4096    // bytes that the cipher encrypts as one
	maxTail     = 1 << 20 // bytes of a log held in memory before whole blocks are written
)

// blockVFS lies over the cipher and writes the WAL in whole cipher blocks. A
// frame is 24 bytes longer than a page, so each append would read, decrypt and
// encrypt the blocks at both of its ends; here appends gather in memory, and
// Sync writes each block once. It holds under synchronous=FULL only: there
// every commit ends with a Sync.
type blockVFS struct {
	vfs.VFS

	mu   sync.Mutex // guards logs and their users
	logs map[string]*blockLog
}

func newBlockVFS(cipher vfs.VFS) vfs.VFS {
	return &blockVFS{VFS: cipher, logs: map[string]*blockLog{}}
}

// OpenFilename implements [vfs.VFSFilename].
func (v *blockVFS) OpenFilename(n *vfs.Filename, fl vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, out, err := vfsutil.WrapOpenFilename(v.VFS, n, fl)
	if err != nil || fl&vfs.OPEN_WAL == 0 {
		return f, out, err
	}
	path := n.String()
	v.mu.Lock()
	defer v.mu.Unlock()
	l := v.logs[path]
	if l == nil {
		l = new(blockLog)
		v.logs[path] = l
	}
	l.users++
	return &blockFile{File: f, log: l, vfs: v, path: path}, out, nil
}

// blockLog is the end of one WAL, shared by all who have it open: a reader's
// last frame may not have been written yet. tail is what the file holds, or
// will hold, from start on; the bytes from dirty on are not written.
type blockLog struct {
	users int // guarded by blockVFS.mu

	mu    sync.RWMutex // guards the rest, and reads of the file against writes
	tail  []byte
	start int64 // offset of tail, a multiple of the block
	dirty int64 // offset of the first byte that is not written; end() if none
}

func (l *blockLog) end() int64 { return l.start + int64(len(l.tail)) }

// blockFile is one connection's view of the log.
type blockFile struct {
	vfs.File
	log  *blockLog
	vfs  *blockVFS
	path string
}

// ReadAt implements [vfs.File].
func (f *blockFile) ReadAt(p []byte, off int64) (int, error) {
	l := f.log
	l.mu.RLock()
	defer l.mu.RUnlock()
	if off >= l.start && off+int64(len(p)) <= l.end() {
		return copy(p, l.tail[off-l.start:]), nil
	}
	n, err := f.File.ReadAt(p, off)
	if err != nil && err != io.EOF {
		return n, err
	}
	if lo, hi := max(off, l.start), min(off+int64(len(p)), l.end()); lo < hi && lo <= off+int64(n) {
		copy(p[lo-off:], l.tail[lo-l.start:hi-l.start])
		n = max(n, int(hi-off))
	}
	if n == len(p) {
		err = nil
	}
	return n, err
}

// WriteAt implements [vfs.File]. A write at the end is an append; one before it
// rewrites frames of a transaction that has not committed.
func (f *blockFile) WriteAt(p []byte, off int64) (int, error) {
	l := f.log
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case off == 0:
		// A new log over the old one, all of which is in the database by now.
		l.tail, l.start, l.dirty = l.tail[:0], 0, 0
	case len(l.tail) == 0 || off > l.end():
		if err := f.begin(off); err != nil {
			return 0, err
		}
	case off < l.start:
		n := int(min(l.start-off, int64(len(p))))
		if done, err := f.File.WriteAt(p[:n], off); err != nil || n == len(p) {
			return done, err
		}
		m, err := f.keep(p[n:], off+int64(n))
		return n + m, err
	}
	return f.keep(p, off)
}

// begin starts a tail in the middle of a file: with the bytes before off in
// its block.
func (f *blockFile) begin(off int64) error {
	if err := f.flush(); err != nil {
		return err
	}
	l := f.log
	l.start = off &^ (cipherBlock - 1)
	l.dirty = off
	l.tail = append(l.tail[:0], make([]byte, off-l.start)...)
	if len(l.tail) == 0 {
		return nil
	}
	if _, err := f.File.ReadAt(l.tail, l.start); err != nil && !errors.Is(err, io.EOF) {
		l.tail = l.tail[:0]
		return err
	}
	return nil
}

// keep puts p into the tail, at an offset in it or at its end.
func (f *blockFile) keep(p []byte, off int64) (int, error) {
	l := f.log
	at := int(off - l.start)
	if need := at + len(p); need > len(l.tail) {
		l.tail = append(l.tail, make([]byte, need-len(l.tail))...)
	}
	copy(l.tail[at:], p)
	l.dirty = min(l.dirty, off)
	if len(l.tail) < maxTail {
		return len(p), nil
	}
	whole := l.end() &^ (cipherBlock - 1)
	if err := f.write(whole); err != nil {
		return 0, err
	}
	f.drop()
	return len(p), nil
}

// flush writes all that waits, the last block filled up with zeros.
func (f *blockFile) flush() error {
	l := f.log
	if l.dirty >= l.end() {
		return nil
	}
	if err := f.write(l.end()); err != nil {
		return err
	}
	f.drop()
	return nil
}

// write writes the blocks from the first that is dirty up to the offset to. If
// it fails, the tail still has every byte of them, and readers are served from
// there: a block that was half written cannot be decrypted.
func (f *blockFile) write(to int64) error {
	l := f.log
	from := l.dirty &^ (cipherBlock - 1)
	if from >= to {
		return nil
	}
	n := int(to - l.start)
	blocks := l.tail[from-l.start : n]
	if r := len(blocks) % cipherBlock; r != 0 {
		// The zeros lie behind the end and are overwritten by the next append.
		l.tail = append(l.tail, make([]byte, cipherBlock-r)...)
		blocks = l.tail[from-l.start : n+cipherBlock-r]
		l.tail = l.tail[:n]
	}
	if _, err := f.File.WriteAt(blocks, from); err != nil {
		return err
	}
	l.dirty = to
	return nil
}

// drop forgets the whole blocks that are written.
func (f *blockFile) drop() {
	l := f.log
	if n := min(l.dirty, l.end())&^(cipherBlock-1) - l.start; n > 0 {
		l.tail = append(l.tail[:0], l.tail[n:]...)
		l.start += n
	}
}

// Sync implements [vfs.File].
func (f *blockFile) Sync(fl vfs.SyncFlag) error {
	f.log.mu.Lock()
	err := f.flush()
	f.log.mu.Unlock()
	if err != nil {
		return err
	}
	return f.File.Sync(fl)
}

// Size implements [vfs.File].
func (f *blockFile) Size() (int64, error) {
	f.log.mu.RLock()
	defer f.log.mu.RUnlock()
	n, err := f.File.Size()
	return max(n, f.log.end()), err
}

// Truncate implements [vfs.File].
func (f *blockFile) Truncate(size int64) error {
	l := f.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if size > 0 {
		if err := f.flush(); err != nil {
			return err
		}
	}
	l.tail, l.start, l.dirty = nil, 0, 0 // a log that is emptied rests: its memory goes, too
	return f.File.Truncate(size)
}

// Close implements [vfs.File].
func (f *blockFile) Close() error {
	f.vfs.mu.Lock()
	if f.log.users--; f.log.users == 0 {
		delete(f.vfs.logs, f.path)
	}
	f.vfs.mu.Unlock()
	f.log.mu.Lock()
	err := f.flush()
	f.log.mu.Unlock()
	return errors.Join(err, f.File.Close())
}
