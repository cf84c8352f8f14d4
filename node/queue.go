package node

import (
	"cmp"
	"slices"
	"time"

	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/session"
)

// queueMemory is how many unacknowledged items of one device lie in memory; the
// rest waits in the outbox table. 2,048 of 1 KiB are about 2.5 MB.
const queueMemory = 2048

// resendAfter is how long an item waits for its receipt on a live route before
// it is sent again; it doubles up to resendMax.
const (
	resendAfter = 20 * time.Second
	resendMax   = 5 * time.Minute
)

// verdictAfter is how long the other side may take to receipt or refuse what was
// sent last, before a new session begins beside it.
const verdictAfter = 2 * time.Second

// queue is the outbox of one device: items in order of their rows, the first
// sent of which are on their way. It belongs to the loop.
type queue struct {
	items []item
	sent  int  // items[:sent] were handed to a route
	tail  bool // more rows lie in the table behind the last item
	mixed bool // items of one session may lie out of the order of seq
	open  bool // an item may lie unsealed, so none behind it is sealed before
	wait  time.Duration
	slow  time.Duration // the longest that receipts took lately, 0: none came

	// Reaching the device: when to try next, how often it failed in a row.
	tryAt    time.Time
	fails    int
	dialing  bool
	ring     bool // to be tried once, although nothing waits: it may have something
	link     *link
	findAt   time.Time // when to look for its record next, and how often that was done
	finds    int
	insisted time.Time // when it was looked for again and again, after a move of this node
	asked    time.Time // when a fresh bundle was last asked for
	asks     int       // how often since a receipt came
}

// item is one outbox row in memory. Session zero: not sealed yet, because there
// was no session; it is sealed once there is one.
type item struct {
	row   store.Row
	event store.Row
	conv  store.Row
	seq   uint64 // of the event in its conversation
	at    time.Time
	sent  time.Time
	s     session.Sealed
}

func (i item) sealed() bool { return i.s.Seq != 0 }

func itemOf(o store.Outbox) item {
	return item{
		row: o.Row, event: o.Event, conv: o.Conversation, seq: o.EventSeq, at: o.Queued,
		s: session.Sealed{Session: o.Session, Seq: o.Seq, Inner: o.Inner},
	}
}

// load reads the first items of a device's outbox.
func (q *queue) load(tx *store.Tx, d store.Row) error {
	q.items, q.sent, q.tail = nil, 0, false
	if err := q.more(tx, d); err != nil {
		return err
	}
	q.open = q.unsealed()
	if !q.tail || q.open {
		return nil
	}
	var err error
	q.open, err = tx.OutboxUnsealed(d)
	return err
}

// more reads on until the memory share is full.
func (q *queue) more(tx *store.Tx, d store.Row) error {
	var last store.Row
	if n := len(q.items); n > 0 {
		last = q.items[n-1].row
	}
	rows, err := tx.Outboxes(d, last, queueMemory-len(q.items))
	if err != nil {
		return err
	}
	for _, o := range rows {
		if n := len(q.items); n > 0 && q.items[n-1].s.Session == o.Session && q.items[n-1].s.Seq > o.Seq {
			q.mixed = true
		}
		q.items = append(q.items, itemOf(o))
	}
	q.tail = len(q.items) >= queueMemory
	return nil
}

// push puts a new row at the end, or leaves it in the table. A row of an older
// event goes to its place.
func (q *queue) push(i item) {
	q.open = q.open || !i.sealed()
	if n := len(q.items); n > 0 && i.row < q.items[n-1].row {
		at, _ := slices.BinarySearchFunc(q.items, i.row, func(x item, row store.Row) int { return cmp.Compare(x.row, row) })
		q.items = slices.Insert(q.items, at, i)
		q.sent, q.mixed = min(q.sent, at), true
		return
	}
	if q.tail || len(q.items) >= queueMemory {
		q.tail = true
		return
	}
	q.items = append(q.items, i)
}

// hungry says whether there is room for more of the table.
func (q *queue) hungry() bool { return q.tail && len(q.items) < queueMemory/2 }

// unsealed says whether anything waits for a session.
func (q *queue) unsealed() bool {
	return slices.ContainsFunc(q.items, func(i item) bool { return !i.sealed() })
}

// wants says whether it is time to ask for the keys of a new session. What is on
// its way in an older one comes first: if the other side does not have that, it
// says so, and all goes into the new one in order.
func (q *queue) wants(now time.Time) bool {
	if q.sent == len(q.items) || q.items[q.sent].sealed() {
		return false
	}
	return q.sent == 0 || now.Sub(q.items[q.sent-1].sent).Abs() >= verdictAfter
}

// pending says whether anything waits for this device.
func (q *queue) pending() bool { return len(q.items) > 0 || q.tail }

// rewind makes every item unsent: a new route carries them all.
func (q *queue) rewind() { q.sent = 0 }

// has says whether an event waits for this device in memory.
func (q *queue) has(event store.Row) bool {
	return slices.ContainsFunc(q.items, func(i item) bool { return i.event == event })
}

// renumber gives the items of an event its new number; they are to be sealed anew.
func (q *queue) renumber(event store.Row, seq uint64) {
	for n := range q.items {
		if i := &q.items[n]; i.event == event {
			i.seq, i.s, q.open = seq, session.Sealed{}, true
			q.sent = min(q.sent, n)
		}
	}
}

// drop takes rows out.
func (q *queue) drop(rows []store.Row) {
	for _, row := range rows {
		if n := slices.IndexFunc(q.items, func(i item) bool { return i.row == row }); n >= 0 {
			q.items = slices.Delete(q.items, n, n+1)
			if n < q.sent {
				q.sent--
			}
		}
	}
}

// ack removes the items that a receipt covers and gives them. As long as items of
// one session lie in order of seq, the walk ends at the first one above the mark.
func (q *queue) ack(id session.ID, mark session.Mark) []item {
	var done, kept []item
	sent, n := q.sent, 0
	for ; n < len(q.items); n++ {
		i := q.items[n]
		if !q.mixed && i.sealed() && i.s.Session == id && i.s.Seq > mark.Upto {
			break
		}
		if i.sealed() && i.s.Session == id && mark.Covers(i.s.Seq) {
			done = append(done, i)
			if n < q.sent {
				sent--
			}
			continue
		}
		kept = append(kept, i)
	}
	if len(done) == 0 {
		return nil
	}
	clear(q.items[:n-len(kept)])
	q.items = q.items[n-len(kept):]
	copy(q.items, kept)
	q.sent, q.wait, q.mixed = sent, 0, q.mixed && len(q.items) > 0
	return done
}
