// Package node is a running kinloom node: one account loop, its store, its
// hosts and its routes, and the Go API that programs embed and the local API
// serves.
//
// Everything that anyone says goes through one pipe. A Say becomes an event,
// the event and its outbox rows are committed in one transaction, and only then
// are cells sealed and handed to a route. A cell that comes in is opened,
// committed and only then receipted. One goroutine, the account loop, owns
// conversations, sessions and the outbox and is the only writer of account.db;
// streams, timers and callers are edges that hand it typed inputs.
//
//	n, err := node.Open(ctx, node.Config{Dir: "/var/lib/echo"})
//	if err != nil {
//		log.Fatal(err)
//	}
//	defer n.Close()
//	for m, err := range n.Messages(ctx) {
//		...
//	}
//
// The package reads no flag and no environment variable, keeps no global state
// and never ends the process; two nodes fit in one program. It knows no other
// network and no user interface: those import it.
package node
