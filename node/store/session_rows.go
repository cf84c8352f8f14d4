package store

import (
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/kinloom/kinloom/protocol/session"
	"github.com/ncruces/go-sqlite3"
	"golang.org/x/crypto/chacha20poly1305"
)

// sealVersion is the version of the sealing key and of the form of a sealed
// value: version u8 | nonce 24 | XChaCha20-Poly1305 of the value, with the
// additional data table | 0 | row key | 0 | version.
const sealVersion = 1

// sealKeyName is the name under which Options.Key gives the key of sealed rows.
// No file has it.
const sealKeyName = "rows"

// errSealed is returned for a sealed value that does not open: it was altered,
// or stood in another row.
var errSealed = errors.New("a sealed row does not open")

// newSealer makes the cipher of sealed rows. In memory there is nothing at rest,
// and a key of the process does.
func (s *Store) newSealer() (cipher.AEAD, error) {
	key := sha256.Sum256([]byte(s.memory))
	if s.opts.Key != nil {
		key = s.opts.Key(sealKeyName)
	}
	return chacha20poly1305.NewX(key[:])
}

func sealedData(table, key string) []byte {
	b := make([]byte, 0, len(table)+len(key)+3)
	b = append(append(b, table...), 0)
	return append(append(b, key...), 0, sealVersion)
}

// seal appends a sealed value to dst.
func seal(dst []byte, a cipher.AEAD, table, key string, value []byte) ([]byte, error) {
	dst = append(dst, sealVersion)
	var nonce [chacha20poly1305.NonceSizeX]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return nil, err
	}
	dst = append(dst, nonce[:]...)
	return a.Seal(dst, nonce[:], value, sealedData(table, key)), nil
}

func unseal(a cipher.AEAD, table, key string, sealed []byte) ([]byte, error) {
	const head = 1 + chacha20poly1305.NonceSizeX
	if len(sealed) < head {
		return nil, fmt.Errorf("%w: %w: %s", ErrDamaged, errSealed, table)
	}
	if sealed[0] != sealVersion {
		return nil, fmt.Errorf("a sealed row has version %d, this program knows %d: install the newer version that wrote it", sealed[0], sealVersion)
	}
	value, err := a.Open(nil, sealed[1:head], sealed[head:], sealedData(table, key))
	if err != nil {
		return nil, fmt.Errorf("%w: %w: %s", ErrDamaged, errSealed, table)
	}
	return value, nil
}

// A row of session state must leave nothing behind when it is replaced: with an
// older version, messages that were recorded on the line since can be read. The
// secure_delete of SQLite zeroes the place that a row leaves, but not the copies
// that it leaves where it moves rows between pages to balance its tree (seen
// after a few hundred rows of changing lengths). So the values lie in slots that
// never move: session_slot grows at its end only, nothing is removed from it,
// and a value is padded to one of few lengths, so that the next one is written
// over it in place. What needs another length takes another slot, and the old
// one is filled with zeros and kept in session_free.

// minSlot is the shortest padded value in bytes.
const minSlot = 64

// slotSize is the length to which a value of n bytes is padded: powers of two,
// and half way between them.
func slotSize(n int) int {
	size := minSlot
	for size < n {
		if n <= size+size/2 {
			return size + size/2
		}
		size *= 2
	}
	return size
}

// pad appends a value to dst as it lies in a slot, the mark of its end included.
func pad(dst, value []byte) []byte {
	dst = append(append(dst, value...), 1)
	return append(dst, make([]byte, slotSize(len(dst))-len(dst))...)
}

// unpad is the reverse of pad.
func unpad(padded []byte) ([]byte, error) {
	for i := len(padded) - 1; i >= 0; i-- {
		switch padded[i] {
		case 0:
		case 1:
			return padded[:i], nil
		default:
			return nil, fmt.Errorf("%w: a sealed row has no end", ErrDamaged)
		}
	}
	return nil, fmt.Errorf("%w: a sealed row has no end", ErrDamaged)
}

// PutRecords stores rows of session state, each sealed; a nil Value removes one.
func (tx *Tx) PutRecords(records []session.Record) error {
	if len(records) == 0 {
		return nil
	}
	a, err := tx.s.sealer()
	if err != nil {
		return wrap("store session state", err)
	}
	var padded, sealed []byte
	for _, r := range records {
		if r.Value == nil {
			err = tx.dropRecord(r.Key)
		} else {
			padded = pad(padded[:0], r.Value)
			if sealed, err = seal(sealed[:0], a, "session_row", r.Key, padded); err == nil {
				err = tx.putRecord(r.Key, sealed)
			}
		}
		if err != nil {
			return wrap("store session state", err)
		}
	}
	return nil
}

// putRecord writes over the slot of a row, or gives it one that fits.
func (tx *Tx) putRecord(key string, sealed []byte) error {
	err := tx.Exec("UPDATE session_slot SET value = ?2 WHERE slot = (SELECT slot FROM session_row WHERE key = ?1) AND length(value) = ?3", key, sealed, len(sealed))
	if err != nil || tx.affected() > 0 {
		return err
	}
	if err := tx.dropRecord(key); err != nil {
		return err
	}
	var slot Row
	free, err := tx.one("SELECT slot FROM session_free WHERE size = ? LIMIT 1", func(st *sqlite3.Stmt) { slot = Row(st.ColumnInt64(0)) }, len(sealed))
	if err != nil {
		return err
	}
	if !free {
		if err := tx.Exec("INSERT INTO session_slot(value) VALUES(?)", sealed); err != nil {
			return err
		}
		return tx.Exec("INSERT INTO session_row(key, slot) VALUES(?, ?)", key, tx.c.LastInsertRowID())
	}
	if err := tx.Exec("DELETE FROM session_free WHERE slot = ?", slot); err != nil {
		return err
	}
	if err := tx.Exec("UPDATE session_slot SET value = ? WHERE slot = ?", sealed, slot); err != nil {
		return err
	}
	return tx.Exec("INSERT INTO session_row(key, slot) VALUES(?, ?)", key, slot)
}

// dropRecord removes a row, if there is one, and fills its slot with zeros.
func (tx *Tx) dropRecord(key string) error {
	var slot Row
	found, err := tx.one("SELECT slot FROM session_row WHERE key = ?", func(st *sqlite3.Stmt) { slot = Row(st.ColumnInt64(0)) }, key)
	if err != nil || !found {
		return err
	}
	for _, sql := range []string{
		"UPDATE session_slot SET value = zeroblob(length(value)) WHERE slot = ?",
		"INSERT INTO session_free(slot, size) SELECT slot, length(value) FROM session_slot WHERE slot = ?",
	} {
		if err := tx.Exec(sql, slot); err != nil {
			return err
		}
	}
	return tx.Exec("DELETE FROM session_row WHERE key = ?", key)
}

// Records gives every row of session state.
func (tx *Tx) Records() ([]session.Record, error) {
	a, err := tx.s.sealer()
	if err != nil {
		return nil, wrap("read session state", err)
	}
	return list(tx, "session state", func(st *sqlite3.Stmt) (session.Record, error) {
		key := st.ColumnText(0)
		value, err := unseal(a, "session_row", key, st.ColumnRawBlob(1))
		if err == nil {
			value, err = unpad(value)
		}
		return session.Record{Key: key, Value: value}, err
	}, "SELECT key, value FROM session_row JOIN session_slot USING(slot) ORDER BY slot")
}
