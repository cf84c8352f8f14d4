package session

import (
	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/event"
)

// Types of what Olm seals. Those from 16 on are control.
const (
	innerOwn       = 1 // message in the conversation of the two persons
	innerElsewhere = 2
	innerReceipt   = 16
	innerAdvert    = 17
	innerRepeat    = 18
	innerLog       = 19

	bindSize = 32
)

// Repeat names seqs of a session whose content is wanted again.
type Repeat struct {
	Session ID
	Seqs    []uint64
}

// Inner is the plaintext of one Olm message behind its binding. Type says which
// of the other fields it has.
type Inner struct {
	Type         byte
	Conversation event.ConversationID // of a message that is elsewhere
	Payload      []byte               // of both types of messages
	Mark         *Mark
	Advert       *Advert
	Session      ID // whose Runs are wanted anew
	Runs         []Run
	Head         identity.Head // after which the log is wanted
}

// Append appends type and body.
func (n *Inner) Append(dst []byte) []byte {
	dst = append(dst, n.Type)
	switch n.Type {
	case innerOwn:
		return append(dst, n.Payload...)
	case innerElsewhere:
		return append(append(dst, n.Conversation[:]...), n.Payload...)
	case innerReceipt:
		return appendMark(dst, *n.Mark)
	case innerAdvert:
		return n.Advert.Append(dst)
	case innerRepeat:
		return appendRuns(append(dst, n.Session[:]...), n.Runs)
	case innerLog:
		return append(dst, n.Head[:]...)
	}
	panic("bug: inner type without a form")
}

// ParseInner reads what Append wrote; the payload shares memory with b. Errors:
// ErrBroken.
func ParseInner(b []byte) (Inner, error) {
	if len(b) == 0 {
		return Inner{}, broken("empty message")
	}
	n := Inner{Type: b[0]}
	b = b[1:]
	var err error
	switch n.Type {
	case innerElsewhere:
		if len(b) < 32 {
			return Inner{}, broken("cut conversation")
		}
		n.Conversation, b = event.ConversationID(b[:32]), b[32:]
		fallthrough
	case innerOwn:
		if len(b) == 0 || len(b) > MaxPayload {
			return Inner{}, broken("payload size")
		}
		n.Payload, b = b, nil
	case innerReceipt:
		n.Mark = new(Mark)
		*n.Mark, b, err = cutMark(b)
	case innerAdvert:
		n.Advert = new(Advert)
		*n.Advert, err = ParseAdvert(b)
		b = nil
	case innerRepeat:
		if len(b) < 16 {
			return Inner{}, broken("cut repeat")
		}
		n.Session = ID(b[:16])
		n.Runs, b, err = cutRuns(b[16:])
	case innerLog:
		if len(b) != 32 {
			return Inner{}, broken("log request")
		}
		n.Head, b = identity.Head(b), nil
	default:
		return Inner{}, broken("message of unknown type")
	}
	if err == nil && len(b) > 0 {
		err = broken("bytes behind a message")
	}
	if err != nil {
		return Inner{}, err
	}
	return n, nil
}
