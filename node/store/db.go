package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/ncruces/go-sqlite3"
)

// fileOptions say how one database is opened.
type fileOptions struct {
	readers    int               // connections that only read; in memory there are none
	ready      bool              // one of them is open from the start: it reads on when the disk is in trouble
	normal     bool              // synchronous=NORMAL: for what can be rebuilt
	block      bool              // whole-block WAL layer; needs synchronous=FULL
	fts        bool              // register FTS5 on every connection
	shrinks    bool              // free pages can be given back to the disk
	migrations []func(*Tx) error // the schema is the count of those that ran
	id         [16]byte          // database id, from the key file
	key        [32]byte
}

// database is one open SQLite file: one writing connection and some that read.
// Connections are handed out over channels, so a wait for one ends with the
// caller's context. In memory both channels are the same and hold one
// connection: SQLite's memory databases know no snapshot beside a writer.
type database struct {
	s    *Store
	name string // "account.db"
	path string // "" in memory
	vfs  string
	dsn  string
	o    fileOptions
	log  *slog.Logger

	writer   chan *conn
	readers  chan *conn
	unopened chan struct{} // places for readers that were not needed yet
	all      int           // readers, opened or not

	changed atomic.Uint64 // last committed number of the changed counter
	bound   uint64        // numbers up to here are reserved on disk; owned by the writer

	file   os.FileInfo // of path, as it was opened
	closed atomic.Bool
	fatal  atomic.Bool
	syncs  atomic.Int64 // syncs that failed

	wal     atomic.Int64  // pages in the WAL after the last commit
	brought atomic.Int64  // of these, already in the file
	commits atomic.Uint64 // for the idle checkpoint
	emptied atomic.Uint64 // value of commits when the WAL was emptied last
	failed  atomic.Int64  // checkpoints that failed in a row
	stirred chan struct{} // has one where something was committed since keepShort looked
}

// write runs f in one IMMEDIATE transaction and commits it.
func (d *database) write(ctx context.Context, f func(*Tx) error) error {
	after, err := d.commit(ctx, f)
	for _, f := range after {
		f()
	}
	return err
}

// commit is write without what follows the commit.
func (d *database) commit(ctx context.Context, f func(*Tx) error) ([]func(), error) {
	c, err := d.take(ctx, d.writer)
	if err != nil {
		return nil, err
	}
	defer func() { d.writer <- c }()
	if err := d.inPlace(); err != nil {
		return nil, err
	}
	tx := &Tx{d: d, c: c, s: d.s, begin: c.immediate, changed: d.changed.Load(), bound: d.bound}
	if err := c.run(ctx, tx, f); err != nil {
		if syncFailed(err) {
			c, err = d.distrust(c, err)
		}
		return nil, d.mapError(err)
	}
	d.changed.Store(tx.changed)
	d.bound = tx.bound
	if !tx.begun {
		return tx.after, nil
	}
	d.commits.Add(1)
	select {
	case d.stirred <- struct{}{}:
	default:
	}
	if d.due() {
		c, _ = d.checkpointOn(c, sqlite3.CHECKPOINT_PASSIVE) // logged and counted there
	}
	return tx.after, nil
}

// inPlace says whether the file is still the one that was opened: a file without a
// name takes what is written to it, and keeps it until the process ends.
func (d *database) inPlace() error {
	if d.file == nil {
		return nil
	}
	now, err := os.Stat(d.path)
	if errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(now, d.file) {
		return fmt.Errorf("%s: %w", d.name, ErrMoved)
	}
	return nil // what cannot be asked does not say so
}

// read runs f on one snapshot.
func (d *database) read(ctx context.Context, f func(*Tx) error) error {
	c, err := d.reader(ctx)
	if err != nil {
		return err
	}
	defer func() { d.readers <- c }()
	return d.mapError(c.run(ctx, &Tx{d: d, c: c, s: d.s, begin: c.deferred, readOnly: true}, f))
}

// take waits for a connection.
func (d *database) take(ctx context.Context, from chan *conn) (*conn, error) {
	if err := d.usable(); err != nil {
		return nil, err
	}
	select {
	case c := <-from:
		return d.taken(c, from)
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", d.name, context.Cause(ctx))
	}
}

// taken gives a connection back if the database has ended in the meantime.
func (d *database) taken(c *conn, from chan *conn) (*conn, error) {
	if err := d.usable(); err != nil {
		from <- c
		return nil, err
	}
	return c, nil
}

func (d *database) usable() error {
	switch {
	case d.fatal.Load():
		return fmt.Errorf("%s: %w", d.name, ErrFatal)
	case d.closed.Load():
		return fmt.Errorf("%s: %w", d.name, ErrClosed)
	}
	return nil
}

func (d *database) mapError(err error) error { return mapError(d.name, err, d.s.FreeSpace) }

// reader waits for a connection that only reads. Another one is opened when all
// others are in use: most nodes rarely need more than one, and each takes memory
// and a millisecond of the start.
func (d *database) reader(ctx context.Context) (*conn, error) {
	if err := d.usable(); err != nil {
		return nil, err
	}
	select { // an open one rather than another
	case c := <-d.readers:
		return d.taken(c, d.readers)
	default:
	}
	select {
	case c := <-d.readers:
		return d.taken(c, d.readers)
	case <-d.unopened:
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", d.name, context.Cause(ctx))
	}
	if err := d.usable(); err != nil {
		d.unopened <- struct{}{}
		return nil, err
	}
	c, err := d.connect(true)
	if err != nil {
		d.unopened <- struct{}{}
		if !d.o.ready {
			return nil, d.mapError(err)
		}
		d.log.Warn("another connection could not be opened", "error", err)
		return d.take(ctx, d.readers)
	}
	return c, nil
}

// offerReaders makes places for connections that only read, and opens the first
// one where it has to be ready.
func (d *database) offerReaders() (err error) {
	places := d.all
	if d.o.ready && d.all > 0 {
		var c *conn
		if c, err = d.connect(true); err == nil {
			d.readers <- c
			places--
		}
	}
	for range places {
		d.unopened <- struct{}{}
	}
	return err
}

// closeReaders waits for the transactions that read, and closes their
// connections.
func (d *database) closeReaders() error {
	var errs []error
	for range d.all {
		select {
		case c := <-d.readers:
			errs = append(errs, c.close())
		case <-d.unopened:
		}
	}
	return errors.Join(errs...)
}

// disconnectAll closes what is in the channels, the writer last: it takes the
// WAL with it. For a database that nobody else has yet.
func (d *database) disconnectAll() error {
	var errs []error
	for len(d.readers) > 0 && d.path != "" {
		errs = append(errs, (<-d.readers).close())
	}
	return errors.Join(append(errs, (<-d.writer).close())...)
}

// close ends the database: the WAL goes into the file, the connections close.
// It waits for the transactions that run.
func (d *database) close() error {
	if d.closed.Swap(true) {
		return nil
	}
	w := <-d.writer
	var errs []error
	if d.path != "" {
		errs = append(errs, d.closeReaders())
		if w != nil && !d.fatal.Load() {
			errs = append(errs, d.mapError(w.truncate()))
		}
		// Whoever still waits for a connection finds the database closed.
		if d.all > 0 {
			d.readers <- nil
		}
	}
	errs = append(errs, w.close())
	d.writer <- nil
	return errors.Join(errs...)
}

// files are the names that SQLite may give to a database and its parts.
func (d *database) files() []string {
	return []string{d.path, d.path + "-wal", d.path + "-shm", d.path + "-journal"}
}

func (s *Store) newDatabase(name string, o fileOptions) *database {
	d := &database{s: s, name: name, o: o, log: s.log.With("file", name), writer: make(chan *conn, 1), stirred: make(chan struct{}, 1)}
	switch {
	case s.opts.Dir == "":
		d.vfs = vfsMem
		d.readers = d.writer
		d.dsn = dsn("/"+s.memory+"-"+name, d.vfs, "")
		return d
	case s.opts.vfs != "":
		d.vfs = s.opts.vfs
	case o.block:
		d.vfs = vfsBlock
	default:
		d.vfs = vfsPlain
	}
	d.path = filepath.Join(s.opts.Dir, name)
	d.dsn = dsn(d.path, d.vfs, "")
	d.all = o.readers
	d.readers, d.unopened = make(chan *conn, o.readers+1), make(chan struct{}, o.readers)
	return d
}
