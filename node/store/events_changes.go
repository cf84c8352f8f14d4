package store

import (
	"math"

	"github.com/ncruces/go-sqlite3"
)

// ChangeKind says in which table a changed object lies.
type ChangeKind uint8

// The kinds of object that carry a changed number.
const (
	ChangedEvent ChangeKind = iota + 1
	ChangedContact
	ChangedDevice
	ChangedConversation
	ChangedDelivery
	ChangedReadMark
	ChangedInvite
)

// Change names one object that was stored or altered.
type Change struct {
	Changed uint64
	Kind    ChangeKind
	Row     Row
}

// changeSources are the queries that each give the changes of one kind in order:
// events have two, those that never changed again and those that did.
var changeSources = [...]struct {
	kind ChangeKind
	sql  string
}{
	{ChangedEvent, "SELECT row, row FROM event WHERE row > ? AND changed IS NULL ORDER BY row LIMIT ?"},
	{ChangedEvent, "SELECT row, changed FROM event WHERE changed > ? ORDER BY changed LIMIT ?"},
	{ChangedContact, "SELECT row, changed FROM contact WHERE changed > ? ORDER BY changed LIMIT ?"},
	{ChangedDevice, "SELECT row, changed FROM device WHERE changed > ? ORDER BY changed LIMIT ?"},
	{ChangedConversation, "SELECT row, changed FROM conversation WHERE changed > ? ORDER BY changed LIMIT ?"},
	{ChangedDelivery, "SELECT row, changed FROM delivery WHERE changed > ? ORDER BY changed LIMIT ?"},
	{ChangedReadMark, "SELECT row, changed FROM read_mark WHERE changed > ? ORDER BY changed LIMIT ?"},
	{ChangedInvite, "SELECT row, changed FROM invite WHERE changed > ? ORDER BY changed LIMIT ?"},
}

// Changes gives up to limit objects with a changed number above since, in that
// order, each once with its newest number. Whoever keeps the last number and
// asks again misses nothing.
func (tx *Tx) Changes(since uint64, limit int) ([]Change, error) {
	var lists [len(changeSources)][]Change
	for i, s := range changeSources {
		var err error
		lists[i], err = list(tx, "changes", func(st *sqlite3.Stmt) (Change, error) {
			return Change{Changed: uint64(st.ColumnInt64(1)), Kind: s.kind, Row: Row(st.ColumnInt64(0))}, nil
		}, s.sql, min(since, math.MaxInt64), limit)
		if err != nil {
			return nil, err
		}
	}
	var all []Change
	for len(all) < limit {
		next := -1
		for i, l := range lists {
			if len(l) > 0 && (next < 0 || l[0].Changed < lists[next][0].Changed) {
				next = i
			}
		}
		if next < 0 {
			break
		}
		all = append(all, lists[next][0])
		lists[next] = lists[next][1:]
	}
	return all, nil
}

// LastChanged gives the highest changed number of this snapshot.
func (tx *Tx) LastChanged() (last uint64, err error) {
	_, err = tx.one(`SELECT max(
		coalesce((SELECT max(row) FROM event), 0),
		coalesce((SELECT max(changed) FROM event WHERE changed IS NOT NULL), 0),
		coalesce((SELECT max(changed) FROM contact), 0),
		coalesce((SELECT max(changed) FROM device), 0),
		coalesce((SELECT max(changed) FROM conversation), 0),
		coalesce((SELECT max(changed) FROM delivery), 0),
		coalesce((SELECT max(changed) FROM read_mark), 0),
		coalesce((SELECT max(changed) FROM invite), 0))`, func(st *sqlite3.Stmt) { last = uint64(st.ColumnInt64(0)) })
	return last, wrap("look up the last change", err)
}
