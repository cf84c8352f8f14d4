// Package dm carries sealed cells between two devices over one long-lived
// stream (/kinloom/dm/1). SPEC.md is the authority; section numbers in
// comments are its.
//
//	c, err := dm.New(stream, handler, dm.Config{Dialer: true, Known: true})
//	go func() { done <- c.Run(ctx) }() // an errgroup, in the node
//	err = c.Send(ctx, cells)
//
// It moves cells and knows nothing of what is in them: it cannot open one, and
// does not acknowledge one, as only the session can say that a message was
// delivered. Whatever a stream loses is sent again by the node.
package dm
