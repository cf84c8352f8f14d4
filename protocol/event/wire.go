package event

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// Type says what the body of an event is. Its range says what becomes of the
// event, so that a node can treat types right that it does not know.
type Type uint16

// The types.
const (
	// Message: Text. Something that a person said.
	Message Type = 1
	// Edit: Revision. A new text for an own message.
	Edit Type = 2
	// Reaction: Emotion. An emoji, put on a message.
	Reaction Type = 3
	// Retract: Retraction. An own message taken back.
	Retract Type = 4

	// Profile: Name. How the author wants to be called.
	Profile Type = 64
	// Log: Entries. News of the author's log of devices.
	Log Type = 65
	// ReadMark: Marks. How far the author has read.
	ReadMark Type = 66
	// Refusal: Refused. Events of another device that the author did not keep.
	Refusal Type = 67
	// Want: Wanted. Events of another device that the author lacks.
	Want Type = 68
	// Reach: Whereabouts. Where the author's device is found.
	Reach Type = 69

	// Typing: Composing. The author is writing.
	Typing Type = 128
)

// Class is what becomes of an event.
type Class uint8

// The classes, each with its range of types. Types outside are refused.
const (
	// Content (1 to 63) is shown and kept.
	Content Class = 1
	// Control (64 to 127) is kept, not shown; of each author, type and key the
	// latest wins.
	Control Class = 2
	// Ephemeral (128 to 191) is never stored. It has no seq and no parents.
	Ephemeral Class = 3
)

// Class returns the class of the type, 0 for a type outside the ranges.
func (t Type) Class() Class {
	if t == 0 || t > 191 {
		return 0
	}
	return Class(t/64) + Content
}

// String returns the name used in the API, or "type N".
func (t Type) String() string {
	switch t {
	case Message:
		return "message"
	case Edit:
		return "edit"
	case Reaction:
		return "reaction"
	case Retract:
		return "retract"
	case Profile:
		return "profile"
	case Log:
		return "log"
	case ReadMark:
		return "read"
	case Refusal:
		return "refusal"
	case Want:
		return "want"
	case Reach:
		return "reach"
	case Typing:
		return "typing"
	}
	return "type " + strconv.Itoa(int(t))
}

// Limits of an event.
const (
	// MaxEvent bounds the bytes of an event. With the header of a session start
	// around it, an event still fits into one cell.
	MaxEvent = 14336
	// MaxBody bounds the bytes of a body. With MaxParents and MaxKey beside it
	// the event stays below MaxEvent.
	MaxBody = 13312
	// MaxParents bounds how many heads an event names.
	MaxParents = 20
	// MaxKey bounds the key of a control event, in bytes of UTF-8.
	MaxKey = 64
	// MaxSeq bounds seq: exact in JavaScript and in a signed 64-bit column.
	MaxSeq = 1<<53 - 1
)

// Errors of Parse and Append. ErrMalformed stands with the reader.
var (
	// ErrSize: more bytes than MaxEvent, or in a body than MaxBody.
	ErrSize = errors.New("event too large")
	// ErrUTF8: text that is not valid UTF-8.
	ErrUTF8 = errors.New("text is not valid UTF-8")
	// ErrSeq: seq outside 1 to MaxSeq, or one on an ephemeral event.
	ErrSeq = errors.New("event seq outside its limits")
	// ErrParents: more than MaxParents, not in order, one twice, or parents on
	// an ephemeral event.
	ErrParents = errors.New("event parents outside their rules")
	// ErrClock: a clock above MaxClock.
	ErrClock = errors.New("event clock outside its limits")
	// ErrType: a type outside the ranges of the classes, or Message written out.
	ErrType = errors.New("event type outside the known classes")
	// ErrKey: a key longer than MaxKey, an empty one that is written out, or one
	// on an event that is not control.
	ErrKey = errors.New("event key outside its rules")
)

// Event is what one device of one account says in one conversation. Neither
// the conversation nor the author stands in it: see Context.
type Event struct {
	// Seq counts the events of this device in this conversation from 1, without
	// holes. It is 0 in an ephemeral event.
	Seq uint64
	// Parents are the heads that the author saw, in bytewise order, at most
	// MaxParents. The event of the same device with the seq before is always a
	// parent and is not named.
	Parents []ID
	Clock   Clock
	Type    Type
	// Key separates the control events of one type from each other.
	Key string
	// Body is one CBOR map, which the type tells how to read.
	Body []byte
}

// Keys of the event's map.
const (
	keySeq     = 1
	keyParents = 2
	keyClock   = 3
	keyType    = 4 // left out for Message
	keyKey     = 5
	keyBody    = 6
)

// Append returns the bytes of e. Errors are those of Parse.
func (e Event) Append() ([]byte, error) {
	if _, err := readFields(e.Body, MaxBody); err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	if !utf8.ValidString(e.Key) {
		return nil, fmt.Errorf("key: %w", ErrUTF8)
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	n := uint64(2)
	for _, there := range []bool{e.Seq > 0, len(e.Parents) > 0, e.Type != Message, e.Key != ""} {
		if there {
			n++
		}
	}
	size := 6*(1+headSize) + len(e.Parents)*(2+len(ID{})) + len(e.Key) + len(e.Body)
	b := appendHead(make([]byte, 0, size), majorMap, n)
	if e.Seq > 0 {
		b = appendUint(b, keySeq, e.Seq)
	}
	if len(e.Parents) > 0 {
		b = appendHead(appendField(b, keyParents), majorArray, uint64(len(e.Parents)))
		for i := range e.Parents {
			b = appendItem(b, e.Parents[i][:])
		}
	}
	b = appendUint(b, keyClock, uint64(e.Clock))
	if e.Type != Message {
		b = appendUint(b, keyType, uint64(e.Type))
	}
	if e.Key != "" {
		b = appendText(b, keyKey, e.Key)
	}
	return append(appendField(b, keyBody), e.Body...), nil
}

// Parse reads an event. Its Body shares memory with b. An unknown type within
// the classes is no error, and unknown keys are passed over; whoever stores or
// hashes the event keeps b. Errors: ErrSize, ErrMalformed, ErrUTF8, ErrSeq,
// ErrParents, ErrClock, ErrType, ErrKey.
func Parse(b []byte) (Event, error) {
	e, _, err := parse(b)
	return e, err
}

func parse(b []byte) (e Event, unknown int, err error) {
	f, err := readFields(b, MaxEvent)
	if err != nil {
		return Event{}, 0, err
	}
	e.Type = Message
	for key := f.next(); key > 0; key = f.next() {
		switch key {
		case keySeq:
			if e.Seq = f.uint(); f.err == nil && e.Seq == 0 {
				f.err = fmt.Errorf("%w: 0", ErrSeq)
			}
		case keyParents:
			n := f.array(MaxParents, ErrParents)
			e.Parents = make([]ID, n)
			for i := range n {
				e.Parents[i] = f.hash()
			}
		case keyClock:
			e.Clock = Clock(f.uint())
		case keyType:
			t := f.uint()
			if e.Type = Type(min(t, math.MaxUint16)); f.err == nil && e.Type == Message {
				f.err = fmt.Errorf("%w: %d written out", ErrType, t)
			}
		case keyKey:
			if e.Key = f.text(); f.err == nil && e.Key == "" {
				f.err = fmt.Errorf("%w: empty", ErrKey)
			}
		case keyBody:
			e.Body = f.value()
		default:
			f.pass()
		}
	}
	if err := f.end(keyClock, keyBody); err != nil {
		return Event{}, 0, err
	}
	if len(e.Body) > MaxBody {
		return Event{}, 0, fmt.Errorf("%w: body of %d bytes", ErrSize, len(e.Body))
	}
	if e.Body[0]>>5 != majorMap {
		return Event{}, 0, fmt.Errorf("%w: the body is no map", ErrMalformed)
	}
	if err := e.check(); err != nil {
		return Event{}, 0, err
	}
	return e, f.unknown, nil
}

// check holds the rules that Append and Parse share.
func (e Event) check() error {
	class := e.Type.Class()
	switch {
	case class == 0:
		return fmt.Errorf("%w: %d", ErrType, e.Type)
	case e.Clock > MaxClock:
		return fmt.Errorf("%w: %d", ErrClock, e.Clock)
	case e.Seq > MaxSeq, (e.Seq == 0) != (class == Ephemeral):
		return fmt.Errorf("%w: %d in %v", ErrSeq, e.Seq, e.Type)
	case len(e.Parents) > MaxParents, len(e.Parents) > 0 && class == Ephemeral:
		return fmt.Errorf("%w: %d in %v", ErrParents, len(e.Parents), e.Type)
	case len(e.Key) > MaxKey, e.Key != "" && class != Control:
		return fmt.Errorf("%w: %d bytes in %v", ErrKey, len(e.Key), e.Type)
	}
	for i := 1; i < len(e.Parents); i++ {
		if bytes.Compare(e.Parents[i-1][:], e.Parents[i][:]) >= 0 {
			return fmt.Errorf("%w: not in order", ErrParents)
		}
	}
	return nil
}
