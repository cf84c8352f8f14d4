package store

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/kinloom/kinloom/protocol/event"
	"github.com/ncruces/go-sqlite3"
)

// Event is one row of history. (Conversation, Device, Seq) is its key; device
// row 0 is this device.
type Event struct {
	Row          Row
	Conversation Row
	Device       Row
	Seq          uint64 // 1 or more
	ID           event.ID
	Raw          []byte      // as received; nil once deleted
	Type         event.Type  // content or control
	Clock        event.Clock // place in time: the author's clock, or At where that one is wrong
	At           time.Time   // stored here, to the millisecond
	Own          bool        // written by the owner, on whichever device
	Targets      int         // devices it was addressed to, at most MaxTargets
	Failed       string      // why it will not be delivered, empty if it may
	Late         bool        // came after a gap in its device's events
	ClockWrong   bool        // the author's clock was wrong
	Route        uint8       // 0 to 15; numbers are node's
	Protection   uint8       // 0 to 7; likewise
	Deleted      bool        // a tombstone: Raw is gone
	Changed      uint64
}

// MaxTargets bounds Targets: 256 persons with 15 devices each.
const MaxTargets = 1<<12 - 1

// The flags column packs what is small: from the low end what is often set, so
// that the integer stays short.
const (
	flagType       = 0xff
	flagProtection = 8  // 3 bits
	flagRoute      = 11 // 4 bits
	flagOwn        = 1 << 15
	flagTargets    = 16 // 12 bits
	flagLate       = 1 << 28
	flagClockWrong = 1 << 29
	flagDeleted    = 1 << 30
	flagFailed     = 1 << 31
)

// shownEvent selects what a timeline shows: no types from 64 up, as these are no
// content, and nothing deleted. The partial index event_time serves the queries
// that contain it word for word.
const shownEvent = "flags & 1073742016 = 0"

func (e *Event) flags() (int64, error) {
	switch {
	case e.Type == 0 || e.Type >= 128:
		return 0, fmt.Errorf("bug: an event of type %d is not stored", e.Type)
	case e.Route > 15 || e.Protection > 7 || e.Targets < 0 || e.Targets > MaxTargets:
		return 0, fmt.Errorf("bug: route %d, protection %d or %d targets outside their limits", e.Route, e.Protection, e.Targets)
	}
	f := int64(e.Type) | int64(e.Protection)<<flagProtection | int64(e.Route)<<flagRoute | int64(e.Targets)<<flagTargets
	for _, b := range []struct {
		on   bool
		flag int64
	}{{e.Own, flagOwn}, {e.Late, flagLate}, {e.ClockWrong, flagClockWrong}, {e.Deleted, flagDeleted}, {e.Failed != "", flagFailed}} {
		if b.on {
			f |= b.flag
		}
	}
	return f, nil
}

func (e *Event) setFlags(f int64) {
	e.Type = event.Type(f & flagType)
	e.Protection = uint8(f >> flagProtection & 7)
	e.Route = uint8(f >> flagRoute & 15)
	e.Targets = int(f >> flagTargets & MaxTargets)
	e.Own = f&flagOwn != 0
	e.Late = f&flagLate != 0
	e.ClockWrong = f&flagClockWrong != 0
	e.Deleted = f&flagDeleted != 0
}

// clockMillis is the time part of a clock.
func clockMillis(c event.Clock) int64 { return int64(c >> 16) }

// InsertEvent stores an event and sets Row and Changed. It reports false and
// stores nothing where the conversation has an event of this device and seq
// already; whether that is the same one is the caller's to ask. Content reaches
// the search index after the commit.
func (tx *Tx) InsertEvent(e *Event) (stored bool, err error) {
	flags, err := e.flags()
	if err != nil {
		return false, err
	}
	at := e.At.UnixMilli()
	if e.ClockWrong {
		e.Clock = event.Clock(at) << 16
	}
	st, err := tx.stmt("INSERT INTO event(row, conversation, device, seq, id, clock, lag, flags, raw) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?) " +
		"ON CONFLICT(conversation, device, seq) DO NOTHING")
	if err != nil {
		return false, wrap("store an event", err)
	}
	row := tx.NextChanged()
	for i, v := range [...]int64{int64(row), int64(e.Conversation), int64(e.Device), int64(e.Seq)} {
		err = firstError(err, st.BindInt64(i+1, v))
	}
	err = firstError(err, st.BindBlob(5, e.ID[:]))
	for i, v := range [...]int64{int64(e.Clock), at - clockMillis(e.Clock), flags} {
		err = firstError(err, st.BindInt64(i+6, v))
	}
	if err = firstError(err, st.BindBlob(9, e.Raw)); err == nil {
		err = st.Exec()
	}
	if err != nil {
		return false, wrap("store an event", tx.failed(err))
	}
	if tx.affected() == 0 {
		return false, nil
	}
	e.Row, e.Changed = Row(row), row
	if e.Failed != "" {
		if err := tx.Exec("INSERT INTO failure(event, reason) VALUES(?, ?)", e.Row, e.Failed); err != nil {
			return false, wrap("store an event", err)
		}
	}
	if e.Type.Class() == event.Content && tx.s.index != nil {
		tx.s.index.feed(tx)
	}
	return true, nil
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

const eventColumns = "row, conversation, device, seq, id, clock, lag, flags, changed, raw"

// scanEvent reads eventColumns. The reason of a failure is read by withFailure.
func scanEvent(st *sqlite3.Stmt) (Event, error) {
	e := Event{
		Row:          Row(st.ColumnInt64(0)),
		Conversation: Row(st.ColumnInt64(1)),
		Device:       Row(st.ColumnInt64(2)),
		Seq:          uint64(st.ColumnInt64(3)),
		Clock:        event.Clock(st.ColumnInt64(5)),
		Changed:      uint64(st.ColumnInt64(8)),
		Raw:          blob(st, 9),
	}
	flags := st.ColumnInt64(7)
	e.setFlags(flags)
	e.At = time.UnixMilli(clockMillis(e.Clock) + st.ColumnInt64(6)).UTC()
	if e.Changed == 0 {
		e.Changed = uint64(e.Row)
	}
	if flags&flagFailed != 0 {
		e.Failed = unreadReason
	}
	return e, fixed(e.ID[:], st, 4)
}

// unreadReason stands in Failed until the reason was read.
const unreadReason = "failed"

func (tx *Tx) withFailure(e Event, err error) (Event, error) {
	if err != nil || e.Failed == "" {
		return e, err
	}
	_, err = tx.one("SELECT reason FROM failure WHERE event = ?", func(st *sqlite3.Stmt) { e.Failed = st.ColumnText(0) }, e.Row)
	return e, wrap("read why an event failed", err)
}

// EventByRow gives an event, or ErrNotFound.
func (tx *Tx) EventByRow(row Row) (Event, error) {
	return tx.withFailure(get(tx, "event", scanEvent, "SELECT "+eventColumns+" FROM event WHERE row = ?", row))
}

// EventByKey gives an event by its key, or ErrNotFound.
func (tx *Tx) EventByKey(conversation, device Row, seq uint64) (Event, error) {
	return tx.withFailure(get(tx, "event", scanEvent,
		"SELECT "+eventColumns+" FROM event WHERE conversation = ? AND device = ? AND seq = ?", conversation, device, seq))
}

// OwnOf gives the events of a type that this device said in a conversation and that
// are not deleted, the oldest first.
func (tx *Tx) OwnOf(conversation Row, t event.Type) ([]Event, error) {
	return list(tx, "own events", scanEvent, "SELECT "+eventColumns+" FROM event INDEXED BY event_key WHERE conversation = ? AND device = 0 AND flags & ? = ? ORDER BY seq",
		conversation, int64(flagDeleted|flagType), int64(t))
}

// LastEvent gives the row of the newest event, 0 if there is none.
func (tx *Tx) LastEvent() (row Row, err error) {
	_, err = tx.one("SELECT max(row) FROM event", func(st *sqlite3.Stmt) { row = Row(st.ColumnInt64(0)) })
	return row, wrap("look up the newest event", err)
}

// Queued gives the number of messages that still have to reach a device. Control
// events, such as a name that a new contact has not been told, are no messages.
func (tx *Tx) Queued() (n int, err error) {
	_, err = tx.one("SELECT count(DISTINCT event.row) FROM outbox JOIN event ON event.row = outbox.row & "+eventMask+" WHERE event_seq > 0 AND flags & 192 = 0", func(st *sqlite3.Stmt) { n = st.ColumnInt(0) })
	return n, wrap("count messages", err)
}

// Fail notes on an own event why it will not be delivered.
func (tx *Tx) Fail(row Row, reason string) error {
	err := tx.Exec("INSERT OR REPLACE INTO failure(event, reason) VALUES(?, ?)", row, reason)
	if err == nil {
		err = tx.Exec("UPDATE event SET flags = flags | "+strconv.FormatInt(flagFailed, 10)+", changed = ? WHERE row = ?", tx.NextChanged(), row)
	}
	if err == nil && tx.affected() == 0 {
		err = ErrNotFound
	}
	return wrap("mark an event as failed", err)
}

// Latest gives of every device the newest event, by seq, that is held of it in a
// conversation, deleted ones and control events included, of those up to a row.
func (tx *Tx) Latest(conversation, upto Row) ([]Event, error) {
	var all []Event
	device := Row(-1)
	for {
		found, err := tx.one("SELECT device FROM event INDEXED BY event_key WHERE conversation = ? AND device > ? ORDER BY device LIMIT 1",
			func(st *sqlite3.Stmt) { device = Row(st.ColumnInt64(0)) }, conversation, device)
		if err != nil || !found {
			return all, wrap("read the latest events", err)
		}
		e, err := get(tx, "event", scanEvent, "SELECT "+eventColumns+" FROM event INDEXED BY event_key "+
			"WHERE conversation = ? AND device = ? AND row <= ? ORDER BY seq DESC LIMIT 1", conversation, device, upto)
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return nil, err
		default:
			all = append(all, e)
		}
	}
}

// EventsAfter gives the events behind a row, in the order in which they were
// stored.
func (tx *Tx) EventsAfter(row Row) ([]Event, error) {
	return list(tx, "the newest events", scanEvent, "SELECT "+eventColumns+" FROM event WHERE row > ? ORDER BY row", row)
}

// Before gives the highest seq below seq that is held of a device in a
// conversation, 0 if there is none. What lies between is a gap.
func (tx *Tx) Before(conversation, device Row, seq uint64) (before uint64, err error) {
	_, err = tx.one("SELECT max(seq) FROM event WHERE conversation = ? AND device = ? AND seq < ?",
		func(st *sqlite3.Stmt) { before = uint64(st.ColumnInt64(0)) }, conversation, device, seq)
	return before, wrap("look for a gap", err)
}

// HighSeq gives the seq up to which all events of a device in a conversation are
// held, and above it the runs that are, first and last each, at most limit of
// them. It walks through what is held: for repair, not for every message.
func (tx *Tx) HighSeq(conversation, device Row, limit int) (upto uint64, runs [][2]uint64, err error) {
	for st, err := range tx.Query("SELECT seq FROM event INDEXED BY event_key WHERE conversation = ? AND device = ? ORDER BY seq", conversation, device) {
		if err != nil {
			return 0, nil, wrap("look for gaps", err)
		}
		seq := uint64(st.ColumnInt64(0))
		switch n := len(runs); {
		case n == 0 && seq == upto+1:
			upto = seq
		case n > 0 && seq == runs[n-1][1]+1:
			runs[n-1][1] = seq
		case n == limit:
			return upto, runs, nil
		default:
			runs = append(runs, [2]uint64{seq, seq})
		}
	}
	return upto, runs, nil
}
