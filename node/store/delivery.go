package store

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/ncruces/go-sqlite3"
)

// Delivery is a run of events of this device in a conversation that one device
// confirmed to have on disk and decrypted.
type Delivery struct {
	Row          Row
	Conversation Row
	Device       Row    // the one that confirmed
	From, To     uint64 // seqs of the events, both included
	Sent         time.Time
	At           time.Time // when the first receipt of the run was opened
	Route        uint8
	Changed      uint64
}

// runLength is how long receipts that follow each other make one run: a row for
// each would cost more than what they are about.
const runLength = time.Second

const deliveryColumns = "row, conversation, device, first, last, sent, at, route, changed"

func scanDelivery(st *sqlite3.Stmt) (Delivery, error) {
	return Delivery{
		Row:          Row(st.ColumnInt64(0)),
		Conversation: Row(st.ColumnInt64(1)),
		Device:       Row(st.ColumnInt64(2)),
		From:         uint64(st.ColumnInt64(3)),
		To:           uint64(st.ColumnInt64(4)),
		Sent:         fromMillis(st.ColumnInt64(5)),
		At:           fromMillis(st.ColumnInt64(6)),
		Route:        uint8(st.ColumnInt(7)),
		Changed:      uint64(st.ColumnInt64(8)),
	}, nil
}

// AddDelivery notes a run of receipts. What it repeats of earlier ones is passed
// over; a run that follows the one before it within a second, by the same
// route, makes it longer.
func (tx *Tx) AddDelivery(d Delivery) error {
	if d.From == 0 || d.From > d.To {
		return fmt.Errorf("bug: a delivery from %d to %d", d.From, d.To)
	}
	// The run that begins at or before this one, and those that begin within it.
	known, err := list(tx, "deliveries", scanDelivery, "SELECT "+deliveryColumns+` FROM delivery WHERE conversation = ?1 AND device = ?2 AND first >=
		coalesce((SELECT max(first) FROM delivery WHERE conversation = ?1 AND device = ?2 AND first <= ?3), ?3) AND first <= ?4 ORDER BY first`,
		d.Conversation, d.Device, d.From, d.To)
	if err != nil {
		return err
	}
	next := d.From
	var last *Delivery
	for i := range known {
		k := &known[i]
		if k.From > next {
			if err := tx.addRun(d, next, k.From-1, last); err != nil {
				return err
			}
		}
		next, last = max(next, k.To+1), k
	}
	if next > d.To {
		return nil
	}
	return tx.addRun(d, next, d.To, last)
}

// addRun stores from..to, which nothing stored covers; before is the run below.
func (tx *Tx) addRun(d Delivery, from, to uint64, before *Delivery) error {
	changed := tx.NextChanged()
	if before != nil && before.To+1 == from && before.Route == d.Route && within(before.At, d.At, runLength) {
		return wrap("store a delivery", tx.Exec("UPDATE delivery SET last = ?, changed = ? WHERE row = ?", to, changed, before.Row))
	}
	return wrap("store a delivery", tx.Exec(`INSERT INTO delivery(conversation, device, first, last, sent, at, route, changed)
		VALUES(?, ?, ?, ?, ?, ?, ?, ?)`, d.Conversation, d.Device, from, to, millis(d.Sent), millis(d.At), d.Route, changed))
}

// within reports whether b lies at most d after a.
func within(a, b time.Time, d time.Duration) bool {
	gap := b.Sub(a)
	return gap >= 0 && gap <= d
}

// DeliveryByRow gives a run, or ErrNotFound.
func (tx *Tx) DeliveryByRow(row Row) (Delivery, error) {
	return get(tx, "delivery", scanDelivery, "SELECT "+deliveryColumns+" FROM delivery WHERE row = ?", row)
}

// DeliveryOf gives the runs that cover the event of this device with a seq in a
// conversation, one a device at most, the earliest first.
func (tx *Tx) DeliveryOf(conversation Row, seq uint64) ([]Delivery, error) {
	devices, err := tx.deliveredTo(conversation)
	if err != nil {
		return nil, err
	}
	var all []Delivery
	for _, c := range devices {
		d, found, err := tx.runOf(conversation, c.device, seq)
		if err != nil {
			return nil, err
		}
		if found {
			all = append(all, d)
		}
	}
	slices.SortStableFunc(all, func(a, b Delivery) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Row, b.Row)) })
	return all, nil
}

// runOf gives the run of a device that covers seq.
func (tx *Tx) runOf(conversation, device Row, seq uint64) (Delivery, bool, error) {
	for st, err := range tx.Query("SELECT "+deliveryColumns+` FROM delivery
		WHERE conversation = ? AND device = ? AND first <= ? ORDER BY first DESC LIMIT 1`, conversation, device, seq) {
		if err != nil {
			return Delivery{}, false, wrap("read a delivery", err)
		}
		d, _ := scanDelivery(st)
		return d, d.To >= seq, nil
	}
	return Delivery{}, false, nil
}

// confirmer is a device that confirmed something, and whose it is, 0 if that is not known.
type confirmer struct{ device, contact Row }

// deliveredTo gives the devices that confirmed anything in a conversation.
func (tx *Tx) deliveredTo(conversation Row) ([]confirmer, error) {
	var all []confirmer
	c := confirmer{device: -1}
	for {
		found, err := tx.one(`SELECT p.device, coalesce(d.contact, 0) FROM delivery p INDEXED BY delivery_key LEFT JOIN device d ON d.row = p.device
			WHERE p.conversation = ? AND p.device > ? ORDER BY p.device LIMIT 1`,
			func(st *sqlite3.Stmt) { c = confirmer{Row(st.ColumnInt64(0)), Row(st.ColumnInt64(1))} }, conversation, c.device)
		if err != nil || !found {
			return all, wrap("read deliveries", err)
		}
		all = append(all, c)
	}
}

// ReadMark says that a person has read every event of a device in a conversation
// up to a seq.
type ReadMark struct {
	Row          Row
	Conversation Row
	Person       identity.PersonID // the reader, a stored contact
	Device       Row               // the author's device; 0 is this one
	Upto         uint64
	At           time.Time // when it became known here
	Changed      uint64
}

const selectReadMark = `SELECT m.row, m.conversation, c.person, m.device, m.upto, m.at, m.changed
	FROM read_mark m JOIN contact c ON c.row = m.contact `

func scanReadMark(st *sqlite3.Stmt) (ReadMark, error) {
	m := ReadMark{
		Row:          Row(st.ColumnInt64(0)),
		Conversation: Row(st.ColumnInt64(1)),
		Device:       Row(st.ColumnInt64(3)),
		Upto:         uint64(st.ColumnInt64(4)),
		At:           fromMillis(st.ColumnInt64(5)),
		Changed:      uint64(st.ColumnInt64(6)),
	}
	return m, fixed(m.Person[:], st, 2)
}

// PutReadMark stores a mark; one that does not reach further than what is stored
// changes nothing.
func (tx *Tx) PutReadMark(m ReadMark) error {
	contact, err := tx.contactRow(m.Person)
	if err != nil {
		return err
	}
	return wrap("store a read mark", tx.Exec(`INSERT INTO read_mark(conversation, contact, device, upto, at, changed) VALUES(?1, ?2, ?3, ?4, ?5, ?6)
		ON CONFLICT(conversation, contact, device) DO UPDATE SET upto = ?4, at = ?5, changed = ?6 WHERE upto < ?4`,
		m.Conversation, contact, m.Device, m.Upto, millis(m.At), tx.NextChanged()))
}

// ReadMarks gives the marks in a conversation, the earliest first.
func (tx *Tx) ReadMarks(conversation Row) ([]ReadMark, error) {
	return list(tx, "read marks", scanReadMark, selectReadMark+"WHERE m.conversation = ? ORDER BY m.at, m.row", conversation)
}

// ReadMarkByRow gives a mark, or ErrNotFound.
func (tx *Tx) ReadMarkByRow(row Row) (ReadMark, error) {
	return get(tx, "read mark", scanReadMark, selectReadMark+"WHERE m.row = ?", row)
}

// State is how far an own event has come.
type State uint8

// The states. Received is that of everybody else's events.
const (
	Received  State = iota
	Queued          // durable in the outbox
	Delivered       // a device of a recipient has it on disk and decrypted
	Read
	Failed // Event.Failed says why
)

// String gives the name used in the API.
func (s State) String() string {
	return [...]string{"received", "queued", "delivered", "read", "failed"}[min(s, Failed)]
}

// progress is what decides the states of a conversation's own events.
type progress struct {
	kind    event.Kind
	devices []Row // that confirmed anything and are of a recipient
	marks   []ReadMark
	runs    map[Row]Delivery // of a device, the last one that was asked for
}

// Standing gives the state of an event, and the run of the first receipt that is
// known of it, if there is one. An own event is read or delivered by a device of
// somebody else; in the notes to oneself it is delivered once another own device
// has it, or if there is none. Within one read, what many events share is looked
// up once.
func (tx *Tx) Standing(e *Event) (State, *Delivery, error) {
	if !e.Own {
		return Received, nil, nil
	}
	p := tx.progress[e.Conversation]
	if p == nil {
		var err error
		if p, err = tx.progressOf(e.Conversation); err != nil {
			return Received, nil, err
		}
		if tx.readOnly { // nothing changes under it
			if tx.progress == nil {
				tx.progress = map[Row]*progress{}
			}
			tx.progress[e.Conversation] = p
		}
	}
	return tx.standing(p, e)
}

// StateOf is Standing without the receipt.
func (tx *Tx) StateOf(e Event) (State, error) {
	s, _, err := tx.Standing(&e)
	return s, err
}

func (tx *Tx) progressOf(conversation Row) (*progress, error) {
	p := &progress{}
	_, err := tx.one("SELECT kind FROM conversation WHERE row = ?", func(st *sqlite3.Stmt) { p.kind = event.Kind(st.ColumnInt(0)) }, conversation)
	if err != nil {
		return nil, wrap("read a conversation", err)
	}
	self, err := tx.self()
	if err != nil {
		return nil, err
	}
	devices, err := tx.deliveredTo(conversation)
	if err != nil {
		return nil, err
	}
	for _, c := range devices {
		if c.contact != self.Row || p.kind == event.Self {
			p.devices = append(p.devices, c.device)
		}
	}
	marks, err := tx.ReadMarks(conversation)
	if err != nil {
		return nil, err
	}
	for _, m := range marks {
		if m.Person != self.Person {
			p.marks = append(p.marks, m)
		}
	}
	return p, nil
}

// self gives the owner's contact; its Row is 0 in a store without one.
func (tx *Tx) self() (c Contact, err error) {
	if tx.owner.Row != 0 {
		return tx.owner, nil
	}
	_, err = tx.one("SELECT "+contactColumns+" FROM contact WHERE state = ?", func(st *sqlite3.Stmt) { c, err = scanContact(st) }, Self)
	if tx.readOnly {
		tx.owner = c
	}
	return c, wrap("read the own contact", err)
}

func (tx *Tx) standing(p *progress, e *Event) (State, *Delivery, error) {
	if e.Failed != "" {
		return Failed, nil, nil
	}
	if p.kind == event.Self && e.Device == 0 && e.Targets == 0 {
		return Delivered, nil, nil
	}
	// Of an event of another own device, only that device knows who confirmed it. A
	// mark names a number: what its reader has under it may be another event, if
	// this home was set back, so what nobody has confirmed was not read.
	state := Queued
	var first *Delivery
	for _, d := range p.devices {
		if e.Device != 0 {
			break
		}
		run := p.runs[d]
		if e.Seq < run.From || e.Seq > run.To {
			var found bool
			var err error
			if run, found, err = tx.runOf(e.Conversation, d, e.Seq); err != nil {
				return Queued, nil, err
			}
			if !found {
				continue
			}
			if p.runs == nil {
				p.runs = map[Row]Delivery{}
			}
			p.runs[d] = run
		}
		if state = Delivered; first == nil || run.At.Before(first.At) {
			first = &run
		}
	}
	if e.Device == 0 && state == Queued {
		return Queued, nil, nil
	}
	for _, m := range p.marks {
		if m.Device == e.Device && m.Upto >= e.Seq {
			return Read, first, nil
		}
	}
	return state, first, nil
}
