// Package store keeps what a node promised to keep: three encrypted SQLite
// databases in one home, and nothing else.
//
//	account.db  events, conversations, contacts, sessions, outbox, settings
//	index.db    the search index, fed after each commit and rebuilt when lost
//	net.db      what the network layer caches, behind a go-datastore
//
// A store is opened once per process and home, under the process lock:
//
//	lock, err := store.AcquireLock(dir)
//	...
//	s, err := store.Open(ctx, store.Options{Dir: dir, Key: secrets.SubKey, IDs: secrets.Files})
//	...
//	err = s.Write(ctx, func(tx *store.Tx) error { return tx.PutContact(&c) })
//
// Write commits one transaction durably before it returns nil; Read sees one
// consistent snapshot. With an empty Dir the same code runs on SQLite's memory
// databases, which tests and demos use.
//
// The package does not know what the rows mean to a conversation, does not
// retry, and never starts an account over an old one: a database that is
// damaged, foreign or newer is refused by name. SPEC.md states files, opening,
// errors and limits.
package store
