package store

// migrations bring account.db from one schema to the next; the number of the
// schema is the count of those that ran.
var migrations = []func(*Tx) error{}
