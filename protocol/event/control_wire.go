package event

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/kinloom/kinloom/identity"
)

// Limits of the bodies of control and ephemeral events.
const (
	// MaxName bounds a profile name, in bytes of UTF-8.
	MaxName = 256
	// MaxEntries bounds the entries, and the records, of one Entries.
	MaxEntries = 64
	// MaxMarks bounds the devices of one Marks.
	MaxMarks = 128
	// MaxTyping bounds the seconds of a Composing.
	MaxTyping = 60
)

// Errors of the bodies of control and ephemeral events, beside those of an
// event.
var (
	// ErrCount: a list that is empty, above its limit, or has an empty item.
	ErrCount = errors.New("list outside its limits")
	// ErrMarks: read marks not in order, one device twice, or seq outside 1 to
	// MaxSeq.
	ErrMarks = errors.New("read marks outside their rules")
	// ErrSeconds: more than MaxTyping.
	ErrSeconds = errors.New("seconds outside their limit")
)

// Name is the body of Profile.
type Name struct {
	// Name is at most MaxName bytes of UTF-8, none if the author wants none. It
	// is a stranger's text: shown by way of Clean, and never trusted to be
	// unlike another name.
	Name string
}

// Append returns the bytes of n. Errors: ErrTooLong, ErrUTF8.
func (n Name) Append() ([]byte, error) {
	if err := checkText(n.Name, 0, MaxName); err != nil {
		return nil, err
	}
	return appendText([]byte{majorMap<<5 | 1}, 1, n.Name), nil
}

// ParseName reads the body of Profile. Errors: those of Append, ErrMalformed,
// ErrSize.
func ParseName(b []byte) (Name, error) {
	f, err := readFields(b, MaxBody)
	if err != nil {
		return Name{}, err
	}
	var n Name
	for key := f.next(); key > 0; key = f.next() {
		if key == 1 {
			n.Name = f.text()
		} else {
			f.pass()
		}
	}
	if err := f.end(1); err != nil {
		return Name{}, err
	}
	if err := checkLength(n.Name, 0, MaxName); err != nil {
		return Name{}, err
	}
	return n, nil
}

// Entries is the body of Log: signed entries of the author's log of devices, as
// received, with the device records that they certify. The reader verifies them
// (package identity); what is not signed as it should be is passed over.
type Entries struct {
	// Entries follow each other in the log, 1 to MaxEntries, none empty.
	Entries [][]byte
	// Records are at most MaxEntries signed device records, none empty.
	Records [][]byte
}

// Append returns the bytes of e. Errors: ErrCount, and ErrSize if it is more
// than MaxBody; a long log goes into several events with keys of their own.
func (e Entries) Append() ([]byte, error) {
	if n := len(e.Entries); n == 0 || n > MaxEntries || len(e.Records) > MaxEntries {
		return nil, fmt.Errorf("%w: %d entries, %d records", ErrCount, n, len(e.Records))
	}
	size := 5 * headSize
	for _, list := range [][][]byte{e.Entries, e.Records} {
		for _, x := range list {
			if len(x) == 0 {
				return nil, fmt.Errorf("%w: an empty item", ErrCount)
			}
			size += min(len(x), MaxBody) + headSize
		}
	}
	n := byte(1)
	if len(e.Records) > 0 {
		n = 2
	}
	b := append(make([]byte, 0, size), majorMap<<5|n)
	b = appendList(b, 1, e.Entries)
	if n == 2 {
		b = appendList(b, 2, e.Records)
	}
	if len(b) > MaxBody {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrSize, len(b), MaxBody)
	}
	return b, nil
}

func appendList(b []byte, key uint64, list [][]byte) []byte {
	b = appendHead(appendField(b, key), majorArray, uint64(len(list)))
	for _, x := range list {
		b = appendItem(b, x)
	}
	return b
}

// ParseEntries reads the body of Log. The items share memory with b. Errors:
// those of Append, ErrMalformed, ErrUTF8.
func ParseEntries(b []byte) (Entries, error) {
	f, err := readFields(b, MaxBody)
	if err != nil {
		return Entries{}, err
	}
	var e Entries
	for key := f.next(); key > 0; key = f.next() {
		switch key {
		case 1:
			e.Entries = f.list()
		case 2:
			e.Records = f.list()
		default:
			f.pass()
		}
	}
	if err := f.end(1); err != nil {
		return Entries{}, err
	}
	return e, nil
}

// list takes an array of 1 to MaxEntries byte strings, none empty.
func (f *fields) list() [][]byte {
	n := f.array(MaxEntries, ErrCount)
	list := make([][]byte, n)
	for i := range list {
		if list[i] = f.bytes(); f.err == nil && len(list[i]) == 0 {
			f.err = fmt.Errorf("%w: an empty item", ErrCount)
		}
	}
	return list
}

// Mark says that every event of Device in this conversation up to Seq was read.
type Mark struct {
	Device identity.DeviceID
	Seq    uint64
}

// Marks is the body of ReadMark.
type Marks struct {
	// Marks are 1 to MaxMarks, in bytewise order of the devices, each once.
	Marks []Mark
}

// Append returns the bytes of m. Errors: ErrCount, ErrMarks.
func (m Marks) Append() ([]byte, error) {
	if n := len(m.Marks); n == 0 || n > MaxMarks {
		return nil, fmt.Errorf("%w: %d marks", ErrCount, n)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	b := make([]byte, 0, 4+len(m.Marks)*(len(identity.DeviceID{})+4+headSize))
	b = appendHead(appendField(append(b, majorMap<<5|1), 1), majorArray, uint64(len(m.Marks)))
	for i := range m.Marks {
		b = appendItem(appendField(append(b, majorMap<<5|2), 1), m.Marks[i].Device[:])
		b = appendUint(b, 2, m.Marks[i].Seq)
	}
	return b, nil
}

func (m Marks) check() error {
	for i, k := range m.Marks {
		if k.Seq == 0 || k.Seq > MaxSeq {
			return fmt.Errorf("%w: seq %d", ErrMarks, k.Seq)
		}
		if i > 0 && bytes.Compare(m.Marks[i-1].Device[:], k.Device[:]) >= 0 {
			return fmt.Errorf("%w: not in order", ErrMarks)
		}
	}
	return nil
}

// ParseMarks reads the body of ReadMark. Errors: those of Append, ErrMalformed,
// ErrUTF8, ErrSize.
func ParseMarks(b []byte) (Marks, error) {
	f, err := readFields(b, MaxBody)
	if err != nil {
		return Marks{}, err
	}
	var m Marks
	for key := f.next(); key > 0; key = f.next() {
		if key == 1 {
			m.Marks = f.marks()
		} else {
			f.pass()
		}
	}
	if err := f.end(1); err != nil {
		return Marks{}, err
	}
	if err := m.check(); err != nil {
		return Marks{}, err
	}
	return m, nil
}

func (f *fields) marks() []Mark {
	n := f.array(MaxMarks, ErrCount)
	marks := make([]Mark, n)
	for i := range marks {
		if f.err != nil {
			return nil
		}
		g := f.sub()
		for key := g.next(); key > 0; key = g.next() {
			switch key {
			case 1:
				marks[i].Device = g.hash()
			case 2:
				marks[i].Seq = g.uint()
			default:
				g.pass()
			}
		}
		f.err = g.end(1, 2)
		f.unknown += g.unknown
	}
	return marks
}

// Composing is the body of Typing.
type Composing struct {
	// Seconds is how long to show it unless an event comes first, at most
	// MaxTyping; 0 ends it.
	Seconds uint8
}

// Append returns the bytes of c. Error: ErrSeconds.
func (c Composing) Append() ([]byte, error) {
	if c.Seconds > MaxTyping {
		return nil, fmt.Errorf("%w: %d", ErrSeconds, c.Seconds)
	}
	return appendUint([]byte{majorMap<<5 | 1}, 1, uint64(c.Seconds)), nil
}

// ParseComposing reads the body of Typing. Errors: ErrSeconds, ErrMalformed,
// ErrUTF8, ErrSize.
func ParseComposing(b []byte) (Composing, error) {
	f, err := readFields(b, MaxBody)
	if err != nil {
		return Composing{}, err
	}
	var n uint64
	for key := f.next(); key > 0; key = f.next() {
		if key == 1 {
			n = f.uint()
		} else {
			f.pass()
		}
	}
	if err := f.end(1); err != nil {
		return Composing{}, err
	}
	if n > MaxTyping {
		return Composing{}, fmt.Errorf("%w: %d", ErrSeconds, n)
	}
	return Composing{Seconds: uint8(n)}, nil
}
