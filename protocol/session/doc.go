// Package session encrypts between two devices: bundles of keys, the start of
// a session, the order and loss of what it carries, receipts, and renewal.
// SPEC.md has the formats, the rules and what each observer learns.
//
//	m := session.New(self, rand.Reader)
//	err := m.Start(now, bob, bundle)                       // bundle of Bob's device
//	item, err := m.Seal(now, bob.Device, conversation, payload)
//	_, err = m.Prepare(now, bob.Device)                    // receipts and keys that are owed
//	rows := m.Dirty()                                      // commit with the outbox row of item, and only then
//	cell, n, err := m.Pack(now, bob.Device, item.Session, []session.Sealed{item}, wire.Padme)
//
//	opened, err := m.Open(now, cell)                       // at Bob's; commit m.Dirty() with opened.Messages
//
// A Machine is a pure state machine: no clock, no disk, no network. What it
// has to remember comes out of Dirty as rows and goes back in through Load. It
// knows no groups, sends nothing by itself and decides about no person: who is
// certified is told to it through SetRemote. It is not for use by several
// goroutines at once.
package session
