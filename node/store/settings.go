package store

import (
	"fmt"
	"time"

	"github.com/ncruces/go-sqlite3"
)

// settingReindex asks for a new search index at the next start.
const settingReindex = "store.reindex"

// PutSetting stores a value under a key; nil removes it. Secrets are sealed.
func (tx *Tx) PutSetting(key string, value []byte, sealed bool) error {
	if value == nil {
		return wrap("remove a setting", tx.Exec("DELETE FROM setting WHERE key = ?", key))
	}
	if sealed {
		a, err := tx.s.sealer()
		if err == nil {
			value, err = seal(nil, a, "setting", key, value)
		}
		if err != nil {
			return wrap("store a setting", err)
		}
	}
	return wrap("store a setting", tx.Exec(`INSERT INTO setting(key, sealed, value) VALUES(?1, ?2, ?3)
		ON CONFLICT(key) DO UPDATE SET sealed = ?2, value = ?3`, key, sealed, value))
}

// Setting gives the value under a key, or ErrNotFound.
func (tx *Tx) Setting(key string) ([]byte, error) {
	return get(tx, "setting", func(st *sqlite3.Stmt) ([]byte, error) {
		value := st.ColumnBlob(1, []byte{})
		if !st.ColumnBool(0) {
			return value, nil
		}
		a, err := tx.s.sealer()
		if err != nil {
			return nil, err
		}
		return unseal(a, "setting", key, value)
	}, "SELECT sealed, value FROM setting WHERE key = ?", key)
}

// SettingsUnder gives the settings that are not sealed and whose keys begin with
// prefix, which is not empty, by the rest of their keys.
func (tx *Tx) SettingsUnder(prefix string) (map[string][]byte, error) {
	all, n := map[string][]byte{}, len(prefix)-1
	for st, err := range tx.Query("SELECT key, value FROM setting WHERE key > ? AND key < ? AND sealed = 0", prefix, prefix[:n]+string(prefix[n]+1)) {
		if err != nil {
			return nil, wrap("read settings", err)
		}
		all[st.ColumnText(0)[n+1:]] = st.ColumnBlob(1, []byte{})
	}
	return all, nil
}

// idempotencyLife is how long the answer to a request is known by its key.
const idempotencyLife = 24 * time.Hour

// PutIdempotency notes which event a request made, and forgets those older than
// a day.
func (tx *Tx) PutIdempotency(key string, row Row, now time.Time) error {
	err := tx.Exec("DELETE FROM idempotency WHERE at < ?", millis(now.Add(-idempotencyLife)))
	if err == nil {
		err = tx.Exec("INSERT INTO idempotency(key, event, at) VALUES(?1, ?2, ?3) ON CONFLICT(key) DO UPDATE SET event = ?2, at = ?3", key, row, millis(now))
	}
	return wrap("store a request key", err)
}

// Idempotency gives the event that a request of the last day made, or
// ErrNotFound.
func (tx *Tx) Idempotency(key string) (row Row, err error) {
	found, err := tx.one("SELECT event FROM idempotency WHERE key = ? AND at >= ?", func(st *sqlite3.Stmt) { row = Row(st.ColumnInt64(0)) },
		key, millis(tx.s.opts.Now().Add(-idempotencyLife)))
	if err == nil && !found {
		err = fmt.Errorf("request key: %w", ErrNotFound)
	}
	return row, err
}
