package store

import (
	"fmt"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/ncruces/go-sqlite3"
)

// Trust is what the owner knows about a contact's identity.
type Trust uint8

// The grades of trust; the numbers are stored and never change.
const (
	Unverified Trust = 0
	Verified   Trust = 1 // check words or digits were compared
	Blocked    Trust = 2
)

// ContactState is how far an acquaintance has come.
type ContactState uint8

// The states; the numbers are stored and never change.
const (
	Request  ContactState = 1 // wrote first and waits for the owner
	Accepted ContactState = 2
	Removed  ContactState = 3 // kept for what it wrote
	Self     ContactState = 4 // the owner
)

// Contact is the local record of a person.
type Contact struct {
	Row     Row // 0: not stored yet
	Person  identity.PersonID
	Petname string // what the owner calls them
	Name    string // what they call themselves
	Trust   Trust
	State   ContactState
	Words   string    // check words of the first exchange
	WordsAt time.Time // when they were made
	Since   time.Time
	Ways    Ways // by which the contact's devices may be reached
	Changed uint64
}

// Ways says by which routes a contact's devices may be reached, and may reach this
// one.
type Ways uint8

// The rules; the numbers are stored and never change.
const (
	AnyWay    Ways = 0
	RelayOnly Ways = 1 // never without a relay: they do not learn where this node is
	LANOnly   Ways = 2 // never over the Internet
)

const contactColumns = "row, person, petname, name, trust, state, words, words_at, since, changed, ways"

func scanContact(st *sqlite3.Stmt) (c Contact, err error) {
	c = Contact{
		Row:     Row(st.ColumnInt64(0)),
		Petname: st.ColumnText(2),
		Name:    st.ColumnText(3),
		Trust:   Trust(st.ColumnInt(4)),
		State:   ContactState(st.ColumnInt(5)),
		Words:   st.ColumnText(6),
		WordsAt: fromMillis(st.ColumnInt64(7)),
		Since:   fromMillis(st.ColumnInt64(8)),
		Changed: uint64(st.ColumnInt64(9)),
		Ways:    Ways(st.ColumnInt(10)),
	}
	return c, fixed(c.Person[:], st, 1)
}

// PutContact stores a contact: a new one where Row is 0 and the person is not
// known, else over the old one. It sets Row and Changed.
func (tx *Tx) PutContact(c *Contact) error {
	c.Changed = tx.NextChanged()
	_, err := tx.one(`INSERT INTO contact(person, petname, name, trust, state, words, words_at, since, changed, ways)
		VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
		ON CONFLICT(person) DO UPDATE SET petname = ?2, name = ?3, trust = ?4, state = ?5, words = ?6, words_at = ?7, since = ?8, changed = ?9, ways = ?10
		RETURNING row`,
		func(st *sqlite3.Stmt) { c.Row = Row(st.ColumnInt64(0)) },
		c.Person[:], c.Petname, c.Name, c.Trust, c.State, c.Words, millis(c.WordsAt), millis(c.Since), c.Changed, c.Ways)
	return wrap("store a contact", err)
}

// ContactByPerson gives the contact of a person, or ErrNotFound.
func (tx *Tx) ContactByPerson(p identity.PersonID) (Contact, error) {
	return get(tx, "contact", scanContact, "SELECT "+contactColumns+" FROM contact WHERE person = ?", p[:])
}

// ContactByRow gives a contact, or ErrNotFound.
func (tx *Tx) ContactByRow(row Row) (Contact, error) {
	return get(tx, "contact", scanContact, "SELECT "+contactColumns+" FROM contact WHERE row = ?", row)
}

// Contacts gives every contact, the owner included, the oldest first.
func (tx *Tx) Contacts() ([]Contact, error) {
	return list(tx, "contacts", scanContact, "SELECT "+contactColumns+" FROM contact ORDER BY row")
}

// ContactsChanged gives the number of the newest change of a contact, 0 if there
// is none.
func (tx *Tx) ContactsChanged() (changed uint64, err error) {
	_, err = tx.one("SELECT max(changed) FROM contact", func(st *sqlite3.Stmt) { changed = uint64(st.ColumnInt64(0)) })
	return changed, wrap("read contacts", err)
}

// contactRow gives the row of a person's contact, or ErrNotFound.
func (tx *Tx) contactRow(p identity.PersonID) (row Row, err error) {
	found, err := tx.one("SELECT row FROM contact WHERE person = ?", func(st *sqlite3.Stmt) { row = Row(st.ColumnInt64(0)) }, p[:])
	if err == nil && !found {
		err = ErrNotFound
	}
	return row, wrap("look up a contact", err)
}

// PutLog stores the entries of a person's log, from the first one on. What is
// stored already and equal is not written again.
func (tx *Tx) PutLog(p identity.PersonID, entries [][]byte) error {
	contact, err := tx.contactRow(p)
	if err != nil {
		return err
	}
	for i, e := range entries {
		err := tx.Exec(`INSERT INTO log_entry(contact, number, entry) VALUES(?1, ?2, ?3)
			ON CONFLICT(contact, number) DO UPDATE SET entry = ?3 WHERE entry IS NOT ?3`, contact, i, e)
		if err != nil {
			return wrap("store a log", err)
		}
	}
	return wrap("store a log", tx.Exec("DELETE FROM log_entry WHERE contact = ? AND number >= ?", contact, len(entries)))
}

// Log gives the entries of a person's log, or ErrNotFound if none is stored.
func (tx *Tx) Log(p identity.PersonID) ([][]byte, error) {
	contact, err := tx.contactRow(p)
	if err != nil {
		return nil, err
	}
	entries, err := list(tx, "a log", func(st *sqlite3.Stmt) ([]byte, error) { return st.ColumnBlob(0, nil), nil },
		"SELECT entry FROM log_entry WHERE contact = ? ORDER BY number", contact)
	if err == nil && len(entries) == 0 {
		err = fmt.Errorf("log: %w", ErrNotFound)
	}
	return entries, err
}

// get runs a query for the one row that it names.
func get[T any](tx *Tx, what string, scan func(*sqlite3.Stmt) (T, error), sql string, args ...any) (T, error) {
	for st, err := range tx.Query(sql, args...) {
		var v T
		if err == nil {
			v, err = scan(st)
		}
		return v, wrap("read "+what, err)
	}
	var none T
	return none, fmt.Errorf("%s: %w", what, ErrNotFound)
}

// list runs a query for all of its rows.
func list[T any](tx *Tx, what string, scan func(*sqlite3.Stmt) (T, error), sql string, args ...any) ([]T, error) {
	var all []T
	for st, err := range tx.Query(sql, args...) {
		var v T
		if err == nil {
			v, err = scan(st)
		}
		if err != nil {
			return nil, wrap("read "+what, err)
		}
		all = append(all, v)
	}
	return all, nil
}

// fixed reads a blob that must have the length of dst. NULL leaves dst alone.
func fixed(dst []byte, st *sqlite3.Stmt, col int) error {
	b := st.ColumnRawBlob(col)
	if b == nil && st.ColumnType(col) == sqlite3.NULL {
		return nil
	}
	if len(b) != len(dst) {
		return fmt.Errorf("%w: %s has %d bytes", ErrDamaged, st.ColumnName(col), len(b))
	}
	copy(dst, b)
	return nil
}

// blob reads a column as bytes of the caller's; NULL and empty are nil.
func blob(st *sqlite3.Stmt, col int) []byte {
	if b := st.ColumnRawBlob(col); len(b) > 0 {
		return append([]byte(nil), b...)
	}
	return nil
}

// notEmpty makes an empty slice NULL.
func notEmpty(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
