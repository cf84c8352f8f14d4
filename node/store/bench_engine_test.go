package store

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3/vfs"
)

// benchSchema is an event row with its key and its time index, as the product
// stores a text of 1 KiB.
var benchSchema = []func(*Tx) error{func(tx *Tx) error {
	for _, sql := range []string{
		"CREATE TABLE event(row INTEGER PRIMARY KEY, conversation INTEGER NOT NULL, device INTEGER NOT NULL, seq INTEGER NOT NULL, id BLOB NOT NULL, clock INTEGER NOT NULL, raw BLOB NOT NULL) STRICT",
		"CREATE UNIQUE INDEX event_key ON event(conversation, device, seq)",
		"CREATE INDEX event_time ON event(conversation, clock)",
	} {
		if err := tx.Exec(sql); err != nil {
			return err
		}
	}
	return nil
}}

// benchWriter stores events of 1,100 B in groups.
type benchWriter struct {
	s   *Store
	seq int
	raw []byte
}

func (w *benchWriter) group(b testing.TB, rows int) {
	err := w.s.Write(b.Context(), func(tx *Tx) error {
		for range rows {
			w.seq++
			binary.LittleEndian.PutUint64(w.raw, uint64(w.seq))
			if err := tx.Exec("INSERT INTO event(row, conversation, device, seq, id, clock, raw) VALUES(?, ?, 1, ?, ?, ?, ?)",
				tx.NextChanged(), w.seq%8, w.seq, w.raw[:32], w.seq<<16, w.raw); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

func newBenchWriter(b testing.TB, dir string, block bool) *benchWriter {
	name := fmt.Sprintf("bench-%x", rand.Uint64())
	registerTest(b, name, vfs.Find(""), syncDir, block)
	s, err := openAccount(b, Options{Dir: dir, vfs: name, migrations: benchSchema})
	if err != nil {
		b.Fatal(err)
	}
	raw := make([]byte, 1100)
	for i := range raw {
		raw[i] = byte(rand.Uint32())
	}
	return &benchWriter{s: s, raw: raw}
}

// BenchmarkCommit measures commits of 1, 64 and 256 rows over both layers:
//
//	go test -run '^$' -bench Commit -benchtime 3s ./node/store
func BenchmarkCommit(b *testing.B) {
	for _, rows := range []int{1, 64, 256} {
		for layer, block := range layers {
			b.Run(fmt.Sprintf("%s/%d", layer, rows), func(b *testing.B) {
				w := newBenchWriter(b, b.TempDir(), block)
				w.group(b, 1000)
				var took []time.Duration
				for b.Loop() {
					begin := time.Now()
					w.group(b, rows)
					took = append(took, time.Since(begin))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
				b.ReportMetric(float64(rows*b.N)/b.Elapsed().Seconds(), "rows/s")
				if err := w.s.account.close(); err != nil {
					b.Fatal(err)
				}
				n, err := fileSize(filepath.Join(w.s.opts.Dir, AccountFile))
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(n)/float64(w.seq), "B/row")
			})
		}
	}
}

// BenchmarkReopen opens a home of 1,000,000 rows.
func BenchmarkReopen(b *testing.B) {
	dir := b.TempDir()
	w := newBenchWriter(b, dir, true)
	for w.seq < 1_000_000 {
		w.group(b, 1000)
	}
	if err := w.s.account.close(); err != nil {
		b.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(dir, AccountFile))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(fi.Size())/1e6, "MB")
	for b.Loop() {
		s, err := openAccount(b, Options{Dir: dir, migrations: benchSchema})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.account.close(); err != nil {
			b.Fatal(err)
		}
	}
}
