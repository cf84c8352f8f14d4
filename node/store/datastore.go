package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ncruces/go-sqlite3"
)

// Class is a kind of network data, told by the first part of its key.
type Class uint8

// Classes, with the first part of their keys.
const (
	ClassOther     Class = iota // anything else
	ClassPeerstore              // /peers
	ClassDHT                    // /dht
	ClassCustody                // /custody: cells of others, carried
	ClassMailbox                // /mailbox: cells of others, kept for their owners
	classes
)

// defaultQuotas are the bytes that each class may fill, keys and a fixed 64 B a
// row included: a mailbox node keeps 100,000 cells, the rest are hints.
var defaultQuotas = [classes]int64{16 << 20, 32 << 20, 256 << 20, 256 << 20, 2 << 30}

// rowCost is what a row costs beside its key and value.
const rowCost = 64

// maxValue is the largest value in bytes: the largest message of the DHT.
const maxValue = 4 << 20

func classOf(key string) Class {
	first, _, _ := strings.Cut(strings.TrimPrefix(key, "/"), "/")
	switch first {
	case "peers":
		return ClassPeerstore
	case "dht":
		return ClassDHT
	case "custody":
		return ClassCustody
	case "mailbox":
		return ClassMailbox
	}
	return ClassOther
}

// grouped reports whether writes of c may wait for each other and be lost by a
// crash: what the network tells again.
func (c Class) grouped() bool { return c != ClassCustody && c != ClassMailbox }

var netMigrations = []func(*Tx) error{
	func(tx *Tx) error {
		for _, sql := range []string{
			`CREATE TABLE kv(n INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, size INTEGER NOT NULL, expiry INTEGER NOT NULL, class INTEGER NOT NULL, value BLOB NOT NULL) STRICT`,
			`CREATE INDEX kv_expiry ON kv(expiry) WHERE expiry > 0`,
			`CREATE TABLE usage(class INTEGER PRIMARY KEY, bytes INTEGER NOT NULL) STRICT`,
		} {
			if err := tx.Exec(sql); err != nil {
				return err
			}
		}
		return nil
	},
}

// Datastore is net.db as a go-datastore: Batching, TTL and Query. Custody and
// mailbox entries are durable when Put returns; all others within about a
// second, or when Sync returns. A class that is full refuses with [ErrQuota],
// a disk that is nearly full with [ErrDiskFull] and gives back what others can
// tell again; deleting always works.
type Datastore struct {
	s      *Store
	d      atomic.Pointer[database]
	quotas [classes]int64

	requests chan *request
	nudge    chan struct{} // grouped writes wait
	stopped  chan struct{}

	mu       sync.Mutex // guards the four below
	pending  map[string]entry
	flushing map[string]entry
	bytes    int            // of values in pending
	used     [classes]int64 // as of the last commit

	// Owned by the writing goroutine.
	swept    time.Time // expired rows were removed
	measured time.Time // free space was looked at
	low      bool      // and was below the limit
}

var (
	_ ds.Batching            = (*Datastore)(nil)
	_ ds.TTLDatastore        = (*Datastore)(nil)
	_ ds.PersistentDatastore = (*Datastore)(nil)
)

// entry is one write: a value, or its deletion. retime alters the expiry alone.
type entry struct {
	value  []byte
	expiry int64 // unix ms, 0 = none
	delete bool
	retime bool
}

// Datastore gives the network layer its store. It is open as long as s is.
func (s *Store) Datastore() *Datastore { return s.net }

// openDatastore opens net.db. One that is damaged, foreign or half missing is
// set aside and made anew: it holds nothing of this home's owner.
func openDatastore(ctx context.Context, s *Store) (*Datastore, error) {
	n := &Datastore{
		s: s, quotas: s.opts.quotas, requests: make(chan *request, maxGroup), nudge: make(chan struct{}, 1),
		stopped: make(chan struct{}), pending: map[string]entry{},
	}
	if n.quotas == [classes]int64{} {
		n.quotas = defaultQuotas
	}
	if err := n.open(ctx); err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx) // it ends with the store, not with Open
	s.wg.Go(func() { n.run(ctx) })
	return n, nil
}

func (n *Datastore) open(ctx context.Context) error {
	o := fileOptions{readers: 2, block: true, shrinks: true, migrations: netMigrations}
	d, err := n.s.openFile(ctx, NetFile, o)
	if errors.Is(err, ErrDamaged) || errors.Is(err, ErrForeign) || errors.Is(err, ErrMissing) {
		aside, aerr := n.s.setAside(NetFile)
		if aerr != nil {
			return errors.Join(err, aerr)
		}
		n.s.log.Warn("network data could not be used and was set aside; cells kept for others may be lost", "file", NetFile, "as", aside, "error", err)
		d, err = n.s.openFile(ctx, NetFile, o)
	}
	if err != nil {
		return err
	}
	used := [classes]int64{}
	err = d.read(ctx, func(tx *Tx) error {
		for st, err := range tx.Query("SELECT class, bytes FROM usage") {
			if err != nil {
				return err
			}
			if c := st.ColumnInt(0); c >= 0 && c < int(classes) {
				used[c] = st.ColumnInt64(1)
			}
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, d.close())
	}
	n.mu.Lock()
	n.used = used
	n.mu.Unlock()
	n.d.Store(d)
	return nil
}

// Put implements [ds.Write].
func (n *Datastore) Put(ctx context.Context, key ds.Key, value []byte) error {
	return n.put(ctx, key.String(), entry{value: append([]byte{}, value...)})
}

// PutWithTTL implements [ds.TTL]; an entry without time to live is not kept.
func (n *Datastore) PutWithTTL(ctx context.Context, key ds.Key, value []byte, ttl time.Duration) error {
	return n.put(ctx, key.String(), entry{value: append([]byte{}, value...), expiry: n.after(ttl)})
}

// after is the expiry of something that lives for ttl more.
func (n *Datastore) after(ttl time.Duration) int64 {
	return max(1, n.s.opts.Now().Add(ttl).UnixMilli())
}

// Delete implements [ds.Write].
func (n *Datastore) Delete(ctx context.Context, key ds.Key) error {
	return n.put(ctx, key.String(), entry{delete: true})
}

// put takes one write. What may be grouped waits in memory, as long as it
// certainly fits; all else is committed before put returns.
func (n *Datastore) put(ctx context.Context, key string, e entry) error {
	if len(e.value) > maxValue {
		return fmt.Errorf("%w: a value of %d bytes, %d at most", ErrQuota, len(e.value), maxValue)
	}
	select {
	case <-n.stopped:
		return fmt.Errorf("%s: %w", NetFile, ErrClosed)
	default:
	}
	if c := classOf(key); c.grouped() && n.postpone(key, c, e) {
		return nil
	}
	return n.commitNow(ctx, []write{{key, e}})
}

// postpone keeps a write for the next group and reports whether it could.
func (n *Datastore) postpone(key string, c Class, e entry) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	size := cost(key, e)
	if n.bytes+int(size) > maxPending || n.used[c]+int64(n.bytes)+size > n.quotas[c] {
		return false
	}
	n.pending[key] = e
	n.bytes += int(size)
	select {
	case n.nudge <- struct{}{}:
	default:
	}
	return true
}

func cost(key string, e entry) int64 {
	if e.delete {
		return rowCost
	}
	return int64(len(key)+len(e.value)) + rowCost
}

// waiting returns a write of key that is not on disk yet.
func (n *Datastore) waiting(key string) (entry, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e, ok := n.pending[key]
	if !ok {
		e, ok = n.flushing[key]
	}
	return e, ok
}

func (n *Datastore) live(e entry) bool {
	return !e.delete && (e.expiry == 0 || e.expiry > n.s.opts.Now().UnixMilli())
}

// lookup finds key; value says whether the value is wanted.
func (n *Datastore) lookup(ctx context.Context, key string, value bool) (e entry, size int, err error) {
	if e, ok := n.waiting(key); ok {
		if !n.live(e) {
			return e, -1, ds.ErrNotFound
		}
		return e, len(e.value), nil
	}
	sql := "SELECT size, expiry FROM kv WHERE key = ?"
	if value {
		sql = "SELECT size, expiry, value FROM kv WHERE key = ?"
	}
	found := false
	err = n.read(ctx, func(tx *Tx) (err error) {
		found, err = tx.one(sql, func(st *sqlite3.Stmt) {
			size, e.expiry = st.ColumnInt(0)-len(key)-rowCost, st.ColumnInt64(1)
			if value {
				e.value = st.ColumnBlob(2, []byte{})
			}
		}, []byte(key))
		return err
	})
	if err != nil {
		return e, -1, err
	}
	if !found || !n.live(e) {
		return e, -1, ds.ErrNotFound
	}
	return e, size, nil
}

// Get implements [ds.Read].
func (n *Datastore) Get(ctx context.Context, key ds.Key) ([]byte, error) {
	e, _, err := n.lookup(ctx, key.String(), true)
	if err != nil {
		return nil, err
	}
	return append([]byte{}, e.value...), nil
}

// Has implements [ds.Read].
func (n *Datastore) Has(ctx context.Context, key ds.Key) (bool, error) {
	_, _, err := n.lookup(ctx, key.String(), false)
	if errors.Is(err, ds.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// GetSize implements [ds.Read].
func (n *Datastore) GetSize(ctx context.Context, key ds.Key) (int, error) {
	_, size, err := n.lookup(ctx, key.String(), false)
	return size, err
}

// GetExpiration implements [ds.TTL]; the zero time means that key stays.
func (n *Datastore) GetExpiration(ctx context.Context, key ds.Key) (time.Time, error) {
	e, _, err := n.lookup(ctx, key.String(), false)
	if err != nil || e.expiry == 0 {
		return time.Time{}, err
	}
	return time.UnixMilli(e.expiry), nil
}

// SetTTL implements [ds.TTL].
func (n *Datastore) SetTTL(ctx context.Context, key ds.Key, ttl time.Duration) error {
	return n.commitNow(ctx, []write{{key.String(), entry{expiry: n.after(ttl), retime: true}}})
}

// Sync implements [ds.Datastore]: grouped writes are durable when it returns.
func (n *Datastore) Sync(ctx context.Context, _ ds.Key) error { return n.commitNow(ctx, nil) }

// Batch implements [ds.BatchingFeature]; its Commit is one transaction.
func (n *Datastore) Batch(context.Context) (ds.Batch, error) { return &batch{n: n}, nil }

// DiskUsage implements [ds.PersistentFeature]: what the quotas count, in bytes.
func (n *Datastore) DiskUsage(context.Context) (uint64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	sum := int64(n.bytes)
	for _, u := range n.used {
		sum += u
	}
	return uint64(sum), nil
}

// Close does nothing: net.db is closed with its store, which libraries that
// close what they were given do not own.
func (n *Datastore) Close() error { return nil }

// batch collects writes. It is not safe for concurrent use.
type batch struct {
	n      *Datastore
	writes []write
}

func (b *batch) Put(_ context.Context, key ds.Key, value []byte) error {
	if len(value) > maxValue {
		return fmt.Errorf("%w: a value of %d bytes, %d at most", ErrQuota, len(value), maxValue)
	}
	b.writes = append(b.writes, write{key.String(), entry{value: append([]byte{}, value...)}})
	return nil
}

func (b *batch) Delete(_ context.Context, key ds.Key) error {
	b.writes = append(b.writes, write{key.String(), entry{delete: true}})
	return nil
}

func (b *batch) Commit(ctx context.Context) error { return b.n.commitNow(ctx, b.writes) }
