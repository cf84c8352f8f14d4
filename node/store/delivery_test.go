package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/kinloom/kinloom/identity"
)

func (w *world) runs(conversation Row) (all []string) {
	w.t.Helper()
	w.read(func(tx *Tx) error {
		found, err := list(tx, "deliveries", scanDelivery, "SELECT "+deliveryColumns+" FROM delivery WHERE conversation = ? ORDER BY device, first", conversation)
		for _, d := range found {
			all = append(all, fmt.Sprintf("%d-%d", d.From, d.To))
		}
		return err
	})
	return all
}

func TestDeliveryRuns(t *testing.T) {
	type receipt struct {
		from, to uint64
		after    time.Duration
		route    uint8
	}
	for name, c := range map[string]struct {
		receipts []receipt
		want     []string
	}{
		"follow each other":      {[]receipt{{1, 1, 0, 1}, {2, 5, time.Second, 1}}, []string{"1-5"}},
		"too late for the run":   {[]receipt{{1, 1, 0, 1}, {2, 5, 1001 * time.Millisecond, 1}}, []string{"1-1", "2-5"}},
		"a run is short":         {[]receipt{{1, 1, 0, 1}, {2, 2, 800 * time.Millisecond, 1}, {3, 3, 800 * time.Millisecond, 1}}, []string{"1-2", "3-3"}},
		"another route":          {[]receipt{{1, 1, 0, 1}, {2, 2, 0, 2}}, []string{"1-1", "2-2"}},
		"a gap":                  {[]receipt{{1, 1, 0, 1}, {3, 3, 0, 1}}, []string{"1-1", "3-3"}},
		"repeated":               {[]receipt{{1, 4, 0, 1}, {1, 4, 0, 1}, {2, 3, time.Hour, 1}}, []string{"1-4"}},
		"overlaps the end":       {[]receipt{{1, 4, 0, 1}, {3, 6, time.Hour, 1}}, []string{"1-4", "5-6"}},
		"overlaps the beginning": {[]receipt{{5, 9, 0, 1}, {3, 6, time.Hour, 1}}, []string{"3-4", "5-9"}},
		"around others":          {[]receipt{{3, 4, 0, 1}, {7, 7, 0, 1}, {1, 10, time.Hour, 1}}, []string{"1-2", "3-4", "5-6", "7-7", "8-10"}},
	} {
		w := newWorld(t, "")
		at := w.start
		for _, r := range c.receipts {
			at = at.Add(r.after)
			w.write(func(tx *Tx) error {
				return tx.AddDelivery(Delivery{Conversation: w.pairs[0].Row, Device: w.devices[0].Row, From: r.from, To: r.to, At: at, Route: r.route})
			})
		}
		if diff := cmp.Diff(c.want, w.runs(w.pairs[0].Row)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	w := newWorld(t, "")
	for _, d := range []Delivery{{From: 0, To: 1}, {From: 2, To: 1}} {
		if err := w.Write(t.Context(), func(tx *Tx) error { return tx.AddDelivery(d) }); err == nil {
			t.Errorf("%d-%d was stored", d.From, d.To)
		}
	}
}

// Whatever receipts come, in whatever order, each event is covered by at most one
// run of a device, and by one exactly if a receipt named it.
func TestDeliveryRunsAgainstASet(t *testing.T) {
	for seed := range uint64(8) {
		w := newWorld(t, "")
		r := rand.New(rand.NewPCG(seed, 1))
		named := map[uint64]bool{}
		at := w.start
		for range 60 {
			from := r.Uint64N(60) + 1
			to := from + r.Uint64N(8)
			at = at.Add(time.Duration(r.IntN(1500)) * time.Millisecond)
			for s := from; s <= to; s++ {
				named[s] = true
			}
			w.write(func(tx *Tx) error {
				return tx.AddDelivery(Delivery{Conversation: 1, Device: w.devices[0].Row, From: from, To: to, At: at, Route: uint8(r.IntN(2))})
			})
		}
		w.read(func(tx *Tx) error {
			for s := uint64(1); s < 80; s++ {
				got, err := tx.DeliveryOf(1, s)
				if err != nil {
					return err
				}
				if (len(got) == 1) != named[s] || len(got) > 1 {
					t.Errorf("seed %d: event %d is covered by %d runs, named: %v", seed, s, len(got), named[s])
				}
			}
			return nil
		})
		last := uint64(0)
		for _, run := range w.runs(1) {
			var from, to uint64
			fmt.Sscanf(run, "%d-%d", &from, &to)
			if from <= last {
				t.Errorf("seed %d: run %s overlaps the one before", seed, run)
			}
			last = to
		}
	}
}

func TestStates(t *testing.T) {
	w := newWorld(t, "")
	conv := w.pairs[0].Row
	phone := Device{ID: identity.DeviceID{50}, Person: w.self.Person}
	second := Device{ID: identity.DeviceID{51}, Person: w.persons[0].Person}
	w.write(func(tx *Tx) error { return errors.Join(tx.PutDevice(&phone), tx.PutDevice(&second)) })
	var all []*Event
	for seq := uint64(1); seq <= 6; seq++ {
		e := w.message(0, true, seq, float64(seq), "own")
		all = append(all, &e)
	}
	theirs := w.message(0, false, 1, 0, "theirs")
	elsewhere := w.message(0, true, 1, 0, "from my phone")
	elsewhere.Device = phone.Row
	all[5].Failed = "no way"
	w.insert(append(all, &theirs, &elsewhere)...)
	deliver := func(d Row, from, to uint64) {
		w.write(func(tx *Tx) error {
			return tx.AddDelivery(Delivery{Conversation: conv, Device: d, From: from, To: to, At: w.start, Route: 1})
		})
	}
	deliver(phone.Row, 1, 6) // the own phone is no recipient
	check := func(want ...State) {
		t.Helper()
		w.read(func(tx *Tx) error {
			events := make([]Event, 0, 8)
			for _, e := range append(all, &theirs, &elsewhere) {
				events = append(events, *e)
			}
			got, err := statesOf(tx, events)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("states differ (-want +got):\n%s", diff)
			}
			return err
		})
	}
	check(Queued, Queued, Queued, Queued, Queued, Failed, Received, Queued)
	deliver(w.devices[0].Row, 1, 3)
	deliver(second.Row, 3, 4)
	check(Delivered, Delivered, Delivered, Delivered, Queued, Failed, Received, Queued)
	mark := func(p identity.PersonID, d Row, upto uint64) {
		w.write(func(tx *Tx) error {
			return tx.PutReadMark(ReadMark{Conversation: conv, Person: p, Device: d, Upto: upto, At: w.start})
		})
	}
	mark(w.self.Person, 0, 6) // that I have read it says nothing
	mark(w.persons[0].Person, 0, 2)
	mark(w.persons[0].Person, 0, 1) // comes late
	check(Read, Read, Delivered, Delivered, Queued, Failed, Received, Queued)
	mark(w.persons[0].Person, phone.Row, 1)
	check(Read, Read, Delivered, Delivered, Queued, Failed, Received, Read)
	w.read(func(tx *Tx) error {
		marks, err := tx.ReadMarks(conv)
		if err != nil || len(marks) != 3 || marks[1].Upto != 2 {
			t.Errorf("marks are %+v, %v", marks, err)
		}
		one, err := tx.ReadMarkByRow(marks[1].Row)
		if diff := cmp.Diff(marks[1], one); diff != "" {
			t.Error(diff)
		}
		if err != nil {
			return err
		}
		both, err := tx.DeliveryOf(conv, 3)
		if len(both) != 3 {
			t.Errorf("event 3 reached %d devices, want 3", len(both))
		}
		byRow, berr := tx.DeliveryByRow(both[0].Row)
		if diff := cmp.Diff(both[0], byRow); diff != "" {
			t.Error(diff)
		}
		return errors.Join(err, berr)
	})
	for s, want := range map[State]string{Received: "received", Queued: "queued", Delivered: "delivered", Read: "read", Failed: "failed"} {
		if s.String() != want {
			t.Errorf("state %d is %q", s, s)
		}
	}
}

// Notes to oneself: with no other device they have arrived; with one, when it has
// them.
func TestStatesOfNotes(t *testing.T) {
	w := newWorld(t, "")
	phone := Device{ID: identity.DeviceID{50}, Person: w.self.Person}
	w.write(func(tx *Tx) error { return tx.PutDevice(&phone) })
	var notes [2]Event
	for i := range notes {
		notes[i] = w.message(0, true, uint64(i+1), 0, "note")
		notes[i].Conversation, notes[i].Targets = w.notes.Row, i
		w.insert(&notes[i])
	}
	check := func(i int, want State) {
		t.Helper()
		w.read(func(tx *Tx) error {
			got, err := tx.StateOf(notes[i])
			if got != want {
				t.Errorf("note %d is %v, want %v", i, got, want)
			}
			return err
		})
	}
	check(0, Delivered)
	check(1, Queued)
	w.write(func(tx *Tx) error {
		return tx.AddDelivery(Delivery{Conversation: w.notes.Row, Device: phone.Row, From: 2, To: 2, At: w.start})
	})
	check(1, Delivered)
}

// statesOf gives the states of events, in their order.
func statesOf(tx *Tx, events []Event) ([]State, error) {
	states := make([]State, len(events))
	for i := range events {
		var err error
		if states[i], err = tx.StateOf(events[i]); err != nil {
			return nil, err
		}
	}
	return states, nil
}
