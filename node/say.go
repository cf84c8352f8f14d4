package node

import (
	"errors"
	"time"

	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/session"
)

// say makes an event of what the owner says and queues it for every device of
// the conversation. Everything that can be refused is refused before the first
// row is written.
func (l *loop) say(tx *store.Tx, in say) (store.Event, error) {
	c, ok := l.acct.convs[in.conv]
	if !ok {
		return store.Event{}, notFound("List them: kinloom conversation list.", "no such conversation")
	}
	if err := l.maySay(c); err != nil {
		return store.Event{}, err
	}
	if in.once != "" {
		row, err := tx.Idempotency(in.once)
		if err == nil {
			return tx.EventByRow(row)
		}
		if !errors.Is(err, store.ErrNotFound) {
			return store.Event{}, err
		}
	}
	if err := l.reachable(c); err != nil {
		return store.Event{}, err
	}
	e, err := l.speak(tx, c, in.typ, in.key, in.body)
	if err == nil && in.once != "" {
		err = tx.PutIdempotency(in.once, e.Row, l.now())
	}
	return e, err
}

// maySay refuses what must not be sent in a conversation, in words.
func (l *loop) maySay(c *conversation) error {
	if c.Kind != event.Pair {
		return nil
	}
	contact, ok := l.acct.contacts[c.Person]
	if !ok {
		return notFound("Add them: kinloom contact add LINK.", "this person is not a contact")
	}
	switch {
	case contact.Trust == store.Blocked:
		return refused("Unblock first: kinloom contact unblock "+quoteName(l.acct.shown(c.Person))+".", "%s is blocked", l.acct.shown(c.Person))
	case contact.State == store.Request:
		return refused("Accept first: kinloom request accept "+contact.Person.String()+".", "%s waits in your requests", l.acct.shown(c.Person))
	case contact.State == store.Removed:
		return refused("Ask for a new invite: kinloom contact add LINK.", "%s was removed from your contacts", l.acct.shown(c.Person))
	}
	return nil
}

// reachable refuses what no device of the other person could get: an event is
// addressed to the devices that are certified when it is said.
func (l *loop) reachable(c *conversation) error {
	if c.Kind != event.Pair {
		return nil
	}
	to, expired := l.acct.targets(c, l.now())
	for _, d := range to {
		if d.Person == c.Person {
			return nil
		}
	}
	name := l.acct.shown(c.Person)
	if rival, _ := l.acct.logs[c.Person].Fork(); rival != nil {
		return refused("Ask them over another way; their recovery words resolve it.", "two different device lists of %s exist, so nobody can tell whose devices they are", name)
	}
	if len(expired) > 0 {
		return refused("It goes on by itself once their device has been online and renewed it.", "the certificate of %s's device has expired", name)
	}
	return refused("Ask for a new invite: kinloom contact add LINK.", "%s has no device that could get this", name)
}

// speak builds, stores and queues one own event. The caller has checked that it
// may be said.
func (l *loop) speak(tx *store.Tx, c *conversation, typ event.Type, key string, body []byte) (store.Event, error) {
	now := l.now()
	l.wrote = true
	made, err := c.graph.Next(now, typ, key, body)
	if err != nil {
		return store.Event{}, usage("Send it in parts.", "this cannot be sent: %v", err)
	}
	to, expired := l.acct.targets(c, now)
	if typ == event.Log {
		to = append(to, expired...) // or two who were both away for long would never hear that the other has renewed
	}
	e := store.Event{
		Conversation: c.Row, Seq: made.Seq, ID: made.ID, Raw: made.Raw, Type: typ, Clock: made.Clock, At: now,
		Own: true, Targets: len(to), Protection: ProtectionDirect,
	}
	if typ.Class() != event.Ephemeral {
		if _, err := tx.InsertEvent(&e); err != nil {
			return store.Event{}, err
		}
	}
	for _, d := range to {
		if err := l.queue(tx, d, c, e, now); err != nil {
			return store.Event{}, err
		}
	}
	if typ.Class() == event.Content && len(to) > 0 {
		l.then(func() { l.hub.remember(c.ID, e) })
	}
	if typ.Class() == event.Content {
		l.then(func() { l.hub.sent.Add(1) })
	}
	l.spoke(c)
	c.count(e)
	return e, nil
}

// queue seals an event for one device and puts it in its outbox.
func (l *loop) queue(tx *store.Tx, d *device, c *conversation, e store.Event, now time.Time) error {
	// What waits for a session goes first, or it would be told behind this one.
	if d.queue.open && l.acct.sessions.CanSeal(d.ID) {
		if err := l.seal(tx, d, now); err != nil {
			return err
		}
	}
	var sealed session.Sealed
	if !d.queue.open {
		var err error
		if sealed, err = l.acct.sessions.Seal(now, d.ID, c.ID, e.Raw); err != nil && !noSession(err) {
			return err
		}
	}
	o := store.Outbox{
		Device: d.Row, Event: e.Row, Conversation: c.Row, EventSeq: e.Seq,
		Session: sealed.Session, Seq: sealed.Seq, Inner: sealed.Inner, Queued: now,
	}
	if err := tx.InsertOutbox(&o); err != nil {
		return err
	}
	d.queue.push(itemOf(o))
	l.touch(d)
	return nil
}

// noSession says that an event has to wait until there is a session to seal it.
func noSession(err error) bool {
	return errors.Is(err, session.ErrNoSession) || errors.Is(err, session.ErrNeedBundle)
}

// seal seals the items of a device that had to wait for a session. What was
// deleted here in the meantime cannot be sealed any more.
func (l *loop) seal(tx *store.Tx, d *device, now time.Time) error {
	var gone []store.Row
	items := d.queue.items
	open := false
	for n := range items {
		i := &items[n]
		c, ok := l.acct.convRows[i.conv]
		if i.sealed() || !ok {
			continue
		}
		e, err := tx.EventByRow(i.event)
		if err != nil {
			return err
		}
		if e.Deleted {
			gone = append(gone, i.row)
			continue
		}
		sealed, err := l.acct.sessions.Seal(now, d.ID, c.ID, e.Raw)
		if noSession(err) {
			open = true
			break
		}
		if err != nil {
			return err
		}
		l.wrote = true
		i.s = sealed
		if n+1 < len(items) && items[n+1].s.Session == sealed.Session && items[n+1].sealed() {
			d.queue.mixed = true
		}
		if err := tx.SealOutbox(i.row, sealed.Session, sealed.Seq, sealed.Inner); err != nil {
			return err
		}
	}
	if !d.queue.tail || open { // what lies in the table alone is sealed when it is read
		d.queue.open = open
	}
	if len(gone) == 0 {
		return nil
	}
	l.wrote = true
	d.queue.drop(gone)
	l.then(l.hub.gaveUp)
	return tx.GiveUp(gone, "deleted before it could be sent")
}
