package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/ncruces/go-sqlite3"
)

// metaSchema is what every database has before its first migration. The row of
// meta holds the id that ties the file to its key file, and the changed counter.
const metaSchema = `CREATE TABLE IF NOT EXISTS meta(one INTEGER PRIMARY KEY CHECK(one = 1), id BLOB NOT NULL, changed INTEGER NOT NULL) STRICT`

// open connects and brings the schema up to date.
func (d *database) open(ctx context.Context) error {
	w, err := d.connect(false)
	if err != nil {
		return err
	}
	d.writer <- w
	// memory databases vanish with their last connection, so this one stays
	err = d.write(ctx, func(tx *Tx) error {
		if err := tx.Exec(metaSchema); err != nil {
			return err
		}
		return tx.Exec("INSERT OR IGNORE INTO meta(one, id, changed) VALUES(1, ?, 0)", d.o.id[:])
	})
	if err == nil {
		err = d.loadChanged(w)
	}
	if err == nil {
		err = d.migrate(ctx)
	}
	if err == nil {
		err = d.connectReaders()
	}
	if err != nil {
		return errors.Join(err, d.disconnectAll())
	}
	return nil
}

func (d *database) migrate(ctx context.Context) error {
	have, err := d.schema(ctx)
	if err != nil {
		return err
	}
	if have > len(d.o.migrations) {
		return &NewerSchemaError{File: d.name, Have: have, Known: len(d.o.migrations)}
	}
	for ; have < len(d.o.migrations); have++ {
		err := d.write(ctx, func(tx *Tx) error {
			if err := d.o.migrations[have](tx); err != nil {
				return err
			}
			return tx.Exec(fmt.Sprintf("PRAGMA user_version=%d", have+1))
		})
		if err != nil {
			return fmt.Errorf("migrate to schema %d: %w", have+1, err)
		}
	}
	return nil
}

// schema reads the number of the schema.
func (d *database) schema(ctx context.Context) (n int, err error) {
	err = d.write(ctx, func(tx *Tx) error {
		_, err := tx.one("PRAGMA user_version", func(st *sqlite3.Stmt) { n = st.ColumnInt(0) })
		return err
	})
	return n, err
}

// loadChanged reads the changed counter.
func (d *database) loadChanged(c *conn) error {
	st, _, err := c.Prepare("SELECT changed FROM meta")
	if err != nil {
		return err
	}
	if st.Step() {
		d.bound = uint64(st.ColumnInt64(0))
		d.changed.Store(d.bound)
	}
	err = st.Err()
	if cerr := st.Close(); err == nil {
		err = cerr
	}
	return err
}
