package store

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/kinloom/kinloom/protocol/session"
	"github.com/ncruces/go-sqlite3"
)

// selectSlot reads the sealed value of a row.
const selectSlot = "SELECT value FROM session_slot WHERE slot = (SELECT slot FROM session_row WHERE key = ?)"

func TestSessionRowsAreSealed(t *testing.T) {
	w := newWorld(t, t.TempDir())
	secret := bytes.Repeat([]byte("ratchet"), 20)
	w.write(func(tx *Tx) error {
		return tx.PutRecords([]session.Record{{Key: "a", Value: secret}, {Key: "b", Value: []byte("old")}, {Key: "c", Value: []byte("gone")}})
	})
	w.write(func(tx *Tx) error {
		return tx.PutRecords([]session.Record{{Key: "b", Value: []byte{}}, {Key: "c"}, {Key: "absent"}})
	})
	w.read(func(tx *Tx) error {
		got, err := tx.Records()
		if diff := cmp.Diff([]session.Record{{Key: "a", Value: secret}, {Key: "b", Value: []byte{}}}, got); diff != "" {
			t.Errorf("records differ (-want +got):\n%s", diff)
		}
		if err != nil {
			return err
		}
		_, err = tx.one(selectSlot, func(st *sqlite3.Stmt) {
			if v := st.ColumnRawBlob(0); bytes.Contains(v, []byte("ratchet")) || len(v) != 192+41 {
				t.Errorf("the row has %d bytes: %x", len(v), v)
			}
		}, "a")
		return err
	})
	// A value that was moved to another row, cut short or altered does not open.
	for name, sql := range map[string]string{
		"moved":   "UPDATE session_row SET key = CASE key WHEN 'a' THEN 'x' ELSE 'a' END",
		"cut":     "UPDATE session_slot SET value = substr(value, 1, 20)",
		"altered": "UPDATE session_slot SET value = CAST(substr(value, 1, 50) || x'00' || substr(value, 52) AS BLOB)",
	} {
		err := w.Write(t.Context(), func(tx *Tx) error {
			if err := tx.Exec(sql); err != nil {
				return err
			}
			_, err := tx.Records()
			return err
		})
		if !errors.Is(err, ErrDamaged) || bytes.Contains([]byte(err.Error()), []byte("ratchet")) {
			t.Errorf("%s: %v, want ErrDamaged", name, err)
		}
	}
	newer := w.Write(t.Context(), func(tx *Tx) error {
		if err := tx.Exec("UPDATE session_slot SET value = CAST(x'02' || substr(value, 2) AS BLOB)"); err != nil {
			return err
		}
		_, err := tx.Records()
		return err
	})
	if newer == nil || errors.Is(newer, ErrDamaged) {
		t.Errorf("a newer version gives %v", newer)
	}
}

func TestSettings(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		w := newWorld(t, dir)
		for _, sealed := range []bool{false, true} {
			w.write(func(tx *Tx) error { return tx.PutSetting("k", []byte("v1"), !sealed) })
			w.write(func(tx *Tx) error { return tx.PutSetting("k", []byte("value"), sealed) })
			w.read(func(tx *Tx) error {
				v, err := tx.Setting("k")
				if string(v) != "value" {
					t.Errorf("sealed %v: read %q", sealed, v)
				}
				if err != nil {
					return err
				}
				_, err = tx.one("SELECT value FROM setting", func(st *sqlite3.Stmt) {
					if plain := bytes.Contains(st.ColumnRawBlob(0), []byte("value")); plain == sealed {
						t.Errorf("sealed %v: the row has %q", sealed, st.ColumnRawBlob(0))
					}
				})
				return err
			})
		}
		w.write(func(tx *Tx) error { return tx.PutSetting("empty", []byte{}, false) })
		w.write(func(tx *Tx) error { return tx.PutSetting("k", nil, false) })
		w.read(func(tx *Tx) error {
			if v, err := tx.Setting("empty"); err != nil || v == nil || len(v) != 0 {
				t.Errorf("an empty value is read as %v, %v", v, err)
			}
			if _, err := tx.Setting("k"); !errors.Is(err, ErrNotFound) {
				t.Errorf("a removed one gives %v", err)
			}
			return nil
		})
	}
}

func TestIdempotency(t *testing.T) {
	w := newWorld(t, "")
	now := time.Now()
	w.opts.Now = func() time.Time { return now }
	w.write(func(tx *Tx) error { return tx.PutIdempotency("key", 5, now) })
	look := func(want Row, wantErr error) {
		t.Helper()
		w.read(func(tx *Tx) error {
			if row, err := tx.Idempotency("key"); row != want || !errors.Is(err, wantErr) {
				t.Errorf("row %d, %v, want %d, %v", row, err, want, wantErr)
			}
			return nil
		})
	}
	look(5, nil)
	now = now.Add(23 * time.Hour)
	look(5, nil)
	now = now.Add(2 * time.Hour)
	look(0, ErrNotFound)
	w.write(func(tx *Tx) error { return tx.PutIdempotency("other", 6, now) })
	w.read(func(tx *Tx) error {
		_, err := tx.one("SELECT count(*) FROM idempotency", func(st *sqlite3.Stmt) {
			if n := st.ColumnInt(0); n != 1 {
				t.Errorf("%d keys are kept, want 1", n)
			}
		})
		return err
	})
}
