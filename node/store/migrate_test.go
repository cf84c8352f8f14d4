package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
)

// second is a migration of several statements that alters every row.
var secondStatements = []string{
	"ALTER TABLE row ADD COLUMN extra TEXT NOT NULL DEFAULT ''",
	"UPDATE row SET extra = 'n' || n",
	"CREATE INDEX row_extra ON row(extra)",
	"CREATE TABLE later(a INTEGER PRIMARY KEY, b TEXT)",
	"INSERT INTO later(b) SELECT extra FROM row",
}

func withSecond(before func(statement int)) []func(*Tx) error {
	return append(append([]func(*Tx) error{}, testSchema...), func(tx *Tx) error {
		for i, sql := range secondStatements {
			before(i)
			if err := tx.Exec(sql); err != nil {
				return err
			}
		}
		before(len(secondStatements))
		return nil
	})
}

// TestMigrationInterrupted stops a migration before each of its statements and
// before its end: the old program still reads the file, a verified copy stands
// beside it, and the next try succeeds. (H104)
func TestMigrationInterrupted(t *testing.T) {
	for at := range len(secondStatements) + 1 {
		t.Run(fmt.Sprint("before statement ", at), func(t *testing.T) {
			dir := t.TempDir()
			s, err := openAccount(t, Options{Dir: dir})
			check(t, err)
			m := newModel(1)
			for range 4 {
				check(t, m.group(t.Context(), s))
			}
			check(t, s.account.close())

			ctx, cancel := context.WithCancel(t.Context())
			stopped, err := newStore(Options{Dir: dir, Key: testKey, migrations: withSecond(func(i int) {
				if i == at {
					cancel()
				}
			})})
			check(t, err)
			if err := stopped.openAccount(ctx); !errors.Is(err, context.Canceled) {
				t.Fatalf("interrupted: %v", err)
			}
			s, err = openAccount(t, Options{Dir: dir})
			check(t, err)
			check(t, errors.Join(m.verify(t.Context(), s, true), wholeFile(t.Context(), s)))
			check(t, s.account.close())

			// The copy opens as a database of its own.
			old := t.TempDir()
			b, err := os.ReadFile(filepath.Join(dir, AccountFile+".schema-1"))
			check(t, err)
			check(t, os.WriteFile(filepath.Join(old, AccountFile), b, 0o600))
			s, err = openAccount(t, Options{Dir: old})
			check(t, err)
			check(t, m.verify(t.Context(), s, true))
			check(t, s.account.close())

			two := withSecond(func(int) {})
			s, err = openAccount(t, Options{Dir: dir, migrations: two})
			check(t, err)
			check(t, errors.Join(m.verify(t.Context(), s, true), wholeFile(t.Context(), s)))
			check(t, s.Read(t.Context(), func(tx *Tx) error {
				found, err := tx.one("SELECT 1 FROM row, later WHERE extra = b AND extra = 'n' || n", nil)
				if !found {
					t.Error("the migration did nothing")
				}
				return err
			}))
			check(t, s.account.close())
			if _, err := openAccount(t, Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "install the newer version") {
				t.Errorf("old program on the new schema: %v", err)
			}

			// The copy goes after 7 days of good running.
			for _, c := range []struct {
				days int
				left bool
			}{{6, true}, {8, false}} {
				now := func() time.Time { return time.Now().AddDate(0, 0, c.days) }
				s, err = openAccount(t, Options{Dir: dir, migrations: two, Now: now})
				check(t, err)
				check(t, s.account.close())
				if n, err := fileSize(filepath.Join(dir, AccountFile+".schema-1")); err != nil || (n >= 0) != c.left {
					t.Errorf("after %d days the copy has %d bytes, %v", c.days, n, err)
				}
			}
		})
	}
}

// TestMigrationNeedsSpace: no copy, no migration.
func TestMigrationNeedsSpace(t *testing.T) {
	dir := t.TempDir()
	s, err := openAccount(t, Options{Dir: dir})
	check(t, err)
	check(t, newModel(1).group(t.Context(), s))
	check(t, s.account.close())
	_, err = openAccount(t, Options{Dir: dir, migrations: withSecond(func(int) {}), free: func() (uint64, error) { return 100_000, nil }})
	if !errors.Is(err, ErrDiskFull) {
		t.Errorf("%v, want %v", err, ErrDiskFull)
	}
	_, err = openAccount(t, Options{Dir: dir})
	check(t, err)
}

// TestCopy: under load, with another key, everything there, nothing in clear.
func TestCopy(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, Options{Dir: dir})
	m := newModel(2)
	for range 30 {
		check(t, m.group(t.Context(), s))
	}
	load := make(chan error)
	stop := make(chan struct{})
	go func() {
		other := newModel(3)
		other.next = 1000
		for {
			select {
			case <-stop:
				load <- nil
				return
			default:
			}
			if err := other.group(context.WithoutCancel(t.Context()), s); err != nil {
				load <- err
				return
			}
		}
	}()
	key := sha256.Sum256([]byte("another key"))
	to := t.TempDir()
	dst := filepath.Join(to, AccountFile)
	err := s.Copy(t.Context(), dst, key)
	close(stop)
	check(t, errors.Join(err, <-load))
	if err := s.Copy(t.Context(), dst, key); !errors.Is(err, os.ErrExist) {
		t.Errorf("copy over a file: %v, want %v", err, os.ErrExist)
	}
	b, err := os.ReadFile(dst)
	check(t, err)
	if bytes.Contains(b, []byte("CREATE TABLE")) {
		t.Error("the copy is readable")
	}
	c, err := newStore(Options{Dir: to, Key: func(string) [32]byte { return key }, migrations: fullSchema})
	check(t, err)
	check(t, c.openAccount(t.Context()))
	defer c.account.close()
	for _, g := range m.acked {
		check(t, c.Read(t.Context(), func(tx *Tx) error {
			n := 0
			_, err := tx.one("SELECT count(*) FROM row WHERE n / 100 = ?", func(st *sqlite3.Stmt) { n = st.ColumnInt(0) }, g)
			if n != m.sizes[g] {
				t.Errorf("group %d has %d rows of %d in the copy", g, n, m.sizes[g])
			}
			return err
		}))
	}
	check(t, wholeFile(t.Context(), c))
	if err := openTest(t, Options{}).Copy(t.Context(), filepath.Join(to, "x"), key); err == nil {
		t.Error("a store in memory was copied")
	}
}

// TestCopyFails at each of its calls: nothing is left at the target, the error
// has no key in it, and the source goes on.
func TestCopyFails(t *testing.T) {
	key := sha256.Sum256([]byte("another key"))
	dir := t.TempDir()
	fs := newFaultFS(t, true)
	s, err := openAccount(t, Options{Dir: dir, vfs: fs.name})
	check(t, err)
	m := newModel(2)
	for range 5 {
		check(t, m.group(t.Context(), s))
	}
	check(t, s.account.checkpoint(t.Context()))
	dst := filepath.Join(dir, "copy.db")
	for _, o := range []op{opWrite, opSync, opTruncate} {
		failed := 0
		for n := 1; ; n++ {
			fs.arm(func(got op, nth int, path string) error {
				if got == o && nth == n && strings.Contains(path, "copy.db") {
					return syscall.ENOSPC
				}
				return nil
			}, true)
			err := s.Copy(t.Context(), dst, key)
			hit := fs.count(o) >= n
			fs.arm(nil, false)
			if err == nil {
				check(t, os.Remove(dst))
				if !hit {
					break
				}
				continue
			}
			failed++
			if left, _ := filepath.Glob(dst + "*"); len(left) > 0 {
				t.Fatalf("%s %d: %v left", o, n, left)
			}
			if strings.Contains(strings.ToLower(err.Error()), fmt.Sprintf("%x", key)[:12]) {
				t.Fatalf("the key is in %q", err)
			}
			check(t, m.verify(t.Context(), s, true))
		}
		t.Logf("%s: %d calls failed", o, failed)
	}
	check(t, m.group(t.Context(), s))
}
