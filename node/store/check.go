package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/ext/fts5"
)

// Health is what `doctor` asks of a store.
type Health struct {
	// FailedCheckpoints is how many failed in a row, the worst of the databases.
	FailedCheckpoints int
	// WALPages is the length of the account's WAL after the last commit.
	WALPages int
	// FailedSyncs says that the disk refused to confirm a write since Open.
	FailedSyncs int
}

// Health reports without touching the disk.
func (s *Store) Health() Health {
	h := Health{WALPages: int(s.account.wal.Load())}
	for _, d := range s.databases() {
		h.FailedCheckpoints = max(h.FailedCheckpoints, int(d.failed.Load()))
		h.FailedSyncs += int(d.syncs.Load())
	}
	return h
}

// Check reads every page of account.db, the search index and net.db and reports the
// first damage. It takes about a second for 200 MB, and blocks nobody. What a full disk
// keeps from being asked of the index is left out.
func (s *Store) Check(ctx context.Context) error {
	err := s.account.read(ctx, quickCheck)
	if err != nil {
		return fmt.Errorf("check %s: %w", AccountFile, err)
	}
	err = s.index.check(ctx)
	if errors.Is(err, ErrDiskFull) {
		err = s.index.look(ctx, quickCheck)
	}
	if err != nil {
		return fmt.Errorf("check %s: %w", IndexFile, err)
	}
	if err := s.net.read(ctx, quickCheck); err != nil {
		return fmt.Errorf("check %s: %w", NetFile, err)
	}
	return nil
}

func quickCheck(tx *Tx) error { return integrity(tx.c.Conn, "quick_check") }

// CheckFiles is Check of a home that Open cannot open, as the disk is full. It needs
// no room and leaves nothing behind. The caller holds the process lock.
func CheckFiles(ctx context.Context, o Options) error {
	s, err := newStore(o)
	if err == nil {
		err = s.accountLost()
	}
	if err != nil {
		return fmt.Errorf("check the store: %w", err)
	}
	for _, f := range []struct {
		name string
		o    fileOptions
	}{{AccountFile, fileOptions{block: true}}, {IndexFile, fileOptions{fts: true}}, {NetFile, fileOptions{block: true}}} {
		f.o.id, f.o.key = o.IDs[f.name], o.Key(f.name)
		d := s.newDatabase(f.name, f.o)
		if err := d.checkFile(ctx); err != nil {
			return fmt.Errorf("check %s: %w", f.name, d.mapError(err))
		}
	}
	return nil
}

// checkFile reads every page of a database that nobody has open.
func (d *database) checkFile(ctx context.Context) (err error) {
	size, err := fileSize(d.path)
	if err != nil || size < 0 {
		return err // made at the next start
	}
	if size == 0 {
		return fmt.Errorf("%s: %w (it is empty)", d.name, ErrDamaged)
	}
	wal, err := fileSize(d.path + "-wal")
	if err != nil {
		return err
	}
	open := d.openAlone
	if wal <= 0 {
		open = func() (*sqlite3.Conn, error) { return d.openImmutable(d.path) }
	}
	c, err := open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	defer c.SetInterrupt(c.SetInterrupt(ctx))
	if d.o.fts {
		if err := fts5.Register(c); err != nil {
			return err
		}
	}
	if err := d.readMeta(c); err != nil {
		return err
	}
	return integrity(c, "quick_check")
}

// openAlone opens a file with its WAL for a process that has the home to itself: the
// index of the WAL is held in memory, and the WAL stays as it is.
func (d *database) openAlone() (_ *sqlite3.Conn, err error) {
	c, err := sqlite3.OpenFlags(d.dsn, sqlite3.OPEN_READWRITE|sqlite3.OPEN_URI)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if err := unlock(c, d.o.key); err != nil {
		return nil, err
	}
	if err := c.Exec("PRAGMA locking_mode=exclusive; PRAGMA query_only=on"); err != nil {
		return nil, err
	}
	_, err = c.Config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, true)
	return c, err
}

// integrity runs quick_check or integrity_check.
func integrity(c *sqlite3.Conn, check string) error {
	lines, err := queryTexts(c, "PRAGMA "+check+"(10)")
	if err != nil {
		return err
	}
	if len(lines) != 1 || lines[0] != "ok" {
		return fmt.Errorf("%w: %s", ErrDamaged, strings.Join(lines, "; "))
	}
	return nil
}

func queryTexts(c *sqlite3.Conn, sql string) (texts []string, err error) {
	st, _, err := c.Prepare(sql)
	if err != nil {
		return nil, err
	}
	for st.Step() {
		texts = append(texts, st.ColumnText(0))
	}
	err = st.Err()
	if cerr := st.Close(); err == nil {
		err = cerr
	}
	return texts, err
}

// distrust is called with the writing connection after the disk refused to
// confirm a write: the kernel may have dropped what it could not write, so
// nothing in its cache is believed. Everything is closed, reopened, checked
// and, before anything new is acknowledged, written to the file itself. The
// second refusal ends the store.
func (d *database) distrust(c *conn, cause error) (*conn, error) {
	if d.syncs.Add(1) > 1 {
		return d.die(c, cause)
	}
	d.log.Error("the disk did not confirm a write; reopening", "error", cause)
	_ = errors.Join(d.closeReaders(), c.close()) // given up either way
	w, err := d.connect(false)
	if err == nil {
		err = errors.Join(d.readMetaAgain(w), integrity(w.Conn, "quick_check"), w.truncate())
	}
	if err != nil {
		w, err = d.die(w, errors.Join(cause, err))
		for range d.all { // who waits for one finds the database dead
			d.unopened <- struct{}{}
		}
		return w, err
	}
	if err := d.offerReaders(); err != nil {
		return d.die(w, errors.Join(cause, err))
	}
	d.log.Warn("the database was reopened and is whole")
	return w, fmt.Errorf("%w: %w", ErrNotSynced, cause)
}

// readMetaAgain refreshes what is held in memory; the counter never goes back.
func (d *database) readMetaAgain(w *conn) error {
	before := d.changed.Load()
	if err := d.readMeta(w.Conn); err != nil {
		return err
	}
	d.changed.Store(max(before, d.changed.Load()))
	return nil
}

// die ends the database for this process.
func (d *database) die(c *conn, cause error) (*conn, error) {
	d.fatal.Store(true)
	d.log.Error("the disk can no longer be trusted", "error", cause)
	return c, fmt.Errorf("%w: %w", ErrFatal, cause)
}
