package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/kinloom/kinloom/protocol/session"
)

// fragments finds values by any part of theirs of 40 bytes or more: it keeps 8 bytes of every 32.
type fragments map[uint64]string

func (f fragments) add(what string, value []byte) {
	for at := 1; at+8 <= len(value); at += 32 {
		f[binary.LittleEndian.Uint64(value[at:])] = what
	}
}

// in gives what is found in b, with the place of its first piece.
func (f fragments) in(b []byte) map[string]int {
	found := map[string]int{}
	for at := 0; at+8 <= len(b); at++ {
		if what, ok := f[binary.LittleEndian.Uint64(b[at:])]; ok {
			if _, again := found[what]; !again {
				found[what] = at
			}
		}
	}
	return found
}

// stateWriter rewrites session rows as a busy node does, and keeps what it replaced.
type stateWriter struct {
	*world
	rand     *rand.Rand
	replaced fragments
	versions int
	seq      uint64
}

func (w *stateWriter) value(tx *Tx, key string) (sealed []byte, err error) {
	_, err = tx.one(selectSlot, func(st *sqlite3.Stmt) { sealed = slices.Clone(st.ColumnRawBlob(0)) }, key)
	return sealed, err
}

// size of a row: most are some hundred bytes, some fill pages, and all change now and then.
func (w *stateWriter) size() int {
	switch w.rand.IntN(12) {
	case 0:
		return 9000 + w.rand.IntN(12000)
	case 1, 2:
		return 1 + w.rand.IntN(6000)
	}
	return 500 + w.rand.IntN(400)
}

// step is one commit: some rows written anew, some removed, and what a message brings beside them.
func (w *stateWriter) step() {
	w.t.Helper()
	var records []session.Record
	for range 1 + w.rand.IntN(24) {
		key := fmt.Sprintf("%c/%08x/%04x", "kshtf"[w.rand.IntN(5)], w.rand.IntN(40), w.rand.IntN(3))
		if slices.ContainsFunc(records, func(r session.Record) bool { return r.Key == key }) {
			continue
		}
		r := session.Record{Key: key}
		if w.rand.IntN(7) > 0 {
			r.Value = make([]byte, w.size())
		}
		records = append(records, r)
	}
	var e Event
	if w.rand.IntN(2) == 0 {
		w.seq++
		e = w.message(0, true, w.seq, float64(w.seq), string(bodyOf(int(w.seq))))
	}
	w.write(func(tx *Tx) error {
		for _, r := range records {
			old, err := w.value(tx, r.Key)
			if err != nil {
				return err
			}
			if old != nil {
				w.replaced.add(fmt.Sprintf("%s, version %d", r.Key, w.versions), old)
				w.versions++
			}
		}
		if err := tx.PutRecords(records); err != nil {
			return err
		}
		if e.Seq == 0 {
			return nil
		}
		if _, err := tx.InsertEvent(&e); err != nil {
			return err
		}
		o := Outbox{Device: w.devices[0].Row, Event: e.Row, Conversation: e.Conversation, EventSeq: e.Seq, Queued: w.start, Session: [16]byte{1}, Seq: e.Seq, Inner: bodyOf(int(e.Seq))}
		return tx.InsertOutbox(&o)
	})
	if w.rand.IntN(9) == 0 {
		w.write(func(tx *Tx) error { return tx.Exec("DELETE FROM outbox") })
	}
}

// TestReplacedStateIsGone (A12): of a session row that was replaced or removed nothing is left once the database has
// rested: not in the log, not in a free page, not in the free space of a page, not in an overflow page.
func TestReplacedStateIsGone(t *testing.T) {
	seeds := uint64(2)
	if testing.Short() { // beside the race detector
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				w := &stateWriter{world: newWorld(t, dir), rand: rand.New(rand.NewPCG(seed, 3)), replaced: fragments{}}
				raw := func() (file, log []byte) {
					path := filepath.Join(dir, AccountFile)
					return rawFile(t, w.account, path), rawFile(t, w.account, path+"-wal")
				}
				for round := range 6 {
					for range 40 {
						w.step()
					}
					if _, log := raw(); round == 0 && len(w.replaced.in(log)) == 0 {
						t.Fatal("nothing is found in the log before it is emptied: the test proves nothing")
					}
					time.Sleep(2*restCheckpoint + time.Millisecond)
					synctest.Wait()
					file, log := raw()
					if len(log) > 0 {
						t.Errorf("round %d: %d bytes in the log of a database at rest", round, len(log))
					}
					found := w.replaced.in(file)
					t.Logf("round %d: %d versions replaced, %d found in %d bytes", round, w.versions, len(found), len(file))
					for what, at := range found {
						t.Errorf("%s is at byte %d of page %d", what, at%pageSize, 1+at/pageSize)
						break
					}
				}
				live := fragments{}
				w.read(func(tx *Tx) error {
					_, err := list(tx, "state", func(st *sqlite3.Stmt) (int, error) {
						live.add(st.ColumnText(0), st.ColumnRawBlob(1))
						return 0, nil
					}, "SELECT key, value FROM session_row JOIN session_slot USING(slot)")
					return err
				})
				file, _ := raw()
				if n := len(live.in(file)); n < 100 {
					t.Errorf("%d values that are there were found: the search is no good", n)
				}
				check(t, w.Close())
			})
		})
	}
}

// TestPadding: every value comes back from its slot, also one that ends like padding; there are few lengths of slots.
func TestPadding(t *testing.T) {
	sizes := map[int]bool{}
	for n := range 20_000 {
		value := make([]byte, n)
		for i := range min(n, 3) {
			value[n-1-i] = byte(n >> i & 1)
		}
		padded := pad(nil, value)
		sizes[len(padded)] = true
		if got, err := unpad(padded); err != nil || !bytes.Equal(got, value) {
			t.Fatalf("%d bytes come back as %d, %v", n, len(got), err)
		}
		if len(padded) > max(minSlot, (n+1)*3/2) {
			t.Fatalf("%d bytes are padded to %d", n, len(padded))
		}
	}
	if len(sizes) > 18 {
		t.Errorf("%d lengths of slots", len(sizes))
	}
	for _, broken := range [][]byte{nil, {}, make([]byte, 64), {1, 2, 0}} {
		if got, err := unpad(broken); !errors.Is(err, ErrDamaged) {
			t.Errorf("%x gives %x, %v", broken, got, err)
		}
	}
}
