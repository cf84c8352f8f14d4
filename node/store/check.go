package store

// autoCheckpoint is the length of the WAL in pages at which it is brought into
// the database.
const autoCheckpoint = 4000

func (d *database) checkpointOn(c *conn, truncate bool) error {
	return c.truncate()
}

func (d *database) distrust(c *conn, err error) (*conn, error) { return c, err }
