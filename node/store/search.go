package store

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/ncruces/go-sqlite3"
)

// ErrAmbiguous is returned where the beginning of an id fits several events.
var ErrAmbiguous = errors.New("several messages have an id that begins like this")

const (
	// tailMost is how many of the newest events that are not indexed yet a search
	// looks through; there are more only while an index is made anew.
	tailMost = 4 * indexBatch
	// pageMost is how many rows of the index are looked at at once.
	pageMost = 512
)

// Hit is a message that was found.
type Hit struct {
	Row   Row
	At    time.Time // the author's, but not after it came
	Event Event
}

// Place is where the hit stands among the others, for Query.Before.
func (h *Hit) Place() Cursor { return Cursor{event.Clock(h.At.UnixMilli()) << 16, h.Row} }

// Search finds messages, the newest first by their time; those within 2 s of each
// other may stand by arrival at the edge of a page. What was committed before the
// call is found. ErrQuery: the query cannot be searched for.
func (s *Store) Search(ctx context.Context, q Query) ([]Hit, error) {
	r, err := q.parse()
	if err != nil || r.impossible {
		return nil, err
	}
	f := &finder{s: s, search: r}
	hits, err := f.find(ctx)
	if err != nil {
		return nil, fmt.Errorf("search: %w", err)
	}
	return hits, nil
}

// finder is one search that runs. It never holds index.db while it waits for
// account.db: a deletion takes them the other way round.
type finder struct {
	s *Store
	*search
	state    indexState
	below    Row  // rows of the index that can match lie below
	above    Row  // and above
	late     bool // there are late ones
	clearing map[Row]Row
	hits     []Hit
}

func (f *finder) find(ctx context.Context) ([]Hit, error) {
	if err := f.s.index.look(ctx, f.bounds); err != nil {
		return nil, err
	}
	if err := f.s.Read(ctx, f.tail); err != nil {
		return nil, err
	}
	if len(f.Persons) > 0 && len(f.authors) == 0 {
		return nil, nil
	}
	if err := f.inOrder(ctx); err != nil {
		return nil, err
	}
	if f.late {
		if err := f.outOfOrder(ctx); err != nil {
			return nil, err
		}
	}
	return f.newest(), nil
}

// newest sorts what was found and cuts it to the limit.
func (f *finder) newest() []Hit {
	slices.SortFunc(f.hits, func(a, b Hit) int { return cmp.Or(b.At.Compare(a.At), cmp.Compare(b.Row, a.Row)) })
	f.hits = slices.CompactFunc(f.hits, func(a, b Hit) bool { return a.Row == b.Row })
	f.hits = f.hits[:min(len(f.hits), f.Limit)]
	return f.hits
}

// bounds reads where in the index to look.
func (f *finder) bounds(tx *Tx) (err error) {
	if f.state, err = tx.indexState(); err != nil {
		return err
	}
	if f.late, err = tx.one("SELECT 1 FROM late LIMIT 1", nil); err != nil {
		return err
	}
	f.below = f.state.upto + 1
	if f.Before != (Cursor{}) {
		// Events above this row are newer than Before, but for late ones.
		_, err = tx.one("SELECT row FROM pace WHERE at > ? ORDER BY at LIMIT 1",
			func(st *sqlite3.Stmt) { f.below = min(f.below, Row(st.ColumnInt64(0))+1) },
			clockMillis(f.Before.Clock)+slack)
	}
	if err == nil && !f.Since.IsZero() {
		_, err = tx.one("SELECT row FROM pace WHERE at < ? ORDER BY at DESC LIMIT 1", func(st *sqlite3.Stmt) { f.above = Row(st.ColumnInt64(0)) },
			f.Since.UnixMilli())
	}
	return err
}

// tail looks up what the query names, and looks through what is not indexed yet.
func (f *finder) tail(tx *Tx) error {
	for _, p := range f.Persons {
		id, err := identity.ParsePersonID(p)
		if err != nil {
			return fmt.Errorf("%w: %q is nobody's identity", ErrQuery, p)
		}
		row, err := tx.contactRow(id)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		f.authors = append(f.authors, row)
	}
	f.clearing = map[Row]Row{}
	for st, err := range tx.Query("SELECT row, cleared_to FROM conversation WHERE clearing = 1") {
		if err != nil {
			return err
		}
		f.clearing[Row(st.ColumnInt64(0))] = Row(st.ColumnInt64(1))
	}
	var who authors
	for st, err := range tx.Query("SELECT "+eventColumns+" FROM event WHERE row > ? ORDER BY row DESC LIMIT ?", f.state.upto, tailMost) {
		if err != nil {
			return err
		}
		e, err := tx.withFailure(scanEvent(st))
		if err != nil {
			return err
		}
		fits, err := f.fits(tx, &who, &e)
		if err != nil {
			return err
		}
		if fits {
			f.keep(&e, true)
		}
	}
	return nil
}

// fits reports whether an event is what the query asks for besides its words.
func (f *finder) fits(tx *Tx, who *authors, e *Event) (bool, error) {
	if e.Type.Class() != event.Content ||
		f.Conversation != 0 && e.Conversation != f.Conversation ||
		f.Protection != "" && e.Protection != f.protection() {
		return false, nil
	}
	if len(f.Persons) == 0 {
		return true, nil
	}
	author, err := who.of(tx, e.Device)
	return slices.Contains(f.authors, author), err
}

// keep takes an event for a hit if it is shown, lies within the times of the
// query, and, where the index cannot tell or was not asked, has the words.
func (f *finder) keep(e *Event, words bool) {
	at := e.when()
	if e.Deleted || e.Row <= f.clearing[e.Conversation] || !f.Since.IsZero() && at < f.Since.UnixMilli() {
		return
	}
	if f.Before != (Cursor{}) && compareCursor(Cursor{event.Clock(at) << 16, e.Row}, f.Before) >= 0 {
		return
	}
	if words && len(f.terms) > 0 && !f.holds(textOf(e)) {
		return
	}
	f.hits = append(f.hits, Hit{Row: e.Row, At: time.UnixMilli(at).UTC(), Event: *e})
}

// fetch reads candidates and keeps those that hold. A row that is not there any
// more is passed over.
func (f *finder) fetch(ctx context.Context, rows []Row) error {
	return f.s.Read(ctx, func(tx *Tx) error {
		for _, row := range rows {
			e, err := tx.EventByRow(row)
			if errors.Is(err, ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			f.keep(&e, f.phrases)
		}
		return nil
	})
}

// inOrder goes through the index from its newest row down until there are enough.
// That is the order of time, but for the late ones.
func (f *finder) inOrder(ctx context.Context) error {
	match := f.match(false)
	if f.late {
		match = "(" + match + ") NOT " + tagTerm(tagLate, 0)
	}
	had := len(f.hits) // of the tail, which may lie before them in time
	page := f.Limit
	if f.phrases {
		page = 4 * f.Limit
	}
	for below := f.below; len(f.hits)-had < f.Limit; page *= 2 {
		page = min(page, max(pageMost, f.Limit))
		var rows []Row
		err := f.s.index.look(ctx, func(tx *Tx) (err error) {
			rows, err = list(tx, "the search index", scanRow,
				"SELECT rowid FROM words WHERE words MATCH ? AND rowid < ? AND rowid > ? ORDER BY rowid DESC LIMIT ?", match, below, f.above, page)
			return err
		})
		if err == nil {
			err = f.fetch(ctx, rows)
		}
		if err != nil {
			return err
		}
		if len(rows) < page {
			return nil
		}
		below = rows[len(rows)-1]
	}
	return nil
}

func scanRow(st *sqlite3.Stmt) (Row, error) { return Row(st.ColumnInt64(0)), nil }

// outOfOrder goes through the late ones: all of them if they are few, else month
// by month from the newest, until none can be among the hits.
func (f *finder) outOfOrder(ctx context.Context) error {
	end := lateRow{math.MaxInt64, math.MaxInt64}
	if f.Before != (Cursor{}) {
		end = lateRow{f.Before.Row, clockMillis(f.Before.Clock)}
	}
	oldest := int64(math.MinInt64)
	if !f.Since.IsZero() {
		oldest = f.Since.UnixMilli()
	}
	match := f.match(true)
	rows, err := f.lateRows(ctx, match, end, pageMost+1)
	if err != nil {
		return err
	}
	if len(rows) <= pageMost {
		return f.fetchLate(ctx, rows)
	}
	for {
		if len(f.newest()) == f.Limit {
			oldest = max(oldest, f.hits[f.Limit-1].At.UnixMilli())
		}
		at, found, err := f.lateBefore(ctx, end, oldest)
		if err != nil || !found {
			return err
		}
		month := monthOf(at)
		if rows, err = f.lateRows(ctx, match+" AND "+tagTerm(tagMonth, month), end, pageMost); err != nil {
			return err
		}
		if err := f.fetchLate(ctx, rows); err != nil {
			return err
		}
		if end = (lateRow{0, monthStart(month)}); len(rows) == pageMost {
			end = rows[pageMost-1]
		}
	}
}

// lateRow is a row of late.
type lateRow struct {
	row Row
	at  int64
}

// lateRows gives up to limit late rows that match and lie before end, the newest
// by time first.
func (f *finder) lateRows(ctx context.Context, match string, end lateRow, limit int) (rows []lateRow, err error) {
	err = f.s.index.look(ctx, func(tx *Tx) (err error) {
		rows, err = list(tx, "the search index", func(st *sqlite3.Stmt) (lateRow, error) {
			return lateRow{Row(st.ColumnInt64(0)), st.ColumnInt64(1)}, nil
		}, `SELECT l.row, l.at FROM words w JOIN late l ON l.row = w.rowid
			WHERE words MATCH ? AND (l.at, l.row) < (?, ?) ORDER BY l.at DESC, l.row DESC LIMIT ?`, match, end.at, end.row, limit)
		return err
	})
	return rows, err
}

// lateBefore gives the time of the newest late event from oldest on and before
// end.
func (f *finder) lateBefore(ctx context.Context, end lateRow, oldest int64) (at int64, found bool, err error) {
	err = f.s.index.look(ctx, func(tx *Tx) (err error) {
		found, err = tx.one("SELECT at FROM late WHERE (at, row) < (?, ?) AND at >= ? ORDER BY at DESC LIMIT 1",
			func(st *sqlite3.Stmt) { at = st.ColumnInt64(0) }, end.at, end.row, oldest)
		return err
	})
	return at, found, err
}

// fetchLate fetches of rows, which stand by time, no more than can be hits.
func (f *finder) fetchLate(ctx context.Context, rows []lateRow) error {
	for len(rows) > 0 {
		n := min(len(rows), f.Limit)
		page := make([]Row, n)
		for i, r := range rows[:n] {
			page[i] = r.row
		}
		if err := f.fetch(ctx, page); err != nil {
			return err
		}
		if len(f.newest()) == f.Limit && f.hits[f.Limit-1].At.UnixMilli() >= rows[n-1].at {
			return nil
		}
		rows = rows[n:]
	}
	return nil
}

// FindEvent gives the message whose id begins with hex digits, at least 8 of
// them; deleted ones are found too. ErrNotFound, ErrAmbiguous, ErrQuery.
func (s *Store) FindEvent(ctx context.Context, prefix string) (Event, error) {
	prefix = strings.ToLower(prefix)
	if len(prefix) < 8 || len(prefix) > 64 || strings.Trim(prefix, "0123456789abcdef") != "" {
		return Event{}, fmt.Errorf("%w: an id has 64 hex digits: give at least 8 of them", ErrQuery)
	}
	match := `"` + tagMark + string(tagID) + prefix[:min(len(prefix), tagIDDigits)] + `"`
	if len(prefix) < tagIDDigits {
		match += "*"
	}
	var st indexState
	var rows []Row
	err := s.index.look(ctx, func(tx *Tx) (err error) {
		if st, err = tx.indexState(); err == nil {
			rows, err = list(tx, "the search index", scanRow, "SELECT rowid FROM words WHERE words MATCH ? LIMIT 64", match)
		}
		return err
	})
	if err != nil {
		return Event{}, fmt.Errorf("find a message: %w", err)
	}
	var found []Event
	err = s.Read(ctx, func(tx *Tx) error {
		tail, err := tx.tailWithID(st.upto, prefix)
		if err != nil {
			return err
		}
		for _, row := range append(rows, tail...) {
			e, err := tx.EventByRow(row)
			if err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			if err == nil && strings.HasPrefix(hex.EncodeToString(e.ID[:]), prefix) {
				found = append(found, e)
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return Event{}, fmt.Errorf("find a message: %w", err)
	case len(found) == 0:
		return Event{}, fmt.Errorf("message %s: %w", prefix, ErrNotFound)
	case len(found) > 1:
		return Event{}, fmt.Errorf("message %s: %w", prefix, ErrAmbiguous)
	}
	return found[0], nil
}

// tailWithID gives the content behind a row whose id begins with hex digits.
func (tx *Tx) tailWithID(after Row, prefix string) ([]Row, error) {
	low, _ := hex.DecodeString(prefix[:len(prefix)&^1]) // digits, as the caller saw
	var rows []Row
	for st, err := range tx.Query("SELECT row, flags FROM event WHERE row > ?1 AND substr(id, 1, ?2) = ?3", after, len(low), low) {
		if err != nil {
			return nil, err
		}
		e := Event{}
		e.setFlags(st.ColumnInt64(1))
		if e.Type.Class() == event.Content {
			rows = append(rows, Row(st.ColumnInt64(0)))
		}
	}
	return rows, nil
}
