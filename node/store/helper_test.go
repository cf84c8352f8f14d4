package store

import (
	"crypto/sha256"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// testSchema stands in for the product's: a row with its hash, a hot row, a
// counter. Nothing in the engine depends on it.
var testSchema = []func(*Tx) error{func(tx *Tx) error {
	for _, sql := range []string{
		"CREATE TABLE row(n INTEGER PRIMARY KEY, body BLOB NOT NULL, hash BLOB NOT NULL, changed INTEGER NOT NULL) STRICT",
		"CREATE TABLE hot(one INTEGER PRIMARY KEY, n INTEGER NOT NULL, body BLOB NOT NULL, hash BLOB NOT NULL) STRICT",
	} {
		if err := tx.Exec(sql); err != nil {
			return err
		}
	}
	return nil
}}

// fullSchema is for stores that are opened whole: the product's tables, which
// the search index reads, and ours.
var fullSchema = slices.Concat(migrations, testSchema)

func testKey(file string) [32]byte { return sha256.Sum256([]byte("test key of " + file)) }

// openTest opens a store that the test closes at its end at the latest.
func openTest(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := tryOpen(t, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryOpen(t testing.TB, o Options) (*Store, error) {
	if o.Key == nil {
		o.Key = testKey
	}
	if o.migrations == nil {
		o.migrations = fullSchema
	}
	s, err := Open(t.Context(), o)
	if err == nil {
		t.Cleanup(func() { _ = s.Close() })
	}
	return s, err
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func textLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// copyHome copies the files of a home that may be open, the logs last: a
// database file changes in checkpoints only.
func copyHome(t testing.TB, from, to string) {
	t.Helper()
	for _, name := range []string{AccountFile, IndexFile, NetFile, AccountFile + "-wal", IndexFile + "-wal", NetFile + "-wal"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if os.IsNotExist(err) {
			continue
		}
		check(t, err)
		check(t, os.WriteFile(filepath.Join(to, name), b, 0o600))
	}
}

// flip changes one bit of a file.
func flip(t testing.TB, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	check(t, err)
	b[0] ^= 0x10
	_, err = f.WriteAt(b, at)
	check(t, err)
}
