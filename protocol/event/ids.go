package event

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"

	"github.com/kinloom/kinloom/identity"
)

// Labels that keep the hashes of this package apart from each other.
const (
	pairLabel    = "kinloom/pair/1"
	foreignLabel = "kinloom/foreign/1"
	eventLabel   = "kinloom/event/1"
)

// Kind is what a conversation is. It is fixed when the conversation begins; the
// numbers are stored and never change.
type Kind uint8

// The kinds of conversation.
const (
	// Self holds a person's notes to themselves.
	Self Kind = 1
	// Pair is between two persons.
	Pair Kind = 2
	// Group is between up to 256 persons.
	Group Kind = 3
	// Room is between whoever is on the LAN.
	Room Kind = 4
	// Foreign is a chat of another network.
	Foreign Kind = 5
)

// String returns the name used in the API.
func (k Kind) String() string {
	switch k {
	case Self:
		return "self"
	case Pair:
		return "pair"
	case Group:
		return "group"
	case Room:
		return "room"
	case Foreign:
		return "foreign"
	}
	return "kind " + strconv.Itoa(int(k))
}

// ConversationID names a conversation on every node alike.
type ConversationID [32]byte

// String returns the id in lower hex.
func (c ConversationID) String() string { return hex.EncodeToString(c[:]) }

// PairID returns the id of the conversation of two persons, in any order: the
// SHA-256 of a label and both root keys, the smaller first.
func PairID(a, b identity.PersonID) ConversationID {
	if bytes.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	h := make([]byte, 0, len(pairLabel)+len(a)+len(b))
	h = append(h, pairLabel...)
	h = append(h, a[:]...)
	h = append(h, b[:]...)
	return sha256.Sum256(h)
}

// SelfID returns the id of a person's notes to themselves: PairID of one key
// twice.
func SelfID(p identity.PersonID) ConversationID { return PairID(p, p) }

// ForeignID returns the id of a chat of another network, seen from the account
// of the owner that is in it. The three strings are those of the bridge; each
// goes into the hash behind its length, so that no two triples meet.
func ForeignID(network, account, chat string) ConversationID {
	h := []byte(foreignLabel)
	for _, s := range []string{network, account, chat} {
		h = binary.BigEndian.AppendUint32(h, uint32(len(s)))
		h = append(h, s...)
	}
	return sha256.Sum256(h)
}

// ID names an event; see IDOf.
type ID [32]byte

// String returns the id in lower hex.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Context is what the session says about an event, and the event does not
// repeat: the conversation, and who wrote it on which device.
type Context struct {
	Conversation ConversationID
	Author       identity.PersonID
	Device       identity.DeviceID
}

// IDOf returns the id of the event with the bytes raw, as received, in the
// context c: the SHA-256 of a label, the context and the bytes.
func IDOf(c Context, raw []byte) ID {
	h := sha256.New()
	var head [len(eventLabel) + 3*32]byte
	n := copy(head[:], eventLabel)
	n += copy(head[n:], c.Conversation[:])
	n += copy(head[n:], c.Author[:])
	copy(head[n:], c.Device[:])
	h.Write(head[:])
	h.Write(raw)
	var id ID
	h.Sum(id[:0])
	return id
}
