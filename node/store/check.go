package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ncruces/go-sqlite3"
)

// autoCheckpoint is the length of the WAL in pages at which it is brought into
// the database: half of it for pages of two blocks, the same bytes as measured
// with pages of one.
const autoCheckpoint = 2000

// idleCheckpoint is how often an idle database is looked at; one that rests
// since the last look has its WAL emptied. The WAL is where damage goes
// unnoticed, so it stays short.
const idleCheckpoint = time.Minute

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

// Checkpoint brings the WAL of every database into its file and empties it:
// after a deletion by the user, before a shutdown. A reader in a long
// transaction delays it.
func (s *Store) Checkpoint(ctx context.Context) error {
	var errs []error
	for _, d := range s.databases() {
		errs = append(errs, d.checkpoint(ctx))
	}
	return errors.Join(errs...)
}

// due reports whether enough pages wait in the WAL. A log that is shorter than
// what was brought over has begun anew.
func (d *database) due() bool {
	pages, brought := d.wal.Load(), d.brought.Load()
	if pages < brought {
		d.brought.Store(0)
		brought = 0
	}
	return pages-brought >= autoCheckpoint
}

func (d *database) checkpoint(ctx context.Context) error {
	return d.checkpointAs(ctx, sqlite3.CHECKPOINT_TRUNCATE)
}

func (d *database) checkpointAs(ctx context.Context, mode sqlite3.CheckpointMode) error {
	if d.path == "" {
		return nil
	}
	c, err := d.take(ctx, d.writer)
	if err != nil {
		return err
	}
	c, err = d.checkpointOn(c, mode)
	d.writer <- c
	return d.mapError(err)
}

// checkpointOn runs a checkpoint on the writing connection and gives back the
// one to go on with: a disk that does not confirm the database file is treated
// like one that does not confirm a commit.
func (d *database) checkpointOn(c *conn, mode sqlite3.CheckpointMode) (*conn, error) {
	commits := d.commits.Load()
	log, done, err := c.WALCheckpoint("main", mode)
	switch {
	case err == nil:
		d.failed.Store(0)
		if mode == sqlite3.CHECKPOINT_TRUNCATE {
			d.checkpointed.Store(commits)
		}
		d.wal.Store(int64(max(0, log)))
		d.brought.Store(int64(max(0, done)))
	case errors.Is(err, sqlite3.BUSY):
		// A reader is in the way of the truncation alone: try again when idle.
	default:
		n := d.failed.Add(1)
		d.log.Warn("checkpoint failed", "in_a_row", n, "error", err)
		if syncFailed(err) {
			return d.distrust(c, err)
		}
	}
	return c, err
}

// idle empties the WALs of databases that rest. It ends when stop is closed.
func (s *Store) idle(stop <-chan struct{}) {
	tick := time.NewTicker(idleCheckpoint)
	defer tick.Stop()
	seen := map[*database]uint64{}
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		for _, d := range s.databases() {
			commits := d.commits.Load()
			rested := commits == seen[d]
			seen[d] = commits
			if !rested || commits == d.checkpointed.Load() || d.usable() != nil {
				continue
			}
			select {
			case c := <-d.writer:
				c, _ = d.checkpointOn(c, sqlite3.CHECKPOINT_TRUNCATE) // logged and counted there
				d.writer <- c
			default: // busy after all
			}
		}
	}
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
