// Package event is the unit of history: who said what, in which conversation,
// after what. Content is shown and kept, control is kept and the latest wins,
// the ephemeral is never stored. Events of people on other networks take the
// same form once they are here.
//
//	m := event.NewMachine(event.Context{Conversation: event.PairID(me, you), Author: me, Device: dev})
//	body, err := event.Text{Text: "hello"}.Append(nil)
//	made, err := m.Next(now, event.Message, "", body)   // made.Raw goes into the sessions
//
// The package holds the encoding of events and of their bodies, conversation
// ids, the hybrid logical clock, the order of a conversation, and the small
// state that a node keeps of each one. It does not encrypt, sign, store or
// send; who may write into a conversation is decided above it. SPEC.md has the
// formats and limits.
package event
