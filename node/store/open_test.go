package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ncruces/go-sqlite3"
	"golang.org/x/sync/errgroup"
)

// made is a home with a few rows, closed.
func made(t *testing.T, o Options) string {
	t.Helper()
	o.Dir = t.TempDir()
	s := openTest(t, o)
	m := newModel(1)
	for range 3 {
		check(t, m.group(t.Context(), s))
	}
	check(t, s.Close())
	check(t, s.Close())
	return o.Dir
}

// filesOf is the content of all files of a home but the lock.
func filesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	names, err := os.ReadDir(dir)
	check(t, err)
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(dir, n.Name()))
		check(t, err)
		files[n.Name()] = string(b)
	}
	return files
}

// TestOpenRefuses tells what is wrong with a home apart, and leaves it alone.
func TestOpenRefuses(t *testing.T) {
	later := append(slices.Clone(fullSchema), func(tx *Tx) error { return tx.Exec("CREATE TABLE later(a)") })
	account := func(dir string) string { return filepath.Join(dir, AccountFile) }
	for _, c := range []struct {
		name string
		made Options
		harm func(t *testing.T, dir string)
		with Options
		want error
		says string
	}{
		{name: "wrong key", with: Options{Key: func(string) [32]byte { return [32]byte{3} }}, want: ErrForeign},
		{name: "another id", with: Options{IDs: map[string][16]byte{AccountFile: {7}}}, want: ErrForeign},
		{
			name: "file of another home", harm: func(t *testing.T, dir string) {
				other := made(t, Options{Key: func(string) [32]byte { return [32]byte{3} }})
				check(t, os.Rename(account(other), account(dir)))
			}, want: ErrForeign,
		},
		{name: "newer schema", made: Options{migrations: later}, want: &NewerSchemaError{}, says: fmt.Sprintf("account.db has schema %d, this version knows up to %d: install", len(later), len(fullSchema))},
		{name: "first page damaged", harm: func(t *testing.T, dir string) { flip(t, account(dir), 200) }, want: ErrDamaged},
		{name: "first page damaged in its second block", harm: func(t *testing.T, dir string) { flip(t, account(dir), 5000) }, want: ErrDamaged},
		{name: "cut in the first page", harm: func(t *testing.T, dir string) { check(t, os.Truncate(account(dir), 3000)) }, want: ErrDamaged},
		{name: "empty", harm: func(t *testing.T, dir string) { check(t, os.Truncate(account(dir), 0)) }, want: ErrDamaged, says: "it is empty"},
		{name: "gone, others there", harm: func(t *testing.T, dir string) { check(t, os.Remove(account(dir))) }, want: ErrMissing},
		{
			name: "gone, its log there", harm: func(t *testing.T, dir string) {
				check(t, errors.Join(os.Remove(account(dir)), os.Remove(filepath.Join(dir, IndexFile)), os.Remove(filepath.Join(dir, NetFile))))
				check(t, os.WriteFile(account(dir)+"-wal", make([]byte, 8192), 0o600))
			}, want: ErrMissing, says: "account.db-wal",
		},
		{name: "a folder in its place", harm: func(t *testing.T, dir string) {
			check(t, os.Remove(account(dir)))
			check(t, os.Mkdir(account(dir), 0o700))
		}, says: "account.db"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := made(t, c.made)
			if c.harm != nil {
				c.harm(t, dir)
			}
			var before map[string]string
			if c.name != "a folder in its place" {
				before = filesOf(t, dir)
			}
			c.with.Dir = dir
			s, err := tryOpen(t, c.with)
			if err == nil {
				_ = s.Close()
				t.Fatal("opened")
			}
			if _, newer := errors.AsType[*NewerSchemaError](err); newer {
				_, wanted := c.want.(*NewerSchemaError)
				if !wanted {
					t.Errorf("%v, want %v", err, c.want)
				}
			} else if c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q does not say %q", err, c.says)
			}
			for name, b := range before {
				if after, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(after) != b {
					t.Errorf("%s was touched: %v", name, err)
				}
			}
		})
	}
	if _, err := tryOpen(t, Options{Dir: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

// TestOpenAgain: what was written is there, numbers rise, nothing is left over.
func TestOpenAgain(t *testing.T) {
	dir := t.TempDir()
	id := map[string][16]byte{AccountFile: {1}, IndexFile: {2}, NetFile: {3}}
	m := newModel(4)
	last := uint64(0)
	for range 3 {
		s := openTest(t, Options{Dir: dir, IDs: id})
		check(t, m.group(t.Context(), s))
		check(t, s.Write(t.Context(), func(tx *Tx) error {
			if n := tx.NextChanged(); n <= last {
				t.Errorf("changed %d after %d", n, last)
			} else {
				last = n
			}
			return nil
		}))
		check(t, m.verify(t.Context(), s, true))
		check(t, s.Check(t.Context()))
		check(t, s.Close())
	}
	for name := range filesOf(t, dir) {
		if name != AccountFile && name != IndexFile && name != NetFile {
			t.Errorf("%s was left", name)
		}
	}
}

// TestClosed: every call says so, and none hangs.
func TestClosed(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		s := openTest(t, Options{Dir: dir})
		check(t, s.Close())
		nop := func(*Tx) error { return nil }
		for _, err := range []error{
			s.Write(t.Context(), nop), s.Read(t.Context(), nop), s.Read(t.Context(), nop),
			s.Datastore().Put(t.Context(), ds.NewKey("/mailbox/a"), nil),
			s.Datastore().Put(t.Context(), ds.NewKey("/peers/a"), nil),
		} {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		}
	}
}

// TestReadIsASnapshot: a reader does not see what is committed meanwhile, and
// cannot write.
func TestReadIsASnapshot(t *testing.T) {
	s := openTest(t, Options{Dir: t.TempDir()})
	m := newModel(5)
	check(t, m.group(t.Context(), s))
	rows := func(tx *Tx) (n int) {
		_, err := tx.one("SELECT count(*) FROM row", func(st *sqlite3.Stmt) { n = st.ColumnInt(0) })
		check(t, err)
		return n
	}
	inside, written := make(chan struct{}), make(chan error)
	go func() {
		<-inside
		written <- m.group(context.WithoutCancel(t.Context()), s)
	}()
	check(t, s.Read(t.Context(), func(tx *Tx) error {
		before := rows(tx)
		close(inside)
		check(t, <-written)
		if after := rows(tx); after != before {
			t.Errorf("%d rows, then %d in one snapshot", before, after)
		}
		return nil
	}))
	for _, sql := range []string{"DELETE FROM row", "CREATE TABLE x(a)", "PRAGMA user_version=9"} {
		for _, s := range []*Store{s, openTest(t, Options{})} {
			if err := s.Read(t.Context(), func(tx *Tx) error { return tx.Exec(sql) }); !errors.Is(err, ErrReadOnly) {
				t.Errorf("%s in Read: %v, want %v", sql, err, ErrReadOnly)
			}
		}
	}
}

// TestWriteFails: an error, a panic or a cancelled context leave nothing, and
// what follows the commit does not happen.
func TestWriteFails(t *testing.T) {
	for name, dir := range map[string]string{"memory": "", "disk": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, Options{Dir: dir})
			m := newModel(6)
			check(t, m.group(t.Context(), s))
			put := func(tx *Tx) error {
				tx.afterCommit(func() { t.Error("after a commit that was not") })
				return tx.Exec("INSERT INTO row(n, body, hash, changed) VALUES(-1, x'', x'', ?)", tx.NextChanged())
			}
			want := errors.New("no")
			if err := s.Write(t.Context(), func(tx *Tx) error { return errors.Join(put(tx), want) }); !errors.Is(err, want) {
				t.Errorf("error: %v", err)
			}
			func() {
				defer func() { _ = recover() }()
				_ = s.Write(t.Context(), func(tx *Tx) error { check(t, put(tx)); panic("bug: in a test") })
			}()
			ctx, cancel := context.WithCancel(t.Context())
			if err := s.Write(ctx, func(tx *Tx) error { check(t, put(tx)); cancel(); return put(tx) }); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
			check(t, m.group(t.Context(), s))
			check(t, m.verify(t.Context(), s, true))
		})
	}
}

// TestFullDisk: refused by name, reading works, and on it goes without a
// restart. (H101)
func TestFullDisk(t *testing.T) {
	for layer, block := range layers {
		t.Run(layer, func(t *testing.T) {
			fs := newFaultFS(t, block)
			free := uint64(1 << 30)
			s := openTest(t, Options{Dir: t.TempDir(), vfs: fs.name, free: func() (uint64, error) { return free, nil }})
			m := newModel(7)
			check(t, m.group(t.Context(), s))
			free = 0
			fs.arm(func(o op, _ int, _ string) error {
				if o == opWrite {
					return syscall.ENOSPC
				}
				return nil
			}, true)
			for range 5 {
				if err := m.group(t.Context(), s); !errors.Is(err, ErrDiskFull) {
					t.Errorf("write: %v, want %v", err, ErrDiskFull)
				}
				check(t, m.verify(t.Context(), s, true))
			}
			if err := s.Datastore().Put(t.Context(), ds.NewKey("/mailbox/a"), []byte("cell")); !errors.Is(err, ErrDiskFull) {
				t.Errorf("cell: %v, want %v", err, ErrDiskFull)
			}
			free = 1 << 30
			fs.arm(nil, false)
			for range 5 {
				check(t, m.group(t.Context(), s))
			}
			check(t, m.verify(t.Context(), s, true))
			check(t, s.Check(t.Context()))
		})
	}
}

// TestLowSpaceStopsNetworkData before the account feels it.
func TestLowSpaceStopsNetworkData(t *testing.T) {
	now, free := time.Now(), uint64(1<<30)
	var log bytes.Buffer
	s := openTest(t, Options{Dir: t.TempDir(), Log: textLog(&log), Now: func() time.Time { return now }, free: func() (uint64, error) { return free, nil }})
	n := s.Datastore()
	check(t, n.Put(t.Context(), ds.NewKey("/mailbox/a"), []byte("cell")))
	for i := range 60 {
		check(t, n.Put(t.Context(), ds.NewKey(fmt.Sprint("/dht/", i)), make([]byte, 20_000)))
	}
	check(t, n.Sync(t.Context(), ds.NewKey("/")))
	check(t, s.Checkpoint(t.Context()))
	size := func() int64 {
		size, err := fileSize(filepath.Join(s.opts.Dir, NetFile))
		check(t, err)
		return size
	}
	before := size()
	free = 63 << 20
	now = now.Add(time.Minute)
	if err := n.Put(t.Context(), ds.NewKey("/mailbox/b"), []byte("cell")); !errors.Is(err, ErrDiskFull) {
		t.Errorf("with 63 MB left: %v, want %v", err, ErrDiskFull)
	}
	if !strings.Contains(log.String(), "little disk space left") {
		t.Errorf("no warning in %q", &log)
	}
	if ok, err := n.Has(t.Context(), ds.NewKey("/dht/1")); ok || err != nil || size() > before/2 {
		t.Errorf("net.db had %d bytes and has %d, a DHT record is there: %v, %v", before, size(), ok, err)
	}
	if ok, err := n.Has(t.Context(), ds.NewKey("/mailbox/a")); !ok || err != nil {
		t.Errorf("a cell had to go: %v, %v", ok, err)
	}
	check(t, newModel(1).group(t.Context(), s))
	check(t, n.Delete(t.Context(), ds.NewKey("/mailbox/a")))
	free = 65 << 20
	now = now.Add(time.Minute)
	check(t, n.Put(t.Context(), ds.NewKey("/mailbox/b"), []byte("cell")))
}

// TestFailedSync: the first refusal reopens, the second ends it. (H100)
func TestFailedSync(t *testing.T) {
	fs := newFaultFS(t, true)
	s, err := openAccount(t, Options{Dir: t.TempDir(), vfs: fs.name})
	check(t, err)
	m := newModel(8)
	check(t, m.group(t.Context(), s))
	once := func(o op, nth int, _ string) error {
		if o == opSync && nth == 1 {
			return syscall.EIO
		}
		return nil
	}
	fs.arm(once, false)
	if err := m.group(t.Context(), s); !errors.Is(err, ErrNotSynced) || errors.Is(err, ErrFatal) {
		t.Errorf("first: %v, want %v", err, ErrNotSynced)
	}
	check(t, m.settle(t.Context(), s))
	check(t, m.group(t.Context(), s))
	check(t, m.verify(t.Context(), s, true))
	if n := s.Health().FailedSyncs; n != 1 {
		t.Errorf("%d failed syncs, want 1", n)
	}
	fs.arm(once, false)
	if err := m.group(t.Context(), s); !errors.Is(err, ErrFatal) {
		t.Errorf("second: %v, want %v", err, ErrFatal)
	}
	for _, err := range []error{m.group(t.Context(), s), m.verify(t.Context(), s, true)} {
		if !errors.Is(err, ErrFatal) {
			t.Errorf("afterwards: %v, want %v", err, ErrFatal)
		}
	}
}

// TestReadersWhileReopening: readers that take the new connections while the rest
// of them is being opened get a connection each, never none.
func TestReadersWhileReopening(t *testing.T) {
	for range 20 {
		fs := newFaultFS(t, true)
		s, err := openAccount(t, Options{Dir: t.TempDir(), vfs: fs.name})
		check(t, err)
		m := newModel(9)
		check(t, m.group(t.Context(), s))
		var readers errgroup.Group
		stop := make(chan struct{})
		for range 2 * s.account.all {
			readers.Go(func() error {
				for {
					select {
					case <-stop:
						return nil
					default:
					}
					if err := s.Read(t.Context(), func(tx *Tx) error { return tx.Exec("SELECT count(*) FROM row") }); err != nil {
						return err
					}
				}
			})
		}
		fs.arm(func(o op, nth int, _ string) error {
			if o == opSync && nth == 1 {
				return syscall.EIO
			}
			return nil
		}, false)
		if err := m.group(t.Context(), s); !errors.Is(err, ErrNotSynced) {
			t.Errorf("got %v, want %v", err, ErrNotSynced)
		}
		close(stop)
		check(t, readers.Wait())
		check(t, s.account.close())
	}
}

// TestReadOnlyDisk: a disk that became read-only is named.
func TestReadOnlyDisk(t *testing.T) {
	fs := newFaultFS(t, true)
	dir := t.TempDir()
	s, err := openAccount(t, Options{Dir: dir, vfs: fs.name})
	check(t, err)
	m := newModel(9)
	check(t, m.group(t.Context(), s))
	fs.arm(func(o op, _ int, _ string) error {
		if o == opWrite || o == opTruncate {
			return syscall.EROFS
		}
		return nil
	}, false)
	if err := m.group(t.Context(), s); !errors.Is(err, ErrReadOnly) {
		t.Errorf("write: %v, want %v", err, ErrReadOnly)
	}
	check(t, m.verify(t.Context(), s, true))
}

// TestIdleCheckpoint: the log of a database that rests is empty after two
// minutes at most, and a busy one is left alone.
func TestIdleCheckpoint(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, Options{Dir: dir})
		check(t, newModel(1).group(t.Context(), s))
		wal := func() int64 {
			n, err := fileSize(filepath.Join(dir, AccountFile+"-wal"))
			check(t, err)
			return n
		}
		if wal() == 0 {
			t.Fatal("nothing was written to the log")
		}
		time.Sleep(idleCheckpoint * 2)
		synctest.Wait()
		if n := wal(); n != 0 {
			t.Errorf("%d bytes in the log of a database at rest", n)
		}
		check(t, s.Close())
	})
}

// TestLongLogIsBroughtOver without a word from anybody, also beside a reader
// that holds it up for a while.
func TestLongLogIsBroughtOver(t *testing.T) {
	s, err := openAccount(t, Options{Dir: t.TempDir(), vfs: newFaultFS(t, true).name})
	check(t, err)
	body := make([]byte, 400_000)
	put := func() {
		check(t, s.Write(t.Context(), func(tx *Tx) error {
			return tx.Exec("INSERT OR REPLACE INTO hot(one, n, body, hash) VALUES(1, 1, ?, x'')", body)
		}))
	}
	longest := 0
	for range 150 {
		put()
		longest = max(longest, s.Health().WALPages)
	}
	if longest > autoCheckpoint+100 || longest < autoCheckpoint/2 {
		t.Errorf("the log grew to %d pages, limit %d", longest, autoCheckpoint)
	}
	inside, leave := make(chan struct{}), make(chan struct{})
	left := make(chan error)
	go func() {
		left <- s.Read(t.Context(), func(tx *Tx) error {
			_, err := tx.one("SELECT n FROM hot", nil)
			close(inside)
			<-leave
			return err
		})
	}()
	<-inside
	for range 100 {
		put()
	}
	close(leave)
	check(t, <-left)
	for range 60 {
		put()
	}
	if n := s.Health().WALPages; n > autoCheckpoint+100 {
		t.Errorf("%d pages in the log after the reader has left", n)
	}
}

// TestOddFolder: what means something in the name of a database to SQLite means
// nothing in the name of a home.
func TestOddFolder(t *testing.T) {
	home := filepath.Join(t.TempDir(), "a b?mode=ro#c%41&vfs=os ü")
	check(t, os.Mkdir(home, 0o700))
	link := filepath.Join(t.TempDir(), "link")
	check(t, os.Symlink(home, link))
	m := newModel(1)
	for _, dir := range []string{home, link} {
		s, err := openAccount(t, Options{Dir: dir})
		check(t, err)
		check(t, errors.Join(m.group(t.Context(), s), m.verify(t.Context(), s, true), s.account.close()))
	}
	if n, err := fileSize(filepath.Join(home, AccountFile)); err != nil || n <= 0 {
		t.Errorf("%d bytes, %v", n, err)
	}
}
