package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

func TestDeleteEvent(t *testing.T) {
	w := newWorld(t, t.TempDir())
	for _, indexed := range []bool{true, false} {
		e := w.message(0, false, map[bool]uint64{true: 1, false: 2}[indexed], 1, "unforgettable")
		e.ID[0] = byte(e.Seq)
		w.insert(&e)
		if indexed {
			w.drain()
		}
		if got := w.found(Query{Text: "unforgettable"}); len(got) != 1 {
			t.Fatalf("indexed %v: found %v before", indexed, got)
		}
		w.write(func(tx *Tx) error { return tx.DeleteEvent(e.Row) })
		for range 2 {
			if got := w.found(Query{Text: "unforgettable"}); len(got) != 0 {
				t.Errorf("indexed %v: found %v", indexed, got)
			}
			got, err := w.FindEvent(t.Context(), e.ID.String()[:16])
			if err != nil || !got.Deleted || got.Raw != nil || got.Changed <= e.Changed || got.ID != e.ID || got.At != e.At {
				t.Errorf("indexed %v: the tombstone is %+v, %v", indexed, got, err)
			}
			w.drain()
		}
		if got := w.timeline(TimelineQuery{Conversations: []Row{w.pairs[0].Row}}); len(got) != 0 {
			t.Errorf("the timeline has %v", texts(got))
		}
		again := w.message(0, false, e.Seq, 1, "unforgettable")
		w.write(func(tx *Tx) error {
			if stored, err := tx.InsertEvent(&again); stored || err != nil {
				t.Errorf("came back: %v, %v", stored, err)
			}
			return tx.DeleteEvent(e.Row) // twice is once
		})
	}
	if err := w.Write(t.Context(), func(tx *Tx) error { return tx.DeleteEvent(1 << 40) }); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleting nothing gives %v", err)
	}
	if err := w.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// In whatever order messages are deleted, the index must not be written anew for each
// of them.
func TestDeletionsInOneGo(t *testing.T) {
	var cost [2]int64
	for i := range cost {
		w := newWorld(t, t.TempDir())
		var all []*Event
		for n := range 4 * deleteStep {
			e := w.message(0, false, uint64(n+1), float64(n), fmt.Sprint("one of many, the ", n))
			all = append(all, &e)
		}
		w.insert(all...)
		w.drain()
		changes := func() (n int64) {
			check(t, w.index.d.write(t.Context(), func(tx *Tx) error { n = tx.c.TotalChanges(); return nil }))
			return n
		}
		before := changes()
		w.write(func(tx *Tx) error {
			var events []Event
			for _, e := range all[:deleteStep] {
				events = append(events, *e)
			}
			if i == 1 {
				slices.Reverse(events)
			}
			return tx.empty(events, false)
		})
		cost[i] = changes() - before
	}
	if cost[0] != cost[1] {
		t.Errorf("%d changes of the index oldest first, %d newest first; want the same", cost[0], cost[1])
	}
}

// A deletion whose transaction fails leaves a message that is found again, at the
// latest after the next start.
func TestDeletionThatIsNotCommitted(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, dir)
	var events []*Event
	for i := range 4 {
		e := w.message(0, false, uint64(i+1), float64(i), fmt.Sprint("survivor ", i))
		events = append(events, &e)
	}
	w.insert(events[:2]...)
	w.drain()
	w.insert(events[2:]...)
	stop := errors.New("stop")
	for _, e := range []*Event{events[0], events[3]} {
		err := w.Write(t.Context(), func(tx *Tx) error {
			if err := tx.DeleteEvent(e.Row); err != nil {
				return err
			}
			return stop
		})
		if !errors.Is(err, stop) {
			t.Fatal(err)
		}
	}
	w.drain()
	w.write(func(tx *Tx) error { return tx.DeleteEvent(events[1].Row) })
	w = w.reopen(dir)
	w.drain()
	if diff := cmp.Diff([]string{"survivor 3", "survivor 2", "survivor 0"}, w.found(Query{Text: "survivor"})); diff != "" {
		t.Errorf("after the next start (-want +got):\n%s", diff)
	}
	// And they can be deleted for good.
	w.write(func(tx *Tx) error { return errors.Join(tx.DeleteEvent(events[0].Row), tx.DeleteEvent(events[3].Row)) })
	if diff := cmp.Diff([]string{"survivor 2"}, w.found(Query{Text: "survivor"})); diff != "" {
		t.Errorf("after the deletion (-want +got):\n%s", diff)
	}
}

// reopen closes the store and opens it again.
func (w *world) reopen(dir string) *world {
	w.t.Helper()
	if err := w.Close(); err != nil {
		w.t.Fatal(err)
	}
	s, err := Open(w.t.Context(), testOptions(dir))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			w.t.Error(err)
		}
	})
	next := *w
	next.Store = s
	return &next
}

func TestClearConversation(t *testing.T) {
	w := newWorld(t, t.TempDir())
	const n = 2*deleteStep + 10
	var events []*Event
	for i := range n {
		e := w.message(0, i%2 == 0, uint64(i+1), float64(i), "cleared")
		events = append(events, &e)
	}
	other := w.message(1, false, 1, 5, "cleared, not this one")
	w.insert(append(events, &other)...)
	w.drain()
	w.write(func(tx *Tx) error {
		hidden, err := tx.ClearConversation(w.pairs[0].Row)
		if hidden != n {
			t.Errorf("hid %d, want %d", hidden, n)
		}
		return err
	})
	after := w.message(0, false, n+1, n, "cleared before this one")
	w.insert(&after)
	pair := []Row{w.pairs[0].Row}
	for round := range 3 {
		if diff := cmp.Diff([]string{"cleared before this one"}, texts(w.timeline(TimelineQuery{Conversations: pair}))); diff != "" {
			t.Errorf("round %d: timeline (-want +got):\n%s", round, diff)
		}
		if diff := cmp.Diff([]string{"cleared before this one", "cleared, not this one"}, w.found(Query{Text: "cleared"})); diff != "" {
			t.Errorf("round %d: search (-want +got):\n%s", round, diff)
		}
		emptied := 0
		w.write(func(tx *Tx) (err error) { emptied, err = tx.Expire(w.start); return err })
		if want := []int{deleteStep, 10, 0}[round]; emptied != want {
			t.Errorf("round %d emptied %d, want %d", round, emptied, want)
		}
	}
	w.read(func(tx *Tx) error {
		c, err := tx.ConversationByRow(w.pairs[0].Row)
		if err != nil {
			return err
		}
		if c.ClearedTo < events[n-1].Row || c.ClearedTo >= after.Row || c.Changed <= w.pairs[0].Changed {
			t.Errorf("the conversation is %+v", c)
		}
		for _, e := range events {
			if got, err := tx.EventByRow(e.Row); err != nil || !got.Deleted {
				t.Fatalf("row %d is %+v, %v", e.Row, got, err)
			}
		}
		return nil
	})
	// A stale copy of the conversation does not bring anything back.
	w.write(func(tx *Tx) error { return tx.PutConversation(&w.pairs[0]) })
	w.read(func(tx *Tx) error {
		c, err := tx.ConversationByRow(w.pairs[0].Row)
		if c.ClearedTo == 0 {
			t.Error("ClearedTo was lost")
		}
		return err
	})
	if err := w.Write(t.Context(), func(tx *Tx) error { _, err := tx.ClearConversation(99); return err }); !errors.Is(err, ErrNotFound) {
		t.Errorf("clearing nothing gives %v", err)
	}
}

func TestExpireByRetention(t *testing.T) {
	w := newWorld(t, "")
	for i := range 10 {
		for pair := range 2 {
			e := w.message(pair, false, uint64(i+1), float64(i*3600), fmt.Sprint("hour ", i))
			w.insert(&e)
		}
	}
	w.pairs[0].Retention = 3 * time.Hour
	w.write(func(tx *Tx) error { return tx.PutConversation(&w.pairs[0]) })
	now := w.start.Add(9*time.Hour + time.Minute)
	w.write(func(tx *Tx) error {
		n, err := tx.Expire(now)
		if n != 7 {
			t.Errorf("%d expired, want 7", n)
		}
		again, aerr := tx.Expire(now)
		if again != 0 {
			t.Errorf("%d expired at once again", again)
		}
		return errors.Join(err, aerr)
	})
	if diff := cmp.Diff([]string{"hour 7", "hour 8", "hour 9"}, texts(w.timeline(TimelineQuery{Conversations: []Row{w.pairs[0].Row}}))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := w.timeline(TimelineQuery{Conversations: []Row{w.pairs[1].Row}}); len(got) != 10 {
		t.Errorf("the other conversation has %d left, want 10", len(got))
	}
	w.write(func(tx *Tx) error {
		n, err := tx.Expire(time.UnixMilli(5)) // a clock at its beginning
		if n != 0 {
			t.Errorf("%d expired before 1970", n)
		}
		return err
	})
}

// What could only be sealed from the bytes of a deleted message is given up.
func TestDeleteWhatWaitsForASession(t *testing.T) {
	w := newWorld(t, "")
	var events [2]Event
	for i := range events {
		events[i] = w.message(0, true, uint64(i+1), 1, "waits")
		w.insert(&events[i])
		o := Outbox{Device: w.devices[0].Row, Event: events[i].Row, Conversation: w.pairs[0].Row, EventSeq: uint64(i + 1)}
		if i == 1 {
			o.Seq, o.Inner = 1, []byte("sealed")
		}
		w.write(func(tx *Tx) error { return errors.Join(tx.InsertOutbox(&o), tx.DeleteEvent(events[i].Row)) })
	}
	left := w.outbox(w.devices[0].Row)
	if len(left) != 1 || left[0].Event != events[1].Row {
		t.Errorf("left in the outbox: %+v", left)
	}
	w.read(func(tx *Tx) error {
		for i, want := range []State{Failed, Queued} {
			e, err := tx.EventByRow(events[i].Row)
			if err != nil {
				return err
			}
			if got, err := tx.StateOf(e); got != want || err != nil {
				t.Errorf("event %d is %v, %v, want %v", i+1, got, err, want)
			}
		}
		return nil
	})
}

// checkpointed empties the WAL of an open database and returns all that its file
// then holds, read through its cipher. Nobody else can write meanwhile.
func checkpointed(t *testing.T, d *database) (b []byte) {
	t.Helper()
	c, err := d.take(t.Context(), d.writer)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { d.writer <- c }()
	if c, err = d.checkpointOn(c, sqlite3.CHECKPOINT_TRUNCATE); err != nil {
		t.Fatal(err)
	}
	if size, err := fileSize(d.path + "-wal"); err != nil || size != 0 {
		t.Fatalf("the WAL of %s has %d B after a checkpoint, %v", d.name, size, err)
	}
	if err := d.readRaw(d.path, func(f vfs.File) error {
		size, err := f.Size()
		if err != nil {
			return err
		}
		b = make([]byte, size)
		if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
			return err
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return b
}

// After a deletion and a checkpoint nothing in account.db, index.db or their WALs
// has the words, whatever pages they once lay in.
func TestDeletedWordsAreGone(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, dir)
	const n = 600
	word := func(i int) string { return fmt.Sprintf("zq%05dxv", i*7919%100_000) }
	var events []*Event
	for i := range n {
		e := w.message(i%2, false, uint64(i+1), float64(i), word(i)+" "+strings.Repeat("filler ", i%60)+" tail"+word(i))
		events = append(events, &e)
	}
	for i := 0; i < n; i += 50 {
		w.insert(events[i : i+50]...)
		w.drain() // many small segments, merged in part
	}
	words := func() (account, index int) {
		for i, d := range []*database{w.account, w.index.d} {
			b := checkpointed(t, d)
			for k := range n {
				// The index stores a word without the beginning that it shares with the
				// one before it: the end is what it cannot do without.
				if needle := []byte(word(k))[4:]; bytes.Contains(b, needle) {
					if i == 0 {
						account++
					} else {
						index++
					}
				}
			}
		}
		return account, index
	}
	if account, index := words(); account != n || index < n/2 {
		t.Fatalf("before the deletion %d words are in the account and %d in the index: the test looks at nothing", account, index)
	}
	w.write(func(tx *Tx) error {
		for i, e := range events {
			if i%30 == 0 {
				if err := tx.DeleteEvent(e.Row); err != nil {
					return err
				}
			}
		}
		_, err := tx.ClearConversation(w.pairs[0].Row)
		if err == nil {
			_, err = tx.ClearConversation(w.pairs[1].Row)
		}
		return err
	})
	for left := 1; left > 0; {
		w.write(func(tx *Tx) (err error) { left, err = tx.Expire(w.start); return err })
	}
	if account, index := words(); account != 0 || index != 0 {
		t.Errorf("after the deletion %d words are in the account and %d in the index", account, index)
	}
	if err := w.Check(t.Context()); err != nil {
		t.Error(err)
	}
}
