package store

import (
	"fmt"
	"time"

	"github.com/ncruces/go-sqlite3"
)

// Outbox is one event on its way to one device. It is the ciphertext of the
// session, which every carriage seals anew; an item without one waits for a
// session, and is sealed from the event.
type Outbox struct {
	Row          Row // device and event in one number; set by InsertOutbox
	Device       Row // recipient
	Event        Row // 0: something ephemeral
	Conversation Row
	EventSeq     uint64 // seq of the event; 0 if ephemeral
	Session      [16]byte
	Seq          uint64 // in the session; 0: not sealed yet
	Inner        []byte
	Queued       time.Time
}

// The row id of an outbox row is device << eventBits | event, which bounds the
// rows of devices by 2^19 and the changed numbers by 2^44.
const (
	eventBits = 44
	eventMask = "17592186044415" // 1<<eventBits - 1
)

// InsertOutbox queues an event for a device and sets Row. Of the same event and
// device the later one stands.
func (tx *Tx) InsertOutbox(o *Outbox) error {
	item := int64(o.Event)
	if o.Event == 0 {
		o.EventSeq = 0
		item = int64(tx.NextChanged())
	}
	if o.Device <= 0 || o.Device >= 1<<(63-eventBits) || item >= 1<<eventBits {
		return fmt.Errorf("bug: no outbox row for device %d and event %d", o.Device, item)
	}
	o.Row = o.Device<<eventBits | Row(item)
	st, err := tx.stmt("INSERT OR REPLACE INTO outbox(row, conversation, event_seq, session, seq, queued, inner_cell) VALUES(?, ?, ?, ?, ?, ?, ?)")
	if err != nil {
		return wrap("queue an event", err)
	}
	for i, v := range [...]int64{int64(o.Row), int64(o.Conversation), int64(o.EventSeq)} {
		err = firstError(err, st.BindInt64(i+1, v))
	}
	err = firstError(err, bindSealed(st, 4, o.Session[:], o.Seq))
	err = firstError(err, st.BindInt64(5, int64(o.Seq)))
	err = firstError(err, st.BindInt64(6, millis(o.Queued)))
	if err = firstError(err, bindSealed(st, 7, o.Inner, o.Seq)); err == nil {
		err = st.Exec()
	}
	return wrap("queue an event", tx.failed(err))
}

// bindSealed binds what only a sealed item has.
func bindSealed(st *sqlite3.Stmt, param int, b []byte, seq uint64) error {
	if seq == 0 {
		return st.BindNull(param)
	}
	return st.BindBlob(param, b)
}

// SealOutbox stores the ciphertext of an item that waited for a session, or has
// to be sent under another number.
func (tx *Tx) SealOutbox(row Row, session [16]byte, seq uint64, inner []byte) error {
	err := tx.Exec("UPDATE outbox SET session = ?2, seq = ?3, inner_cell = ?4 WHERE row = ?1", row, session[:], seq, inner)
	if err == nil && tx.affected() == 0 {
		err = ErrNotFound
	}
	return wrap("store a sealed event", err)
}

// DeleteOutbox removes items. Runs of rows that follow each other go in one
// range, so rows are given in order where speed matters.
func (tx *Tx) DeleteOutbox(rows []Row) error {
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && rows[n] > rows[n-1] && rows[n]>>eventBits == rows[0]>>eventBits {
			n++
		}
		if err := tx.deleteRun(rows[:n]); err != nil {
			return wrap("empty the outbox", err)
		}
		rows = rows[n:]
	}
	return nil
}

// deleteRun removes rising rows of one device. Between two of them there may be
// items that have to stay: the range goes at once only if it holds just these.
func (tx *Tx) deleteRun(rows []Row) error {
	same, err := tx.isRun(rows)
	if err != nil {
		return err
	}
	if same {
		return tx.Exec("DELETE FROM outbox WHERE row BETWEEN ? AND ?", rows[0], rows[len(rows)-1])
	}
	for _, row := range rows {
		if err := tx.Exec("DELETE FROM outbox WHERE row = ?", row); err != nil {
			return err
		}
	}
	return nil
}

// isRun reports whether the table holds exactly rows from the first to the last
// of them.
func (tx *Tx) isRun(rows []Row) (bool, error) {
	if len(rows) == 1 {
		return false, nil
	}
	n := 0
	for st, err := range tx.Query("SELECT row FROM outbox WHERE row BETWEEN ? AND ? ORDER BY row", rows[0], rows[len(rows)-1]) {
		if err != nil {
			return false, err
		}
		if n == len(rows) || Row(st.ColumnInt64(0)) != rows[n] {
			return false, nil
		}
		n++
	}
	return n == len(rows), nil
}

const outboxColumns = "row, conversation, event_seq, session, seq, queued, inner_cell"

func scanOutbox(st *sqlite3.Stmt) (Outbox, error) {
	o := Outbox{
		Row:          Row(st.ColumnInt64(0)),
		Conversation: Row(st.ColumnInt64(1)),
		EventSeq:     uint64(st.ColumnInt64(2)),
		Seq:          uint64(st.ColumnInt64(4)),
		Queued:       fromMillis(st.ColumnInt64(5)),
		Inner:        blob(st, 6),
	}
	o.Device = o.Row >> eventBits
	if o.EventSeq > 0 {
		o.Event = o.Row & (1<<eventBits - 1)
	}
	return o, fixed(o.Session[:], st, 3)
}

// Outboxes gives up to limit items of a device behind the row after, in order of
// their events.
func (tx *Tx) Outboxes(device, after Row, limit int) ([]Outbox, error) {
	return list(tx, "the outbox", scanOutbox, "SELECT "+outboxColumns+" FROM outbox WHERE row > ? AND row < ? ORDER BY row LIMIT ?",
		max(after, device<<eventBits), (device+1)<<eventBits, limit)
}

// OutboxDevices gives the devices for which something is queued.
func (tx *Tx) OutboxDevices() ([]Row, error) {
	var all []Row
	next := Row(0)
	for {
		found, err := tx.one("SELECT row FROM outbox WHERE row >= ? ORDER BY row LIMIT 1",
			func(st *sqlite3.Stmt) { next = Row(st.ColumnInt64(0)) >> eventBits }, next<<eventBits)
		if err != nil || !found {
			return all, wrap("read the outbox", err)
		}
		all = append(all, next)
		next++
	}
}

// PendingOf gives what is still queued of an event, one item a device.
func (tx *Tx) PendingOf(row Row) ([]Outbox, error) {
	devices, err := tx.OutboxDevices()
	if err != nil || row <= 0 {
		return nil, err
	}
	var all []Outbox
	for _, d := range devices {
		found, err := list(tx, "the outbox", scanOutbox, "SELECT "+outboxColumns+" FROM outbox WHERE row = ? AND event_seq > 0", d<<eventBits|row)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// DropOutbox gives up what is queued for a device. An event that is neither
// queued for another device nor delivered to one fails with the reason.
func (tx *Tx) DropOutbox(device Row, reason string) error {
	var events []Row
	for st, err := range tx.Query("SELECT row FROM outbox WHERE row > ? AND row < ? AND event_seq > 0", device<<eventBits, (device+1)<<eventBits) {
		if err != nil {
			return wrap("empty the outbox", err)
		}
		events = append(events, Row(st.ColumnInt64(0))&(1<<eventBits-1))
	}
	if err := tx.Exec("DELETE FROM outbox WHERE row > ? AND row < ?", device<<eventBits, (device+1)<<eventBits); err != nil {
		return wrap("empty the outbox", err)
	}
	for _, row := range events {
		if err := tx.failIfLost(row, reason); err != nil {
			return err
		}
	}
	return nil
}

// GiveUp removes items. An event that is then neither queued nor delivered fails
// with the reason.
func (tx *Tx) GiveUp(rows []Row, reason string) error {
	if err := tx.DeleteOutbox(rows); err != nil {
		return err
	}
	for _, row := range rows {
		if err := tx.failIfLost(row&(1<<eventBits-1), reason); err != nil {
			return err
		}
	}
	return nil
}

func (tx *Tx) failIfLost(row Row, reason string) error {
	pending, err := tx.PendingOf(row)
	if err != nil || len(pending) > 0 {
		return err
	}
	e, err := tx.EventByRow(row)
	if err != nil {
		return err
	}
	s, err := tx.StateOf(e)
	if err != nil || s != Queued {
		return err
	}
	return tx.Fail(row, reason)
}
