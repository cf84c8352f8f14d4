package store

import (
	"context"
	"path"
	"time"

	"github.com/ipfs/go-datastore/query"
)

// queryPage is how many rows one read of a query fetches.
const queryPage = 128

// Query implements [ds.Read]. Results come in the order of their keys, page by
// page: an entry that is written or deleted while they are read may be seen or
// not, all others are.
func (n *Datastore) Query(ctx context.Context, q query.Query) (query.Results, error) {
	if err := n.commitNow(ctx, nil); err != nil {
		return nil, err
	}
	from, to := keyRange(q.Prefix)
	var page []query.Entry
	var rest bool
	fetch := func() (err error) {
		page, err = n.page(ctx, q, from, to)
		rest = len(page) == queryPage
		if len(page) > 0 {
			from = append([]byte(page[len(page)-1].Key), 0)
		}
		return err
	}
	if err := fetch(); err != nil {
		return nil, err
	}
	failed := false
	results := query.ResultsFromIterator(q, query.Iterator{Next: func() (query.Result, bool) {
		if len(page) == 0 && rest && !failed {
			if err := fetch(); err != nil {
				failed = true
				return query.Result{Error: err}, true
			}
		}
		if len(page) == 0 || failed {
			return query.Result{}, false
		}
		e := page[0]
		page = page[1:]
		return query.Result{Entry: e}, true
	}})
	naive := q
	naive.Prefix = ""
	if len(q.Orders) > 0 {
		if _, ok := q.Orders[0].(query.OrderByKey); ok {
			naive.Orders = nil // as they come; keys are unique, so later orders say nothing
		}
	}
	return query.NaiveQueryApply(naive, results), nil
}

// keyRange is the range [from, to) of the keys strictly below a prefix.
func keyRange(prefix string) (from, to []byte) {
	prefix = path.Clean("/" + prefix)
	if prefix == "/" {
		prefix = ""
	}
	return []byte(prefix + "/"), []byte(prefix + string(rune('/'+1)))
}

func (n *Datastore) page(ctx context.Context, q query.Query, from, to []byte) ([]query.Entry, error) {
	sql := "SELECT key, size, expiry, value FROM kv WHERE key >= ? AND key < ? AND (expiry = 0 OR expiry > ?) ORDER BY key LIMIT ?"
	if q.KeysOnly {
		sql = "SELECT key, size, expiry FROM kv WHERE key >= ? AND key < ? AND (expiry = 0 OR expiry > ?) ORDER BY key LIMIT ?"
	}
	var page []query.Entry
	err := n.read(ctx, func(tx *Tx) error {
		page = page[:0]
		for st, err := range tx.Query(sql, from, to, n.s.opts.Now().UnixMilli(), queryPage) {
			if err != nil {
				return err
			}
			e := query.Entry{Key: string(st.ColumnRawBlob(0))}
			e.Size = st.ColumnInt(1) - len(e.Key) - rowCost
			if at := st.ColumnInt64(2); at > 0 && q.ReturnExpirations {
				e.Expiration = time.UnixMilli(at)
			}
			if !q.KeysOnly {
				e.Value = st.ColumnBlob(3, []byte{})
			}
			page = append(page, e)
		}
		return nil
	})
	return page, err
}
