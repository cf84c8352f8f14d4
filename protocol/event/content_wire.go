package event

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/kinloom/kinloom/protocol/wire"
)

// MaxReaction bounds a reaction in bytes of UTF-8, with room for an emoji of
// many parts. The text of a message has wire.MaxText.
const MaxReaction = 64

// Errors of the bodies of content, beside those of an event.
var (
	// ErrEmpty: no text where there must be one.
	ErrEmpty = errors.New("text is empty")
	// ErrTooLong: text, name or reaction above its limit.
	ErrTooLong = errors.New("text is too long")
)

// checkText holds the rules of text that is to be written.
func checkText(s string, least, most int) error {
	if err := checkLength(s, least, most); err != nil {
		return err
	}
	if !utf8.ValidString(s) {
		return ErrUTF8
	}
	return nil
}

// checkLength is enough for text that was read: enc has seen that it is UTF-8.
func checkLength(s string, least, most int) error {
	if len(s) < least {
		return ErrEmpty
	}
	if len(s) > most {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, len(s), most)
	}
	return nil
}

// Text is the body of Message.
type Text struct {
	// Text is 1 to wire.MaxText bytes of UTF-8 in any normal form. It is shown
	// by way of CleanText.
	Text string
	// ReplyTo is the message that this one answers, nil if none.
	ReplyTo *ID
}

// Append returns the bytes of t. Errors: ErrEmpty, ErrTooLong, ErrUTF8.
func (t Text) Append() ([]byte, error) {
	if err := checkText(t.Text, 1, wire.MaxText); err != nil {
		return nil, err
	}
	b := make([]byte, 0, len(t.Text)+len(ID{})+3*headSize)
	if t.ReplyTo == nil {
		return appendText(append(b, majorMap<<5|1), 1, t.Text), nil
	}
	b = appendText(append(b, majorMap<<5|2), 1, t.Text)
	return appendItem(appendField(b, 2), t.ReplyTo[:]), nil
}

// ParseText reads the body of Message. Errors: those of Append, ErrMalformed,
// ErrSize.
func ParseText(b []byte) (Text, error) {
	f, err := readFields(b, MaxBody)
	if err != nil {
		return Text{}, err
	}
	var t Text
	for key := f.next(); key > 0; key = f.next() {
		switch key {
		case 1:
			t.Text = f.text()
		case 2:
			t.ReplyTo = new(ID(f.hash()))
		default:
			f.pass()
		}
	}
	if err := f.end(1); err != nil {
		return Text{}, err
	}
	if err := checkLength(t.Text, 1, wire.MaxText); err != nil {
		return Text{}, err
	}
	return t, nil
}

// Revision is the body of Edit. Only the author of Target may edit it, and
// other revisions are passed over; of several the last in the order of the
// conversation is shown.
type Revision struct {
	Target ID
	// Text has the bounds of a message.
	Text string
}

// Append returns the bytes of r. Errors: ErrEmpty, ErrTooLong, ErrUTF8.
func (r Revision) Append() ([]byte, error) {
	return appendTargeted(r.Target, r.Text, 1, wire.MaxText)
}

// ParseRevision reads the body of Edit. Errors: those of Append, ErrMalformed,
// ErrSize.
func ParseRevision(b []byte) (Revision, error) {
	id, s, err := parseTargeted(b, 1, wire.MaxText)
	return Revision{Target: id, Text: s}, err
}

// Emotion is the body of Reaction. Of the reactions of one person to one
// message the last in the order of the conversation counts.
type Emotion struct {
	Target ID
	// Emoji is at most MaxReaction bytes of UTF-8; none takes the reaction back.
	Emoji string
}

// Append returns the bytes of e. Errors: ErrTooLong, ErrUTF8.
func (e Emotion) Append() ([]byte, error) {
	return appendTargeted(e.Target, e.Emoji, 0, MaxReaction)
}

// ParseEmotion reads the body of Reaction. Errors: those of Append,
// ErrMalformed, ErrSize.
func ParseEmotion(b []byte) (Emotion, error) {
	id, s, err := parseTargeted(b, 0, MaxReaction)
	return Emotion{Target: id, Emoji: s}, err
}

// Retraction is the body of Retract. Only the author of Target may take it
// back; whoever has it then forgets its text.
type Retraction struct {
	Target ID
}

// Append returns the bytes of r. The error is always nil.
func (r Retraction) Append() ([]byte, error) {
	b := append(make([]byte, 0, len(ID{})+4), majorMap<<5|1)
	return appendItem(appendField(b, 1), r.Target[:]), nil
}

// ParseRetraction reads the body of Retract. Errors: ErrMalformed, ErrUTF8,
// ErrSize.
func ParseRetraction(b []byte) (Retraction, error) {
	f, err := readFields(b, MaxBody)
	if err != nil {
		return Retraction{}, err
	}
	var r Retraction
	for key := f.next(); key > 0; key = f.next() {
		if key == 1 {
			r.Target = f.hash()
		} else {
			f.pass()
		}
	}
	if err := f.end(1); err != nil {
		return Retraction{}, err
	}
	return r, nil
}

// appendTargeted writes {1: target, 2: text}.
func appendTargeted(target ID, s string, least, most int) ([]byte, error) {
	if err := checkText(s, least, most); err != nil {
		return nil, err
	}
	b := append(make([]byte, 0, len(s)+len(ID{})+3*headSize), majorMap<<5|2)
	b = appendItem(appendField(b, 1), target[:])
	return appendText(b, 2, s), nil
}

func parseTargeted(b []byte, least, most int) (target ID, s string, err error) {
	f, err := readFields(b, MaxBody)
	if err != nil {
		return ID{}, "", err
	}
	for key := f.next(); key > 0; key = f.next() {
		switch key {
		case 1:
			target = f.hash()
		case 2:
			s = f.text()
		default:
			f.pass()
		}
	}
	if err := f.end(1, 2); err != nil {
		return ID{}, "", err
	}
	if err := checkLength(s, least, most); err != nil {
		return ID{}, "", err
	}
	return target, s, nil
}
