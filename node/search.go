package node

import (
	"errors"
	"strings"

	"github.com/kinloom/kinloom/node/store"
)

// searchError puts a query that cannot be answered into words.
func searchError(err error) error {
	if errors.Is(err, store.ErrQuery) {
		_, why, _ := strings.Cut(err.Error(), store.ErrQuery.Error()+": ")
		return usage("For example: train, \"see you\", or beg* for what begins so.", "this cannot be searched for: %s", why)
	}
	return err
}
