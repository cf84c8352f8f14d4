package event

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kinloom/kinloom/identity"
)

// MaxHeads bounds the heads that a Machine keeps, so that all of them fit into
// the next own event. More are open at once only where many write at the same
// moment; the oldest is then forgotten, and clocks alone place what it held
// apart.
const MaxHeads = MaxParents

// ErrSeqs is returned by Next when this device has used up its MaxSeq numbers.
var ErrSeqs = errors.New("no event numbers left in this conversation")

// Latest is the newest event, by seq, that is held of one device.
type Latest struct {
	Device identity.DeviceID
	Seq    uint64
	ID     ID
	Clock  Clock
}

// Machine is what a node keeps in memory of one conversation: the next own seq,
// the heads, the clock, and of each device the latest event. It does no I/O; the
// caller writes what it shows (Heads, Clock) in the transaction that stores the
// event or a later one, and after a failed commit or a crash builds it anew from
// what is stored, with Recall for the events that came after what it wrote.
type Machine struct {
	self   Context
	clock  Clock
	heads  []ID // by arrival, the oldest first
	latest map[identity.DeviceID]Latest
	closed map[identity.DeviceID]uint64
}

// NewMachine returns the state of a conversation without events. Self is the
// conversation, and the person and the device that this node is.
func NewMachine(self Context) *Machine { return LoadMachine(self, 0, nil, nil) }

// LoadMachine returns the state as it was stored: the clock, the heads in their
// order, and of each device that wrote here, this one included, its latest event.
func LoadMachine(self Context, clock Clock, heads []ID, latest []Latest) *Machine {
	m := &Machine{
		self:   self,
		clock:  clock,
		heads:  slices.Clone(heads),
		latest: make(map[identity.DeviceID]Latest, len(latest)),
		closed: map[identity.DeviceID]uint64{},
	}
	m.trim()
	for _, l := range latest {
		if l.Seq > m.latest[l.Device].Seq {
			m.latest[l.Device] = l
		}
	}
	return m
}

// Seq returns the seq of the next own event.
func (m *Machine) Seq() uint64 { return m.top(m.self.Device) + 1 }

// top is the highest seq of a device that was used or closed.
func (m *Machine) top(dev identity.DeviceID) uint64 {
	return max(m.latest[dev].Seq, m.closed[dev])
}

// Close takes the numbers of a device up to seq out of use, as other events than
// those that are held may exist under them. It is not a part of what LoadMachine
// is given: the caller stores Closed and closes again.
func (m *Machine) Close(dev identity.DeviceID, seq uint64) {
	m.closed[dev] = max(m.closed[dev], seq)
}

// Closed returns the seq up to which the numbers of a device are closed, 0 if
// none are.
func (m *Machine) Closed(dev identity.DeviceID) uint64 { return m.closed[dev] }

// Clock returns the clock: the highest of what was made and seen here.
func (m *Machine) Clock() Clock { return m.clock }

// Heads returns the events that no other held event follows, at most MaxHeads,
// the oldest first.
func (m *Machine) Heads() []ID { return slices.Clone(m.heads) }

// Latest returns the newest event held of a device; its Seq is 0 if there is
// none.
func (m *Machine) Latest(dev identity.DeviceID) Latest { return m.latest[dev] }

// Made is an own event as it leaves.
type Made struct {
	Event
	ID  ID
	Raw []byte
}

// Next makes the next own event and counts it. An ephemeral one takes no seq
// and changes nothing. Errors are those of Event.Append, and ErrSeqs; with one
// nothing changes either.
func (m *Machine) Next(now time.Time, t Type, key string, body []byte) (Made, error) {
	last := m.latest[m.self.Device]
	e := Event{Clock: m.clock.Next(now), Type: t, Key: key, Body: body}
	if t.Class() != Ephemeral {
		if e.Seq = m.Seq(); e.Seq > MaxSeq {
			return Made{}, ErrSeqs
		}
		e.Parents = m.parents(last.ID)
	}
	raw, err := e.Append()
	if err != nil {
		return Made{}, fmt.Errorf("make %v event: %w", t, err)
	}
	made := Made{Event: e, ID: IDOf(m.self, raw), Raw: raw}
	if e.Seq > 0 {
		m.clock = e.Clock
		m.follow(m.self.Device, made.ID, e)
	}
	return made, nil
}

// parents returns the heads but the own one, in bytewise order.
func (m *Machine) parents(own ID) []ID {
	var ids []ID
	for _, id := range m.heads {
		if id != own {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}

// follow makes an event the latest of its device and a head, in place of what
// it follows.
func (m *Machine) follow(dev identity.DeviceID, id ID, e Event) {
	before := m.latest[dev].ID
	m.latest[dev] = Latest{Device: dev, Seq: e.Seq, ID: id, Clock: e.Clock}
	m.cover(before, e.Parents)
	m.heads = append(m.heads, id)
	m.trim()
}

// cover takes events that another one follows out of the heads.
func (m *Machine) cover(before ID, parents []ID) {
	m.heads = slices.DeleteFunc(m.heads, func(h ID) bool {
		return h == before || slices.Contains(parents, h)
	})
}

func (m *Machine) trim() {
	if over := len(m.heads) - MaxHeads; over > 0 {
		m.heads = slices.Delete(m.heads, 0, over)
	}
}

// Verdict is what an incoming event is to this node.
type Verdict uint8

// The verdicts.
const (
	// New: not held yet; store and show it.
	New Verdict = 1
	// Duplicate: held already; nothing changed.
	Duplicate Verdict = 2
	// Equivocation: another event is held under the same device and seq, or the
	// seq is closed, or it claims to be of this very device, which did not make
	// it. Keep what is held, warn; nothing changed. It means a cloned, restored
	// or dishonest device.
	Equivocation Verdict = 3
)

// Seen is the outcome of Observe.
type Seen struct {
	Verdict Verdict
	// GapFrom and GapTo are the seqs that this event is the first to show as
	// missing, both 0 if none. The event is shown all the same, with the gap
	// named.
	GapFrom, GapTo uint64
	// Late says that it came after an event of the same device that follows it:
	// it fills a gap.
	Late bool
	// ClockWrong says that the clock is more than MaxAhead ahead of the time
	// here, or not above that of the event before it of the same device. Such an
	// event is shown and marked, and never moves the clock here backward, nor
	// ahead by more than MaxAhead.
	ClockWrong bool
}

// Recall takes in an event that is held already and was stored, at a time, after
// the heads and clock that the machine was loaded with; the latest events that it
// was loaded with are older, too. Such events come in the order in which they
// were stored. It does for heads and clock what Next or Observe did then.
func (m *Machine) Recall(at time.Time, dev identity.DeviceID, id ID, e Event) {
	if dev == m.self.Device {
		m.clock = max(m.clock, e.Clock)
	} else {
		m.clock, _ = m.clock.Observe(e.Clock, at)
	}
	if e.Seq < m.latest[dev].Seq {
		m.cover(ID{}, e.Parents)
		return
	}
	m.follow(dev, id, e)
}

// Above reports whether seq is above all that is held of a device. If not, the
// caller looks up what it holds under this device and seq before Observe.
func (m *Machine) Above(dev identity.DeviceID, seq uint64) bool {
	return seq > m.latest[dev].Seq
}

// Place returns where an event of a device stands in an order by clock alone: at
// its own clock, but above the events that it follows, as far as they are the
// latest of their devices. A clock that is behind thus never puts an answer
// before what it answers. Ask before Observe.
func (m *Machine) Place(dev identity.DeviceID, e Event) Clock {
	place := e.Clock
	for d, l := range m.latest {
		follows := slices.Contains(e.Parents, l.ID) || d == dev && e.Seq == l.Seq+1
		if follows && place <= l.Clock && l.Clock < MaxClock {
			place = l.Clock + 1
		}
	}
	return place
}

// Observe takes in an event of a device, as the session or its signature vouch
// for it. Held is the id of the stored event of the same device and seq, the
// zero ID if there is none or if Above says so. Ephemeral events change nothing.
func (m *Machine) Observe(now time.Time, dev identity.DeviceID, id ID, e Event, held ID) Seen {
	clock, wrong := m.clock.Observe(e.Clock, now)
	if e.Seq == 0 {
		return Seen{Verdict: New, ClockWrong: wrong}
	}
	last := m.latest[dev]
	if last.Seq == e.Seq {
		held = last.ID
	}
	switch {
	case held == id:
		return Seen{Verdict: Duplicate}
	case held != ID{}, dev == m.self.Device, e.Seq <= m.closed[dev]:
		return Seen{Verdict: Equivocation, ClockWrong: wrong}
	}
	seen := Seen{Verdict: New, Late: e.Seq < last.Seq}
	seen.ClockWrong = wrong || !seen.Late && last.Seq > 0 && e.Clock <= last.Clock
	m.clock = clock
	if seen.Late {
		m.cover(ID{}, e.Parents)
		return seen
	}
	if top := m.top(dev); e.Seq > top+1 {
		seen.GapFrom, seen.GapTo = top+1, e.Seq-1
	}
	m.follow(dev, id, e)
	return seen
}
