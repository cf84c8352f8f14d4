package store

import (
	"errors"
	"fmt"
	"iter"
	"reflect"

	"github.com/ncruces/go-sqlite3"
)

// Tx is one transaction, valid until the function that got it returns. It is
// not safe for concurrent use, and that function must not call Write or Read.
type Tx struct {
	s        *Store
	d        *database
	c        *conn
	begin    *sqlite3.Stmt // run before the first statement
	begun    bool
	before   int64 // rows that the connection had changed by then
	readOnly bool
	progress map[Row]*progress // of a read, as owner
	owner    Contact
	over     bool
	changed  uint64   // last number given out
	bound    uint64   // numbers up to here are reserved on disk
	after    []func() // run after the commit, in order
	err      error    // a statement that ended the transaction, even if the caller ignored it
}

// changedBlock is how many numbers of the changed counter one write reserves:
// a commit then does not rewrite a page of its own for the counter. A restart
// leaves a gap of at most this many.
const changedBlock = 1 << 16

// NextChanged gives the next number of the database's changed counter, which
// orders everything that was ever stored or altered. Numbers rise and are never
// given out twice; after a restart there may be a gap.
func (tx *Tx) NextChanged() uint64 {
	tx.changed++
	return tx.changed
}

// reserve makes the numbers given out safe from being given out again.
func (tx *Tx) reserve() error {
	if tx.readOnly || tx.changed <= tx.bound {
		return nil
	}
	bound := tx.changed + changedBlock
	if err := tx.Exec("UPDATE meta SET changed = ?", bound); err != nil {
		return fmt.Errorf("reserve change numbers: %w", err)
	}
	tx.bound = bound
	return nil
}

// afterCommit has f called once the transaction is durable, and never if it
// failed. f runs on the writing goroutine, with no connection held.
func (tx *Tx) afterCommit(f func()) { tx.after = append(tx.after, f) }

// Exec runs one statement to its end.
func (tx *Tx) Exec(sql string, args ...any) error {
	st, own, err := tx.prepare(sql)
	if err != nil {
		return err
	}
	if err = bind(st, args); err == nil {
		err = st.Exec() // resets
	}
	if own {
		tx.release(st, own)
	}
	return tx.failed(err)
}

// Query runs one statement and yields it once per row; columns are read from
// it inside the loop. It may be nested and left early.
func (tx *Tx) Query(sql string, args ...any) iter.Seq2[*sqlite3.Stmt, error] {
	return func(yield func(*sqlite3.Stmt, error) bool) {
		st, own, err := tx.prepare(sql)
		if err != nil {
			yield(nil, err)
			return
		}
		defer tx.release(st, own)
		if err := bind(st, args); err != nil {
			yield(nil, tx.failed(err))
			return
		}
		for st.Step() {
			if !yield(st, nil) {
				return
			}
			if err := st.Err(); err != nil { // of a column
				break
			}
		}
		if err := st.Err(); err != nil {
			yield(nil, tx.failed(err))
		}
	}
}

// one runs a query for its first row; scan reads it. It reports whether there
// was one.
func (tx *Tx) one(sql string, scan func(*sqlite3.Stmt), args ...any) (bool, error) {
	for st, err := range tx.Query(sql, args...) {
		if err != nil {
			return false, err
		}
		if scan != nil {
			scan(st)
		}
		return true, tx.failed(st.Err())
	}
	return false, nil
}

// stmt returns the prepared statement of sql, reset, with its bindings as they
// were left. The caller binds, steps and resets it. For the hot path; Exec and
// Query do for the rest.
func (tx *Tx) stmt(sql string) (*sqlite3.Stmt, error) {
	st, own, err := tx.prepare(sql)
	if err == nil && own {
		tx.release(st, own)
		return nil, errors.New("bug: the statement is in use: " + sql)
	}
	return st, err
}

// affected is the number of rows that the last statement changed.
func (tx *Tx) affected() int64 { return tx.c.Changes() }

// Wrote reports whether the transaction has changed any row so far, so that its
// commit has something to write.
func (tx *Tx) Wrote() bool { return tx.begun && tx.c.TotalChanges() != tx.before }

// prepare returns the cached statement of sql, or one of the caller's own while
// that is in use.
func (tx *Tx) prepare(sql string) (_ *sqlite3.Stmt, own bool, _ error) {
	if tx.over {
		return nil, false, errors.New("bug: the transaction is over")
	}
	if tx.err != nil {
		return nil, false, tx.err
	}
	if !tx.begun {
		if err := tx.begin.Exec(); err != nil {
			return nil, false, tx.failed(fmt.Errorf("begin: %w", err))
		}
		tx.begun, tx.before = true, tx.c.TotalChanges()
	}
	st := tx.c.stmts[sql]
	if st != nil && !st.Busy() {
		return st, false, tx.allowed(st)
	}
	own = st != nil
	st, tail, err := tx.c.PrepareFlags(sql, sqlite3.PREPARE_PERSISTENT)
	if err == nil && (st == nil || tail != "") {
		err = errors.New("bug: not one statement: " + sql)
	}
	if err != nil {
		_ = st.Close()
		return nil, false, tx.failed(err)
	}
	if !own {
		tx.c.stmts[sql] = st
	}
	return st, own, tx.allowed(st)
}

func (tx *Tx) allowed(st *sqlite3.Stmt) error {
	if tx.readOnly && !st.ReadOnly() {
		return fmt.Errorf("%s: %w: a write inside Read", tx.d.name, ErrReadOnly)
	}
	return nil
}

func (tx *Tx) release(st *sqlite3.Stmt, own bool) {
	if own {
		_ = st.Close() // repeats the error of the last step
		return
	}
	_ = st.Reset() // likewise
}

// failed remembers an error that ends the transaction: after an I/O error or a
// full disk SQLite may have rolled back by itself, and what the caller runs
// next would stand outside.
func (tx *Tx) failed(err error) error {
	if err == nil {
		return nil
	}
	if code, _, ok := codeOf(err); ok && tx.err == nil {
		switch code {
		case sqlite3.FULL, sqlite3.IOERR, sqlite3.CORRUPT, sqlite3.NOTADB, sqlite3.CANTOPEN, sqlite3.INTERRUPT:
			tx.err = err
		}
	}
	return err
}

// bind binds args in order. A nil slice is NULL, an empty one an empty blob.
func bind(st *sqlite3.Stmt, args []any) error {
	for i, a := range args {
		if err := bindOne(st, i+1, a); err != nil {
			return fmt.Errorf("bind argument %d: %w", i+1, err)
		}
	}
	return nil
}

func bindOne(st *sqlite3.Stmt, i int, a any) error {
	switch v := a.(type) {
	case nil:
		return st.BindNull(i)
	case []byte:
		if v == nil {
			return st.BindNull(i)
		}
		return st.BindBlob(i, v)
	case string:
		return st.BindText(i, v)
	case int64:
		return st.BindInt64(i, v)
	case int:
		return st.BindInt64(i, int64(v))
	case uint64:
		return st.BindInt64(i, int64(v))
	case bool:
		return st.BindBool(i, v)
	}
	v := reflect.ValueOf(a)
	switch v.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return st.BindInt64(i, v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return st.BindInt64(i, int64(v.Uint()))
	case reflect.String:
		return st.BindText(i, v.String())
	case reflect.Bool:
		return st.BindBool(i, v.Bool())
	case reflect.Float64:
		return st.BindFloat(i, v.Float())
	}
	return fmt.Errorf("bug: no column type for %T", a)
}
