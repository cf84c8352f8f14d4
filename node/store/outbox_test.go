package store

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kinloom/kinloom/protocol/event"
)

func (w *world) outbox(device Row) (all []Outbox) {
	w.t.Helper()
	w.read(func(tx *Tx) (err error) { all, err = tx.Outboxes(device, 0, 1<<20); return err })
	return all
}

func TestOutbox(t *testing.T) {
	w := newWorld(t, t.TempDir())
	var events []*Event
	for i := range 3 {
		e := w.message(0, true, uint64(i+1), float64(i), "queued")
		events = append(events, &e)
	}
	w.insert(events...)
	var want [2][]Outbox
	w.write(func(tx *Tx) error {
		for i, e := range events {
			for d := range w.devices {
				o := Outbox{Device: w.devices[d].Row, Event: e.Row, Conversation: e.Conversation, EventSeq: e.Seq, Queued: w.start}
				if i != 1 {
					o.Session, o.Seq, o.Inner = [16]byte{byte(i)}, uint64(i+10), []byte{1, byte(i)}
				}
				if err := tx.InsertOutbox(&o); err != nil {
					return err
				}
				want[d] = append(want[d], o)
			}
		}
		control := w.message(0, true, 4, 3, "a name, not a message")
		control.Type = event.Profile
		if _, err := tx.InsertEvent(&control); err != nil {
			return err
		}
		o := Outbox{Device: w.devices[0].Row, Event: control.Row, Conversation: control.Conversation, EventSeq: control.Seq, Queued: w.start}
		if err := tx.InsertOutbox(&o); err != nil {
			return err
		}
		want[0] = append(want[0], o)
		typing := Outbox{Device: w.devices[0].Row, Conversation: w.pairs[0].Row, Seq: 13, Inner: []byte("typing"), Queued: w.start}
		if err := tx.InsertOutbox(&typing); err != nil {
			return err
		}
		want[0] = append(want[0], typing)
		return nil
	})
	for d := range w.devices {
		if diff := cmp.Diff(want[d], w.outbox(w.devices[d].Row)); diff != "" {
			t.Errorf("device %d (-want +got):\n%s", d, diff)
		}
	}
	w.read(func(tx *Tx) error {
		page, err := tx.Outboxes(w.devices[0].Row, want[0][0].Row, 2)
		if diff := cmp.Diff(want[0][1:3], page); diff != "" {
			t.Errorf("second page (-want +got):\n%s", diff)
		}
		if err != nil {
			return err
		}
		devices, err := tx.OutboxDevices()
		if diff := cmp.Diff([]Row{w.devices[0].Row, w.devices[1].Row}, devices); diff != "" {
			t.Error(diff)
		}
		if err != nil {
			return err
		}
		pending, err := tx.PendingOf(events[2].Row)
		if diff := cmp.Diff([]Outbox{want[0][2], want[1][2]}, pending); diff != "" {
			t.Errorf("pending (-want +got):\n%s", diff)
		}
		queued, cerr := tx.Queued()
		if queued != 3 {
			t.Errorf("%d queued, want 3", queued)
		}
		return errors.Join(err, cerr)
	})
	unsealed := func(want bool) {
		t.Helper()
		w.read(func(tx *Tx) error {
			got, err := tx.OutboxUnsealed(w.devices[1].Row)
			if got != want {
				t.Errorf("something waits to be sealed: %v, want %v", got, want)
			}
			return err
		})
	}
	unsealed(true)
	w.write(func(tx *Tx) error { return tx.SealOutbox(want[1][1].Row, [16]byte{6}, 78, []byte("sealed, too")) })
	unsealed(false) // though something does for another device
	w.write(func(tx *Tx) error { return tx.UnsealOutbox(w.devices[1].Row, [16]byte{6}) })
	w.write(func(tx *Tx) error { return tx.SealOutbox(want[0][1].Row, [16]byte{5}, 77, []byte("sealed")) })
	unsealed(true)
	want[0][1].Session, want[0][1].Seq, want[0][1].Inner = [16]byte{5}, 77, []byte("sealed")
	if diff := cmp.Diff(want[0], w.outbox(w.devices[0].Row)); diff != "" {
		t.Errorf("sealed (-want +got):\n%s", diff)
	}
	w.write(func(tx *Tx) error { return tx.UnsealOutbox(w.devices[0].Row, [16]byte{5}) })
	if got := w.outbox(w.devices[0].Row)[1]; got.Seq != 0 || got.Inner != nil || got.Session != [16]byte{} {
		t.Errorf("unsealed: %+v", got)
	}
	if err := w.Write(t.Context(), func(tx *Tx) error { return tx.SealOutbox(9<<eventBits, [16]byte{}, 1, nil) }); !errors.Is(err, ErrNotFound) {
		t.Errorf("an absent item gives %v", err)
	}
	for _, o := range []Outbox{{}, {Device: 1 << 19, Event: 1}, {Device: 1, Event: 1 << eventBits}} {
		if err := w.Write(t.Context(), func(tx *Tx) error { return tx.InsertOutbox(&o) }); err == nil {
			t.Errorf("device %d, event %d was queued", o.Device, o.Event)
		}
	}
}

// Deleting takes exactly what it was given, in whatever order, also where it was
// given what is not there.
func TestDeleteOutboxTakesNothingElse(t *testing.T) {
	for seed := range uint64(8) {
		w := newWorld(t, "")
		r := rand.New(rand.NewPCG(seed, 2))
		held := map[Row]bool{}
		w.write(func(tx *Tx) error {
			for n := range Row(60) {
				o := Outbox{Device: w.devices[r.IntN(2)].Row, Event: n + 1, EventSeq: 1, Seq: 1, Inner: []byte{1}}
				if err := tx.InsertOutbox(&o); err != nil {
					return err
				}
				held[o.Row] = true
			}
			return nil
		})
		for range 12 {
			var rows []Row
			from, to := r.IntN(60), r.IntN(60)
			for n := min(from, to); n <= max(from, to); n++ {
				if r.IntN(5) > 0 {
					rows = append(rows, w.devices[r.IntN(2)].Row<<eventBits|Row(n+1))
				}
			}
			if r.IntN(3) > 0 {
				slices.Sort(rows)
			}
			w.write(func(tx *Tx) error { return tx.DeleteOutbox(rows) })
			for _, row := range rows {
				delete(held, row)
			}
			left := append(w.outbox(w.devices[0].Row), w.outbox(w.devices[1].Row)...)
			if len(left) != len(held) {
				t.Fatalf("seed %d: %d rows are left, want %d", seed, len(left), len(held))
			}
			for _, o := range left {
				if !held[o.Row] {
					t.Fatalf("seed %d: row %d is still there", seed, o.Row)
				}
			}
		}
	}
}

func TestDropOutbox(t *testing.T) {
	w := newWorld(t, "")
	// 1 is queued for this device alone, 2 for another too, 3 was delivered.
	var events []*Event
	for i := range 3 {
		e := w.message(0, true, uint64(i+1), float64(i), "dropped")
		events = append(events, &e)
	}
	w.insert(events...)
	w.write(func(tx *Tx) error {
		for i, e := range events {
			o := Outbox{Device: w.devices[0].Row, Event: e.Row, Conversation: e.Conversation, EventSeq: e.Seq, Seq: 1, Inner: []byte{1}}
			if err := tx.InsertOutbox(&o); err != nil {
				return err
			}
			if o.Device = w.devices[1].Row; i == 1 {
				if err := tx.InsertOutbox(&o); err != nil {
					return err
				}
			}
		}
		if err := tx.AddDelivery(Delivery{Conversation: w.pairs[0].Row, Device: w.devices[0].Row, From: 3, To: 3, At: w.start}); err != nil {
			return err
		}
		return tx.DropOutbox(w.devices[0].Row, "no longer a contact")
	})
	if left := w.outbox(w.devices[0].Row); len(left) != 0 {
		t.Errorf("%d items are left", len(left))
	}
	w.read(func(tx *Tx) error {
		for i, want := range []State{Failed, Queued, Delivered} {
			e, err := tx.EventByRow(events[i].Row)
			if err != nil {
				return err
			}
			got, err := tx.StateOf(e)
			if got != want || err != nil {
				t.Errorf("event %d is %v, %v, want %v", i+1, got, err, want)
			}
			if i == 0 && (e.Failed != "no longer a contact" || e.Changed == uint64(e.Row)) {
				t.Errorf("the failed one says %q, changed %d", e.Failed, e.Changed)
			}
		}
		return nil
	})
}
