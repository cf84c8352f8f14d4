package node

import (
	"context"
	"errors"

	"github.com/kinloom/kinloom/node/store"
)

// DropSessions deletes every row of session state from a closed home: sessions,
// bundles, and what is known of the peers.
func DropSessions(ctx context.Context, c Config) (err error) {
	n, err := OpenOffline(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	return n.change(ctx, func(_ *loop, tx *store.Tx) error {
		rows, err := tx.Records()
		if err != nil {
			return err
		}
		for i := range rows {
			rows[i].Value = nil
		}
		return tx.PutRecords(rows)
	})
}
