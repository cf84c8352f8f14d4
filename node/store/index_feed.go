package store

import (
	"context"
	"fmt"

	"github.com/kinloom/kinloom/protocol/event"
	"github.com/ncruces/go-sqlite3"
)

// slack is by how much an event may lie before the highest time of those with
// lower rows and still count as in order: on their way, messages of different
// devices overtake each other by about that. It is also by how much the order
// of a search may be off among messages of the same seconds. Unix ms.
const slack = 2000

// paceStep is how many rows lie between two entries of pace.
const paceStep = 1000

// when is the time of an event for the search: the author's, but not after it
// came. Unix ms.
func (e *Event) when() int64 { return min(clockMillis(e.Clock), e.At.UnixMilli()) }

// authors finds the contact behind a device row, the tag of an author.
type authors struct {
	known map[Row]Row
	self  Row
}

func (a *authors) of(tx *Tx, device Row) (Row, error) {
	if device == 0 {
		if a.self == 0 {
			c, err := tx.self()
			if err != nil {
				return 0, err
			}
			a.self = c.Row
		}
		return a.self, nil
	}
	if c, ok := a.known[device]; ok {
		return c, nil
	}
	var contact Row
	if _, err := tx.one("SELECT contact FROM device WHERE row = ?", func(st *sqlite3.Stmt) { contact = Row(st.ColumnInt64(0)) }, device); err != nil {
		return 0, err
	}
	if a.known == nil {
		a.known = map[Row]Row{}
	}
	a.known[device] = contact
	return contact, nil
}

// document is an event on its way into the index.
type document struct {
	row     Row
	at      int64 // when
	id      event.ID
	content bool
	author  Row
	words   []byte // of the text; the tags follow when it is known whether it is late
	e       Event
}

// read reads the events behind a row, at most one batch of them.
func (x *indexer) read(ctx context.Context, after Row) ([]document, error) {
	var docs []document
	err := x.s.Read(ctx, func(tx *Tx) error {
		var who authors
		for st, err := range tx.Query("SELECT "+eventColumns+" FROM event WHERE row > ? ORDER BY row LIMIT ?", after, indexBatch) {
			if err != nil {
				return err
			}
			e, err := scanEvent(st)
			if err != nil {
				return err
			}
			d, err := makeDocument(tx, &who, &e)
			if err != nil {
				return err
			}
			docs = append(docs, d)
		}
		return nil
	})
	return docs, err
}

func makeDocument(tx *Tx, who *authors, e *Event) (document, error) {
	d := document{row: e.Row, at: e.when(), id: e.ID, content: e.Type.Class() == event.Content, e: *e}
	if !d.content {
		d.e.Raw = nil
		return d, nil
	}
	author, err := who.of(tx, e.Device)
	if err != nil {
		return d, err
	}
	d.author = author
	if !e.Deleted {
		d.words = appendWords(make([]byte, 0, len(e.Raw)+96), textOf(e))
	}
	d.e.Raw = nil
	return d, nil
}

// text is what goes into the index for d: of a deleted event its id alone, so
// that its tombstone is found.
func (d *document) text(late bool) []byte {
	if d.e.Deleted {
		return appendID(nil, d.id)
	}
	b := append(d.words, ' ')
	b = appendTag(b, tagAuthor, int64(d.author))
	b = appendTag(b, tagConversation, int64(d.e.Conversation))
	b = appendTag(b, tagNetwork, networkKinloom)
	b = appendTag(b, tagProtection, int64(d.e.Protection))
	b = appendTag(b, tagMonth, monthOf(d.at))
	if late {
		b = appendTag(b, tagLate, 0)
	}
	return appendID(b, d.id)
}

// step indexes the next batch and gives the number of events that it took, 0
// when there was nothing to do.
func (x *indexer) step(ctx context.Context) (int, error) {
	if x.broken.Load() {
		return 0, fmt.Errorf("%s: %w", IndexFile, ErrDamaged)
	}
	select {
	case <-x.turn:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	defer func() { x.turn <- struct{}{} }()
	var st indexState
	if err := x.d.read(ctx, func(tx *Tx) (err error) { st, err = tx.indexState(); return err }); err != nil {
		return 0, err
	}
	x.waiting.Store(0)
	settled := x.takeSettled()
	// account.db is read before index.db is held: a deletion takes them the other
	// way round.
	docs, err := x.read(ctx, st.upto)
	if err == nil && len(docs)+len(settled) > 0 {
		err = x.d.write(ctx, func(tx *Tx) error { return tx.indexAll(st, docs, settled) })
	}
	if err != nil {
		x.settle(settled)
		return 0, err
	}
	return len(docs), nil
}

// settle notes that the deletion of events is committed: the mark that they were
// taken out may go with the next batch.
func (x *indexer) settle(rows []Row) {
	x.mu.Lock()
	x.settled = append(x.settled, rows...)
	x.mu.Unlock()
}

func (x *indexer) takeSettled() []Row {
	x.mu.Lock()
	defer x.mu.Unlock()
	rows := x.settled
	x.settled = nil
	return rows
}

// indexAll writes a batch and moves the state on. The documents were read after
// the deletions of the settled rows were committed, so they know them.
func (tx *Tx) indexAll(st indexState, docs []document, settled []Row) error {
	removed := map[Row]bool{}
	for s, err := range tx.Query("SELECT row FROM removed WHERE row > ?", st.upto) {
		if err != nil {
			return err
		}
		removed[Row(s.ColumnInt64(0))] = true
	}
	for i := range docs {
		d := &docs[i]
		if d.content {
			d.e.Deleted = d.e.Deleted || removed[d.row]
			late := d.at < st.high-slack
			if late && !d.e.Deleted {
				if err := tx.Exec("INSERT OR REPLACE INTO late(row, at) VALUES(?, ?)", d.row, d.at); err != nil {
					return err
				}
			}
			if err := tx.addWords(d.row, d.text(late)); err != nil {
				return err
			}
			st.high = max(st.high, d.at)
		}
		st.upto, st.uptoID = d.row, d.id
	}
	for _, row := range settled {
		if err := tx.Exec("DELETE FROM removed WHERE row = ?", row); err != nil {
			return err
		}
	}
	if st.upto-st.paced >= paceStep {
		st.paced = st.upto
		if err := tx.Exec("INSERT OR REPLACE INTO pace(row, at) VALUES(?, ?)", st.upto, st.high); err != nil {
			return err
		}
	}
	return tx.Exec("UPDATE state SET upto = ?, upto_id = ?, high = ?, paced = ?", st.upto, st.uptoID[:], st.high, st.paced)
}

func (tx *Tx) addWords(row Row, text []byte) error {
	st, err := tx.stmt("INSERT INTO words(rowid, t) VALUES(?, ?)")
	if err == nil {
		err = firstError(st.BindInt64(1, int64(row)), st.BindRawText(2, text))
	}
	if err == nil {
		err = st.Exec()
	}
	return tx.failed(err)
}

// takeWords removes what addWords put in. The text must be the same.
func (tx *Tx) takeWords(row Row, text []byte) error {
	return tx.Exec("INSERT INTO words(words, rowid, t) VALUES('delete', ?, ?)", row, string(text))
}

// isLate reports whether a row was indexed as late.
func (tx *Tx) isLate(row Row) (bool, error) {
	return tx.one("SELECT 1 FROM late WHERE row = ?", nil, row)
}

// remove takes events out of the index for the transaction acc of account.db,
// durably, and before that one commits.
func (x *indexer) remove(acc *Tx, events []Event) error {
	if x.broken.Load() {
		return ErrDamaged
	}
	docs := make([]document, 0, len(events))
	var who authors
	for i := range events {
		d, err := makeDocument(acc, &who, &events[i])
		if err != nil {
			return err
		}
		if d.content {
			docs = append(docs, d)
		}
	}
	if len(docs) == 0 {
		return nil
	}
	ctx := acc.c.GetInterrupt()
	if err := x.d.write(ctx, func(tx *Tx) error { return tx.removeAll(docs) }); err != nil {
		return err
	}
	rows := make([]Row, len(docs))
	for i := range docs {
		rows[i] = docs[i].row
	}
	acc.afterCommit(func() {
		x.settle(rows)
		x.ring()
	})
	// index.db does not sync its commits. What this one took out must not come
	// back after a power cut, when account.db has nothing left to take it out with.
	return x.d.checkpoint(ctx)
}

func (tx *Tx) removeAll(docs []document) error {
	st, err := tx.indexState()
	if err != nil {
		return err
	}
	for i := range docs {
		d := &docs[i]
		known, err := tx.one("SELECT 1 FROM removed WHERE row = ?", nil, d.row)
		if err != nil {
			return err
		}
		if known {
			continue // of a transaction that failed afterwards
		}
		if err := tx.Exec("INSERT INTO removed(row) VALUES(?)", d.row); err != nil {
			return err
		}
		if d.row > st.upto {
			continue // it enters as a deleted one
		}
		late, err := tx.isLate(d.row)
		if err != nil {
			return err
		}
		if err := tx.takeWords(d.row, d.text(late)); err != nil {
			return err
		}
		if err := tx.addWords(d.row, appendID(nil, d.id)); err != nil {
			return err
		}
	}
	return nil
}

// reconcile looks at the events that were taken out for a deletion that may not
// have been committed before the process ended: those that are still there enter
// again. It runs before anything can be deleted.
func (x *indexer) reconcile(ctx context.Context) error {
	for {
		again, err := x.reconcileSome(ctx)
		if err != nil || !again {
			return err
		}
	}
}

func (x *indexer) reconcileSome(ctx context.Context) (again bool, err error) {
	var rows []Row
	err = x.d.read(ctx, func(tx *Tx) error {
		rows, err = list(tx, "removed messages", func(st *sqlite3.Stmt) (Row, error) { return Row(st.ColumnInt64(0)), nil },
			"SELECT row FROM removed ORDER BY row LIMIT ?", indexBatch)
		return err
	})
	if err != nil || len(rows) == 0 {
		return false, err
	}
	var docs []document
	err = x.s.Read(ctx, func(tx *Tx) error {
		var who authors
		for _, row := range rows {
			e, err := tx.EventByRow(row)
			if err != nil {
				return err
			}
			d, err := makeDocument(tx, &who, &e)
			if err != nil {
				return err
			}
			docs = append(docs, d)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	err = x.d.write(ctx, func(tx *Tx) error { return tx.reconcile(docs) })
	return len(rows) == indexBatch, err
}

func (tx *Tx) reconcile(docs []document) error {
	st, err := tx.indexState()
	if err != nil {
		return err
	}
	for i := range docs {
		d := &docs[i]
		if err := tx.Exec("DELETE FROM removed WHERE row = ?", d.row); err != nil {
			return err
		}
		if d.e.Deleted || d.row > st.upto {
			continue
		}
		late, err := tx.isLate(d.row)
		if err != nil {
			return err
		}
		if err := tx.takeWords(d.row, appendID(nil, d.id)); err != nil {
			return err
		}
		if err := tx.addWords(d.row, d.text(late)); err != nil {
			return err
		}
	}
	return nil
}
