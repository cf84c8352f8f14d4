package dm

import (
	"errors"
	"fmt"
	"time"

	"github.com/kinloom/kinloom/protocol/wire"
)

// Limits on what the other side may cause (SPEC 7).
const (
	// MaxTries is how many cells a stranger may have us try to open. Each
	// costs one hash a session.
	MaxTries = 32
	// KnownTries and TryEvery bound the cells of a known device that do not
	// open: a burst of KnownTries, and one more each TryEvery.
	KnownTries = 256
	TryEvery   = time.Second
	// Bundles and BundleEvery bound the fresh bundles that a known device
	// gets: each costs a key pair and a row. It can start from the static
	// bundle at any time.
	Bundles     = 4
	BundleEvery = 10 * time.Minute
	// MaxRefusals is how often a bundle is refused before the stream ends.
	MaxRefusals = 8
)

// Errors of the machine. After any of them the stream is over.
var (
	// ErrOrder: a frame at a moment when it may not come.
	ErrOrder = errors.New("frame of a message stream out of order")
	// ErrUnsolicited: a bundle that was not asked for, or a refusal of a cell
	// that was not sent.
	ErrUnsolicited = errors.New("answer on a message stream without a question")
	// ErrStranger: the other side sent what does not open and nothing else.
	ErrStranger = errors.New("other side of a message stream is no contact")
	// ErrFlood: more than a contact has reason to send.
	ErrFlood = errors.New("other side of a message stream sends too much")
)

// Config says which side this is.
type Config struct {
	// Dialer tells that this side opened the stream and writes first.
	Dialer bool
	// Known tells that the other side was recognised before, by hello or by
	// the address that was dialled. It is otherwise a stranger until it is
	// recognised or a cell of its opens.
	Known bool
}

// Event is what a frame of the other side asks for. One field is set.
type Event struct {
	Cells [][]byte
	Nack  *Nack
	// Want asks for a fresh bundle; with Deny the answer is no.
	Want, Deny bool
	// Bundle is the answer to our question; empty in it means no.
	Bundle *Bundle
	Bye    bool
}

// Machine checks the order, sizes and rates of one stream. It does no I/O.
type Machine struct {
	dialer, known     bool
	spoke, heard      bool // first frames
	saidBye, heardBye bool
	wanted            bool // our WantBundle is open
	sent              int  // cells that the other side may still refuse
	open              int  // cells given to the node, without a verdict yet
	failed            int  // of a stranger
	failures, bundles bucket
	refusals          int
}

// NewMachine returns the machine of a new stream.
func NewMachine(c Config) *Machine {
	return &Machine{
		dialer: c.Dialer, known: c.Known,
		failures: bucket{size: KnownTries, every: TryEvery},
		bundles:  bucket{size: Bundles, every: BundleEvery},
	}
}

// Known tells whether the other side is a contact.
func (m *Machine) Known() bool { return m.known }

// MaySend tells whether this side may write now: the dialer always, the other
// side after it was spoken to; neither after its Bye.
func (m *Machine) MaySend() bool { return (m.dialer || m.heard) && !m.saidBye }

// Paused tells that a stranger has as many cells waiting for a verdict as it
// may try: nothing more is read until one comes.
func (m *Machine) Paused() bool { return !m.known && m.open+m.failed >= MaxTries }

// SaidBye tells that this side has sent its last frame.
func (m *Machine) SaidBye() bool { return m.saidBye }

// Want notes that this side is about to ask for a bundle. Error: ErrOrder if
// the answer to an earlier question is due.
func (m *Machine) Want() error {
	if m.wanted {
		return fmt.Errorf("%w: a bundle was asked for already", ErrOrder)
	}
	m.wanted = true
	return nil
}

// Send notes a frame that this side is about to write. Error: ErrOrder.
func (m *Machine) Send(f Frame) error {
	if !m.MaySend() {
		return fmt.Errorf("%w: our own %T", ErrOrder, f)
	}
	switch f := f.(type) {
	case Cells:
		m.sent += len(f.Cells)
	case Bye:
		m.saidBye = true
	}
	m.spoke = true
	return nil
}

// Handle takes the body of one frame. Errors: those of ParseFrame, ErrOrder,
// ErrUnsolicited, ErrFlood.
func (m *Machine) Handle(now time.Time, b []byte) (Event, error) {
	if m.heardBye || m.dialer && !m.spoke {
		return Event{}, ErrOrder
	}
	f, err := ParseFrame(b)
	if err != nil {
		return Event{}, err
	}
	event, err := m.take(now, f)
	m.heard = m.heard || err == nil
	return event, err
}

func (m *Machine) take(now time.Time, f Frame) (Event, error) {
	switch f := f.(type) {
	case Cells:
		return Event{Cells: f.Cells}, nil
	case Nack:
		if m.sent == 0 {
			return Event{}, fmt.Errorf("%w: refusal", ErrUnsolicited)
		}
		m.sent--
		return Event{Nack: &f}, nil
	case WantBundle:
		if m.known && m.bundles.take(now) {
			return Event{Want: true}, nil
		}
		if m.refusals == MaxRefusals {
			return Event{}, fmt.Errorf("%w: bundles asked for", ErrFlood)
		}
		m.refusals++
		return Event{Want: true, Deny: true}, nil
	case Bundle:
		if !m.wanted {
			return Event{}, fmt.Errorf("%w: bundle", ErrUnsolicited)
		}
		m.wanted = false
		return Event{Bundle: &f}, nil
	default:
		m.heardBye = true
		return Event{Bye: true}, nil
	}
}

// Give notes that a cell was handed to the node.
func (m *Machine) Give() { m.open++ }

// Opened notes that a cell of this stream opened: the other side is a contact.
func (m *Machine) Opened() {
	m.open = max(m.open-1, 0)
	m.Recognised()
}

// Recognised notes that the other side is a contact, whatever its cells say.
func (m *Machine) Recognised() { m.known, m.failed = true, 0 }

// Refused notes that a cell of this stream was refused with code. Errors:
// ErrStranger or ErrFlood when it was one too many.
func (m *Machine) Refused(now time.Time, code wire.Code) error {
	m.open = max(m.open-1, 0)
	switch {
	case code == wire.CodeStorage || code == wire.CodeBusy || code == wire.CodeClosing:
		return nil // not the other side's doing
	case m.known:
		if !m.failures.take(now) {
			return fmt.Errorf("%w: cells that do not open", ErrFlood)
		}
		return nil
	}
	if m.failed++; m.failed >= MaxTries {
		return ErrStranger
	}
	return nil
}

// bucket allows size at once and one more each every. A clock that jumps ahead
// gives no more than size; one that jumps back costs no more than size.
type bucket struct {
	size  int
	every time.Duration
	full  time.Time // when it will be full again
}

func (b *bucket) take(now time.Time) bool {
	span := time.Duration(b.size) * b.every
	switch left := b.full.Sub(now); {
	case left < 0:
		b.full = now
	case left > span:
		b.full = now.Add(span)
	}
	if b.full.Add(b.every).Sub(now) > span {
		return false
	}
	b.full = b.full.Add(b.every)
	return true
}
