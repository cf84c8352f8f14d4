package store

// OutboxUnsealed reports whether a row of a device waits to be sealed.
func (tx *Tx) OutboxUnsealed(device Row) (bool, error) {
	return tx.one("SELECT 1 FROM outbox WHERE row > ? AND row < ? AND seq = 0 LIMIT 1", nil, device<<eventBits, (device+1)<<eventBits)
}

// UnsealOutbox takes the seal off every row of a device that lies in a session
// which the other side has lost; SealOutbox puts the next one on.
func (tx *Tx) UnsealOutbox(device Row, session [16]byte) error {
	return wrap("queue events anew", tx.Exec(`UPDATE outbox SET session = NULL, seq = 0, inner_cell = NULL
		WHERE row > ? AND row < ? AND session = ?`, device<<eventBits, (device+1)<<eventBits, session[:]))
}
