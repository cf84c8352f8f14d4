package store

import (
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/ncruces/go-sqlite3"
)

// Invite is an invite that was given out. Its token is kept as a hash: the
// database alone lets nobody answer one.
type Invite struct {
	Row       Row // 0: not stored yet
	TokenHash [32]byte
	Created   time.Time
	Expires   time.Time // zero: until revoked
	Many      bool
	Uses      int
	UsedBy    identity.PersonID // the last one who answered; zero: nobody
	Revoked   bool
	Changed   uint64
}

const inviteColumns = "row, token, created, expires, many, uses, used_by, revoked, changed"

func scanInvite(st *sqlite3.Stmt) (Invite, error) {
	i := Invite{
		Row:     Row(st.ColumnInt64(0)),
		Created: fromMillis(st.ColumnInt64(2)),
		Expires: fromMillis(st.ColumnInt64(3)),
		Many:    st.ColumnBool(4),
		Uses:    st.ColumnInt(5),
		Revoked: st.ColumnBool(7),
		Changed: uint64(st.ColumnInt64(8)),
	}
	if err := fixed(i.TokenHash[:], st, 1); err != nil {
		return i, err
	}
	return i, fixed(i.UsedBy[:], st, 6)
}

// PutInvite stores an invite: a new one where the token is not known, else over
// the old one, but for its times and Many. It sets Row and Changed.
func (tx *Tx) PutInvite(i *Invite) error {
	var usedBy []byte
	if i.UsedBy != (identity.PersonID{}) {
		usedBy = i.UsedBy[:]
	}
	i.Changed = tx.NextChanged()
	_, err := tx.one(`INSERT INTO invite(token, created, expires, many, uses, used_by, revoked, changed) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
		ON CONFLICT(token) DO UPDATE SET uses = ?5, used_by = ?6, revoked = ?7, changed = ?8 RETURNING row`,
		func(st *sqlite3.Stmt) { i.Row = Row(st.ColumnInt64(0)) },
		i.TokenHash[:], millis(i.Created), millis(i.Expires), i.Many, i.Uses, usedBy, i.Revoked, i.Changed)
	return wrap("store an invite", err)
}

// InviteByToken gives the invite with the hash of a token, or ErrNotFound.
func (tx *Tx) InviteByToken(hash [32]byte) (Invite, error) {
	return get(tx, "invite", scanInvite, "SELECT "+inviteColumns+" FROM invite WHERE token = ?", hash[:])
}

// InviteByRow gives an invite, or ErrNotFound.
func (tx *Tx) InviteByRow(row Row) (Invite, error) {
	return get(tx, "invite", scanInvite, "SELECT "+inviteColumns+" FROM invite WHERE row = ?", row)
}

// Invites gives every invite, the oldest first.
func (tx *Tx) Invites() ([]Invite, error) {
	return list(tx, "invites", scanInvite, "SELECT "+inviteColumns+" FROM invite ORDER BY row")
}

// RevokeInvite ends an invite. Answers that come after it are refused.
func (tx *Tx) RevokeInvite(row Row) error {
	err := tx.Exec("UPDATE invite SET revoked = 1, changed = ? WHERE row = ?", tx.NextChanged(), row)
	if err == nil && tx.affected() == 0 {
		err = ErrNotFound
	}
	return wrap("revoke an invite", err)
}
