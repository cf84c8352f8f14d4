package node

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/dm"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/session"
	"github.com/kinloom/kinloom/protocol/wire"
)

// askWaits are the times between questions in a row for a fresh bundle and the
// news of a device, none of which led to a receipt.
var askWaits = [...]time.Duration{
	0, 2 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute,
}

// asksAtOnce is how many questions in a row do not wait where a session was lost
// in between.
const asksAtOnce = 3

// lossesAtOnce is how many sessions a device may lose in lossesEvery, and have the
// next one at once.
const (
	lossesAtOnce = 8
	lossesEvery  = 10 * time.Minute
)

// freshAtOnce and freshEvery bound the bundles for a single start that one device
// gets, on however many streams: each costs a key pair and a row. Above it gets the
// static one, which is there already; a session from that is renewed at once.
const (
	freshAtOnce = 8
	freshEvery  = 30 * time.Minute
)

// heldMax is how many cells of a link wait for news of the device that sent them.
// More are refused as busy, and come again.
const heldMax = 8

// ask asks a device for a fresh bundle and the news of its person's devices,
// unless it was asked a short while ago.
func (l *loop) ask(d *device, k *link) {
	q, now := &d.queue, l.now()
	since := now.Sub(q.asked)
	if since >= 0 && since < askWaits[min(q.asks, len(askWaits)-1)] {
		return
	}
	q.asked = now
	q.asks++
	k.ask()
}

// freshBundle makes a bundle for the other side of a live stream, with the news
// that certify it; its secrets are on disk before it is handed out. It is one for
// a single start, unless this device got its share of those.
func (n *Node) freshBundle(ctx context.Context, k *link) (dm.Bundle, error) {
	var b dm.Bundle
	err := n.change(ctx, func(l *loop, _ *store.Tx) (err error) {
		if b.News, err = l.news(); err != nil {
			return err
		}
		b.Bundle, err = l.acct.sessions.Bundle(l.now(), l.mayGive(k))
		return err
	})
	return b, err
}

// mayGive takes one of the bundles that the device of a link may have. Links whose
// device is not known share what one has.
func (l *loop) mayGive(k *link) bool {
	var id identity.DeviceID
	if d, ok := l.deviceOf(k); ok {
		id = d.ID
	}
	const all = freshAtOnce * freshEvery
	now, full := l.now(), l.given[id]
	switch left := full.Sub(now); {
	case left < 0:
		full = now
	case left > all: // the clock was set back
		full = now.Add(all)
	}
	if full = full.Add(freshEvery); full.Sub(now) > all {
		return false
	}
	l.given[id] = full
	return true
}

// nacked takes that the other side refused a cell. Where it knows nothing of the
// session, what was not receipted in it is sealed anew in the next one. Only a
// link whose device was proved is believed, and no more than once for each
// session.
func (l *loop) nacked(tx *store.Tx, in nacked) error {
	switch in.code {
	case wire.CodeBusy, wire.CodeStorage, wire.CodeClosing:
		return nil // it is sent again by itself
	}
	s, ok := in.link.recent[in.cell]
	d, known := l.acct.devices[in.link.device]
	if !ok || !known || !in.link.known || !l.acct.sessions.Abandon(l.now(), d.ID, s) {
		return nil
	}
	switch q := &d.queue; {
	case l.losesOften(d):
		q.asks, q.asked = max(q.asks, asksAtOnce), l.now()
	case q.asks < asksAtOnce:
		q.asked = time.Time{} // what was asked for before was for that one
	}
	l.log.Info("the other device has lost a session; a new one begins", "device", d.ID.Short(), "code", in.code)
	if in.code == wire.CodeClone {
		l.tellCopied(d, true)
	}
	return l.reseal(tx, d, s)
}

// losesOften counts a session that a device lost. Each has all that waits sealed
// anew, so from lossesAtOnce in lossesEvery on, the next one has to wait for its keys.
func (l *loop) losesOften(d *device) bool {
	lost := d.lost.of(l.now(), lossesEvery)
	*lost++
	return *lost > lossesAtOnce
}

// reseal takes what was not receipted out of a session that is gone.
func (l *loop) reseal(tx *store.Tx, d *device, s session.ID) error {
	l.wrote = true
	if err := tx.UnsealOutbox(d.Row, s); err != nil {
		return err
	}
	for n := range d.queue.items {
		if i := &d.queue.items[n]; i.s.Session == s {
			i.s, d.queue.open = session.Sealed{}, true
			d.queue.sent = min(d.queue.sent, n)
		}
	}
	l.touch(d)
	return l.seal(tx, d, l.now())
}

// unknown keeps a cell of a session that was started by a device, or with a
// record, that is not known here, and asks for the news that certify it. False:
// there is nobody to ask, or the news are here and do not help.
func (l *loop) unknown(in cellIn, u *session.UnknownDevice) bool {
	k := in.link
	d, ok := l.acct.devices[k.device]
	if !k.known {
		d, ok = l.acct.devices[u.Device]
	}
	if !ok || in.again || !l.may(k)(d.ID) {
		return false
	}
	if l.shutOut(d) {
		l.then(k.close) // nothing is asked of a blocked person, or of a revoked device
		return true
	}
	if len(k.held) == heldMax {
		l.decline(in, wire.CodeBusy)
		return true
	}
	k.held = append(k.held, in.cell)
	k.claims = d.ID
	l.log.Info("a device has renewed its certificate; asked for its news", "device", d.ID.Short())
	l.ask(d, k)
	return true
}

// decline tells the sender of a cell why it was not taken.
func (l *loop) decline(in cellIn, code wire.Code) {
	if id, _, err := wire.ParseCell(in.cell); err == nil {
		l.then(func() { in.link.nack(id, code) })
	}
}

// bundleIn takes over the news of a device, opens what waited for them, and
// starts a session with the fresh bundle where one is needed. News are signed:
// they are believed from everybody. A session begins with a proved device only.
func (l *loop) bundleIn(tx *store.Tx, in bundleIn) error {
	k := in.link
	id := k.device
	if !k.known {
		id = k.claims
	}
	d, ok := l.acct.devices[id]
	if !ok {
		return nil
	}
	if news, err := event.ParseEntries(in.News); err == nil {
		if err := l.mergeLog(tx, d, news); err != nil {
			return err
		}
	}
	held := k.held
	k.held = nil
	for _, cell := range held {
		if err := l.cellIn(tx, cellIn{cell: cell, link: k, again: true}); err != nil {
			return err
		}
	}
	remote, ok := l.acct.remote(id)
	if ok && k.known && k.device == id && len(in.Bundle.Bundle) > 0 && d.queue.unsealed() && !l.acct.sessions.CanSeal(id) {
		if err := l.acct.sessions.Start(l.now(), remote, in.Bundle.Bundle); err != nil {
			l.log.Warn("refused a bundle", "device", d.ID.Short(), "error", err)
			return nil
		}
		l.wrote = true
	}
	l.touch(d)
	return l.seal(tx, d, l.now())
}

// recognise tells the loop whose a transport key is, as a hello has proved.
func (e *edge) recognise(id identity.DeviceID, p peer.ID) {
	e.hand(change{apply: func(l *loop, tx *store.Tx) error { return l.recognised(tx, id, p) }, reply: func(error) {}})
}

// recognised notes the transport key of a device's LAN host, and whose link it is
// that came from there.
func (l *loop) recognised(tx *store.Tx, id identity.DeviceID, p peer.ID) error {
	d, ok := l.acct.devices[id]
	if !ok || id == l.acct.device {
		return nil
	}
	if string(d.Transport) != string(p) && string(d.LAN) != string(p) {
		l.wrote = true
		d.LAN = []byte(p)
		if err := tx.PutDevice(&d.Device); err != nil {
			return err
		}
	}
	for k := range l.links {
		if k.peer == p && !k.known {
			if err := l.attach(tx, k, d); err != nil {
				return err
			}
		}
	}
	return nil
}
