package store

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/event"
)

// Cursor is a place in a timeline: that of an event.
type Cursor struct {
	Clock event.Clock
	Row   Row
}

// Cursor gives the event's place in a timeline.
func (e *Event) Cursor() Cursor { return Cursor{e.Clock, e.Row} }

// TimelineQuery says which part of a timeline to give.
type TimelineQuery struct {
	// Conversations are merged into one timeline.
	Conversations []Row
	// After and Before bound it, both exclusive; zero is no bound.
	After, Before Cursor
	// Limit is how many events to give; 0 is all of them. With Newest, those of the
	// same instant as the oldest of them come along.
	Limit int
	// Newest takes the newest ones within the bounds and gives them newest
	// first; else the oldest, oldest first.
	Newest bool
}

// Timeline gives the content of conversations that is not deleted, in the order
// in which it is shown: by clock, then by id, but the events of one device always
// by seq; where a clock of them was wrong, as event.Order says.
func (tx *Tx) Timeline(q TimelineQuery) ([]Event, error) {
	var all []Event
	for _, c := range q.Conversations {
		page, err := tx.timeline(c, q)
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = page
			continue
		}
		all = append(all, page...)
	}
	if len(q.Conversations) > 1 {
		slices.SortFunc(all, func(a, b Event) int { return q.direction() * compareCursor(a.Cursor(), b.Cursor()) })
		if q.Limit > 0 && len(all) > q.Limit {
			all = all[:q.Limit]
		}
	}
	if q.Newest {
		slices.Reverse(all)
	}
	err := tx.arrange(all)
	if q.Newest {
		slices.Reverse(all)
	}
	return all, err
}

func (q *TimelineQuery) direction() int {
	if q.Newest {
		return -1
	}
	return 1
}

func compareCursor(a, b Cursor) int {
	return cmp.Or(cmp.Compare(a.Clock, b.Clock), cmp.Compare(a.Row, b.Row))
}

// clearedTo is up to where events of conversation ?1 are hidden while they wait
// to be emptied.
const clearedTo = "coalesce((SELECT cleared_to FROM conversation WHERE row = ?1 AND clearing = 1), 0)"

func (tx *Tx) timeline(conversation Row, q TimelineQuery) ([]Event, error) {
	limit := q.Limit
	if limit <= 0 {
		limit = -1
	}
	// A bound that is not there is left out: SQLite would compare each row with it.
	where := " WHERE conversation = ?1 AND " + shownEvent + " AND row > " + clearedTo
	if q.After != (Cursor{}) {
		where += " AND clock >= ?2 AND (clock, row) > (?2, ?3)"
	}
	if q.Before != (Cursor{}) {
		where += " AND clock <= ?4 AND (clock, row) < (?4, ?5)"
	}
	order := " ORDER BY clock, row LIMIT ?6"
	if q.Newest {
		order = " ORDER BY clock DESC, row DESC LIMIT ?6"
	}
	all, err := tx.timelineRows(make([]Event, 0, max(0, min(limit, 256))), where+order, conversation, q.After, q.Before, limit)
	if err != nil || !q.Newest || len(all) != limit {
		return all, err
	}
	// All of the last one's instant, or a page that ends there would not be in order with the next.
	last, after := all[len(all)-1].Cursor(), Cursor{}
	if q.After.Clock == last.Clock {
		after = q.After
	}
	return tx.timelineRows(all, " WHERE conversation = ?1 AND "+shownEvent+" AND row > "+clearedTo+
		" AND clock = ?4 AND row > ?3 AND row < ?5 ORDER BY row DESC LIMIT ?6", conversation, after, last, -1)
}

func (tx *Tx) timelineRows(all []Event, rest string, conversation Row, after, before Cursor, limit int) ([]Event, error) {
	for st, err := range tx.Query("SELECT "+eventColumns+" FROM event INDEXED BY event_time"+rest, conversation, after.Clock, after.Row, before.Clock, before.Row, limit) {
		var e Event
		if err == nil {
			e, err = scanEvent(st)
		}
		if e, err = tx.withFailure(e, err); err != nil {
			return nil, wrap("read a timeline", err)
		}
		all = append(all, e)
	}
	return all, nil
}

// arrange brings events, sorted by clock and row, into the order in which they
// are shown.
func (tx *Tx) arrange(all []Event) error {
	for i := 1; i < len(all); i++ {
		for k := i; k > 0 && all[k].Clock == all[k-1].Clock && bytes.Compare(all[k].ID[:], all[k-1].ID[:]) < 0; k-- {
			all[k], all[k-1] = all[k-1], all[k]
		}
	}
	if inOrder(all) {
		return nil
	}
	// An author's clock was wrong, or a device answered what it cannot have seen.
	nodes := make([]event.Node, len(all))
	for i := range all {
		e := &all[i]
		nodes[i] = event.Node{ID: e.ID, Device: laneOf(e), Seq: e.Seq, Clock: e.Clock}
		if parsed, err := event.Parse(e.Raw); err == nil {
			nodes[i].Parents = parsed.Parents
		}
	}
	sorted := make([]Event, len(all))
	for i, n := range event.Order(nodes) {
		sorted[i] = all[n]
	}
	copy(all, sorted)
	return nil
}

// inOrder reports whether the events of each device stand by seq, and no clock
// is known to be wrong.
func inOrder(all []Event) bool {
	type lane struct{ conversation, device Row }
	last := make(map[lane]uint64, 8)
	for i := range all {
		e := &all[i]
		l := lane{e.Conversation, e.Device}
		if e.ClockWrong || e.Seq <= last[l] {
			return false
		}
		last[l] = e.Seq
	}
	return true
}

// laneOf stands for the device of an event in one conversation, so that merged
// timelines keep their seqs apart.
func laneOf(e *Event) (id identity.DeviceID) {
	for i := range 8 {
		id[i] = byte(e.Conversation >> (8 * i))
		id[8+i] = byte(e.Device >> (8 * i))
	}
	return id
}
