package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ncruces/go-sqlite3"
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

// Check reads every page of account.db and the search index and reports the
// first damage. It takes about a second for 200 MB, and blocks nobody.
func (s *Store) Check(ctx context.Context) error {
	err := s.account.read(ctx, func(tx *Tx) error { return integrity(tx.c.Conn, "quick_check") })
	if err != nil {
		return fmt.Errorf("check %s: %w", AccountFile, err)
	}
	if err := s.index.check(ctx); err != nil {
		return fmt.Errorf("check %s: %w", IndexFile, err)
	}
	return nil
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
