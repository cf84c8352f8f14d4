package store

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/ncruces/go-sqlite3"
)

// world is a store with an owner, two contacts with a device each, and a pair
// conversation with each of them.
type world struct {
	*Store
	t       testing.TB
	self    Contact
	persons [2]Contact
	devices [2]Device
	pairs   [2]Conversation
	notes   Conversation
	start   time.Time
}

// testOptions are those of a store in dir; empty is in memory.
func testOptions(dir string) Options {
	return Options{
		Dir: dir,
		Key: func(file string) [32]byte { return sha256.Sum256([]byte("key of " + file)) },
		IDs: map[string][16]byte{AccountFile: {1}, IndexFile: {2}, NetFile: {3}},
	}
}

func newWorld(t testing.TB, dir string) *world {
	t.Helper()
	s, err := Open(t.Context(), testOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{Store: s, t: t, start: time.UnixMilli(1_790_000_000_000).UTC()}
	w.write(func(tx *Tx) error {
		w.self = Contact{Person: identity.NewRootKey([32]byte{9}).Person(), Name: "Me", State: Self, Trust: Verified}
		if err := tx.PutContact(&w.self); err != nil {
			return err
		}
		w.notes = Conversation{ID: event.SelfID(w.self.Person), Kind: event.Self, Person: w.self.Person}
		if err := tx.PutConversation(&w.notes); err != nil {
			return err
		}
		for i := range w.persons {
			w.persons[i] = Contact{Person: identity.NewRootKey([32]byte{byte(i + 1)}).Person(), Name: fmt.Sprint("Person ", i), State: Accepted}
			if err := tx.PutContact(&w.persons[i]); err != nil {
				return err
			}
			w.devices[i] = Device{ID: identity.DeviceID{byte(i + 1)}, Person: w.persons[i].Person, Record: []byte{1}}
			if err := tx.PutDevice(&w.devices[i]); err != nil {
				return err
			}
			w.pairs[i] = Conversation{ID: event.PairID(w.self.Person, w.persons[i].Person), Kind: event.Pair, Person: w.persons[i].Person}
			if err := tx.PutConversation(&w.pairs[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return w
}

func (w *world) write(f func(*Tx) error) {
	w.t.Helper()
	if err := w.Write(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) read(f func(*Tx) error) {
	w.t.Helper()
	if err := w.Read(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

// message makes an event of a text; at counts seconds from the world's start.
// Pair 0 or 1; device 0 is this one, else the pair's.
func (w *world) message(pair int, own bool, seq uint64, at float64, text string) Event {
	w.t.Helper()
	body, err := event.Text{Text: text}.Append()
	if err != nil {
		w.t.Fatal(err)
	}
	when := w.start.Add(time.Duration(at * float64(time.Second)))
	ev := event.Event{Seq: seq, Clock: event.Clock(when.UnixMilli())<<16 | event.Clock(seq&0xffff), Type: event.Message, Body: body}
	raw, err := ev.Append()
	if err != nil {
		w.t.Fatal(err)
	}
	e := Event{
		Conversation: w.pairs[pair].Row, Seq: seq, Raw: raw, Type: ev.Type, Clock: ev.Clock, At: when, Own: own, Route: 1, Protection: 1,
	}
	if own {
		e.Targets = 1
	} else {
		e.Device = w.devices[pair].Row
	}
	e.ID = sha256.Sum256(binary.BigEndian.AppendUint64(append([]byte(text), byte(pair), byte(e.Device)), seq))
	return e
}

func (w *world) insert(events ...*Event) {
	w.t.Helper()
	w.write(func(tx *Tx) error {
		for _, e := range events {
			if stored, err := tx.InsertEvent(e); err != nil || !stored {
				return fmt.Errorf("insert seq %d: stored %v, %w", e.Seq, stored, err)
			}
		}
		return nil
	})
}

func TestShownEvent(t *testing.T) {
	if want := fmt.Sprintf("flags & %d = 0", 0xc0|flagDeleted); shownEvent != want {
		t.Errorf("shownEvent is %q, want %q", shownEvent, want)
	}
	if want := fmt.Sprint(int64(1<<eventBits - 1)); eventMask != want {
		t.Errorf("eventMask is %s, want %s", eventMask, want)
	}
}

func TestEventComesBackAsItWas(t *testing.T) {
	w := newWorld(t, t.TempDir())
	plain := w.message(0, false, 1, 0, "hello")
	full := w.message(0, true, 7, 1, "all of it")
	full.Targets, full.Failed, full.Late, full.Route, full.Protection = MaxTargets, "no device left", true, 15, 7
	wrong := w.message(1, false, 3, 1e6, "from a day ahead")
	wrong.At, wrong.ClockWrong = w.start, true
	control := w.message(0, false, 2, 2, "x")
	control.Type = event.Profile
	for _, e := range []*Event{&plain, &full, &wrong, &control} {
		w.insert(e)
		if e.Row == 0 || uint64(e.Row) != e.Changed {
			t.Errorf("row %d, changed %d after the insert", e.Row, e.Changed)
		}
		w.read(func(tx *Tx) error {
			for _, f := range []func() (Event, error){
				func() (Event, error) { return tx.EventByRow(e.Row) },
				func() (Event, error) { return tx.EventByKey(e.Conversation, e.Device, e.Seq) },
			} {
				got, err := f()
				if err != nil {
					return err
				}
				if diff := cmp.Diff(*e, got); diff != "" {
					t.Errorf("stored and read differ (-want +got):\n%s", diff)
				}
			}
			return nil
		})
	}
	if got := wrong.Clock.Time(); !got.Equal(w.start) {
		t.Errorf("a wrong clock puts the event at %v, want when it came, %v", got, w.start)
	}
	w.read(func(tx *Tx) error {
		_, err := tx.EventByRow(1 << 40)
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("an absent row gives %v, want ErrNotFound", err)
		}
		queued, err := tx.Queued()
		if queued != 0 {
			t.Errorf("%d queued, want none", queued)
		}
		return err
	})
}

func TestEventIsStoredOnce(t *testing.T) {
	w := newWorld(t, "")
	e := w.message(0, false, 1, 0, "once")
	w.insert(&e)
	again, other := w.message(0, false, 1, 0, "once"), w.message(0, false, 1, 5, "another under the same number")
	for _, again := range []Event{again, other} {
		w.write(func(tx *Tx) error {
			stored, err := tx.InsertEvent(&again)
			if stored || again.Row != 0 {
				t.Errorf("stored again as row %d", again.Row)
			}
			return err
		})
	}
	w.read(func(tx *Tx) error {
		got, err := tx.EventByKey(e.Conversation, e.Device, 1)
		if got.ID != e.ID {
			t.Error("the first one was replaced")
		}
		return err
	})
}

func TestEventOutsideItsLimitsIsRefused(t *testing.T) {
	w := newWorld(t, "")
	for name, spoil := range map[string]func(*Event){
		"no type":    func(e *Event) { e.Type = 0 },
		"ephemeral":  func(e *Event) { e.Type = event.Typing },
		"route":      func(e *Event) { e.Route = 16 },
		"protection": func(e *Event) { e.Protection = 8 },
		"targets":    func(e *Event) { e.Targets = MaxTargets + 1 },
	} {
		e := w.message(0, false, 1, 0, name)
		spoil(&e)
		err := w.Write(t.Context(), func(tx *Tx) error { _, err := tx.InsertEvent(&e); return err })
		if err == nil {
			t.Errorf("%s: stored", name)
		}
	}
}

// The fixed part of a row stands beside 1,000,000 messages.
func TestEventRowIsSmall(t *testing.T) {
	w := newWorld(t, t.TempDir())
	const n = 8000
	events := make([]*Event, n)
	raw := 0
	for i := range events {
		e := w.message(0, i%2 == 0, uint64(i/2+40_001), float64(i), "words enough")
		e.At = e.At.Add(37 * time.Millisecond)
		raw += len(e.Raw)
		events[i] = &e
	}
	w.insert(events...)
	// The same rows in a table of their own, so that no index is counted.
	var before, after int
	w.write(func(tx *Tx) error {
		pages := func(n *int) error {
			_, err := tx.one("PRAGMA page_count", func(st *sqlite3.Stmt) { *n = st.ColumnInt(0) })
			return err
		}
		for _, f := range []func() error{
			func() error { return pages(&before) },
			func() error {
				return tx.Exec("CREATE TABLE twin(row INTEGER PRIMARY KEY, a, b, c, d, e, f, g, h, raw)")
			},
			func() error { return tx.Exec("INSERT INTO twin SELECT * FROM event") },
			func() error { return pages(&after) },
		} {
			if err := f(); err != nil {
				return err
			}
		}
		return nil
	})
	fixed := float64((after-before)*pageSize-raw) / n
	t.Logf("an event row takes %.1f B beside its bytes, page overhead included", fixed)
	if fixed > 68 {
		t.Errorf("an event row takes %.1f B beside its bytes, want at most 68", fixed)
	}
}

func TestLatestGapsAndHighSeq(t *testing.T) {
	w := newWorld(t, "")
	for i, seq := range []uint64{1, 2, 3, 5, 6, 9, 12} {
		e := w.message(0, false, seq, float64(i), "gap")
		w.insert(&e)
	}
	own := w.message(0, true, 1, 0, "own")
	w.insert(&own)
	w.read(func(tx *Tx) error {
		latest, err := tx.Latest(w.pairs[0].Row, math.MaxInt64)
		if err != nil {
			return err
		}
		if len(latest) != 2 || latest[0].Seq != 1 || latest[1].Seq != 12 {
			t.Errorf("latest are %+v, want seq 1 of this device and 12 of the other", latest)
		}
		upto, runs, err := tx.HighSeq(w.pairs[0].Row, w.devices[0].Row, 10)
		if err != nil {
			return err
		}
		if diff := cmp.Diff([][2]uint64{{5, 6}, {9, 9}, {12, 12}}, runs); upto != 3 || diff != "" {
			t.Errorf("upto %d, want 3; runs differ:\n%s", upto, diff)
		}
		if _, runs, err = tx.HighSeq(w.pairs[0].Row, w.devices[0].Row, 2); err != nil || len(runs) != 2 {
			t.Errorf("with a limit of 2: %v, %v", runs, err)
		}
		for _, c := range []struct{ seq, want uint64 }{{12, 9}, {1, 0}, {6, 5}} {
			before, err := tx.Before(w.pairs[0].Row, w.devices[0].Row, c.seq)
			if err != nil || before != c.want {
				t.Errorf("before %d comes %d, want %d (%v)", c.seq, before, c.want, err)
			}
		}
		return nil
	})
}
