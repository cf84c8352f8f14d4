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

// inner is the plaintext of one Olm message behind its binding.
type inner struct {
	typ          byte
	conversation event.ConversationID // of innerElsewhere
	payload      []byte
	mark         Mark
	advert       advert
	session      ID
	runs         runs
	head         identity.Head
}

// appendInner appends type and body. For the two types of messages, payload
// comes last and is appended by the caller's choice of n.payload.
func appendInner(dst []byte, n *inner) []byte {
	dst = append(dst, n.typ)
	switch n.typ {
	case innerOwn:
		return append(dst, n.payload...)
	case innerElsewhere:
		return append(append(dst, n.conversation[:]...), n.payload...)
	case innerReceipt:
		return appendMark(dst, n.mark)
	case innerAdvert:
		return n.advert.append(dst)
	case innerRepeat:
		return appendRuns(append(dst, n.session[:]...), n.runs)
	case innerLog:
		return append(dst, n.head[:]...)
	}
	panic("bug: inner type without a form")
}

// parseInner reads what appendInner wrote; payload shares memory with b.
func parseInner(b []byte) (inner, error) {
	if len(b) == 0 {
		return inner{}, broken("empty message")
	}
	n := inner{typ: b[0]}
	b = b[1:]
	var err error
	switch n.typ {
	case innerElsewhere:
		if len(b) < 32 {
			return n, broken("cut conversation")
		}
		n.conversation, b = event.ConversationID(b[:32]), b[32:]
		fallthrough
	case innerOwn:
		if len(b) == 0 || len(b) > MaxPayload {
			return n, broken("payload size")
		}
		n.payload, b = b, nil
	case innerReceipt:
		n.mark, b, err = cutMark(b)
	case innerAdvert:
		n.advert, err = parseAdvert(b)
		b = nil
	case innerRepeat:
		if len(b) < 16 {
			return n, broken("cut repeat")
		}
		n.session = ID(b[:16])
		n.runs, b, err = cutRuns(b[16:])
	case innerLog:
		if len(b) != 32 {
			return n, broken("log request")
		}
		n.head, b = identity.Head(b), nil
	default:
		return n, broken("message of unknown type")
	}
	if err == nil && len(b) > 0 {
		err = broken("bytes behind a message")
	}
	return n, err
}
