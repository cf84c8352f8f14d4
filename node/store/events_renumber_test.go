package store

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kinloom/kinloom/protocol/event"
)

// An own event gets another number: its row, its place in the outbox and what is
// searched stay, its seal and its receipts do not; the change is told.
func TestRenumber(t *testing.T) {
	w := newWorld(t, "")
	conv, device := w.pairs[0].Row, w.devices[0].Row
	e, later := w.message(0, true, 3, 0, "three"), w.message(0, true, 4, 1, "four")
	w.insert(&e, &later)
	w.write(func(tx *Tx) error {
		return errors.Join(
			tx.InsertOutbox(&Outbox{Device: device, Event: e.Row, Conversation: conv, EventSeq: 3, Session: [16]byte{1}, Seq: 9, Inner: []byte("x"), Queued: w.start}),
			tx.InsertOutbox(&Outbox{Device: device, Event: later.Row, Conversation: conv, EventSeq: 4, Session: [16]byte{1}, Seq: 10, Inner: []byte("y"), Queued: w.start}),
			tx.AddDelivery(Delivery{Conversation: conv, Device: device, From: 1, To: 5, At: w.start}))
	})
	before := e.Changed
	e.Seq, e.ID, e.Raw, e.Clock = 1000, event.ID{9}, []byte("anew"), e.Clock+1<<32
	w.write(func(tx *Tx) error { return tx.Renumber(&e) })
	w.read(func(tx *Tx) error {
		got, err := tx.EventByKey(conv, 0, 1000)
		if diff := cmp.Diff(e, got); diff != "" || e.Changed <= before {
			t.Errorf("event, changed %d before (-want +got):\n%s", before, diff)
		}
		if _, err := tx.EventByKey(conv, 0, 3); !errors.Is(err, ErrNotFound) {
			t.Errorf("under its old number: %v", err)
		}
		out, outErr := tx.Outboxes(device, 0, 10)
		if len(out) != 2 || out[0].EventSeq != 1000 || out[0].Seq != 0 || out[0].Inner != nil || out[1].EventSeq != 4 || out[1].Seq != 10 {
			t.Errorf("outbox: %+v", out)
		}
		states, stateErr := statesOf(tx, []Event{e, later})
		if states[0] != Queued || states[1] != Delivered {
			t.Errorf("states: %v", states)
		}
		return errors.Join(err, outErr, stateErr)
	})
	theirs := w.message(0, false, 7, 0, "theirs")
	w.insert(&theirs)
	if err := w.Write(t.Context(), func(tx *Tx) error { return tx.Renumber(&theirs) }); !errors.Is(err, ErrNotFound) {
		t.Errorf("another device's event: %v, want ErrNotFound", err)
	}
}

func TestDelivered(t *testing.T) {
	w := newWorld(t, "")
	conv, device := w.pairs[0].Row, w.devices[0].Row
	at := w.start
	for _, run := range [][2]uint64{{1, 4}, {8, 9}, {20, 30}} {
		at = at.Add(time.Minute)
		w.write(func(tx *Tx) error {
			return tx.AddDelivery(Delivery{Conversation: conv, Device: device, From: run[0], To: run[1], At: at})
		})
	}
	w.read(func(tx *Tx) error {
		for _, c := range []struct {
			from, to uint64
			want     int
		}{{1, 100, 3}, {5, 7, 0}, {4, 8, 2}, {25, 25, 1}, {31, 99, 0}} {
			got, err := tx.Delivered(conv, device, c.from, c.to)
			if err != nil || len(got) != c.want {
				t.Errorf("from %d to %d: %d runs, %v; want %d", c.from, c.to, len(got), err, c.want)
			}
		}
		for upto, want := range map[uint64]uint64{3: 3, 6: 4, 8: 8, 15: 9, 22: 22, 99: 30} {
			if got, err := tx.DeliveredUpto(conv, upto); err != nil || got != want {
				t.Errorf("up to %d: %d, %v; want %d", upto, got, err, want)
			}
		}
		other, err := tx.DeliveredUpto(w.pairs[1].Row, 99)
		if other != 0 {
			t.Errorf("in another conversation: %d", other)
		}
		return err
	})
}

// A read mark names a number; what nobody has confirmed was not read.
func TestReadNeedsDelivery(t *testing.T) {
	w := newWorld(t, "")
	e := w.message(0, true, 5, 0, "queued")
	w.insert(&e)
	w.write(func(tx *Tx) error {
		return tx.PutReadMark(ReadMark{Conversation: e.Conversation, Person: w.persons[0].Person, Upto: 9, At: w.start})
	})
	state := func(want State) {
		t.Helper()
		w.read(func(tx *Tx) error {
			got, err := tx.StateOf(e)
			if got != want {
				t.Errorf("state %s, want %s", got, want)
			}
			return err
		})
	}
	state(Queued)
	w.write(func(tx *Tx) error {
		return tx.AddDelivery(Delivery{Conversation: e.Conversation, Device: w.devices[0].Row, From: 5, To: 5, At: w.start})
	})
	state(Read)
}

func TestSettingsUnder(t *testing.T) {
	w := newWorld(t, "")
	w.write(func(tx *Tx) error {
		return errors.Join(tx.PutSetting("a b", []byte{1}, false), tx.PutSetting("a c", []byte{2}, false), tx.PutSetting("a d", []byte{3}, true),
			tx.PutSetting("a", []byte{4}, false), tx.PutSetting("ab", []byte{5}, false))
	})
	w.read(func(tx *Tx) error {
		got, err := tx.SettingsUnder("a ")
		if diff := cmp.Diff(map[string][]byte{"b": {1}, "c": {2}}, got); diff != "" {
			t.Errorf("settings (-want +got):\n%s", diff)
		}
		return err
	})
}
