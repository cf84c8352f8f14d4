package node

import "context"

// IndexDrain returns once everything stored is in the search index. Search finds
// what is not there yet, too; a measurement has to count its cost.
func (n *Node) IndexDrain(ctx context.Context) error { return n.store.IndexDrain(ctx) }
