package store

import (
	"context"
	"github.com/ncruces/go-sqlite3"
	"testing"
)

func TestSeam(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		s, err := Open(t.Context(), Options{Dir: dir, Key: func(string) [32]byte { return [32]byte{1} }, migrations: []func(*Tx) error{func(tx *Tx) error { return tx.Exec("CREATE TABLE t(a, b)") }}})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			if err := s.Write(context.Background(), func(tx *Tx) error { return tx.Exec("INSERT INTO t VALUES(?,?)", i, tx.NextChanged()) }); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Read(t.Context(), func(tx *Tx) error {
			for st, err := range tx.Query("SELECT a, b FROM t") {
				if err != nil {
					return err
				}
				for st2, err := range tx.Query("SELECT a, b FROM t") {
					_ = st2
					if err != nil {
						return err
					}
				}
				t.Log(st.ColumnInt(0), st.ColumnInt(1))
			}
			if err := tx.Exec("DELETE FROM t"); err == nil {
				t.Error("no error")
			} else {
				t.Log(err)
			}
			_, err := tx.one("SELECT 1", func(st *sqlite3.Stmt) {})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
