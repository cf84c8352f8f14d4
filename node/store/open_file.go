package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

// openFile opens one database of the home with the store's keys, creating it
// if there is none. The caller closes it.
func (s *Store) openFile(ctx context.Context, name string, o fileOptions) (*database, error) {
	o.id = s.opts.IDs[name]
	if s.opts.Dir != "" {
		o.key = s.opts.Key(name)
	}
	d := s.newDatabase(name, o)
	if err := d.open(ctx); err != nil {
		return nil, d.mapError(err)
	}
	s.mu.Lock()
	s.dbs = append(s.dbs, d)
	s.mu.Unlock()
	return d, nil
}

// open connects to the database and brings its schema up to date.
func (d *database) open(ctx context.Context) (err error) {
	fresh := d.path == ""
	if !fresh {
		if err := d.prepareFile(ctx); err != nil {
			return err
		}
	}
	w, err := d.connect(false)
	if err != nil {
		return err
	}
	d.writer <- w
	if d.file, err = os.Stat(d.path); err != nil {
		d.file = nil // in memory, or in a file system of a test
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.disconnectAll())
		}
	}()
	if fresh {
		return d.create(ctx)
	}
	if err := d.readMeta(w.Conn); err != nil {
		return err
	}
	if err := d.upgrade(ctx); err != nil {
		return err
	}
	if err := d.proveWritable(ctx); err != nil {
		return err
	}
	return d.offerReaders()
}

// proveWritable commits something real, so that a home that cannot be written
// is found now. A full disk is not fatal: what is there can be read.
func (d *database) proveWritable(ctx context.Context) error {
	err := d.write(ctx, func(tx *Tx) error { return tx.Exec("UPDATE meta SET changed = changed") })
	if errors.Is(err, ErrDiskFull) {
		d.log.Warn("the disk is full: reading only until there is room")
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(d.path))
}

// prepareFile decides what there is: nothing, then a new database is made; the
// remains of one, then it says so; or a database, which is probed without
// touching anything.
func (d *database) prepareFile(ctx context.Context) error {
	size, err := fileSize(d.path)
	if err != nil {
		return err
	}
	wal, err := fileSize(d.path + "-wal")
	if err != nil {
		return err
	}
	switch {
	case size < 0 && wal >= 0:
		return fmt.Errorf("%s: %w (its %s-wal is there and was left alone)", d.name, ErrMissing, d.name)
	case size < 0:
		return d.createFile(ctx)
	case size == 0:
		return fmt.Errorf("%s: %w (it is empty)", d.name, ErrDamaged)
	}
	err = d.probe()
	code, _, fromSQLite := codeOf(err)
	if !fromSQLite || (code != sqlite3.NOTADB && code != sqlite3.CORRUPT && code != sqlite3.IOERR) {
		return err
	}
	return d.diagnose(ctx, err, wal)
}

// createFile makes the database under another name and renames it when it is
// whole, so that a crash leaves either nothing or all of it.
func (d *database) createFile(ctx context.Context) (err error) {
	tmp := d.s.newDatabase(d.name, d.o)
	tmp.path += ".new"
	tmp.dsn = dsn(tmp.path, tmp.vfs, "")
	tmp.all = 0
	for _, f := range tmp.files() {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	w, err := tmp.connect(false)
	if err != nil {
		return err
	}
	tmp.writer <- w
	if err := tmp.create(ctx); err != nil {
		return errors.Join(err, tmp.disconnectAll())
	}
	if err := tmp.close(); err != nil {
		return err
	}
	return replaceFile(tmp.path, d.path)
}

// openImmutable opens a file of the home so that SQLite neither writes nor looks at
// a WAL: nothing can come to harm, whatever the key.
func (d *database) openImmutable(path string) (*sqlite3.Conn, error) {
	c, err := sqlite3.OpenFlags(dsn(path, d.vfs, "&mode=ro&immutable=1"), sqlite3.OPEN_READONLY|sqlite3.OPEN_URI)
	if err != nil {
		return nil, err
	}
	if err := unlock(c, d.o.key); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// probe reads the schema past the WAL, and what the file says about itself.
func (d *database) probe() (err error) {
	c, err := d.openImmutable(d.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if _, err := queryInt(c, "SELECT count(*) FROM sqlite_master"); err != nil {
		return err
	}
	have, err := queryInt(c, "PRAGMA user_version")
	if err != nil {
		return err
	}
	if err := d.knows(have); err != nil {
		return err
	}
	return d.readMeta(c)
}

// readMeta checks the database id and loads the changed counter.
func (d *database) readMeta(c *sqlite3.Conn) error {
	st, _, err := c.Prepare("SELECT id, changed FROM meta")
	if err != nil {
		return err
	}
	found := st.Step()
	var id []byte
	var changed int64
	if found {
		id, changed = st.ColumnBlob(0, nil), st.ColumnInt64(1)
	}
	err = st.Err()
	if cerr := st.Close(); err == nil {
		err = cerr
	}
	switch {
	case err != nil:
		return err
	case !found:
		return fmt.Errorf("%s: %w (it does not say whose it is)", d.name, ErrDamaged)
	case !bytes.Equal(id, d.o.id[:]):
		return fmt.Errorf("%s: %w", d.name, ErrForeign)
	}
	d.bound = uint64(changed)
	d.changed.Store(d.bound)
	return nil
}

// diagnose finds out why a file could not be probed. The key decides: if
// nothing in the file or its WAL fits it, the file is another home's, and is
// left alone. If it fits, a crash inside a checkpoint may have torn the first
// page, which the WAL still has: then both are copied aside and tried.
func (d *database) diagnose(ctx context.Context, cause error, wal int64) error {
	fits, err := d.keyFits(wal)
	if err != nil {
		return err
	}
	if size, err := fileSize(d.path); err != nil || size < pageSize {
		return errors.Join(err, fmt.Errorf("%s: %w (it was cut short): %w", d.name, ErrDamaged, cause))
	}
	if !fits {
		return fmt.Errorf("%s: %w: %w", d.name, ErrForeign, cause)
	}
	if wal <= 0 {
		return fmt.Errorf("%s: %w: %w", d.name, ErrDamaged, cause)
	}
	aside := fmt.Sprintf("%s.crashed-%d", d.path, d.s.opts.Now().UnixMilli())
	for _, suffix := range []string{"", "-wal"} {
		if err := copyPlain(ctx, d.path+suffix, aside+suffix); err != nil {
			return fmt.Errorf("copy aside: %w", err)
		}
	}
	if err := syncDir(filepath.Dir(d.path)); err != nil {
		return err
	}
	if err := d.replay(); err != nil {
		return fmt.Errorf("%s: %w: %w (as found: %s)", d.name, ErrDamaged, err, filepath.Base(aside))
	}
	d.log.Warn("a crash had left the file half written; it was repaired from its log and checked")
	return errors.Join(os.Remove(aside), os.Remove(aside+"-wal"), syncDir(filepath.Dir(d.path)))
}

// replay lets SQLite bring the WAL into the file, whose own header may not be
// readable until then, and checks the result whole.
func (d *database) replay() error {
	if err := d.bringWAL(); err != nil {
		return err
	}
	w, err := d.connect(false)
	if err != nil {
		return err
	}
	return errors.Join(d.readMeta(w.Conn), integrity(w.Conn, "integrity_check"), w.close())
}

// bringWAL checkpoints over a connection that promises nothing.
func (d *database) bringWAL() (err error) {
	c, err := sqlite3.OpenFlags(d.dsn, sqlite3.OPEN_READWRITE|sqlite3.OPEN_URI)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := unlock(c, d.o.key); err != nil {
		return err
	}
	for _, p := range []string{"journal_mode=wal", "synchronous=full"} {
		if err := c.Exec("PRAGMA " + p); err != nil {
			return err
		}
	}
	_, _, err = c.WALCheckpoint("main", sqlite3.CHECKPOINT_TRUNCATE)
	return err
}

// keyFits reports whether the key decrypts anything: the head of the WAL, or a
// page with its checksum.
func (d *database) keyFits(wal int64) (bool, error) {
	if wal >= 32 {
		head := make([]byte, 32)
		err := d.readRaw(d.path+"-wal", func(f vfs.File) error { _, err := f.ReadAt(head, 0); return err })
		if err != nil && err != io.EOF {
			return false, err
		}
		if binary.BigEndian.Uint32(head)&^1 == 0x377f0682 {
			return true, nil
		}
	}
	fits := false
	err := d.readRaw(d.path, func(f vfs.File) error {
		size, err := f.Size()
		if err != nil {
			return err
		}
		page := make([]byte, pageSize)
		for at := int64(0); at+pageSize <= size && !fits; at += pageSize {
			if _, err := f.ReadAt(page, at); err != nil {
				return err
			}
			fits = checksumFits(page)
		}
		return nil
	})
	return fits, err
}

// checksumFits computes the checksum that SQLite's checksum extension keeps in
// the last 8 bytes of a page.
func checksumFits(page []byte) bool {
	var s1, s2 uint32
	for p := page[:len(page)-8]; len(p) > 0; p = p[8:] {
		s1 += binary.LittleEndian.Uint32(p) + s2
		s2 += binary.LittleEndian.Uint32(p[4:]) + s1
	}
	end := page[len(page)-8:]
	return s1 == binary.LittleEndian.Uint32(end) && s2 == binary.LittleEndian.Uint32(end[4:])
}

// readRaw gives f the decrypted bytes of a file of the home, unchecked.
func (d *database) readRaw(path string, f func(vfs.File) error) error {
	c, err := d.openImmutable(path)
	if err != nil {
		return err
	}
	file, err := mainFile(c)
	if err == nil {
		if u, ok := file.(vfs.FileUnwrap); ok {
			file = u.Unwrap() // past the checksums
		}
		err = f(file)
	}
	return errors.Join(err, c.Close())
}

// setAside renames a database and what belongs to it, so that a new one can be
// made. It returns the new name.
func (s *Store) setAside(name string) (string, error) {
	from := filepath.Join(s.opts.Dir, name)
	to := fmt.Sprintf("%s.damaged-%s", from, s.opts.Now().UTC().Format(time.DateOnly+"T150405"))
	for _, suffix := range []string{"", "-wal"} {
		if err := os.Rename(from+suffix, to+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	if err := os.Remove(from + "-shm"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	return filepath.Base(to), syncDir(s.opts.Dir)
}

// discard removes a closed database that can be made anew from others.
func (s *Store) discard(name string) error {
	path := filepath.Join(s.opts.Dir, name)
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return syncDir(s.opts.Dir)
}

// queryInt reads the first column of the first row.
func queryInt(c *sqlite3.Conn, sql string) (int, error) {
	st, _, err := c.Prepare(sql)
	if err != nil {
		return 0, err
	}
	n := 0
	if st.Step() {
		n = st.ColumnInt(0)
	}
	err = st.Err()
	if cerr := st.Close(); err == nil {
		err = cerr
	}
	return n, err
}
