package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/ncruces/go-sqlite3"
)

// Copy writes account.db to dst, encrypted with key, and verifies the copy:
// integrity, row counts, checksums. Writing waits meanwhile. dst must not
// exist; on an error nothing is left there.
func (s *Store) Copy(ctx context.Context, dst string, key [32]byte) error {
	if s.account.path == "" {
		return errors.New("a store in memory cannot be copied to a file")
	}
	if err := s.account.copyTo(ctx, dst, key); err != nil {
		return fmt.Errorf("copy %s: %w", AccountFile, s.account.mapError(err))
	}
	return nil
}

// copyTo copies through SQLite's backup into a file that was made first: into
// one that it makes itself, pages arrive without their checksums.
func (d *database) copyTo(ctx context.Context, dst string, key [32]byte) (err error) {
	if n, err := fileSize(dst); err != nil || n >= 0 {
		return errors.Join(err, fmt.Errorf("%w: %s", os.ErrExist, filepath.Base(dst)))
	}
	w, err := d.take(ctx, d.writer)
	if err != nil {
		return err
	}
	defer func() { d.writer <- w }()
	if err := w.truncate(); err != nil {
		return err
	}
	t := &database{s: d.s, name: filepath.Base(dst), path: dst + ".new", vfs: d.vfs, o: fileOptions{key: key, id: d.o.id, fts: d.o.fts}}
	t.dsn = dsn(t.path, t.vfs, "")
	defer func() {
		for _, f := range t.files() {
			if rerr := os.Remove(f); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
				err = errors.Join(err, rerr)
			}
		}
	}()
	if err := t.makeTarget(); err != nil {
		return fmt.Errorf("make the target: %w", err)
	}
	if err := w.backupTo(ctx, t); err != nil {
		return err
	}
	if err := t.verifyCopy(w); err != nil {
		return fmt.Errorf("verify the copy: %w", err)
	}
	if err := syncFile(t.path); err != nil {
		return err
	}
	return replaceFile(t.path, dst)
}

// makeTarget makes an empty database with checksums and without a WAL.
func (d *database) makeTarget() (err error) {
	for _, f := range d.files() {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	c, err := sqlite3.OpenFlags(d.dsn, sqlite3.OPEN_READWRITE|sqlite3.OPEN_CREATE|sqlite3.OPEN_URI)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := unlock(c, d.o.key); err != nil {
		return err
	}
	for _, p := range []string{"journal_mode=delete", "temp_store=memory", "user_version=0"} {
		if err := c.Exec("PRAGMA " + p); err != nil {
			return err
		}
	}
	// VACUUM gives the reserved bytes to a file that has pages only.
	if err := c.Exec("CREATE TABLE empty(a)"); err != nil {
		return err
	}
	return c.EnableChecksums("main")
}

// backupTo copies every page in steps, so that a cancelled context is seen. The
// URI holds the key: it lives in this call alone, and errors are given without
// their texts.
func (c *conn) backupTo(ctx context.Context, t *database) (err error) {
	b, err := c.BackupInit("main", dsn(t.path, t.vfs, "&hexkey="+hex.EncodeToString(t.o.key[:])))
	if err != nil {
		_, ext, _ := codeOf(err)
		return fmt.Errorf("begin the copy: %w", ext)
	}
	defer func() {
		if cerr := b.Close(); cerr != nil && err == nil {
			_, ext, _ := codeOf(cerr)
			err = fmt.Errorf("end the copy: %w", ext)
		}
	}()
	for done := false; !done; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if done, err = b.Step(1024); err != nil {
			_, ext, _ := codeOf(err)
			return fmt.Errorf("copy pages: %w", ext)
		}
	}
	return nil
}

// verifyCopy reads the copy as a stranger would and compares it.
func (d *database) verifyCopy(src *conn) (err error) {
	c, err := d.openImmutable(d.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if on, err := pragma(c, "checksum_verification"); err != nil || on != "1" {
		return errors.Join(err, errors.New("the copy has no checksums"))
	}
	if err := integrity(c, "integrity_check"); err != nil {
		return err
	}
	tables, err := queryTexts(c, "SELECT name FROM sqlite_master WHERE type='table' AND sql NOT LIKE 'CREATE VIRTUAL%'")
	if err != nil {
		return err
	}
	for _, t := range append(tables, "sqlite_master") {
		sql := "SELECT count(*) FROM " + sqlite3.QuoteIdentifier(t)
		want, err := queryInt(src.Conn, sql)
		if err != nil {
			return err
		}
		got, err := queryInt(c, sql)
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%w: table %s has %d rows of %d", ErrDamaged, t, got, want)
		}
	}
	return nil
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// copyPlain copies a file that nobody writes, byte by byte, and syncs it.
func copyPlain(ctx context.Context, from, to string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		return errors.Join(err, dst.Close())
	}
	return errors.Join(dst.Sync(), dst.Close())
}
