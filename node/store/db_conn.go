package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/ext/fts5"
	"github.com/ncruces/go-sqlite3/vfs"
)

// pageSize of every database in bytes: two cipher blocks, so that a text of
// 1 KiB costs 14 % less space than on pages of one block (SPEC.md, Layers).
const pageSize = 8192

// readerCache is how many KiB of pages a connection keeps that only reads; they
// are taken when a search needs them. The upper pages of 1,000,000 messages and
// of their index fit in it; with SQLite's 2 MiB each search decrypted them again.
const readerCache = 16_000

// conn is one connection with its prepared statements. It is used by one
// goroutine at a time: whoever took it out of its channel.
type conn struct {
	*sqlite3.Conn
	stmts map[string]*sqlite3.Stmt

	deferred, immediate, commit, rollback *sqlite3.Stmt
}

// dsn names a file to SQLite. Keys never stand in it.
func dsn(path, fs, more string) string {
	u := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(path), RawQuery: "vfs=" + fs + more}
	if runtime.GOOS == "windows" && !strings.HasPrefix(u.Path, "/") {
		u.Path = "/" + u.Path
	}
	return u.String()
}

// connect opens one connection and sets it up; the key comes first, as any
// other statement would read the file.
func (d *database) connect(reader bool) (_ *conn, err error) {
	c, err := sqlite3.OpenFlags(d.dsn, sqlite3.OPEN_READWRITE|sqlite3.OPEN_CREATE|sqlite3.OPEN_URI)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if d.path != "" {
		if err := unlock(c, d.o.key); err != nil {
			return nil, err
		}
	}
	if d.path == "" {
		if err := setPageSize(c); err != nil {
			return nil, err
		}
	}
	if err := d.setup(c, reader); err != nil {
		return nil, err
	}
	if err := d.verifySetup(c); err != nil {
		return nil, err
	}
	return newConn(c)
}

// unlock makes the file readable: the key, then the page size (a page read in
// another size would fail its checksum), then the header.
func unlock(c *sqlite3.Conn, key [32]byte) error {
	if err := setKey(c, key); err != nil {
		return err
	}
	if err := setPageSize(c); err != nil {
		return err
	}
	return showHeader(c)
}

func setPageSize(c *sqlite3.Conn) error {
	if err := c.Exec(fmt.Sprintf("PRAGMA page_size=%d", pageSize)); err != nil {
		return fmt.Errorf("set the page size: %w", err)
	}
	return nil
}

// setKey hands the cipher its key. The text of the statement goes nowhere else.
func setKey(c *sqlite3.Conn, key [32]byte) error {
	if err := c.Exec("PRAGMA hexkey='" + hex.EncodeToString(key[:]) + "'"); err != nil {
		code, ext, _ := codeOf(err)
		return fmt.Errorf("set the key: %w (%d)", code, ext)
	}
	return nil
}

// showHeader reads the header past SQLite. The driver turns checksums on when it
// sees the header of the file go by, which may never happen while the first
// page is in the WAL.
func showHeader(c *sqlite3.Conn) error {
	f, err := mainFile(c)
	if err != nil {
		return err
	}
	if _, err := f.ReadAt(make([]byte, 100), 0); err != nil && err != io.EOF {
		return fmt.Errorf("read the header: %w", err)
	}
	return nil
}

// mainFile is the decrypted view of the database file.
func mainFile(c *sqlite3.Conn) (vfs.File, error) {
	p, err := c.FileControl("main", sqlite3.FCNTL_FILE_POINTER)
	if err != nil {
		return nil, err
	}
	f, ok := p.(vfs.File)
	if !ok {
		return nil, errors.New("bug: the driver's file is not a file")
	}
	return f, nil
}

func (d *database) setup(c *sqlite3.Conn, reader bool) error {
	pragmas := []string{
		"busy_timeout=10000",
		"journal_mode=" + d.journal(),
		"synchronous=" + d.synchronous(),
		"secure_delete=on",
		"temp_store=memory",
		"foreign_keys=on",
		"wal_autocheckpoint=0", // done by us after the commit, so that its errors are seen
	}
	if d.o.shrinks {
		pragmas = slices.Insert(pragmas, 0, "auto_vacuum=incremental") // heard before the first table only
	}
	if runtime.GOOS == "darwin" {
		pragmas = append(pragmas, "fullfsync=1", "checkpoint_fullfsync=1")
	}
	for _, p := range pragmas {
		if err := c.Exec("PRAGMA " + p); err != nil {
			return fmt.Errorf("set %s: %w", p, err)
		}
	}
	// Else SQLite parses a statement anew each time that its LIMIT is bound: 60 us
	// of a page of 50.
	if _, err := c.Config(sqlite3.DBCONFIG_ENABLE_QPSG, true); err != nil {
		return fmt.Errorf("keep query plans: %w", err)
	}
	if d.o.fts {
		if err := fts5.Register(c); err != nil {
			return fmt.Errorf("register the full-text index: %w", err)
		}
	}
	if d.path == "" {
		return nil
	}
	if reader {
		return c.Exec(fmt.Sprintf("PRAGMA query_only=on; PRAGMA cache_size=-%d", readerCache))
	}
	if err := c.EnableChecksums("main"); err != nil {
		return fmt.Errorf("enable checksums: %w", err)
	}
	c.WALHook(func(_ *sqlite3.Conn, _ string, pages int) error {
		d.wal.Store(int64(pages))
		return nil
	})
	return nil
}

func (d *database) journal() string {
	if d.path == "" {
		return "memory"
	}
	return "wal"
}

func (d *database) synchronous() string {
	switch {
	case d.path == "":
		return "off"
	case d.o.normal:
		return "normal"
	}
	return "full"
}

// verifySetup reads back what the promises rest on.
func (d *database) verifySetup(c *sqlite3.Conn) error {
	want := [][2]string{
		{"journal_mode", d.journal()},
		{"synchronous", map[string]string{"off": "0", "normal": "1", "full": "2"}[d.synchronous()]},
		{"page_size", fmt.Sprint(pageSize)},
	}
	if d.path != "" {
		want = append(want, [2]string{"checksum_verification", "1"})
	}
	for _, w := range want {
		got, err := pragma(c, w[0])
		if err != nil {
			return err
		}
		if got != w[1] {
			return fmt.Errorf("%s is %q, want %q: refusing to run on it", w[0], got, w[1])
		}
	}
	return nil
}

// pragma reads a setting of a connection.
func pragma(c *sqlite3.Conn, name string) (string, error) {
	st, _, err := c.Prepare("PRAGMA " + name)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	var got string
	if st.Step() {
		got = st.ColumnText(0)
	}
	err = st.Err()
	if cerr := st.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return got, nil
}

func newConn(c *sqlite3.Conn) (*conn, error) {
	n := &conn{Conn: c, stmts: map[string]*sqlite3.Stmt{}}
	for _, p := range []struct {
		to  **sqlite3.Stmt
		sql string
	}{
		{&n.deferred, "BEGIN DEFERRED"},
		{&n.immediate, "BEGIN IMMEDIATE"},
		{&n.commit, "COMMIT"},
		{&n.rollback, "ROLLBACK"},
	} {
		st, _, err := c.PrepareFlags(p.sql, sqlite3.PREPARE_PERSISTENT)
		if err != nil {
			return nil, err
		}
		*p.to = st
	}
	return n, nil
}

// run executes f between tx.begin and commit; a function that runs no statement
// costs neither. A failed transaction is rolled back before run returns, also
// when f panics.
func (c *conn) run(ctx context.Context, tx *Tx, f func(*Tx) error) (err error) {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	idle := c.SetInterrupt(ctx)
	done := false
	defer func() {
		tx.over = true
		c.SetInterrupt(idle)
		if !done && !c.GetAutocommit() {
			for st := range c.Stmts() {
				if st.Busy() {
					_ = st.Reset() // repeats the error of the last step
				}
			}
			err = errors.Join(err, c.rollback.Exec())
		}
		if err != nil && ctx.Err() != nil && errors.Is(err, sqlite3.INTERRUPT) {
			err = context.Cause(ctx)
		}
	}()
	if err := f(tx); err != nil {
		return err
	}
	if tx.err != nil {
		return tx.err
	}
	if err := tx.reserve(); err != nil {
		return err
	}
	if !tx.begun {
		return nil
	}
	// From here on the outcome must be known: a commit is not interrupted.
	c.SetInterrupt(idle)
	if err := c.commit.Exec(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	done = true
	return nil
}

// truncate brings the whole WAL into the database and empties it.
func (c *conn) truncate() error {
	_, _, err := c.WALCheckpoint("main", sqlite3.CHECKPOINT_TRUNCATE)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// close finalizes the statements and closes the connection.
func (c *conn) close() error {
	if c == nil {
		return nil
	}
	for {
		var st *sqlite3.Stmt
		for s := range c.Stmts() {
			st = s
			break
		}
		if st == nil {
			break
		}
		_ = st.Close() // repeats the error of the last step
	}
	return c.Close()
}
