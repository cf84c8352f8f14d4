package store

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/kinloom/kinloom/protocol/event"
)

func texts(events []Event) []string {
	all := []string{}
	for i := range events {
		all = append(all, textOf(&events[i]))
	}
	return all
}

func (w *world) timeline(q TimelineQuery) []Event {
	w.t.Helper()
	var all []Event
	w.read(func(tx *Tx) (err error) { all, err = tx.Timeline(q); return err })
	return all
}

func TestTimelinePages(t *testing.T) {
	w := newWorld(t, "")
	r := rand.New(rand.NewPCG(3, 3))
	var events []*Event
	var want []string
	for i := range 200 {
		e := w.message(i%2, i%3 == 0, uint64(i+1), float64(i), fmt.Sprintf("%03d", i))
		events = append(events, &e)
		want = append(want, fmt.Sprintf("%03d", i))
	}
	control := w.message(0, false, 999, 50, "control")
	control.Type = event.Profile
	events = append(events, &control)
	r.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	w.insert(events...)
	both := []Row{w.pairs[0].Row, w.pairs[1].Row}
	if diff := cmp.Diff(want, texts(w.timeline(TimelineQuery{Conversations: both}))); diff != "" {
		t.Errorf("everything, oldest first (-want +got):\n%s", diff)
	}
	for _, newest := range []bool{false, true} {
		var got []string
		q := TimelineQuery{Conversations: both, Limit: 7, Newest: newest}
		for {
			page := w.timeline(q)
			got = append(got, texts(page)...)
			if len(page) < q.Limit {
				break
			}
			if last := page[len(page)-1].Cursor(); newest {
				q.Before = last
			} else {
				q.After = last
			}
		}
		if newest {
			for i, j := 0, len(got)-1; i < j; i, j = i+1, j-1 {
				got[i], got[j] = got[j], got[i]
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("page by page, newest %v (-want +got):\n%s", newest, diff)
		}
	}
	between := TimelineQuery{Conversations: both[:1], After: events[0].Cursor(), Before: events[0].Cursor()}
	if got := w.timeline(between); len(got) != 0 {
		t.Errorf("between an event and itself lie %d", len(got))
	}
}

// The same messages have the same order on every node, however they came.
func TestTimelineOrderDoesNotDependOnArrival(t *testing.T) {
	var want []string
	for seed := range uint64(10) {
		w := newWorld(t, "")
		var events []*Event
		for i := range 40 {
			e := w.message(0, i%2 == 0, uint64(i/2+1), float64(i/4), fmt.Sprint(i))
			e.Clock = event.Clock(e.At.UnixMilli()) << 16 // four events have one clock
			events = append(events, &e)
		}
		r := rand.New(rand.NewPCG(seed, 3))
		r.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		w.insert(events...)
		got := texts(w.timeline(TimelineQuery{Conversations: []Row{w.pairs[0].Row}}))
		if want == nil {
			want = got
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("seed %d: another order (-first +this):\n%s", seed, diff)
		}
	}
}

// One device's events stand by seq, whatever its clock says.
func TestTimelineOfAWrongClock(t *testing.T) {
	w := newWorld(t, "")
	var events []*Event
	for i, at := range []float64{0, 1, 1e6, 3, 4} {
		e := w.message(0, false, uint64(i+1), at, fmt.Sprint(i+1))
		if e.At = w.start.Add(time.Duration(i) * time.Second); i == 2 {
			e.ClockWrong = true
		}
		if i == 3 {
			e.At = w.start.Add(time.Second / 2) // and the time here was set back
			e.Clock = event.Clock(e.At.UnixMilli()) << 16
		}
		events = append(events, &e)
	}
	w.insert(events...)
	got := texts(w.timeline(TimelineQuery{Conversations: []Row{w.pairs[0].Row}}))
	if diff := cmp.Diff([]string{"1", "2", "3", "4", "5"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPagesOfOneInstant: pages, each before the first of the one that was read, make up the whole timeline, in its order,
// where events of several devices have the same clock.
func TestPagesOfOneInstant(t *testing.T) {
	w := newWorld(t, t.TempDir())
	var events []*Event
	for i := range 60 {
		e := w.message(0, i%2 == 0, uint64(i/2+1), 0, "one")
		e.Clock = event.Clock(w.start.UnixMilli()/1000*1000+int64(i/6)) << 16 // six at a time, three of each device
		events = append(events, &e)
	}
	w.insert(events...)
	page := func(before Cursor, limit int) (all []Event) {
		w.read(func(tx *Tx) (err error) {
			all, err = tx.Timeline(TimelineQuery{Conversations: []Row{w.pairs[0].Row}, Before: before, Limit: limit, Newest: true})
			return err
		})
		return all
	}
	whole := page(Cursor{}, 0)
	for limit := 1; limit <= len(whole)+1; limit++ {
		var got []Event
		for before := (Cursor{}); ; {
			part := page(before, limit)
			if len(part) == 0 {
				break
			}
			got = append(got, part...)
			before = Cursor{Clock: part[len(part)-1].Clock}
		}
		if diff := cmp.Diff(whole, got); diff != "" {
			t.Fatalf("pages of %d (-whole +got):\n%s", limit, diff)
		}
	}
}
