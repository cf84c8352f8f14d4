package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ncruces/go-sqlite3"
)

const (
	groupDelay = time.Second      // how long grouped writes wait for each other
	sweepEvery = time.Minute      // expired rows are removed at most this often
	spaceEvery = 10 * time.Second // and the disk asked for its free space
	maxGroup   = 256              // requests in one transaction
	maxPending = 4 << 20          // bytes of grouped writes in memory; more wait for the disk
)

// write is one write of a request.
type write struct {
	key string
	entry
}

// request is what must be durable before it is answered. All of it or nothing.
type request struct {
	writes []write
	err    error
	done   chan struct{}
}

// commitNow has writes committed together with all that waits, in that order.
func (n *Datastore) commitNow(ctx context.Context, writes []write) error {
	r := &request{writes: writes, done: make(chan struct{})}
	select {
	case n.requests <- r:
	case <-n.stopped:
		return fmt.Errorf("%s: %w", NetFile, ErrClosed)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// Once taken, its outcome comes soon, and must be known.
	select {
	case <-r.done:
		return r.err
	case <-n.stopped:
		select {
		case <-r.done:
			return r.err
		default:
			return fmt.Errorf("%s: %w", NetFile, ErrClosed)
		}
	}
}

// run is the goroutine that writes net.db, until the store closes.
func (n *Datastore) run(ctx context.Context) {
	defer close(n.stopped)
	timer := time.NewTimer(groupDelay)
	timer.Stop()
	armed := false
	var space <-chan time.Time // the account grows too, so the disk is looked at anyway
	if n.s.opts.Dir != "" {
		ticker := time.NewTicker(sweepEvery)
		defer ticker.Stop()
		space = ticker.C
	}
	for {
		select {
		case <-space:
			n.measure(ctx)
		case <-n.s.stop:
			n.commit(ctx, n.drain(nil))
			return
		case r := <-n.requests:
			n.commit(ctx, n.drain(r))
		case <-timer.C:
			armed = false
			n.commit(ctx, nil)
		case <-n.nudge:
			if !armed {
				armed = true
				timer.Reset(groupDelay)
			}
		}
	}
}

// drain takes the requests that are there, without waiting.
func (n *Datastore) drain(first *request) []*request {
	var group []*request
	if first != nil {
		group = append(group, first)
	}
	for len(group) < maxGroup {
		select {
		case r := <-n.requests:
			group = append(group, r)
		default:
			return group
		}
	}
	return group
}

// commit writes what waits and then the requests, in one transaction. A
// request that a quota refuses is taken back alone.
func (n *Datastore) commit(ctx context.Context, group []*request) {
	n.mu.Lock()
	if len(n.pending) == 0 && !slices.ContainsFunc(group, func(r *request) bool { return len(r.writes) > 0 }) {
		n.mu.Unlock()
		for _, r := range group {
			close(r.done)
		}
		return
	}
	n.flushing, n.pending, n.bytes = n.pending, map[string]entry{}, 0
	n.mu.Unlock()
	n.measure(ctx)
	var refused int
	var used [classes]int64
	err := n.writeOrHeal(ctx, func(tx *Tx) error {
		g := &transaction{n: n, tx: tx, used: n.used, now: n.s.opts.Now().UnixMilli()}
		refused = 0
		if err := n.sweep(g); err != nil {
			return err
		}
		for key, e := range n.flushing {
			if err := g.apply(key, e); errors.Is(err, ErrQuota) || errors.Is(err, ErrDiskFull) && tx.err == nil {
				refused++
			} else if err != nil {
				return err
			}
		}
		for _, r := range group {
			if err := g.request(r); err != nil {
				return err
			}
		}
		used = g.used
		return g.saveUsage()
	})
	n.mu.Lock()
	if err == nil {
		n.used = used
	} else {
		// Kept for the next try, unless written again meanwhile.
		waiting := n.flushing
		maps.Copy(waiting, n.pending)
		n.pending = waiting
		n.bytes = 0
		for key, e := range n.pending {
			n.bytes += int(cost(key, e))
		}
	}
	n.flushing = nil
	n.mu.Unlock()
	if refused > 0 {
		n.s.log.Debug("network data over its quota was dropped", "entries", refused)
	}
	if err != nil {
		n.s.log.Warn("network data could not be written", "error", err)
	}
	for _, r := range group {
		if err != nil {
			r.err = err
		}
		close(r.done)
	}
}

// measure looks at the free space from time to time. When it is short, what
// others can tell again makes room, so that the account has the rest.
func (n *Datastore) measure(ctx context.Context) {
	now := n.s.opts.Now()
	if now.Sub(n.measured).Abs() < spaceEvery {
		return
	}
	n.measured = now
	free, err := n.s.FreeSpace()
	low := err == nil && free < n.s.opts.MinFree
	if low && !n.low {
		n.s.log.Warn("little disk space left: no more network data is taken in", "free_mb", free>>20)
	}
	n.low = low
	if !low || n.s.opts.Dir == "" {
		return
	}
	if err := n.shrink(ctx); err != nil {
		n.s.log.Warn("network data could not make room", "error", err)
	}
}

// shrink drops what has expired and the oldest records of the DHT, and gives
// the space back to the disk: about 16 MB a time.
func (n *Datastore) shrink(ctx context.Context) error {
	d := n.d.Load()
	var used [classes]int64
	err := d.write(ctx, func(tx *Tx) error {
		g := &transaction{n: n, tx: tx, used: n.used, now: n.s.opts.Now().UnixMilli()}
		for _, err := range []error{
			g.expire("SELECT n, class, size FROM kv WHERE expiry > 0 AND expiry <= ? LIMIT 4096", g.now),
			g.expire("SELECT n, class, size FROM kv WHERE class = ? ORDER BY n LIMIT 4096", int(ClassDHT)),
			g.saveUsage(),
			tx.Exec("PRAGMA incremental_vacuum(2048)"),
		} {
			if err != nil {
				return err
			}
		}
		used = g.used
		return nil
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.used = used
	n.mu.Unlock()
	return d.checkpoint(ctx)
}

// sweep removes expired rows, a bounded number a time.
func (n *Datastore) sweep(g *transaction) error {
	now := n.s.opts.Now()
	if !n.low && now.Sub(n.swept).Abs() < sweepEvery {
		return nil
	}
	n.swept = now
	return g.expire("SELECT n, class, size FROM kv WHERE expiry > 0 AND expiry <= ? LIMIT 4096", g.now)
}

// transaction is one transaction of the datastore.
type transaction struct {
	n    *Datastore
	tx   *Tx
	used [classes]int64
	now  int64
}

// request applies all of r or nothing of it.
func (g *transaction) request(r *request) error {
	r.err = nil
	if err := g.tx.Exec("SAVEPOINT request"); err != nil {
		return err
	}
	before := g.used
	for _, w := range r.writes {
		if err := g.apply(w.key, w.entry); err != nil {
			if g.tx.err != nil {
				return err
			}
			r.err = err
			break
		}
	}
	if r.err != nil {
		g.used = before
		if err := g.tx.Exec("ROLLBACK TO request"); err != nil {
			return err
		}
	}
	return g.tx.Exec("RELEASE request")
}

func (g *transaction) apply(key string, e entry) error {
	class := classOf(key)
	old := int64(0)
	found, err := g.tx.one("SELECT size FROM kv WHERE key = ?", func(st *sqlite3.Stmt) { old = st.ColumnInt64(0) }, []byte(key))
	switch {
	case err != nil:
		return err
	case e.delete:
		if !found {
			return nil
		}
		g.used[class] -= old
		return g.tx.Exec("DELETE FROM kv WHERE key = ?", []byte(key))
	case e.retime && !found:
		return ds.ErrNotFound
	case e.retime:
		return g.tx.Exec("UPDATE kv SET expiry = ? WHERE key = ?", e.expiry, []byte(key))
	}
	size := cost(key, e)
	if g.n.low && size > old {
		return fmt.Errorf("%s: %w", NetFile, ErrDiskFull)
	}
	if g.used[class]+size-old > g.n.quotas[class] {
		if err := g.expire("SELECT n, class, size FROM kv WHERE expiry > 0 AND expiry <= ? AND class = ?", g.now, int(class)); err != nil {
			return err
		}
		old = 0 // it may have been among them
		if _, err := g.tx.one("SELECT size FROM kv WHERE key = ?", func(st *sqlite3.Stmt) { old = st.ColumnInt64(0) }, []byte(key)); err != nil {
			return err
		}
		if g.used[class]+size-old > g.n.quotas[class] {
			return fmt.Errorf("%s: %w", NetFile, ErrQuota)
		}
	}
	g.used[class] += size - old
	return g.tx.Exec(`INSERT INTO kv(key, size, expiry, class, value) VALUES(?, ?, ?, ?, ?)
		ON CONFLICT(key) DO UPDATE SET size = excluded.size, expiry = excluded.expiry, value = excluded.value`,
		[]byte(key), size, e.expiry, int(class), e.value)
}

// expire deletes the rows that sql selects.
func (g *transaction) expire(sql string, args ...any) error {
	var rows []int64
	for st, err := range g.tx.Query(sql, args...) {
		if err != nil {
			return err
		}
		rows = append(rows, st.ColumnInt64(0))
		g.used[st.ColumnInt(1)] -= st.ColumnInt64(2)
	}
	for _, row := range rows {
		if err := g.tx.Exec("DELETE FROM kv WHERE n = ?", row); err != nil {
			return err
		}
	}
	return nil
}

func (g *transaction) saveUsage() error {
	for class, bytes := range g.used {
		if bytes == g.n.used[class] {
			continue
		}
		if err := g.tx.Exec("INSERT OR REPLACE INTO usage(class, bytes) VALUES(?, ?)", class, bytes); err != nil {
			return err
		}
	}
	return nil
}

// writeOrHeal commits f; a database that turns out damaged is set aside and f
// committed to a new one.
func (n *Datastore) writeOrHeal(ctx context.Context, f func(*Tx) error) error {
	d := n.d.Load()
	err := d.write(ctx, f)
	if !errors.Is(err, ErrDamaged) || d.path == "" {
		return err
	}
	if cerr := d.close(); cerr != nil {
		n.s.log.Debug("close of a damaged file", "error", cerr)
	}
	aside, aerr := n.s.setAside(NetFile)
	if aerr != nil {
		return errors.Join(err, aerr)
	}
	n.s.log.Warn("network data was damaged and set aside; cells kept for others may be lost", "file", NetFile, "as", aside, "error", err)
	if err := n.open(ctx); err != nil {
		return err
	}
	return n.d.Load().write(ctx, f)
}

// read runs f on a snapshot. Damage is healed by the next write; a database
// that was exchanged meanwhile is read in its new form.
func (n *Datastore) read(ctx context.Context, f func(*Tx) error) error {
	d := n.d.Load()
	err := d.read(ctx, f)
	if errors.Is(err, ErrClosed) && n.d.Load() != d {
		return n.d.Load().read(ctx, f)
	}
	return err
}
