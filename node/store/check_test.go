package store

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ds "github.com/ipfs/go-datastore"
)

// largeHome gives a home with some hundred pages in each database.
func largeHome(t *testing.T, dir string) *world {
	t.Helper()
	w := newWorld(t, dir)
	for i := range uint64(300) {
		e := w.message(0, true, i+1, float64(i), strings.Repeat(fmt.Sprintf("word%d ", i), 400))
		w.insert(&e)
		check(t, w.Datastore().Put(t.Context(), ds.NewKey(fmt.Sprintf("/mailbox/%d", i)), make([]byte, 4000)))
	}
	check(t, w.IndexDrain(t.Context()))
	return w
}

// spoil changes the middle page of a file and its neighbours.
func spoil(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	check(t, err)
	middle := len(b) / 2 / pageSize * pageSize
	for at := middle - pageSize; at < middle+2*pageSize; at++ {
		b[at] ^= 0x55
	}
	check(t, os.WriteFile(path, b, 0o600))
}

// TestCheckFindsDamage in each database, of an open store and of files that nobody has
// open, with a log and without one; looking alters nothing.
func TestCheckFindsDamage(t *testing.T) {
	rest, running := t.TempDir(), t.TempDir()
	w := largeHome(t, rest)
	check(t, w.Checkpoint(t.Context()))
	e := w.message(0, true, 301, 301, "in the log")
	w.insert(&e)
	copyHome(t, rest, running)
	if n, err := fileSize(filepath.Join(running, AccountFile+"-wal")); err != nil || n <= 0 {
		t.Fatalf("a log of %d bytes: %v", n, err)
	}
	check(t, w.Close())
	for _, from := range []string{rest, running} {
		for _, name := range []string{"", AccountFile, IndexFile, NetFile} {
			dir := t.TempDir()
			copyHome(t, from, dir)
			if name != "" {
				spoil(t, filepath.Join(dir, name))
			}
			want := func(what string, err error) {
				t.Helper()
				if name == "" && err != nil || name != "" && (!errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), name)) {
					t.Errorf("%s: %q damaged: %v", what, name, err)
				}
			}
			before := filesOf(t, dir)
			want("files", CheckFiles(t.Context(), testOptions(dir)))
			after := filesOf(t, dir)
			maps.DeleteFunc(after, func(name, content string) bool { return strings.HasSuffix(name, "-shm") && content == "" })
			if !maps.Equal(before, after) {
				t.Errorf("%q damaged: the look at the files altered them", name)
			}
			s, err := Open(t.Context(), testOptions(dir))
			if err != nil {
				t.Errorf("%q damaged: %v", name, err)
				continue
			}
			err = s.Check(t.Context())
			if name != IndexFile || err != nil { // which Open may have made anew
				want("store", err)
			}
			if err := s.Close(); err != nil && name == "" {
				t.Error(err)
			}
			if name == IndexFile {
				s, err := Open(t.Context(), testOptions(dir))
				check(t, err)
				check(t, errors.Join(s.IndexDrain(t.Context()), s.Check(t.Context()), s.Close()))
			}
		}
	}
}

// TestCheckFilesOfAnother: the key and the id are looked at, and what is missing.
func TestCheckFilesOfAnother(t *testing.T) {
	dir := t.TempDir()
	check(t, newWorld(t, dir).Close())
	o := testOptions(dir)
	o.IDs = map[string][16]byte{}
	if err := CheckFiles(t.Context(), o); !errors.Is(err, ErrForeign) {
		t.Errorf("another id: %v", err)
	}
	check(t, os.Remove(filepath.Join(dir, AccountFile)))
	if err := CheckFiles(t.Context(), testOptions(dir)); !errors.Is(err, ErrMissing) {
		t.Errorf("no account: %v", err)
	}
}
