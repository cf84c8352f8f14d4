package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ncruces/go-sqlite3"
)

// openAccount opens account.db alone: what is tested is one database.
func openAccount(t testing.TB, o Options) (*Store, error) {
	t.Helper()
	o.Key = testKey
	if o.migrations == nil {
		o.migrations = testSchema
	}
	s, err := newStore(o)
	check(t, err)
	if err := s.openAccount(t.Context()); err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = s.account.close() })
	return s, nil
}

// model is what a correct store holds: groups that were acknowledged, and
// those that were tried without an answer.
type model struct {
	rand  *rand.Rand
	acked []int // rows in each group that was acknowledged
	tried map[int]int
	next  int // number of the next group
	sizes map[int]int
}

func newModel(seed uint64) *model {
	return &model{rand: rand.New(rand.NewPCG(seed, 1)), tried: map[int]int{}, sizes: map[int]int{}}
}

// bodyOf is the text of a row, from its number: 20 B to 12 kB.
func bodyOf(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 2))
	b := make([]byte, 20+r.IntN(1500)+r.IntN(2)*r.IntN(2)*r.IntN(10000))
	for i := range b {
		b[i] = "etaoin shrdlu "[r.IntN(14)]
	}
	return b
}

// group writes one group: its rows and the hot row, all or nothing.
func (m *model) group(ctx context.Context, s *Store) error {
	return m.groupTold(ctx, s, func(int) {})
}

// groupTold says first how many rows it will write.
func (m *model) groupTold(ctx context.Context, s *Store, tell func(rows int)) error {
	g, rows := m.next, 1+m.rand.IntN(12)
	m.next++
	m.sizes[g] = rows
	tell(rows)
	err := s.Write(ctx, func(tx *Tx) error {
		for i := range rows {
			n := g*100 + i
			body := bodyOf(n)
			hash := sha256.Sum256(body)
			if err := tx.Exec("INSERT INTO row(n, body, hash, changed) VALUES(?, ?, ?, ?)", n, body, hash[:], tx.NextChanged()); err != nil {
				return err
			}
		}
		body := bodyOf(g)
		hash := sha256.Sum256(body)
		return tx.Exec("INSERT OR REPLACE INTO hot(one, n, body, hash) VALUES(1, ?, ?, ?)", g, body, hash[:])
	})
	if err != nil {
		m.tried[g] = rows
		return err
	}
	m.acked = append(m.acked, g)
	return nil
}

// verify compares the store with the model. strict: nothing that was refused
// may be there. It returns the groups found.
func (m *model) verify(ctx context.Context, s *Store, strict bool) error {
	found := map[int]int{}
	hot := -1
	last := int64(0)
	err := s.Read(ctx, func(tx *Tx) error {
		for st, err := range tx.Query("SELECT n, body, hash, changed FROM row ORDER BY n") {
			if err != nil {
				return err
			}
			n := st.ColumnInt(0)
			body := st.ColumnRawBlob(1)
			hash := sha256.Sum256(body)
			if !bytes.Equal(body, bodyOf(n)) || !bytes.Equal(hash[:], st.ColumnRawBlob(2)) {
				return fmt.Errorf("row %d is wrong", n)
			}
			if c := st.ColumnInt64(3); c <= last {
				return fmt.Errorf("row %d has changed %d after %d", n, c, last)
			} else {
				last = c
			}
			found[n/100]++
		}
		_, err := tx.one("SELECT n FROM hot", func(st *sqlite3.Stmt) { hot = st.ColumnInt(0) })
		return err
	})
	if err != nil {
		return err
	}
	for _, g := range m.acked {
		if found[g] != m.sizes[g] {
			return fmt.Errorf("acknowledged group %d has %d rows of %d", g, found[g], m.sizes[g])
		}
	}
	newest := -1
	for g, rows := range found {
		newest = max(newest, g)
		if _, refused := m.tried[g]; refused && strict {
			return fmt.Errorf("group %d was refused and is there", g)
		}
		if rows != m.sizes[g] {
			return fmt.Errorf("half a group %d: %d rows of %d", g, rows, m.sizes[g])
		}
	}
	if hot != newest {
		return fmt.Errorf("hot row of group %d, newest is %d", hot, newest)
	}
	return nil
}

// settle moves the refused groups that were kept after all to the others.
func (m *model) settle(ctx context.Context, s *Store) error {
	return s.Read(ctx, func(tx *Tx) error {
		for g := range m.tried {
			there, err := tx.one("SELECT 1 FROM row WHERE n = ?", nil, g*100)
			if err != nil {
				return err
			}
			if there {
				delete(m.tried, g)
				m.acked = append(m.acked, g)
			}
		}
		return nil
	})
}

// wholeFile runs the long check.
func wholeFile(ctx context.Context, s *Store) error {
	return s.Read(ctx, func(tx *Tx) error { return integrity(tx.c.Conn, "integrity_check") })
}
