package store

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// follow reads the stream of changes in pages and gives the newest number.
func (w *world) follow(since uint64, page int, seen map[string]uint64) uint64 {
	w.t.Helper()
	for {
		var all []Change
		w.read(func(tx *Tx) (err error) { all, err = tx.Changes(since, page); return err })
		for _, c := range all {
			if c.Changed <= since {
				w.t.Fatalf("change %+v comes after %d", c, since)
			}
			since = c.Changed
			seen[fmt.Sprint(c.Kind, "/", c.Row)] = c.Changed
		}
		if len(all) < page {
			return since
		}
	}
}

// A reader that keeps its number and comes again, at whatever page size, sees
// every object in its newest state.
func TestChangesMissNothing(t *testing.T) {
	for _, page := range []int{1, 3, 100} {
		w := newWorld(t, "")
		seen := map[string]uint64{}
		since := w.follow(0, page, seen)
		if len(seen) != 8 { // 3 contacts, 2 devices, 3 conversations
			t.Fatalf("a new world has %d objects: %v", len(seen), seen)
		}
		want := map[string]uint64{}
		note := func(k ChangeKind, row Row, changed uint64) { want[fmt.Sprint(k, "/", row)] = changed }
		var first Event
		for i := range 30 {
			e := w.message(i%2, true, uint64(i+1), float64(i), "x")
			w.insert(&e)
			note(ChangedEvent, e.Row, e.Changed)
			if i == 0 {
				first = e
			}
			if i%5 == 0 {
				w.write(func(tx *Tx) error { return tx.PutConversation(&w.pairs[0]) })
				note(ChangedConversation, w.pairs[0].Row, w.pairs[0].Changed)
			}
			if i%7 == 0 {
				w.write(func(tx *Tx) error {
					return tx.AddDelivery(Delivery{Conversation: e.Conversation, Device: w.devices[0].Row, From: e.Seq, To: e.Seq, At: e.At})
				})
			}
			if i == 20 {
				w.write(func(tx *Tx) error { return tx.DeleteEvent(first.Row) })
				w.read(func(tx *Tx) (err error) { first, err = tx.EventByRow(first.Row); return err })
				note(ChangedEvent, first.Row, first.Changed)
			}
			if i%4 == 0 {
				since = w.follow(since, page, seen)
			}
		}
		w.write(func(tx *Tx) error {
			i := Invite{TokenHash: [32]byte{1}}
			if err := tx.PutInvite(&i); err != nil {
				return err
			}
			note(ChangedInvite, i.Row, i.Changed)
			w.persons[0].Name = "New"
			if err := tx.PutContact(&w.persons[0]); err != nil {
				return err
			}
			note(ChangedContact, w.persons[0].Row, w.persons[0].Changed)
			return tx.PutReadMark(ReadMark{Conversation: w.pairs[0].Row, Person: w.persons[0].Person, Upto: 4, At: w.start.Add(time.Second)})
		})
		since = w.follow(since, page, seen)
		for k, changed := range want {
			if seen[k] != changed {
				t.Errorf("page %d: %s was seen at %d, want %d", page, k, seen[k], changed)
			}
		}
		kinds := map[byte]int{}
		for k := range seen {
			kinds[k[0]-'0']++
		}
		if diff := cmp.Diff(map[byte]int{1: 30, 2: 3, 3: 2, 4: 3, 5: 5, 6: 1, 7: 1}, kinds); diff != "" {
			t.Errorf("page %d: kinds differ (-want +got):\n%s", page, diff)
		}
		w.read(func(tx *Tx) error {
			last, err := tx.LastChanged()
			if last != since {
				t.Errorf("page %d: the last change is %d, the stream ended at %d", page, last, since)
			}
			row, rerr := tx.LastEvent()
			if rerr != nil || row == 0 {
				t.Errorf("the last event is %d, %v", row, rerr)
			}
			return err
		})
	}
}

// A number that no change will ever have is above all of them, not below.
func TestChangesSinceTheEnd(t *testing.T) {
	w := newWorld(t, "")
	e := w.message(0, false, 1, 0, "once")
	w.insert(&e)
	w.read(func(tx *Tx) error {
		for _, since := range []uint64{math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64} {
			changes, err := tx.Changes(since, 10)
			if err != nil || len(changes) != 0 {
				t.Errorf("since %d: %+v, %v; want none", since, changes, err)
			}
		}
		return nil
	})
}
