package store

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Options say where a store lives and which keys open it.
type Options struct {
	// Dir is the home, an existing folder of mode 0700. Empty: in memory.
	Dir string
	// Key gives the key of a database by its file name. It must come from a key
	// file that was proved right: SQLite deletes what a wrong key cannot read.
	// Needed with Dir only.
	Key func(file string) [32]byte
	// IDs are the ids of the databases by file name, as the key file has them;
	// a file with another id is refused. A missing entry is an id of zeros.
	IDs map[string][16]byte
	// Log gets what an operator should know; nil discards it.
	Log *slog.Logger
	// Now is the clock for expiry; nil is time.Now.
	Now func() time.Time
	// MinFree is the free space in bytes below which network data is no longer
	// taken in, so that the account has the rest. Default 64 MiB.
	MinFree uint64

	vfs        string            // tests put a faulty file system in
	migrations []func(*Tx) error // tests add one
	quotas     [classes]int64    // tests need them small
	free       func() (uint64, error)
}

// Files of a home.
const (
	AccountFile = "account.db"
	IndexFile   = "index.db"
	NetFile     = "net.db"
)

// Store is the open home. Its methods may be called from any goroutine.
type Store struct {
	opts   Options
	log    *slog.Logger
	memory string // unique part of the names of memory databases

	mu  sync.Mutex  // guards dbs
	dbs []*database // every database that was opened

	account *database
	index   *indexer
	net     *Datastore

	sealer func() (cipher.AEAD, error) // of sealed rows

	stop   chan struct{}
	wg     sync.WaitGroup
	once   sync.Once
	closed error
}

// Open opens the home, creating what is absent, and brings the schema up to
// date. The caller holds the process lock. Errors are told apart as errors.go
// says; on any error nothing stays open.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	s, err := newStore(o)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open store: %w", err), s.Close())
		}
	}()
	if err := s.accountLost(); err != nil {
		return nil, err
	}
	if err := s.openAccount(ctx); err != nil {
		return nil, err
	}
	if s.index, err = openIndexer(ctx, s); err != nil {
		return nil, err
	}
	if s.net, err = openDatastore(ctx, s); err != nil {
		return nil, err
	}
	if o.Dir != "" {
		s.wg.Go(func() { s.idle(s.stop) })
		s.wg.Go(func() { s.account.keepShort(s.stop) })
	}
	return s, nil
}

// newStore fills in defaults and looks at the folder; nothing is open yet.
func newStore(o Options) (*Store, error) {
	register()
	s := &Store{opts: o, log: o.Log, stop: make(chan struct{}), memory: "kinloom-" + rand.Text()}
	s.sealer = sync.OnceValues(s.newSealer)
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.opts.Now == nil {
		s.opts.Now = time.Now
	}
	if s.opts.MinFree == 0 {
		s.opts.MinFree = 64 << 20
	}
	if s.opts.migrations == nil {
		s.opts.migrations = migrations
	}
	if o.Dir != "" {
		if o.Key == nil {
			return nil, errors.New("bug: a store on disk needs keys")
		}
		if _, err := os.Stat(o.Dir); err != nil {
			return nil, err
		}
		if err := checkFS(o.Dir); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Store) openAccount(ctx context.Context) (err error) {
	s.account, err = s.openFile(ctx, AccountFile, fileOptions{readers: accountReaders(), ready: true, block: true, migrations: s.opts.migrations})
	return err
}

// accountLost refuses to start an empty account beside the remains of another:
// account.db is the first file of a home, so it is never the only one missing.
func (s *Store) accountLost() error {
	if s.opts.Dir == "" {
		return nil
	}
	if n, err := fileSize(filepath.Join(s.opts.Dir, AccountFile)); err != nil || n >= 0 {
		return err
	}
	for _, name := range []string{IndexFile, NetFile} {
		n, err := fileSize(filepath.Join(s.opts.Dir, name))
		if err != nil {
			return err
		}
		if n >= 0 {
			return fmt.Errorf("%s: %w", AccountFile, ErrMissing)
		}
	}
	return nil
}

// databases are those that were opened so far.
func (s *Store) databases() []*database {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.dbs)
}

// accountReaders is the number of connections that read account.db. Each
// reserves 260 MB of address space, of which a 32-bit system has little.
func accountReaders() int {
	if ^uint(0)>>32 == 0 {
		return 1
	}
	return 3
}

// Write runs f in one transaction of account.db. It returns nil only when the
// disk has confirmed it. After any error the caller drops what it holds in
// memory and loads it again: nothing of the transaction is there, but after
// [ErrNotSynced], or an error and a crash, it may be there whole. Repeating it
// must therefore do no harm. f must not call Write or Read.
func (s *Store) Write(ctx context.Context, f func(*Tx) error) error { return s.account.write(ctx, f) }

// Read runs f on one snapshot of account.db. f must not call Write or Read.
func (s *Store) Read(ctx context.Context, f func(*Tx) error) error { return s.account.read(ctx, f) }

// Close brings the logs into the databases and closes them. It waits for
// transactions that run. It may be called twice.
func (s *Store) Close() error {
	s.once.Do(func() {
		close(s.stop)
		s.wg.Wait()
		var errs []error
		if s.net != nil {
			errs = append(errs, s.net.d.Load().close())
		}
		if s.index != nil {
			errs = append(errs, s.index.close())
		}
		if s.account != nil {
			errs = append(errs, s.account.close())
		}
		s.closed = errors.Join(errs...)
	})
	return s.closed
}
