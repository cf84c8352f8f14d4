package node

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/session"
)

// What happens when a home was set back to an older copy, or a copy of it runs, is
// in the SPEC of protocol/event, section 6.

const (
	// closeAhead is how far above what is known the numbers of a device are closed.
	closeAhead = 1 << 20
	// wantedMax is how many numbers are looked up for the questions of one device in
	// wantedEvery. A cell holds a hundred questions, and each may be for everything
	// that was ever said there.
	wantedMax   = 4096
	wantedEvery = time.Minute
	// copiedEvery is how often the owner is told of one copied device.
	copiedEvery = time.Hour

	settingClosed     = "closed numbers "   // conversation, blank, device: up to where
	settingRenumbered = "renumbered event " // an id that it had or has: row
)

// clash is an event that is not kept, as another one is held under its number or
// the number is closed.
type clash struct {
	conv    *conversation
	id      event.ID
	session session.ID
	at      uint64 // its number in the session
}

// refuseClashes tells a device what of its events was not kept. No receipt covers
// them: they go back to being missing in the commit that opened them.
func (l *loop) refuseClashes(tx *store.Tx, d *device, all []clash) error {
	for len(all) > 0 {
		n := 1
		for n < len(all) && n < event.MaxRefused && all[n].conv == all[0].conv && all[n].session == all[0].session {
			n++
		}
		if err := l.refuseEvents(tx, d, all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// refuseEvents refuses events of one conversation and session.
func (l *loop) refuseEvents(tx *store.Tx, d *device, clashes []clash) error {
	l.wrote = true
	c := clashes[0].conv
	body := event.Refused{Device: d.ID, Upto: c.graph.Closed(d.ID)}
	body.Held = min(c.graph.Latest(d.ID).Seq, body.Upto)
	var seqs []uint64
	for _, x := range clashes {
		body.IDs, seqs = append(body.IDs, x.id), append(seqs, x.at)
	}
	l.tellCopied(d, false)
	if l.maySay(c) != nil {
		l.refuse(d, nil) // it is not to be told, so its sessions end: what they had is receipted by none
		return nil
	}
	raw, err := body.Append()
	if err != nil {
		return fmt.Errorf("refuse events: %w", err)
	}
	if _, err := l.speak(tx, c, event.Refusal, d.ID.String(), raw); err != nil {
		return err
	}
	if err := l.acct.sessions.Refuse(l.now(), clashes[0].session, seqs); err != nil && !noSession(err) {
		return err
	}
	return nil
}

// closeAbove closes the numbers of a device with a good part of those above seq,
// unless that one is closed already.
func (l *loop) closeAbove(tx *store.Tx, c *conversation, id identity.DeviceID, seq uint64) error {
	closed := c.graph.Closed(id)
	if seq <= closed {
		return nil
	}
	return l.closeNumbers(tx, c, id, min(max(closed, c.graph.Latest(id).Seq)+closeAhead, event.MaxSeq))
}

// closeNumbers takes the numbers of a device in a conversation out of use, for
// ever.
func (l *loop) closeNumbers(tx *store.Tx, c *conversation, id identity.DeviceID, upto uint64) error {
	if upto <= c.graph.Closed(id) {
		return nil
	}
	c.graph.Close(id, upto)
	return tx.PutSetting(settingClosed+closedKey(c.ID, id), binary.BigEndian.AppendUint64(nil, upto), false)
}

func closedKey(c event.ConversationID, id identity.DeviceID) string {
	return hex.EncodeToString(c[:]) + " " + id.String()
}

// loadClosed gives the conversations the numbers that are closed in them.
func (a *account) loadClosed(tx *store.Tx) error {
	closed, err := tx.SettingsUnder(settingClosed)
	if err != nil {
		return err
	}
	for key, value := range closed {
		b, err := hex.DecodeString(key[:min(64, len(key))])
		if err != nil || len(b) != 32 || len(key) != 129 || len(value) != 8 {
			return fmt.Errorf("setting %q: %w", settingClosed+key, store.ErrDamaged)
		}
		c, ok := a.convs[event.ConversationID(b)]
		device, err := hex.DecodeString(key[65:])
		if err != nil {
			return fmt.Errorf("setting %q: %w", settingClosed+key, store.ErrDamaged)
		}
		if ok {
			c.graph.Close(identity.DeviceID(device), binary.BigEndian.Uint64(value))
		}
	}
	return nil
}

// setBack takes that a device did not keep own events, as it holds others under
// their numbers. Those get new numbers, in their order, and so do those that wait
// for the same device and that it cannot hold.
func (l *loop) setBack(tx *store.Tx, d *device, c *conversation, r event.Refused) error {
	if r.Device != l.acct.device {
		return nil
	}
	l.wrote, l.flush = true, true // with the conversation's row: heads must not name an id that is gone
	l.tellCopied(d, true)
	// No more than an honest device asks for, after a home that was set back by 2^20
	// events: who could close all numbers could silence the conversation for ever.
	r.Upto = min(r.Upto, max(c.graph.Closed(l.acct.device), c.graph.Latest(l.acct.device).Seq)+2*closeAhead)
	if err := l.closeNumbers(tx, c, l.acct.device, r.Upto); err != nil {
		return err
	}
	var gone []store.Row
	for _, i := range d.queue.items {
		if i.conv != c.Row || i.seq == 0 || i.seq > r.Upto {
			continue
		}
		e, err := tx.EventByRow(i.event)
		if err != nil {
			return err
		}
		if i.seq <= r.Held && !slices.Contains(r.IDs, e.ID) {
			continue
		}
		kept, err := l.renumber(tx, c, e)
		if err != nil {
			return err
		}
		if !kept {
			gone = append(gone, i.row)
		}
	}
	d.queue.drop(gone)
	if err := tx.GiveUp(gone, "deleted before it could be sent again"); err != nil {
		return err
	}
	for _, other := range l.acct.devices {
		if err := l.seal(tx, other, l.now()); err != nil {
			return err
		}
		l.touch(other)
	}
	return nil
}

// renumber gives an own event the next number, wherever it is queued. False: it
// stays as it is, as another device has it, its text was deleted here, or there are
// no more numbers.
func (l *loop) renumber(tx *store.Tx, c *conversation, e store.Event) (bool, error) {
	had, err := tx.DeliveryOf(c.Row, e.Seq)
	if err != nil || len(had) > 0 || e.Deleted {
		return false, err
	}
	ev, err := event.Parse(e.Raw)
	if err != nil {
		return false, fmt.Errorf("own event: %w", err)
	}
	made, err := c.graph.Next(l.now(), ev.Type, ev.Key, ev.Body)
	if err != nil {
		return false, nil
	}
	for _, id := range []event.ID{e.ID, made.ID} { // the search index has the old one, if any, and knows nothing of the new one
		if err := tx.PutSetting(settingRenumbered+hexID(id), binary.BigEndian.AppendUint64(nil, uint64(e.Row)), false); err != nil {
			return false, err
		}
	}
	l.log.Info("an own event got a new number", "old", e.Seq, "new", made.Seq)
	e.Seq, e.ID, e.Raw, e.Clock = made.Seq, made.ID, made.Raw, made.Clock
	if err := tx.Renumber(&e); err != nil {
		return false, err
	}
	for _, d := range l.acct.devices {
		d.queue.renumber(e.Row, e.Seq)
	}
	l.spoke(c)
	return true, nil
}

// tellCopied tells the owner that a device was set back or copied: that of a
// contact, or this one, as a contact's device shows.
func (l *loop) tellCopied(d *device, own bool) {
	at, name := &d.copied, l.acct.shown(d.Person)
	if own {
		at = &d.copiedOwn
	}
	if now := l.now(); now.Sub(*at).Abs() < copiedEvery {
		return
	}
	*at = l.now()
	text := fmt.Sprintf("%s's device was set back to an older copy of its data, or a copy of it is running: numbers of messages came twice. What you have stays; what is new comes under new numbers.", name)
	if own {
		text = fmt.Sprintf("This node was set back to an older copy of its data, or a copy of it is running elsewhere: %s has other messages under the numbers of yours. Yours are sent again by themselves; what you wrote after that copy was made is missing here. If a copy is running, stop one of them.", name)
	}
	l.log.Error("message numbers were used twice", "device", d.ID.Short(), "own", own)
	l.notify(Notice{Kind: "session", Who: d.Person, Text: text})
	if len(l.alarms) < alarmsMax && !slices.Contains(l.alarms, text) {
		l.alarms = append(l.alarms, text)
	}
}

// alarmsMax bounds what the status tells of copies.
const alarmsMax = 8

// want asks a device for events of its own that are missing.
func (l *loop) want(tx *store.Tx, d *device, c *conversation, from, to uint64) error {
	if l.maySay(c) != nil {
		return nil
	}
	body, err := event.Wanted{Device: d.ID, From: from, To: to}.Append()
	if err != nil {
		return fmt.Errorf("ask for events: %w", err)
	}
	_, err = l.speak(tx, c, event.Want, d.ID.String(), body)
	return err
}

// wanted sends again what a device lacks: own events that it confirmed once, and
// that its home has lost since.
func (l *loop) wanted(tx *store.Tx, d *device, c *conversation, w event.Wanted) error {
	if w.Device != l.acct.device {
		return nil
	}
	looked := d.wanted.of(l.now(), wantedEvery)
	if *looked >= wantedMax {
		return nil
	}
	runs, err := tx.Delivered(c.Row, d.Row, w.From, w.To)
	if err != nil {
		return err
	}
	sent := 0
	for _, run := range runs {
		for seq := max(run.From, w.From); seq <= min(run.To, w.To) && *looked < wantedMax; seq++ {
			*looked++
			e, err := tx.EventByKey(c.Row, 0, seq)
			if isNotFound(err) || err == nil && (e.Deleted || d.queue.has(e.Row)) {
				continue
			}
			if err != nil {
				return err
			}
			if err := l.queue(tx, d, c, e, l.now()); err != nil {
				return err
			}
			sent++
		}
	}
	if sent > 0 {
		l.wrote = true
		l.log.Info("sent again what a device has lost", "device", d.ID.Short(), "count", sent)
	}
	return nil
}

// lookUp finds an event by its id or the beginning of it, also by the id that it
// had before it got another number.
func (n *Node) lookUp(ctx context.Context, id string) (store.Event, error) {
	e, err := n.store.FindEvent(ctx, id)
	if !isNotFound(err) {
		return e, err
	}
	most := len(id) - 1 // SettingsUnder wants something behind it
	readErr := n.store.Read(ctx, func(tx *store.Tx) error {
		known, err := tx.SettingsUnder(settingRenumbered + id[:most])
		if err != nil {
			return err
		}
		rows := map[store.Row]bool{}
		for rest, b := range known {
			if strings.HasPrefix(rest, id[most:]) && len(b) == 8 {
				rows[store.Row(binary.BigEndian.Uint64(b))] = true
			}
		}
		if len(rows) > 1 {
			return store.ErrAmbiguous
		}
		for row := range rows {
			e, err = tx.EventByRow(row)
			return err
		}
		return store.ErrNotFound
	})
	if isNotFound(readErr) {
		return e, err
	}
	return e, readErr
}
