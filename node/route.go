package node

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/session"
	"github.com/kinloom/kinloom/protocol/wire"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// Waits between tries to reach a device that something waits for.
var retryWaits = [...]time.Duration{
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute,
}

const (
	addressesMax = 8  // kept per device
	packMax      = 64 // items offered to one cell

	// shortLink is how long a link lives at least that is not taken for a refusal
	// when nothing was heard on it.
	shortLink = 10 * time.Second

	sourceLAN      = "lan"      // an address of a device's LAN host, by mDNS
	sourceExchange = "exchange" // an address of its main host, as it told
	sourceSeen     = "seen"     // where its main host came from last
)

// dialWay is an address to try, with the transport that should answer there.
type dialWay struct {
	transport []byte
	addr      multiaddr.Multiaddr
	lan       bool // of its LAN host, which is dialled by that of this device
}

// mayDial says whether a way may be dialled: who is reached on the local network alone,
// from the LAN host alone, as the main one would show its key.
func mayDial(rule store.Ways, w dialWay) bool {
	return allows(rule, w.addr) && (rule != store.LANOnly || w.lan)
}

// pump hands a device's cells to its link while that has room, and asks for what
// is missing: a route, or a key.
func (l *loop) pump(d *device) {
	q := &d.queue
	if l.paused() {
		return
	}
	if l.shutOut(d) {
		return // not even a receipt: what came from them was not kept
	}
	if q.link == nil {
		l.reach(d)
		return
	}
	now := l.now()
	for q.link.room() && q.sent < len(q.items) {
		items := l.unsent(q)
		if len(items) == 0 {
			break
		}
		cell, n, err := l.acct.sessions.Pack(now, d.ID, items[0].Session, items, wire.Padme)
		if err != nil {
			l.log.Warn("a session cannot send any more", "device", d.ID.Short(), "error", err)
			l.lostSession(d, items[0].Session)
			return
		}
		q.link.send(cell, items[0].Session)
		for i := q.sent; i < q.sent+n; i++ {
			q.items[i].sent = now
		}
		q.sent += n
	}
	for _, o := range l.acct.sessions.Owing() {
		if o.Device != d.ID || !q.link.room() {
			continue
		}
		l.packAlone(q.link, d, o.Session, now)
	}
	l.speakFirst(q.link, d, now)
	if q.wants(now) || l.acct.expired(d, now) {
		l.ask(d, q.link)
	}
}

// speakFirst says something on a link that this side dialled: the other side may not
// write before. A cell tells who dialled; without a session a question has to do.
func (l *loop) speakFirst(k *link, d *device, now time.Time) {
	if !k.quiet || !k.room() {
		return
	}
	if current, ok := l.acct.sessions.Current(now, d.ID); ok && l.packAlone(k, d, current.Session, now) {
		return
	}
	k.ask()
}

// packAlone sends a cell without any message: a receipt, or just a greeting. It
// reports whether there was one to send.
func (l *loop) packAlone(k *link, d *device, s session.ID, now time.Time) bool {
	cell, _, err := l.acct.sessions.Pack(now, d.ID, s, nil, wire.Padme)
	if err != nil {
		if !errors.Is(err, session.ErrEmpty) {
			l.log.Warn("no cell could be packed", "device", d.ID.Short(), "error", err)
		}
		return false
	}
	k.send(cell, s)
	return true
}

// lostSession has what lies in a session that is gone sealed anew, in a batch of
// its own as this one is committed already.
func (l *loop) lostSession(d *device, s session.ID) {
	id := d.ID // not d: the account may be read anew in between
	in := change{apply: func(l *loop, tx *store.Tx) error {
		if d, ok := l.acct.devices[id]; ok {
			return l.reseal(tx, d, s)
		}
		return nil
	}, reply: func(error) {}}
	select {
	case l.in <- in:
	default: // the queue is full: the next tick finds the same and tries again
	}
}

// unsent gives the next unsent items of one session, ready to be packed: in order
// of seq, which what was sealed anew is out of.
func (l *loop) unsent(q *queue) []session.Sealed {
	l.scratch = l.scratch[:0]
	for _, i := range q.items[q.sent:] {
		n := len(l.scratch)
		if !i.sealed() || n == packMax || n > 0 && (i.s.Session != l.scratch[0].Session || i.s.Seq < l.scratch[n-1].Seq) {
			break
		}
		l.scratch = append(l.scratch, i.s)
	}
	return l.scratch
}

// reach asks for a route to a device that something waits for, and that is not this one.
func (l *loop) reach(d *device) {
	q := &d.queue
	now := l.now()
	if l.net == nil || d.ID == l.acct.device || q.dialing || now.Before(q.tryAt) || !q.pending() && (q.fails > 0 || l.dozes(d) && !q.ring) {
		return
	}
	q.ring = false
	q.dialing = l.net.dial(dialRequest{device: d.ID, ways: waysTo(d.Device), rule: l.waysOf(d), lookup: l.lookupOf(d), moved: l.insist(q, now)})
}

// insist reports whether this node moved a moment ago, so that a device is looked for
// again and again. Whoever was not found by that is left out for movedAgain: a relay that
// comes and goes is a move each time, and each costs up to 0.5 MB a device.
func (l *loop) insist(q *queue, now time.Time) bool {
	if now.Sub(l.movedAt) >= movedFor {
		return false
	}
	since := now.Sub(q.insisted)
	if since >= movedFor && since < movedAgain {
		return false
	}
	if since >= movedAgain {
		q.insisted = now
	}
	return true
}

// dozes says whether a connection with a device is kept only while it is used: one of
// the two saves its battery.
func (l *loop) dozes(d *device) bool {
	return (l.place.offers|d.Offers)&event.OffersDoze != 0
}

// idleLink is how long a connection lives without traffic that is not to be kept.
const idleLink = time.Minute

// rest ends the link with a device that dozes, or this one does, once it is idle.
func (l *loop) rest(d *device, now time.Time) {
	k := d.queue.link
	if !l.dozes(d) || d.queue.pending() || now.Sub(k.used) < idleLink || now.Sub(k.since) < idleLink {
		return
	}
	l.then(k.replaced)
}

// waysTo lists where a device may be found: with its main transport key at every
// address known, and with the key of its LAN host where that was seen.
func waysTo(d store.Device) []dialWay {
	var ways []dialWay
	for _, a := range d.Addrs {
		addr, err := multiaddr.NewMultiaddrBytes(a.Addr)
		if err != nil {
			continue
		}
		way := dialWay{transport: d.Transport, addr: addr, lan: a.Source == sourceLAN}
		if way.lan {
			way.transport = d.LAN
		}
		if len(way.transport) > 0 {
			ways = append(ways, way)
		}
	}
	return ways
}

// undialled takes the end of a dial that reached nobody.
func (l *loop) undialled(tx *store.Tx, id identity.DeviceID, cause error) error {
	d, ok := l.acct.devices[id]
	if !ok {
		return nil
	}
	l.then(l.hub.turn)
	q := &d.queue
	q.dialing = false
	q.tryAt = l.now().Add(retryWaits[min(q.fails, len(retryWaits)-1)])
	q.fails++
	if failed, ok := errors.AsType[*tries](cause); ok {
		for n, a := range d.Addrs {
			if err := failed.of[string(a.Addr)]; err != nil {
				d.Addrs[n].LastTry, d.Addrs[n].LastError = l.now(), shortError(err)
			}
		}
	}
	if q.fails > 1 {
		return nil // what failed before is not written again each time
	}
	l.wrote = true
	return tx.PutDevice(&d.Device)
}

// ended sets when to try a device again whose link went. One that went at once
// and said nothing counts as a failure: a side that refuses would else be dialled
// without a pause.
func (q *queue) ended(now time.Time, k *link) {
	q.tryAt = now
	switch {
	case now.Sub(k.since) >= shortLink:
		q.fails = 0
	case !k.heard:
		q.tryAt = now.Add(retryWaits[min(q.fails, len(retryWaits)-1)])
		q.fails++
	}
}

// met takes a link that came up or went.
func (l *loop) met(tx *store.Tx, in met) error {
	k := in.link
	if in.gone {
		delete(l.links, k)
		d, ok := l.acct.devices[k.device]
		if !ok || d.queue.link != k {
			return nil
		}
		d.queue.link = nil
		d.queue.rewind()
		d.queue.ended(l.now(), k)
		l.then(l.hub.turn)
		for other := range l.links {
			if other.known && other.device == k.device {
				d.queue.link = other
			}
		}
		l.touch(d)
		return nil
	}
	l.links[k] = true
	if d, ok := l.acct.devices[k.device]; ok && k.known {
		return l.attach(tx, k, d)
	}
	if d, ok := l.byTransport([]byte(k.peer)); ok && !l.hidden(d, k) {
		return l.attach(tx, k, d)
	}
	return nil // whose it is, the first cell that opens will tell
}

// deviceOf finds the device of a link by what is known before a cell opened.
func (l *loop) deviceOf(k *link) (*device, bool) {
	if k.known {
		d, ok := l.acct.devices[k.device]
		return d, ok
	}
	d, ok := l.byTransport([]byte(k.peer))
	return d, ok && !l.hidden(d, k)
}

// bind notes, from a cell that opened, whose link it is.
func (l *loop) bind(tx *store.Tx, k *link, d *device) error {
	k.heard = true
	if k == d.queue.link {
		d.queue.fails = 0
	}
	if k.known && (k.device != d.ID || k == d.queue.link || l.now().Sub(d.copied).Abs() >= copiedEvery) {
		return nil // another one's cell it may bring, but not become the way to it
	}
	return l.attach(tx, k, d) // where two copies of a device run, the one that spoke last is answered
}

// refused says that a device is of a person who was blocked or removed.
func (l *loop) refused(d *device) bool {
	c, ok := l.acct.contacts[d.Person]
	return ok && (c.Trust == store.Blocked || c.State == store.Removed)
}

// attach makes a link the route of a device: all that waits goes out on it.
func (l *loop) attach(tx *store.Tx, k *link, d *device) error {
	if l.shutOut(d) {
		d.queue.dialing = false // blocked while it was dialled: it may be again
		l.then(k.close)
		return nil
	}
	if ways := l.waysOf(d); !l.mayUse(ways, k) && (ways != store.RelayOnly || !l.parts(d.Person)) {
		d.queue.dialing = false
		l.then(k.close)
		return nil
	}
	k.device, k.known = d.ID, true
	k.conn.Recognised()
	l.then(func() {
		k.net.Protect(k.peer, true)
		k.net.Recognise(k.peer, d.Person.String()) // its transport key may be one that is told only now
	})
	q := &d.queue
	q.dialing, q.wait = false, 0
	q.findAt, q.finds, q.insisted = time.Time{}, 0, time.Time{}
	if q.link != k {
		if old := q.link; old != nil && old.dialled && k.dialled && old.route == RouteRelay && k.route != RouteRelay {
			l.then(old.close)
		}
		q.link, q.asked = k, time.Time{}
		q.rewind()
		l.then(l.hub.turn)
	}
	l.replace(k)
	l.touch(d)
	now := l.now()
	if now.Sub(d.Seen) < time.Minute && string(d.Transport) == string(k.peer) {
		return nil
	}
	l.wrote = true
	d.Seen = now
	if addr, err := multiaddr.NewMultiaddr(k.addr); err == nil && !k.dialled && isQUIC(addr) && string(d.Transport) == string(k.peer) {
		// QUIC dials from the socket that it listens on, so this is where the
		// device can be reached now, as far as its router lets one in.
		if !slices.ContainsFunc(d.Addrs, func(a store.Address) bool { return string(a.Addr) == string(addr.Bytes()) }) {
			d.Addrs = slices.DeleteFunc(d.Addrs, func(a store.Address) bool { return a.Source == sourceSeen })
			d.Addrs = addAddress(d.Addrs, addr.Bytes(), sourceSeen)
		}
	}
	for n := range d.Addrs {
		if addr, err := multiaddr.NewMultiaddrBytes(d.Addrs[n].Addr); err == nil && addr.String() == k.addr {
			d.Addrs[n].LastOK, d.Addrs[n].LastTry, d.Addrs[n].LastError = now, now, ""
		}
	}
	return tx.PutDevice(&d.Device)
}

// shortenAfter is how long the side that did not dial waits for the other one to shorten
// the way: both saw the connection.
const shortenAfter = 10 * time.Second

// shorten asks for a stream on the connection without a relay that there is with a
// device, if it is reached over one.
func (l *loop) shorten(d *device, now time.Time) {
	k, q := d.queue.link, &d.queue
	switch {
	case k == nil || k.route != RouteRelay || k.veiled || l.net == nil:
	case q.dialing || now.Before(q.tryAt) || !k.dialled && now.Sub(k.since) < shortenAfter:
	case now.Sub(d.copied).Abs() < copiedEvery: // it may be another copy of it that is nearer
	case l.net.straight(k.peer):
		if addr, err := multiaddr.NewMultiaddr(k.addr); err == nil { // it is connected: no address is dialled
			q.dialing = l.net.dial(dialRequest{device: d.ID, ways: []dialWay{{transport: []byte(k.peer), addr: addr}}, rule: l.waysOf(d)})
		}
	}
}

// replace ends the links that a device left behind. Whoever dials has no link that
// it knows of: it has crashed, or moved to another network, and what it had before
// would count against its share here until it times out.
func (l *loop) replace(k *link) {
	for old := range l.links {
		if !k.dialled && !old.dialled && old.known && old.device == k.device && old.stream.Conn() != k.stream.Conn() && !old.since.After(k.since) {
			l.then(old.replaced)
		}
	}
}

func isQUIC(a multiaddr.Multiaddr) bool {
	_, err := a.ValueForProtocol(multiaddr.P_QUIC_V1)
	return err == nil
}

// addAddress puts an address in front, once, and keeps the newest few.
func addAddress(addrs []store.Address, a []byte, source string) []store.Address {
	out := []store.Address{{Addr: a, Source: source}}
	for _, known := range addrs {
		if string(known.Addr) != string(a) && len(out) < addressesMax {
			out = append(out, known)
		}
	}
	return out
}

func routeOf(k *link) uint8 {
	if k == nil {
		return RouteNone
	}
	return k.route
}

var errUnreachable = errors.New("no address of this device is known")

// neighbour notes that a contact's device was recognised on the LAN, and where.
func (l *loop) neighbour(tx *store.Tx, id identity.DeviceID, info peer.AddrInfo) error {
	d, ok := l.acct.devices[id]
	if !ok {
		return nil
	}
	l.wrote = true
	d.LAN = []byte(info.ID)
	d.Addrs = slices.DeleteFunc(d.Addrs, func(a store.Address) bool { return a.Source == sourceLAN })
	for _, a := range info.Addrs {
		d.Addrs = addAddress(d.Addrs, a.Bytes(), sourceLAN)
	}
	d.queue.tryAt, d.queue.fails = time.Time{}, 0
	l.touch(d)
	return tx.PutDevice(&d.Device)
}

// pairs derives, for every device of a contact and every own one, the secret by
// which the two recognise each other: of the static Olm keys of both, so that
// nothing has to be stored or kept in step (network.md 4).
func (l *loop) pairs() []contact.Pair {
	var out []contact.Pair
	for id, d := range l.acct.devices {
		remote, ok := l.acct.remote(id)
		c, known := l.acct.contacts[d.Person]
		if id == l.acct.device || !ok || !known || c.Trust == store.Blocked || c.State == store.Removed || c.State == store.Request || c.Ways == store.RelayOnly {
			continue
		}
		secret, err := l.pairSecretOf(d, remote.Record.Olm)
		if err != nil {
			continue
		}
		out = append(out, contact.Pair{Own: l.acct.device, Device: id, Secret: secret})
	}
	slices.SortFunc(out, func(a, b contact.Pair) int {
		return l.acct.devices[b.Device].Seen.Compare(l.acct.devices[a.Device].Seen)
	})
	return out
}

// pairSecretOf derives what this device and another have in common, once: a stranger
// may say hello as often as it likes.
func (l *loop) pairSecretOf(d *device, olm [32]byte) ([32]byte, error) {
	if d.pairOlm != olm {
		secret, err := pairSecret(identity.NewOlmKey(l.secrets.Olm), l.acct.device, d.ID, olm)
		if err != nil {
			return secret, err
		}
		d.pairOlm, d.pair = olm, secret
	}
	return d.pair, nil
}

func pairSecret(own identity.OlmKey, a, b identity.DeviceID, olm [32]byte) (out [32]byte, err error) {
	shared, err := own.Shared(olm)
	if err != nil {
		return out, err
	}
	if bytes.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	secret, err := hkdf.Key(sha256.New, shared[:], nil, "kinloom/hello/1 pair"+string(a[:])+string(b[:]), len(out))
	if err == nil {
		copy(out[:], secret)
	}
	return out, err
}
