package store

import (
	"context"
	"errors"
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

// The WAL keeps older versions of the rows of sessions, and so the keys of
// messages that were received since: with the data key, whoever steals it can
// go back to any of its commits and read what he recorded on the line after
// that. So the WAL of the account is emptied sooner than that of the others:
// when nothing was committed for restCheckpoint, which is longer than the gaps
// within an exchange of messages, and after busyCheckpoint in any case.
const (
	restCheckpoint = time.Second
	busyCheckpoint = 30 * time.Second
)

// readersLeave is how long the transactions of readers are waited for when the
// WAL is to be emptied; others wait meanwhile. A longer one puts it off to the
// next tick.
const readersLeave = 100 * time.Millisecond

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
// one to go on with.
func (d *database) checkpointOn(c *conn, mode sqlite3.CheckpointMode) (*conn, error) {
	log, done, err := c.WALCheckpoint("main", mode)
	return d.checkpointed(c, mode, log, done, err)
}

// checkpointed notes how a checkpoint went: a disk that does not confirm the
// database file is treated like one that does not confirm a commit.
func (d *database) checkpointed(c *conn, mode sqlite3.CheckpointMode, log, done int, err error) (*conn, error) {
	switch {
	case err == nil:
		d.failed.Store(0)
		if mode == sqlite3.CHECKPOINT_TRUNCATE {
			d.emptied.Store(d.commits.Load())
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
			if !rested || commits == d.emptied.Load() || d.usable() != nil {
				continue
			}
			d.empty() // or busy after all
		}
	}
}

// keepShort empties the WAL soon after each commit, and sleeps while there is
// none. It ends when stop is closed.
func (d *database) keepShort(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-d.stirred:
			d.shorten(stop)
		}
	}
}

// shorten looks at the database each restCheckpoint until its WAL is empty.
func (d *database) shorten(stop <-chan struct{}) {
	tick := time.NewTicker(restCheckpoint)
	defer tick.Stop()
	seen, begin := d.commits.Load(), time.Now()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		commits := d.commits.Load()
		if commits == d.emptied.Load() || d.usable() != nil {
			return
		}
		if commits != seen && time.Since(begin) < busyCheckpoint {
			seen = commits
			continue
		}
		failed := d.failed.Load()
		if d.empty() {
			begin = time.Now()
		}
		if d.failed.Load() > failed {
			return // to try again after the next commit, or when idle
		}
		seen = d.commits.Load()
	}
}

// empty brings the WAL into the database and truncates it; false: somebody is
// in the way. What is long is done beside the readers, who are in the way of
// the truncation alone.
func (d *database) empty() bool {
	limit := time.NewTimer(readersLeave)
	defer limit.Stop()
	select {
	case c := <-d.writer:
		if d.usable() == nil {
			c, _ = d.checkpointOn(c, sqlite3.CHECKPOINT_PASSIVE) // logged and counted there
		}
		d.writer <- c
	case <-limit.C:
		return false
	}
	limit.Reset(readersLeave)
	release, ok := d.holdReaders(limit.C)
	defer release()
	if !ok {
		return false
	}
	select {
	case c := <-d.writer:
		defer func() { d.writer <- c }()
		if d.usable() != nil {
			return false
		}
		log, done, err := c.WALCheckpoint("main", sqlite3.CHECKPOINT_TRUNCATE)
		release() // now, as distrust closes them
		c, err = d.checkpointed(c, sqlite3.CHECKPOINT_TRUNCATE, log, done, err)
		return err == nil
	case <-limit.C:
		return false
	}
}

// holdReaders waits until nobody reads and lets nobody begin to, until release,
// which may be called twice; false: the limit came first.
func (d *database) holdReaders(limit <-chan time.Time) (release func(), ok bool) {
	var held []*conn
	places := 0
	release = func() {
		for _, r := range held {
			d.readers <- r
		}
		for range places {
			d.unopened <- struct{}{}
		}
		held, places = nil, 0
	}
	for len(held)+places < d.all {
		select {
		case r := <-d.readers:
			held = append(held, r)
		case <-d.unopened:
			places++
		case <-limit:
			return release, false
		}
	}
	return release, true
}
