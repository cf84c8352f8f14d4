package node

import (
	"errors"

	"github.com/kinloom/kinloom/node/store"
)

// searchError puts a query that cannot be answered into words.
func searchError(err error) error {
	if errors.Is(err, store.ErrQuery) {
		return &Error{Kind: KindUsage, Text: "this cannot be searched for", Err: err, Next: "Give whole words, a \"phrase\", or the first three letters and more of a word with * behind."}
	}
	return err
}
