package node

import "context"

// IndexDrain returns once everything stored is in the search index. Search finds
// what is not there yet, too; a measurement has to count its cost.
func (n *Node) IndexDrain(ctx context.Context) error { return n.store.IndexDrain(ctx) }

// IndexMerge is IndexDrain, and merges the index as it does by itself when the
// node rests: 20 us a message, once in its life.
func (n *Node) IndexMerge(ctx context.Context) error { return n.store.IndexMerge(ctx) }
