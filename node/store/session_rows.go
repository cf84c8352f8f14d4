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

// PutRecords stores rows of session state, each sealed; a nil Value removes one.
func (tx *Tx) PutRecords(records []session.Record) error {
	if len(records) == 0 {
		return nil
	}
	a, err := tx.s.sealer()
	if err != nil {
		return wrap("store session state", err)
	}
	var buf []byte
	for _, r := range records {
		if r.Value == nil {
			err = tx.Exec("DELETE FROM session_row WHERE key = ?", r.Key)
		} else if buf, err = seal(buf[:0], a, "session_row", r.Key, r.Value); err == nil {
			err = tx.Exec("INSERT INTO session_row(key, value) VALUES(?1, ?2) ON CONFLICT(key) DO UPDATE SET value = ?2", r.Key, buf)
		}
		if err != nil {
			return wrap("store session state", err)
		}
	}
	return nil
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
		if value == nil {
			value = []byte{} // nil would mean: remove
		}
		return session.Record{Key: key, Value: value}, err
	}, "SELECT key, value FROM session_row ORDER BY row")
}
