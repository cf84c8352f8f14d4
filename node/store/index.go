package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kinloom/kinloom/protocol/event"
	"github.com/ncruces/go-sqlite3"
)

// indexBatch is how many events one transaction of the index takes. A larger
// batch is cheaper a row, 2,048 being near the end of that, and takes longer:
// about 150 ms, for which a deletion may have to wait.
const indexBatch = 2048

// indexDelay is how long a message may wait for others to be indexed with. A
// search looks through those that wait, so nobody notices.
const indexDelay = 250 * time.Millisecond

// indexRest is how long nothing must have come before the segments of the index
// are merged. A search opens each word in each of them: 21 segments of 1,000,000
// messages took 2.3 ms for two words, the 3 that are left after a merge 1.5 ms.
const indexRest = 2 * time.Second

// mergePages is how much of a merge is one transaction, about 50 ms: a deletion
// may have to wait for it.
const mergePages = 128

// indexRetry is how long the indexer rests after an error that may pass.
const indexRetry = 30 * time.Second

// indexer is the search index: index.db, and the goroutine that feeds it from
// account.db. It is always behind account.db, never ahead: an event enters after
// its commit, and leaves before the commit that deletes it.
type indexer struct {
	s *Store
	d *database

	bell    chan struct{} // something was committed
	turn    chan struct{} // held by whoever moves upto on
	waiting atomic.Int64  // events committed since the index was last up to date, about
	broken  atomic.Bool   // index.db is damaged: made anew at the next start

	mu      sync.Mutex // guards settled
	settled []Row      // taken out for deletions that are committed since
}

// indexMigrations make the tables of index.db. What changes here, or in what is
// written as a document, is a new number: an older index is thrown away.
var indexMigrations = []func(*Tx) error{
	func(tx *Tx) error {
		for _, sql := range []string{
			// Contentless with the 'delete' command: contentless_delete=1 would leave
			// the words of deleted messages in the file.
			`CREATE VIRTUAL TABLE words USING fts5(t, content='', detail=none, columnsize=0, tokenize='ascii')`,
			`INSERT INTO words(words, rank) VALUES('automerge', 8)`,
			`INSERT INTO words(words, rank) VALUES('crisismerge', 32)`,
			`INSERT INTO words(words, rank) VALUES('secure-delete', 1)`,
			`INSERT INTO words(words, rank) VALUES('hashsize', 4194304)`,
			`CREATE TABLE state(one INTEGER PRIMARY KEY CHECK(one = 1), upto INTEGER NOT NULL, upto_id BLOB NOT NULL,
				high INTEGER NOT NULL, paced INTEGER NOT NULL) STRICT`,
			`INSERT INTO state(one, upto, upto_id, high, paced) VALUES(1, 0, x'', 0, 0)`,
			// Events whose time lies before that of events with lower rows.
			`CREATE TABLE late(row INTEGER PRIMARY KEY, at INTEGER NOT NULL) STRICT`,
			`CREATE INDEX late_at ON late(at)`,
			// Every now and then: no event up to row, but late ones, is newer than at.
			`CREATE TABLE pace(row INTEGER PRIMARY KEY, at INTEGER NOT NULL) STRICT`,
			`CREATE INDEX pace_at ON pace(at)`,
			// Events taken out for a deletion of which it is not known yet whether it
			// was committed.
			`CREATE TABLE removed(row INTEGER PRIMARY KEY) STRICT`,
		} {
			if err := tx.Exec(sql); err != nil {
				return err
			}
		}
		return nil
	},
}

// indexState is the row of state.
type indexState struct {
	upto   Row // events up to here are indexed
	uptoID event.ID
	high   int64 // highest time of them, Unix ms
	paced  Row   // last row of pace
}

func (tx *Tx) indexState() (st indexState, err error) {
	_, err = tx.one("SELECT upto, upto_id, high, paced FROM state", func(s *sqlite3.Stmt) {
		st = indexState{upto: Row(s.ColumnInt64(0)), high: s.ColumnInt64(2), paced: Row(s.ColumnInt64(3))}
		copy(st.uptoID[:], s.ColumnRawBlob(1))
	})
	return st, err
}

// openIndexer opens index.db, makes it anew if it is of no use, and starts the
// goroutine that feeds it.
func openIndexer(ctx context.Context, s *Store) (*indexer, error) {
	x := &indexer{s: s, bell: make(chan struct{}, 1), turn: make(chan struct{}, 1)}
	if err := x.open(ctx); err != nil {
		return nil, err
	}
	x.turn <- struct{}{}
	x.bell <- struct{}{} // catch up with what was committed before
	// It ends with the store, not with Open.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.wg.Go(func() {
		<-s.stop
		cancel()
	})
	s.wg.Go(func() { x.run(ctx) })
	return x, nil
}

// useless are the errors with which an index is thrown away.
func useless(err error) bool {
	_, newer := errors.AsType[*NewerSchemaError](err)
	return newer || errors.Is(err, ErrDamaged) || errors.Is(err, ErrForeign) || errors.Is(err, ErrMissing)
}

func (x *indexer) open(ctx context.Context) (err error) {
	o := fileOptions{readers: 1, normal: true, fts: true, migrations: indexMigrations}
	if x.d, err = x.s.openFile(ctx, IndexFile, o); err == nil {
		if err = x.prepare(ctx); err == nil {
			return nil
		}
		err = errors.Join(err, x.s.drop(x.d))
	}
	if !useless(err) {
		return err
	}
	x.s.log.Warn("the search index is made anew; until it is done, a search may miss older messages", "reason", err)
	if err := x.s.discard(IndexFile); err != nil {
		return fmt.Errorf("remove the search index: %w", err)
	}
	if x.d, err = x.s.openFile(ctx, IndexFile, o); err != nil {
		return err
	}
	return x.s.Write(ctx, func(tx *Tx) error { return tx.PutSetting(settingReindex, nil, false) })
}

// prepare makes sure that the index belongs to account.db and holds no more than
// that.
func (x *indexer) prepare(ctx context.Context) error {
	fits, err := x.fits(ctx, x.d)
	if err == nil && !fits {
		err = fmt.Errorf("%w: it was made from another %s, or a deletion could not reach it", ErrForeign, AccountFile)
	}
	if err != nil {
		return err
	}
	return x.reconcile(ctx)
}

// look reads the index. What shows that it is damaged has it made anew at the
// next start.
func (x *indexer) look(ctx context.Context, f func(*Tx) error) error {
	err := x.d.read(ctx, f)
	if useless(err) && !x.broken.Swap(true) {
		x.s.log.Error("the search index is damaged; it is made anew at the next start", "error", err)
	}
	return err
}

// drop closes a database that is not used any more.
func (s *Store) drop(d *database) error {
	s.mu.Lock()
	s.dbs = slices.DeleteFunc(s.dbs, func(o *database) bool { return o == d })
	s.mu.Unlock()
	return d.close()
}

// fits reports whether the index was made from this account.db: the last event
// that it holds is there, and nobody asked for a new one.
func (x *indexer) fits(ctx context.Context, d *database) (bool, error) {
	var st indexState
	if err := d.read(ctx, func(tx *Tx) (err error) { st, err = tx.indexState(); return err }); err != nil {
		return false, err
	}
	fits := true
	err := x.s.Read(ctx, func(tx *Tx) error {
		if _, err := tx.Setting(settingReindex); !errors.Is(err, ErrNotFound) {
			fits = false
			return err
		}
		if st.upto == 0 {
			return nil
		}
		var id event.ID
		found, err := tx.one("SELECT id FROM event WHERE row = ?", func(s *sqlite3.Stmt) { copy(id[:], s.ColumnRawBlob(0)) }, st.upto)
		fits = found && id == st.uptoID
		return err
	})
	return fits, err
}

// run indexes what was committed until ctx ends, and merges when it rests.
func (x *indexer) run(ctx context.Context) {
	timer := time.NewTimer(indexRest)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			if err := x.merge(ctx, func() bool { return len(x.bell) > 0 }); err != nil {
				x.failed(ctx, err)
			}
			continue
		case <-x.bell:
		}
		timer.Reset(indexDelay)
		for wait := true; wait && x.waiting.Load() < indexBatch; {
			select {
			case <-ctx.Done():
				return
			case <-x.bell:
			case <-timer.C:
				wait = false
			}
		}
		if err := x.drain(ctx); err != nil {
			x.failed(ctx, err)
		}
		timer.Reset(indexRest)
	}
}

// merge merges segments of the index in steps, until there is nothing left that
// is worth it, or stop says that there is other work.
func (x *indexer) merge(ctx context.Context, stop func() bool) error {
	for more := true; more && !stop() && !x.broken.Load(); {
		err := x.d.write(ctx, func(tx *Tx) error {
			before := tx.c.TotalChanges()
			err := tx.Exec("INSERT INTO words(words, rank) VALUES('merge', ?)", mergePages)
			more = tx.c.TotalChanges()-before >= 2 // as FTS5 documents it
			return err
		})
		if err != nil {
			return fmt.Errorf("merge the search index: %w", err)
		}
	}
	return nil
}

// failed logs an error and, where it may pass, has the work tried again.
func (x *indexer) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if useless(err) {
		if !x.broken.Swap(true) {
			x.s.log.Error("the search index is damaged; it is made anew at the next start", "error", err)
		}
		return
	}
	x.s.log.Warn("messages could not be indexed; trying again", "error", err)
	timer := time.NewTimer(indexRetry)
	defer timer.Stop()
	select {
	case <-timer.C:
		x.ring()
	case <-ctx.Done():
	}
}

func (x *indexer) ring() {
	select {
	case x.bell <- struct{}{}:
	default:
	}
}

// feed tells the indexer, once tx is committed, that there is one more event.
func (x *indexer) feed(tx *Tx) {
	x.waiting.Add(1) // of a transaction that fails, too: a hint only
	if len(tx.after) > 0 {
		return // of this transaction's first event, or of something rarer: the delay covers it
	}
	tx.afterCommit(x.ring)
}

// IndexDrain indexes everything that is committed and returns when it is.
func (s *Store) IndexDrain(ctx context.Context) error { return s.index.drain(ctx) }

// IndexMerge indexes everything that is committed and merges the index as far as
// it merges by itself when the node rests: 20 us a message, once in its life.
func (s *Store) IndexMerge(ctx context.Context) error {
	if err := s.index.drain(ctx); err != nil {
		return err
	}
	return s.index.merge(ctx, func() bool { return false })
}

// IndexBehind gives the number of events that are not indexed yet, at most
// limit. A search finds the newest of them all the same.
func (s *Store) IndexBehind(ctx context.Context, limit int) (n int, err error) {
	var st indexState
	if err := s.index.d.read(ctx, func(tx *Tx) (err error) { st, err = tx.indexState(); return err }); err != nil {
		return 0, err
	}
	err = s.Read(ctx, func(tx *Tx) error {
		_, err := tx.one("SELECT count(*) FROM (SELECT 1 FROM event WHERE row > ? LIMIT ?)", func(st *sqlite3.Stmt) { n = st.ColumnInt(0) }, st.upto, limit)
		return err
	})
	return n, err
}

func (x *indexer) drain(ctx context.Context) error {
	done := 0
	for {
		n, err := x.step(ctx)
		if err != nil {
			return fmt.Errorf("index messages: %w", err)
		}
		done += n
		if n < indexBatch {
			return nil
		}
		if done%(indexBatch*50) == 0 {
			x.s.log.Info("indexing messages", "so_far", done)
		}
	}
}

// check runs the integrity check of the full-text index. What is damaged is made anew
// at the next start.
func (x *indexer) check(ctx context.Context) error {
	if x.broken.Load() {
		return ErrDamaged
	}
	err := x.d.write(ctx, func(tx *Tx) error {
		if err := quickCheck(tx); err != nil {
			return err
		}
		return tx.Exec("INSERT INTO words(words, rank) VALUES('integrity-check', 1)")
	})
	if useless(err) {
		x.broken.Store(true)
	}
	return err
}

// close closes index.db; the goroutine has ended. What is not indexed yet is
// caught up with at the next start.
func (x *indexer) close() error {
	if x.d == nil {
		return nil
	}
	err := x.d.close()
	if x.broken.Load() && x.d.path != "" {
		err = x.s.discard(IndexFile)
	}
	return err
}
