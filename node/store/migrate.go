package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ncruces/go-sqlite3"
)

// metaSchema is what every database has before its first migration. The row of
// meta holds the id that ties the file to its key file, and the number up to
// which the changed counter may have been used.
const metaSchema = `CREATE TABLE meta(one INTEGER PRIMARY KEY CHECK(one = 1), id BLOB NOT NULL, changed INTEGER NOT NULL) STRICT`

// keepCopies is how long the copy made before a migration is kept.
const keepCopies = 7 * 24 * time.Hour

// create fills a new database: meta, then every migration.
func (d *database) create(ctx context.Context) error {
	err := d.write(ctx, func(tx *Tx) error {
		if err := tx.Exec(metaSchema); err != nil {
			return err
		}
		return tx.Exec("INSERT INTO meta(one, id, changed) VALUES(1, ?, 0)", d.o.id[:])
	})
	if err != nil {
		return err
	}
	return d.migrate(ctx, 0)
}

// migrate brings the schema from have to the newest, one transaction a step,
// each ending with its own number: an interrupted one leaves the step before.
func (d *database) migrate(ctx context.Context, have int) error {
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

// upgrade migrates an existing database, after a verified copy of it has been
// put beside it.
func (d *database) upgrade(ctx context.Context) error {
	have, err := d.schema(ctx)
	if err != nil {
		return err
	}
	if err := d.knows(have); err != nil {
		return err
	}
	if have == len(d.o.migrations) {
		return d.dropCopies()
	}
	if d.path != "" {
		if err := d.copyBefore(ctx, have); err != nil {
			return fmt.Errorf("copy before the migration: %w", err)
		}
	}
	return d.migrate(ctx, have)
}

// knows refuses a schema that a later version wrote.
func (d *database) knows(have int) error {
	if have > len(d.o.migrations) {
		return &NewerSchemaError{File: d.name, Have: have, Known: len(d.o.migrations)}
	}
	return nil
}

// copyName is the copy made before schema have was left.
func (d *database) copyName(have int) string {
	return fmt.Sprintf("%s.schema-%d", d.path, have)
}

// copyBefore makes the copy, unless an interrupted migration has made it.
func (d *database) copyBefore(ctx context.Context, have int) error {
	name := d.copyName(have)
	if n, err := fileSize(name); err != nil || n >= 0 {
		return err
	}
	size, err := fileSize(d.path)
	if err != nil {
		return err
	}
	free, err := d.s.FreeSpace()
	if err != nil {
		return err
	}
	if need := uint64(2*size) + noSpace; free < need {
		return fmt.Errorf("%w (the migration needs %d MB)", ErrDiskFull, need>>20)
	}
	d.log.Info("copying before a migration", "schema", have, "copy", filepath.Base(name))
	return d.copyTo(ctx, name, d.o.key)
}

// dropCopies removes copies that are older than keepCopies.
func (d *database) dropCopies() error {
	if d.path == "" {
		return nil
	}
	for have := range d.o.migrations {
		name := d.copyName(have)
		fi, err := os.Stat(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if d.s.opts.Now().Sub(fi.ModTime()) < keepCopies {
			continue
		}
		if err := os.Remove(name); err != nil {
			return err
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
