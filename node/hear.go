package node

import (
	"errors"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/session"
	"github.com/kinloom/kinloom/protocol/wire"
)

// ackRange is a receipt that waits for the next commit.
type ackRange struct {
	device *device
	items  []item
	route  uint8
	at     time.Time
}

// cellIn opens a cell and stores what it brought. A cell that does not open
// changes nothing; its sender is told so.
func (l *loop) cellIn(tx *store.Tx, in cellIn) error {
	in.link.used = l.now()
	if l.tooMuch(in.link) {
		l.then(in.link.close)
		return nil
	}
	if d, ok := l.deviceOf(in.link); ok && l.shutOut(d) {
		l.then(in.link.close) // unopened, so that it stays queued there and no receipt ever covers it
		return nil
	}
	opened, err := l.acct.sessions.OpenIf(l.now(), in.cell, in.link.device, l.may(in.link))
	if err != nil {
		l.unopened(in, opened.From, err)
		return nil
	}
	in.link.conn.Opened()
	return l.opened(tx, in.link, opened)
}

// requestMessages is how many messages of somebody who waits for an answer are
// taken: enough to say who they are, too little to fill a disk. requestEvents is
// that for events of every type, and for messages that wait behind a gap.
const (
	requestMessages = 32
	requestEvents   = 64
)

// tooMuch says that a link's other side is a request that has said enough. What
// it sends further is not opened, so it stays queued there.
func (l *loop) tooMuch(k *link) bool {
	d, ok := l.acct.devices[k.device]
	if !ok || !k.known {
		return false
	}
	contact, ok := l.acct.contacts[d.Person]
	if !ok || contact.State != store.Request {
		return false
	}
	c, ok := l.acct.pair(d.Person)
	return ok && c.Unread >= requestMessages
}

// asks says that a device is of somebody who waits to be made a contact.
func (l *loop) asks(d *device) bool {
	c, ok := l.acct.contacts[d.Person]
	return ok && c.State == store.Request
}

// refuse ends the sessions with a device that must not be heard now: of a blocked
// person, or of a request that said too much. What it said last is not stored, so
// it must not be receipted either, now or later; on its side it stays queued.
func (l *loop) refuse(d *device, from *link) {
	l.wrote = true
	l.acct.sessions.Forget(d.ID)
	if from != nil {
		l.then(from.close)
	}
}

// unopened answers a cell that did not open, or drops it. It is known who sent it
// where it contradicts another one.
func (l *loop) unopened(in cellIn, from identity.DeviceID, err error) {
	code := wire.CodeUnopened
	unknown, isUnknown := errors.AsType[*session.UnknownDevice](err)
	switch {
	case isUnknown && l.unknown(in, unknown):
		return
	case errors.Is(err, session.ErrFull):
		code = wire.CodeBusy
	case errors.Is(err, session.ErrClone):
		code = wire.CodeClone
		l.wrote = true // the session is closed
		if d, ok := l.acct.devices[from]; ok {
			l.tellCopied(d, false)
			l.touch(d)
		}
	}
	l.decline(in, code)
}

// toldMax is how often a device is told of the own device list in toldEvery because it
// asks. Each time is an event of up to 13 KB; who keeps what it hears asks once a change.
const (
	toldMax   = 8
	toldEvery = 10 * time.Minute
)

// opened stores what a cell brought and takes note of its receipt.
func (l *loop) opened(tx *store.Tx, from *link, o session.Opened) error {
	d, ok := l.acct.devices[o.From]
	if !ok {
		return nil
	}
	if from != nil {
		if err := l.bind(tx, from, d); err != nil {
			return err
		}
	}
	if l.shutOut(d) {
		l.refuse(d, from) // it came from a host that was not known for theirs
		return nil
	}
	if l.asks(d) && o.Held > requestEvents {
		l.refuse(d, from)
		return nil
	}
	if o.Mark != nil {
		d.queue.asks = 0
		l.acked(d, o.Session, *o.Mark, from)
	}
	var clashes []clash
	for _, m := range o.Messages {
		l.wrote = true
		clashed, err := l.hear(tx, d, m, from)
		if err != nil {
			return err
		}
		if clashed != nil {
			clashes = append(clashes, *clashed)
		}
	}
	if err := l.refuseClashes(tx, d, clashes); err != nil {
		return err
	}
	for _, r := range o.Repeat {
		if err := l.repeat(tx, d, r.Session, r.Seqs); err != nil {
			return err
		}
	}
	if err := l.missing(d, o); err != nil {
		return err
	}
	if len(o.WantLog) > 0 {
		told := d.told.of(l.now(), toldEvery)
		if c, ok := l.acct.pair(d.Person); ok && l.maySay(c) == nil && *told < toldMax {
			*told++
			if err := l.announceLogIn(tx, c); err != nil {
				return err
			}
		}
	}
	if o.Fresh {
		l.wrote = true
		if err := l.seal(tx, d, l.now()); err != nil {
			return err
		}
	}
	l.touch(d)
	return nil
}

// missing asks for what did not come: messages behind which others wait, and a
// device list that is newer than the known one.
func (l *loop) missing(d *device, o session.Opened) error {
	now := l.now()
	for _, g := range o.Gaps {
		l.wrote = true
		l.log.Info("messages are missing; asked for them again", "device", d.ID.Short(), "count", len(g.Seqs))
		if err := l.acct.sessions.AskRepeat(now, d.ID, g.Session, g.Seqs); err != nil && !noSession(err) {
			return err
		}
	}
	if o.NewHead == nil {
		return nil
	}
	l.wrote = true
	err := l.acct.sessions.AskLog(now, d.ID, l.acct.logs[d.Person].Head())
	if noSession(err) {
		return nil
	}
	return err
}

// hear stores one event that a device sent. What the device must not say there
// is refused by name in the log and changes nothing. An event under a number that
// was used before is not kept, which is for the caller to tell.
func (l *loop) hear(tx *store.Tx, d *device, m session.Message, from *link) (*clash, error) {
	now := l.now()
	if !l.acct.certifies(d) {
		return nil, nil // an event before this one revoked it
	}
	c, ok := l.acct.convs[m.Conversation]
	if !ok || !mayHear(c, d, l.acct.me) {
		l.complain(d, "refused an event for a conversation that its device is not in", nil)
		return nil, nil
	}
	ev, err := event.Parse(m.Payload)
	if err != nil {
		l.complain(d, "refused a broken event", err)
		return nil, nil
	}
	id := event.IDOf(event.Context{Conversation: c.ID, Author: d.Person, Device: d.ID}, m.Payload)
	if ev.Type.Class() == event.Ephemeral {
		return nil, nil
	}
	if l.asks(d) {
		if c.heard++; c.heard > requestEvents {
			l.refuse(d, from)
			return nil, nil
		}
	}
	var held event.ID
	if !c.graph.Above(d.ID, ev.Seq) {
		known, err := tx.EventByKey(c.Row, d.Row, ev.Seq)
		if err != nil && !isNotFound(err) {
			return nil, err
		}
		held = known.ID
	}
	place := c.graph.Place(d.ID, ev)
	seen := c.graph.Observe(now, d.ID, id, ev, held)
	switch seen.Verdict {
	case event.Duplicate:
		return nil, nil
	case event.Equivocation:
		if err := l.closeAbove(tx, c, d.ID, ev.Seq); err != nil {
			return nil, err
		}
		if ev.Type == event.Refusal { // obeyed, as this side may have been set back too
			err = l.control(tx, d, c, store.Event{}, ev)
		}
		return &clash{conv: c, id: id, session: m.Session, at: m.Seq}, err
	}
	e := store.Event{
		Conversation: c.Row, Device: d.Row, Own: d.Person == l.acct.me, Seq: ev.Seq, ID: id, Raw: m.Payload, Type: ev.Type, Clock: place, At: now,
		Route: routeOf(from), Protection: ProtectionDirect, ClockWrong: seen.ClockWrong, Late: seen.Late,
	}
	stored, err := tx.InsertEvent(&e)
	if err != nil || !stored {
		return nil, err
	}
	l.spoke(c)
	c.count(e)
	if seen.GapFrom > 0 {
		if err := l.want(tx, d, c, seen.GapFrom, seen.GapTo); err != nil {
			return nil, err
		}
	}
	if ev.Type.Class() == event.Content {
		l.then(func() { l.hub.received.Add(1) })
		return nil, nil
	}
	return nil, l.control(tx, d, c, e, ev)
}

// complain logs what a device did wrong, once a minute: it must not fill the log.
func (l *loop) complain(d *device, what string, err error) {
	now := l.now()
	if now.Sub(d.blamed).Abs() < time.Minute {
		return
	}
	d.blamed = now
	l.log.Warn(what, "device", d.ID.Short(), "error", err)
}

// mayHear says whether a device may speak in a conversation: as one of its
// persons, and in no other.
func mayHear(c *conversation, d *device, me identity.PersonID) bool {
	switch c.Kind {
	case event.Pair:
		return d.Person == c.Person || d.Person == me
	case event.Self:
		return d.Person == me
	}
	return false
}

// control applies a control event that has just been stored.
func (l *loop) control(tx *store.Tx, d *device, c *conversation, e store.Event, ev event.Event) error {
	switch ev.Type {
	case event.Reach:
		return l.moved(tx, d, c, e, ev)
	case event.Profile:
		p, err := event.ParseName(ev.Body)
		if err != nil {
			return nil
		}
		return l.rename(tx, d.Person, p.Name)
	case event.Log:
		entries, err := event.ParseEntries(ev.Body)
		if err != nil {
			return nil
		}
		return l.mergeLog(tx, d, entries)
	case event.Refusal:
		refused, err := event.ParseRefused(ev.Body)
		if err != nil {
			return nil
		}
		return l.setBack(tx, d, c, refused)
	case event.Want:
		wanted, err := event.ParseWanted(ev.Body)
		if err != nil {
			return nil
		}
		return l.wanted(tx, d, c, wanted)
	case event.ReadMark:
		mark, err := event.ParseMarks(ev.Body)
		if err != nil || d.Person == l.acct.me {
			return nil
		}
		for _, m := range mark.Marks {
			upto := min(m.Seq, c.graph.Latest(l.acct.device).Seq) // nobody has read what was not said yet
			if m.Device == l.acct.device && upto > 0 {
				l.then(l.hub.marked)
				return tx.PutReadMark(store.ReadMark{Conversation: c.Row, Person: d.Person, Upto: upto, At: l.now()})
			}
		}
		return nil
	}
	return nil
}

// rename takes over the name that a contact gives itself. A name that changed is
// told, as a contact's new name is what an impostor would use.
func (l *loop) rename(tx *store.Tx, p identity.PersonID, name string) error {
	c, ok := l.acct.contacts[p]
	name = event.Clean(name, maxName)
	if !ok || c.Name == name {
		return nil
	}
	old := l.acct.shown(p)
	c.Name = name
	l.wrote = true
	if old != "" && c.Petname == "" && p != l.acct.me {
		l.notify(Notice{Kind: "contact", Who: p, Text: old + " is now called " + l.acct.shown(p) + "."})
	}
	return tx.PutContact(c)
}

// notify tells the watchers once the batch is committed.
func (l *loop) notify(n Notice) {
	n.At = l.now()
	l.then(func() { l.hub.notice(n) })
}

// acked takes a receipt: who waits is told at once, the rows go with the next
// commit.
func (l *loop) acked(d *device, s session.ID, mark session.Mark, from *link) {
	items := d.queue.ack(s, mark)
	if len(items) == 0 {
		return
	}
	if from != nil && !items[0].sent.Before(from.since) {
		d.queue.answered(l.now().Sub(items[0].sent))
	}
	l.lagging()
	l.lazy = append(l.lazy, ackRange{device: d, items: items, route: routeOf(from), at: l.now()})
	l.then(func() { l.hub.delivered(items, routeOf(from)) })
}

// flushLazy writes the receipts that were taken since the last commit: the
// outbox rows go, and runs of delivered events are noted per device.
func (l *loop) flushLazy(tx *store.Tx) error {
	for _, a := range l.lazy {
		l.wrote = true
		items := a.items
		l.then(func() { l.hub.stored(items) })
		rows := make([]store.Row, len(a.items))
		for n, i := range a.items {
			rows[n] = i.row
		}
		if err := tx.DeleteOutbox(rows); err != nil {
			return err
		}
		for len(a.items) > 0 {
			n := 1
			for n < len(a.items) && a.items[n].conv == a.items[0].conv && a.items[n].seq == a.items[n-1].seq+1 {
				n++
			}
			run := store.Delivery{
				Device: a.device.Row, Conversation: a.items[0].conv, From: a.items[0].seq, To: a.items[n-1].seq,
				Sent: a.items[0].sent, At: a.at, Route: a.route,
			}
			if err := tx.AddDelivery(run); err != nil {
				return err
			}
			a.items = a.items[n:]
		}
		if q := &a.device.queue; q.hungry() {
			if err := q.more(tx, a.device.Row); err != nil {
				return err
			}
			if err := l.seal(tx, a.device, l.now()); err != nil {
				return err
			}
			l.touch(a.device)
		}
	}
	clear(l.lazy)
	l.lazy = l.lazy[:0]
	return nil
}

// repeat seals anew what the other side could not read: a new number in the
// session, the same event.
func (l *loop) repeat(tx *store.Tx, d *device, s session.ID, seqs []uint64) error {
	l.wrote = true
	for n := range d.queue.items {
		i := &d.queue.items[n]
		if i.s.Session != s {
			continue
		}
		for _, seq := range seqs {
			if i.s.Seq == seq {
				i.s, d.queue.open = session.Sealed{}, true
				d.queue.sent = min(d.queue.sent, n)
			}
		}
	}
	return l.seal(tx, d, l.now())
}
