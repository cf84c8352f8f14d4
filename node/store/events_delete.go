package store

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/kinloom/kinloom/protocol/event"
	"github.com/ncruces/go-sqlite3"
)

// deleteStep is how many events one transaction empties at most when many go:
// each leaves the search index too, and whoever sends meanwhile waits for that: up to
// 15 ms for an old message of 1 KiB in an index of 30,000, 60 ms for a new one.
const deleteStep = 32

// DeleteEvent deletes an event on this node: its words leave the search index,
// its bytes the account; a tombstone with a new Changed stays. Gone from the
// disk they are after the next Store.Checkpoint. What of it still waits for a
// session to be sealed for is never sent, and the event then fails.
func (tx *Tx) DeleteEvent(row Row) error {
	e, err := tx.EventByRow(row)
	if err != nil {
		return err
	}
	if e.Deleted {
		return nil
	}
	return tx.empty([]Event{e}, true)
}

// empty makes tombstones of events. The index goes first: a crash in between
// leaves a message to index again, never the words of a deleted one.
func (tx *Tx) empty(events []Event, tell bool) error {
	if len(events) == 0 {
		return nil
	}
	// In the order of the index, which else is written anew for each.
	rising := slices.SortedFunc(slices.Values(events), func(a, b Event) int { return cmp.Compare(a.Row, b.Row) })
	if err := tx.unindex(rising); err != nil {
		return wrap("delete from the search index", err)
	}
	for i := range events {
		e := &events[i]
		if e.Own {
			if err := tx.dropUnsealed(e); err != nil {
				return err
			}
		}
		changed := any(nil)
		if tell {
			changed = tx.NextChanged()
		}
		err := tx.Exec("UPDATE event SET raw = x'', flags = flags | "+strconv.Itoa(flagDeleted)+", changed = coalesce(?2, changed) WHERE row = ?1", e.Row, changed)
		if err != nil {
			return wrap("delete an event", err)
		}
	}
	return nil
}

// dropUnsealed gives up the items of an event that could only be sealed from its
// bytes.
func (tx *Tx) dropUnsealed(e *Event) error {
	pending, err := tx.PendingOf(e.Row)
	if err != nil {
		return err
	}
	dropped := false
	for _, o := range pending {
		if o.Seq != 0 {
			continue
		}
		dropped = true
		if err := tx.Exec("DELETE FROM outbox WHERE row = ?", o.Row); err != nil {
			return wrap("empty the outbox", err)
		}
	}
	if !dropped {
		return nil
	}
	return tx.failIfLost(e.Row, "deleted before it could be sent")
}

// ClearConversation deletes the content of a conversation on this node and gives
// the number of messages that it hides. All are hidden at once: consumers of
// changes take what lies at or below ClearedTo for deleted. The bytes of the
// first deleteStep leave with this transaction, the rest with the calls of
// Expire after it.
func (tx *Tx) ClearConversation(conversation Row) (hidden int, err error) {
	_, err = tx.one("SELECT count(*) FROM event WHERE conversation = ?1 AND row > "+clearedTo+" AND "+shownEvent, func(st *sqlite3.Stmt) { hidden = st.ColumnInt(0) }, conversation)
	if err != nil {
		return 0, wrap("clear a conversation", err)
	}
	last, err := tx.LastEvent()
	if err != nil {
		return 0, err
	}
	err = tx.Exec("UPDATE conversation SET cleared_to = ?2, clearing = 1, unread = 0, changed = ?3 WHERE row = ?1", conversation, last, tx.NextChanged())
	if err == nil && tx.affected() == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return 0, wrap("clear a conversation", err)
	}
	_, err = tx.clear(conversation, last, deleteStep)
	return hidden, err
}

// clear empties up to limit events of a conversation with rows up to last.
func (tx *Tx) clear(conversation, last Row, limit int) (int, error) {
	events, err := list(tx, "events", scanEvent, "SELECT "+eventColumns+" FROM event INDEXED BY event_time WHERE conversation = ? AND "+shownEvent+
		" AND row <= ? ORDER BY clock LIMIT ?", conversation, last, limit)
	if err != nil {
		return 0, err
	}
	if err := tx.empty(events, false); err != nil {
		return 0, err
	}
	if len(events) < limit {
		err = tx.Exec("UPDATE conversation SET clearing = 0 WHERE row = ?", conversation)
	}
	return len(events), wrap("clear a conversation", err)
}

// Expire continues what ClearConversation began, and deletes what is older than
// the retention of its conversation. It empties at most deleteStep events and
// gives their number: as long as that is not 0, there may be more, and the
// caller comes again with a transaction of its own.
func (tx *Tx) Expire(now time.Time) (emptied int, err error) {
	type due struct {
		row, last Row
		retention time.Duration
		clearing  bool
	}
	all, err := list(tx, "conversations", func(st *sqlite3.Stmt) (due, error) {
		return due{Row(st.ColumnInt64(0)), Row(st.ColumnInt64(1)), time.Duration(st.ColumnInt64(2)) * time.Second, st.ColumnBool(3)}, nil
	}, "SELECT row, cleared_to, retention, clearing FROM conversation WHERE clearing = 1 OR retention > 0")
	if err != nil {
		return 0, err
	}
	for _, d := range all {
		if d.clearing && emptied < deleteStep {
			n, err := tx.clear(d.row, d.last, deleteStep-emptied)
			if err != nil {
				return 0, err
			}
			emptied += n
		}
		if d.retention > 0 && emptied < deleteStep {
			n, err := tx.expire(d.row, now.Add(-d.retention), deleteStep-emptied)
			if err != nil {
				return 0, err
			}
			emptied += n
		}
	}
	return emptied, nil
}

// expire empties up to limit events of a conversation from before a time.
func (tx *Tx) expire(conversation Row, before time.Time, limit int) (int, error) {
	if before.UnixMilli() <= 0 {
		return 0, nil
	}
	events, err := list(tx, "events", scanEvent, "SELECT "+eventColumns+" FROM event INDEXED BY event_time WHERE conversation = ? AND "+shownEvent+
		" AND clock < ? ORDER BY clock LIMIT ?", conversation, event.Clock(before.UnixMilli())<<16, limit)
	if err != nil {
		return 0, err
	}
	return len(events), tx.empty(events, true)
}

// unindex takes events out of the search index before this transaction commits.
// An index that cannot be written is made anew at the next start instead.
func (tx *Tx) unindex(events []Event) error {
	x := tx.s.index
	if x == nil {
		return nil
	}
	err := x.remove(tx, events)
	ctx := tx.c.GetInterrupt()
	if err == nil || ctx.Err() != nil {
		return err
	}
	tx.s.log.Error("a deleted message could not leave the search index; the index is made anew at the next start", "error", err)
	return tx.PutSetting(settingReindex, []byte{1}, false)
}
