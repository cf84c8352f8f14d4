package store

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"github.com/kinloom/kinloom/protocol/session"
)

var update = flag.Bool("update", false, "write testdata/schema-N.db of the newest schema anew")

// Fixtures are databases as released versions wrote them: account.db and
// index.db of a small home, under the throw-away keys of testOptions. That of
// the newest schema is made by
//
//	go test -run TestFixture -update ./node/store
//
// until it is released, and never again afterwards.
func fixture(schema int, file string) string {
	return filepath.Join("testdata", fmt.Sprintf("schema-%d.%s", schema, map[string]string{AccountFile: "db", IndexFile: "index.db"}[file]))
}

// fixtureRecords are session rows, sealed in the file.
var fixtureRecords = []session.Record{{Key: "a", Value: []byte("session one")}, {Key: "b", Value: []byte("session two")}}

const fixtureMessages = 40

func fixtureText(i int) string {
	if i == 17 {
		return "one single hippopotamus"
	}
	return fmt.Sprintf("message %d of the fixture, hello Zürich", i)
}

func TestFixture(t *testing.T) {
	if *update {
		makeFixture(t)
	}
	for schema := 1; schema <= len(migrations); schema++ {
		t.Run(fmt.Sprint("schema ", schema), func(t *testing.T) {
			dir := t.TempDir()
			for _, file := range []string{AccountFile, IndexFile} {
				b, err := os.ReadFile(fixture(schema, file))
				check(t, err)
				check(t, os.WriteFile(filepath.Join(dir, file), b, 0o600))
			}
			s, err := Open(t.Context(), testOptions(dir))
			check(t, err)
			defer s.Close()
			check(t, s.Check(t.Context()))
			hits, err := s.Search(t.Context(), Query{Text: "hippopotamus"})
			if check(t, err); len(hits) != 1 {
				t.Errorf("%d hits for a word that stands once", len(hits))
			}
			check(t, s.Read(t.Context(), func(tx *Tx) error {
				records, err := tx.Records()
				slices.SortFunc(records, func(a, b session.Record) int { return strings.Compare(a.Key, b.Key) })
				if fmt.Sprint(records) != fmt.Sprint(fixtureRecords) {
					t.Errorf("session rows %s, want %s", records, fixtureRecords)
				}
				messages := 0
				_, cerr := tx.one("SELECT count(*) FROM event WHERE "+shownEvent, func(st *sqlite3.Stmt) { messages = st.ColumnInt(0) })
				if messages != fixtureMessages {
					t.Errorf("%d messages, want %d", messages, fixtureMessages)
				}
				if err != nil {
					return err
				}
				return cerr
			}))
			// It is a home like any other from here on.
			check(t, s.Write(t.Context(), func(tx *Tx) error { return tx.PutSetting("since", []byte("fixture"), true) }))
		})
	}
}

func makeFixture(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, dir)
	for i := range fixtureMessages {
		e := w.message(i%2, i%4 < 2, uint64(i/2+1), float64(i), fixtureText(i))
		w.insert(&e)
	}
	w.write(func(tx *Tx) error { return tx.PutRecords(fixtureRecords) })
	w.drain()
	check(t, w.Close())
	for _, file := range []string{AccountFile, IndexFile} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		check(t, err)
		check(t, os.MkdirAll("testdata", 0o755))
		check(t, os.WriteFile(fixture(len(migrations), file), b, 0o644))
	}
}

// TestChangedGap: after a crash numbers go on above all that were given out.
func TestChangedGap(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, Options{Dir: dir})
	last := uint64(0)
	for range 3 {
		check(t, s.Write(t.Context(), func(tx *Tx) error { last = tx.NextChanged(); return nil }))
	}
	// A refused transaction uses none up.
	_ = s.Write(t.Context(), func(tx *Tx) error { tx.NextChanged(); return os.ErrInvalid })
	check(t, s.Write(t.Context(), func(tx *Tx) error {
		if n := tx.NextChanged(); n != last+1 {
			t.Errorf("%d after %d", n, last)
		} else {
			last = n
		}
		return nil
	}))
	crashed := t.TempDir()
	copyHome(t, dir, crashed)
	s = openTest(t, Options{Dir: crashed})
	check(t, s.Write(t.Context(), func(tx *Tx) error {
		if n := tx.NextChanged(); n <= last || n > last+2*changedBlock {
			t.Errorf("%d after %d and a crash", n, last)
		}
		return nil
	}))
	check(t, s.Read(t.Context(), func(tx *Tx) error {
		_, err := tx.one("SELECT changed FROM meta", func(st *sqlite3.Stmt) {
			if st.ColumnInt64(0) < int64(last) {
				t.Errorf("reserved up to %d, given out %d", st.ColumnInt64(0), last)
			}
		})
		return err
	}))
}
