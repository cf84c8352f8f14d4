package store

import (
	"fmt"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/ncruces/go-sqlite3"
)

// Conversation is what the node keeps of a conversation besides its events.
type Conversation struct {
	Row       Row // 0: not stored yet
	ID        event.ConversationID
	Kind      event.Kind
	Person    identity.PersonID // of a pair: the other one
	Title     string
	Muted     bool
	Archived  bool
	Retention time.Duration // whole seconds; 0: kept for ever
	ClearedTo Row           // events up to this row were cleared by the owner; set by ClearConversation alone
	OwnSeq    uint64        // seq of the next own event
	Heads     []event.ID
	Clock     event.Clock
	Unread    int
	LastAt    time.Time
	Changed   uint64
}

const conversationColumns = `row, id, kind, person, title, muted, archived, retention, cleared_to,
	own_seq, heads, clock, unread, last_at, changed`

func scanConversation(st *sqlite3.Stmt) (Conversation, error) {
	c := Conversation{
		Row:       Row(st.ColumnInt64(0)),
		Kind:      event.Kind(st.ColumnInt(2)),
		Title:     st.ColumnText(4),
		Muted:     st.ColumnBool(5),
		Archived:  st.ColumnBool(6),
		Retention: time.Duration(st.ColumnInt64(7)) * time.Second,
		ClearedTo: Row(st.ColumnInt64(8)),
		OwnSeq:    uint64(st.ColumnInt64(9)),
		Clock:     event.Clock(st.ColumnInt64(11)),
		Unread:    st.ColumnInt(12),
		LastAt:    fromMillis(st.ColumnInt64(13)),
		Changed:   uint64(st.ColumnInt64(14)),
	}
	if err := fixed(c.ID[:], st, 1); err != nil {
		return c, err
	}
	heads := st.ColumnRawBlob(10)
	if len(heads)%len(event.ID{}) != 0 {
		return c, fmt.Errorf("%w: heads have %d bytes", ErrDamaged, len(heads))
	}
	for ; len(heads) > 0; heads = heads[len(event.ID{}):] {
		c.Heads = append(c.Heads, event.ID(heads))
	}
	return c, fixed(c.Person[:], st, 3)
}

// PutConversation stores a conversation: a new one where the id is not known,
// else over the old one, but for its id, kind, person and ClearedTo. It sets Row
// and Changed.
func (tx *Tx) PutConversation(c *Conversation) error {
	heads := make([]byte, 0, len(c.Heads)*len(event.ID{}))
	for _, id := range c.Heads {
		heads = append(heads, id[:]...)
	}
	var person []byte
	if c.Person != (identity.PersonID{}) {
		person = c.Person[:]
	}
	c.Changed = tx.NextChanged()
	retention := int64(c.Retention / time.Second)
	if c.Row != 0 {
		err := tx.Exec(`UPDATE conversation SET title = ?2, muted = ?3, archived = ?4, retention = ?5, own_seq = ?6, heads = ?7,
			clock = ?8, unread = ?9, last_at = ?10, changed = ?11 WHERE row = ?1`,
			c.Row, c.Title, c.Muted, c.Archived, retention, c.OwnSeq, heads, c.Clock, c.Unread, millis(c.LastAt), c.Changed)
		if err == nil && tx.affected() == 0 {
			err = ErrNotFound
		}
		return wrap("store a conversation", err)
	}
	_, err := tx.one(`INSERT INTO conversation(id, kind, person, title, muted, archived, retention, cleared_to, clearing, own_seq, heads,
			clock, unread, last_at, changed)
		VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0, ?8, ?9, ?10, ?11, ?12, ?13)
		ON CONFLICT(id) DO UPDATE SET title = ?4, muted = ?5, archived = ?6, retention = ?7, own_seq = ?8, heads = ?9,
			clock = ?10, unread = ?11, last_at = ?12, changed = ?13
		RETURNING row`,
		func(st *sqlite3.Stmt) { c.Row = Row(st.ColumnInt64(0)) },
		c.ID[:], c.Kind, person, c.Title, c.Muted, c.Archived, retention, c.OwnSeq, heads, c.Clock, c.Unread, millis(c.LastAt), c.Changed)
	return wrap("store a conversation", err)
}

// ConversationByID gives a conversation, or ErrNotFound.
func (tx *Tx) ConversationByID(id event.ConversationID) (Conversation, error) {
	return get(tx, "conversation", scanConversation, "SELECT "+conversationColumns+" FROM conversation WHERE id = ?", id[:])
}

// ConversationByRow gives a conversation, or ErrNotFound.
func (tx *Tx) ConversationByRow(row Row) (Conversation, error) {
	return get(tx, "conversation", scanConversation, "SELECT "+conversationColumns+" FROM conversation WHERE row = ?", row)
}

// Conversations gives every conversation, the oldest first.
func (tx *Tx) Conversations() ([]Conversation, error) {
	return list(tx, "conversations", scanConversation, "SELECT "+conversationColumns+" FROM conversation ORDER BY row")
}

// Control is the latest control event of one author, type and key.
type Control struct {
	Conversation Row
	Person       identity.PersonID // the author, a stored contact
	Type         event.Type
	Key          string
	Clock        event.Clock
	ID           event.ID
	Body         []byte
}

// SetControl stores a control event if it is later than what is stored of the
// same conversation, author, type and key: by clock, then by id. It reports
// whether it was.
func (tx *Tx) SetControl(c Control) (won bool, err error) {
	contact, err := tx.contactRow(c.Person)
	if err != nil {
		return false, err
	}
	body := c.Body
	if body == nil {
		body = []byte{}
	}
	err = tx.Exec(`INSERT INTO control(conversation, contact, type, key, clock, id, body) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)
		ON CONFLICT(conversation, contact, type, key) DO UPDATE SET clock = ?5, id = ?6, body = ?7 WHERE (clock, id) < (?5, ?6)`,
		c.Conversation, contact, c.Type, c.Key, c.Clock, c.ID[:], body)
	return err == nil && tx.affected() > 0, wrap("store a control event", err)
}

// DropControl forgets the latest control event of an author, type and key, as if there
// had been none.
func (tx *Tx) DropControl(conversation Row, p identity.PersonID, t event.Type, key string) error {
	contact, err := tx.contactRow(p)
	if err != nil {
		return err
	}
	return wrap("forget a control event", tx.Exec("DELETE FROM control WHERE conversation = ? AND contact = ? AND type = ? AND key = ?", conversation, contact, t, key))
}

// Control gives the latest control event of an author, type and key, or
// ErrNotFound.
func (tx *Tx) Control(conversation Row, p identity.PersonID, t event.Type, key string) (Control, error) {
	contact, err := tx.contactRow(p)
	if err != nil {
		return Control{}, err
	}
	return get(tx, "control event", func(st *sqlite3.Stmt) (Control, error) {
		c := Control{
			Conversation: conversation, Person: p, Type: t, Key: key, Clock: event.Clock(st.ColumnInt64(0)), Body: blob(st, 2),
		}
		return c, fixed(c.ID[:], st, 1)
	}, "SELECT clock, id, body FROM control WHERE conversation = ? AND contact = ? AND type = ? AND key = ?", conversation, contact, t, key)
}
