package store

import "github.com/ncruces/go-sqlite3"

// Renumber gives an own event, named by Row, the Seq, ID, Raw and Clock of e: no
// recipient kept it under the number that it had. Its row stays. What is queued of
// it loses its seal, and nothing under the new number is delivered yet.
func (tx *Tx) Renumber(e *Event) error {
	e.Changed = tx.NextChanged()
	err := tx.Exec("UPDATE event SET seq = ?2, id = ?3, raw = ?4, clock = ?5, lag = ?6, changed = ?7 WHERE row = ?1 AND device = 0",
		e.Row, e.Seq, e.ID[:], e.Raw, e.Clock, e.At.UnixMilli()-clockMillis(e.Clock), e.Changed)
	if err == nil && tx.affected() == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return wrap("renumber an event", err)
	}
	pending, err := tx.PendingOf(e.Row)
	if err != nil {
		return err
	}
	for _, o := range pending {
		err := tx.Exec("UPDATE outbox SET event_seq = ?2, session = NULL, seq = 0, inner_cell = NULL WHERE row = ?1", o.Row, e.Seq)
		if err != nil {
			return wrap("renumber an event", err)
		}
	}
	return nil
}

// Delivered gives the runs of own events of a conversation that a device has
// confirmed and that touch from to to, both included, the lowest first.
func (tx *Tx) Delivered(conversation, device Row, from, to uint64) ([]Delivery, error) {
	return list(tx, "deliveries", scanDelivery, "SELECT "+deliveryColumns+` FROM delivery
		WHERE conversation = ? AND device = ? AND first <= ? AND last >= ? ORDER BY first`, conversation, device, to, from)
}

// DeliveredUpto gives the highest number up to upto of an own event of a
// conversation that any device has confirmed, 0 if there is none.
func (tx *Tx) DeliveredUpto(conversation Row, upto uint64) (highest uint64, err error) {
	devices, err := tx.deliveredTo(conversation)
	for _, d := range devices {
		_, err := tx.one("SELECT last FROM delivery WHERE conversation = ? AND device = ? AND first <= ? ORDER BY first DESC LIMIT 1",
			func(st *sqlite3.Stmt) { highest = max(highest, min(uint64(st.ColumnInt64(0)), upto)) }, conversation, d.device, upto)
		if err != nil {
			return 0, wrap("read a delivery", err)
		}
	}
	return highest, err
}
