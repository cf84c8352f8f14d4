package node

import (
	"cmp"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"slices"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/enc"
	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/rv"
)

// sourceRecord is an address of a device's main host, out of a look-up record.
const sourceRecord = "record"

const (
	// findAfter is how long the known addresses are tried alone: a device that is
	// where it was answers in a round trip or two.
	findAfter = time.Second
	// tryAgain is the first pause between tries of the known addresses, as long as
	// others are looked for. It doubles.
	tryAgain = time.Second
	// findAgain is the wait between looks of one try: who moved a moment ago may
	// not have published yet.
	findAgain = 3 * time.Second
)

// movedFor is how long after a move of its own this node looks for others again and
// again: who was moved by the same cause has not published yet.
const movedFor = 2 * time.Minute

// movedAgain is how long it does so no more for a device that it did not find thereby.
const movedAgain = 6 * time.Hour

// findWaits are the waits between tries that look for a device's record: what
// nobody has published is not there a minute later either.
var findWaits = [...]time.Duration{
	5 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour,
}

// findsMoved is at most how far in findWaits a device is after a move of this node: who
// was not there for a day is looked for at once, and not eight times more.
const findsMoved = 4

var errNoRecord = errors.New("no newer record of this device was found")

// lookup is what finds a device whose addresses are of no use any more.
type lookup struct {
	device identity.DeviceID
	key    [32]byte // its public rendezvous key
	tiers  []tier   // in the order to try
	veiled bool     // asked for through the veil's servers alone
}

// tier is a secret that a device may have published under, and what was seen there.
type tier struct {
	pair   bool // the secret of the two devices alone
	secret rv.Secret
	seen   rv.Seen
}

// seenRecords is what was seen of the records of a device, as store.Device keeps
// it: so no older record passes for news, after a restart neither.
type seenRecords struct {
	Told rv.Seen `cbor:"1,keyasint"` // of those made with the secret that it told
	Pair rv.Seen `cbor:"2,keyasint"`
}

func seenOf(d *store.Device) (s seenRecords) {
	if len(d.Records) == 0 || enc.Unmarshal(d.Records, &s) != nil {
		return seenRecords{}
	}
	return s
}

// lookupOf gives what finds a device, if it is time to look again. First the
// secret that it told; then the one of the two devices alone, under which it
// publishes for those whom it could not tell a new one.
func (l *loop) lookupOf(d *device) *lookup {
	now, q := l.now(), &d.queue
	remote, ok := l.acct.remote(d.ID)
	if !ok || now.Before(q.findAt) || l.waysOf(d) == store.LANOnly || l.cfg.NoDHT || l.cfg.LANOnly {
		return nil
	}
	q.findAt = now.Add(findWaits[min(q.finds, len(findWaits)-1)])
	q.finds++
	out, seen := &lookup{device: d.ID, key: remote.Record.Rendezvous, veiled: l.waysOf(d) == store.RelayOnly}, seenOf(&d.Device)
	if d.Secret != [32]byte{} {
		out.tiers = append(out.tiers, tier{secret: rv.Secret(d.Secret), seen: seen.Told})
	}
	if pair, err := l.pairOf(d); err == nil {
		out.tiers = append(out.tiers, tier{pair: true, secret: pair, seen: seen.Pair})
	}
	return out
}

// pairOf is the contact secret that two devices have in common without having told
// each other one.
func (l *loop) pairOf(d *device) (rv.Secret, error) {
	remote, ok := l.acct.remote(d.ID)
	if !ok {
		return rv.Secret{}, errUnreachable
	}
	secret, err := l.pairSecretOf(d, remote.Record.Olm)
	if err != nil {
		return rv.Secret{}, err
	}
	out, err := hkdf.Key(sha256.New, secret[:], nil, "kinloom/rv/1 pair", len(rv.Secret{}))
	return rv.Secret(out), err
}

func (l *loop) waysOf(d *device) store.Ways {
	if c, ok := l.acct.contacts[d.Person]; ok {
		return c.Ways
	}
	return store.AnyWay
}

// reach tries to get a link with a device: at the addresses that are known and,
// where those do not answer at once, at those of its look-up record.
func (e *edge) reach(ctx context.Context, r dialRequest) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if r.lookup == nil {
		return e.try(ctx, r, r.ways)
	}
	links := make(chan *link, 2)
	failed := make(chan struct{})
	var first error
	var tries errgroup.Group
	looked := make(chan struct{})
	tries.Go(func() error {
		k, err := e.try(ctx, r, r.ways)
		first = err
		close(failed)
		// A relay may be there again before any record is.
		for wait := tryAgain; err != nil; wait *= 2 {
			select {
			case <-looked:
				return err
			case <-ctx.Done():
				return err
			case <-time.After(wait):
			}
			k, err = e.try(ctx, r, r.ways)
		}
		links <- k
		cancel()
		return nil
	})
	tries.Go(func() error {
		defer close(looked)
		wait := time.NewTimer(findAfter)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-failed:
		case <-ctx.Done():
			return ctx.Err()
		}
		k, err := e.look(ctx, r)
		if err == nil {
			links <- k
			cancel()
		}
		return err
	})
	_ = tries.Wait() // what the known addresses said is what the owner is told
	close(links)
	k, ok := <-links
	if !ok {
		return nil, first
	}
	for other := range links { // both worked at the same moment
		_ = other.stream.Reset()
	}
	return k, nil
}

// look finds the device's record and tries the addresses there, and looks again
// until ctx ends, if this node or the other may have moved a moment ago.
func (e *edge) look(ctx context.Context, r dialRequest) (*link, error) {
	for {
		if e.outdated(r) {
			return nil, errNoVeil
		}
		hint, t, err := e.find(ctx, *r.lookup)
		if err == nil {
			r.lookup.saw(t)
			e.hand(change{apply: func(l *loop, tx *store.Tx) error { return l.found(tx, r.device, hint, t) }, reply: func(error) {}})
			var k *link
			if k, err = e.try(ctx, r, e.waysIn(hint)); err == nil {
				return k, nil
			}
		}
		if !r.moved {
			return nil, err
		}
		select {
		case <-time.After(findAgain):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// saw notes what was found, so that it is no news a second time.
func (l *lookup) saw(t tier) {
	for i := range l.tiers {
		if l.tiers[i].pair == t.pair {
			l.tiers[i] = t
		}
	}
}

// find asks for the records of a device, of today and of the days beside it, each
// through servers that see no other of these days, and gives the first that is news,
// with the tier that it was in. Days for which no such server was left, or none of them
// answered, are asked for at last through those that have seen another, if nothing was
// found: who knows one server finds others by that or not at all.
func (e *edge) find(ctx context.Context, l lookup) (rv.Hint, tier, error) {
	type day struct {
		tier   tier
		period rv.Period
	}
	var left []day
	for _, t := range l.tiers {
		var not []peer.ID
		for i, p := range rv.Periods(e.clock()) {
			hint, seen, asked, err := e.findOn(ctx, l, t, p, not)
			not = append(not, asked...)
			switch {
			case i > 0 && err != nil && ctx.Err() == nil: // who else there is has seen another day, or does not answer
				left = append(left, day{t, p})
			case err != nil || len(hint.Devices) > 0:
				return hint, seen, err
			}
		}
	}
	var failed error
	for _, d := range left {
		hint, seen, _, err := e.findOn(ctx, l, d.tier, d.period, nil)
		if len(hint.Devices) > 0 || ctx.Err() != nil {
			return hint, seen, err
		}
		failed = cmp.Or(failed, err)
	}
	return rv.Hint{}, tier{}, cmp.Or(failed, errNoRecord)
}

// findOn asks for the record of one day through servers that are not among some. It
// gives those that were asked; the hint is empty if there is no news.
func (e *edge) findOn(ctx context.Context, l lookup, t tier, p rv.Period, not []peer.ID) (hint rv.Hint, seen tier, asked []peer.ID, err error) {
	point, err := rv.PointOf(l.key, t.secret, p)
	if err != nil {
		return rv.Hint{}, t, nil, err
	}
	enough, cancel := context.WithCancel(ctx)
	defer cancel()
	each := func(record []byte, _ time.Time) {
		h, s, err := rv.Open(l.key, t.secret, p, record)
		if err != nil || !l.proved(h) || t.seen.Check(s) != nil || s == t.seen.Stamp {
			return
		}
		hint, t.seen = h, t.seen.Add(e.n.cfg.Now(), s)
		cancel()
	}
	at := p2p.Point{ID: point, Period: p, Not: not}
	if l.veiled {
		asked, err = e.n.net.FindRecordBy(enough, e.veilRelays(), at, each)
	} else {
		asked, err = e.n.net.FindRecord(enough, at, each)
	}
	switch {
	case len(hint.Devices) > 0:
		err = nil
	case ctx.Err() != nil:
		err = ctx.Err()
	}
	return hint, t, asked, err
}

// proved says that a hint names the device itself, first, with a transport key that
// is shown to be its own: no other one may be dialled in its place.
func (l lookup) proved(h rv.Hint) bool {
	return len(h.Devices) > 0 && identity.VerifyReach(h.Devices[0].Transport, l.device, h.Devices[0].Proof) == nil
}

// waysIn lists where a device may be dialled by its hint.
func (e *edge) waysIn(h rv.Hint) []dialWay {
	p := h.Devices[0] // the device itself; the others are siblings
	var ways []dialWay
	for _, b := range e.clean(p.Addrs) {
		if a, err := multiaddr.NewMultiaddrBytes(b); err == nil {
			ways = append(ways, dialWay{transport: contact.Transport(p.Transport).PeerID(), addr: a})
		}
	}
	return ways
}

// try dials the ways to a device, transport by transport, and opens its dm stream.
func (e *edge) try(ctx context.Context, r dialRequest, ways []dialWay) (*link, error) {
	failed := &tries{cause: errUnreachable}
	ways = slices.DeleteFunc(slices.Clone(ways), func(w dialWay) bool { return !mayDial(r.rule, w) })
	for len(ways) > 0 && ctx.Err() == nil {
		if e.outdated(r) {
			return nil, errNoVeil
		}
		transport := ways[0].transport
		var addrs []multiaddr.Multiaddr
		ways = slices.DeleteFunc(ways, func(w dialWay) bool {
			same := string(w.transport) == string(transport)
			if same {
				addrs = append(addrs, w.addr)
			}
			return same
		})
		if r.rule == store.LANOnly { // the main host would show its key
			if _, err := e.n.net.DialLAN(ctx, peer.ID(transport), addrs); err != nil {
				failed.add(addrs, err)
				continue
			}
		}
		k, err := e.open(ctx, e.netOf(r.rule), peer.ID(transport), addrs)
		if err == nil {
			k.device, k.known = r.device, true
			return k, nil
		}
		failed.add(addrs, err)
	}
	return nil, failed
}

// tries is the error of addresses that were tried and led nowhere.
type tries struct {
	cause error            // of the last ones
	of    map[string]error // by address, in its binary form
}

func (t *tries) add(addrs []multiaddr.Multiaddr, err error) {
	if t.of == nil {
		t.of = map[string]error{}
	}
	t.cause = err
	for _, a := range addrs {
		t.of[string(a.Bytes())] = err
	}
	if dial, ok := errors.AsType[*p2p.DialError](err); ok {
		for _, a := range dial.Attempts {
			t.of[string(a.Addr.Bytes())] = a.Err
		}
	}
}

func (t *tries) Error() string { return t.cause.Error() }
func (t *tries) Unwrap() error { return t.cause }

// found takes the look-up record of a device. It is a hint: it gives addresses to
// try and the key that should answer there, and is passed over where the device
// itself has said something since, or a newer record is known.
func (l *loop) found(tx *store.Tx, id identity.DeviceID, h rv.Hint, t tier) error {
	d, ok := l.acct.devices[id]
	if !ok || l.shutOut(d) {
		return nil
	}
	seen := seenOf(&d.Device)
	known := &seen.Told
	if t.pair {
		known = &seen.Pair
	} else if t.secret != rv.Secret(d.Secret) {
		return nil // it told another secret while this was looked for
	}
	if known.Check(t.seen.Stamp) != nil || *known == t.seen {
		return nil
	}
	*known = t.seen
	b, err := enc.Marshal(seen)
	if err != nil {
		return err
	}
	d.Records = b
	if !time.Unix(int64(h.Made), 0).Before(d.Told.Truncate(time.Second)) {
		id := contact.Transport(h.Devices[0].Transport).PeerID()
		if l.mayLeave(&d.Device, id) {
			if err := l.leaves(tx, &d.Device, id); err != nil {
				return err
			}
			d.hinted(id, l.net.clean(h.Devices[0].Addrs))
		} else {
			l.complain(d, keysOften, nil)
		}
	}
	l.wrote = true
	return tx.PutDevice(&d.Device)
}

// hinted takes the addresses of a look-up record behind those that the device itself
// told, but for those of a key that it has no more.
func (d *device) hinted(transport []byte, hint [][]byte) {
	same := string(d.Transport) == string(transport)
	addrs := slices.DeleteFunc(slices.Clone(d.Addrs), func(a store.Address) bool {
		return a.Source == sourceRecord || a.Source != sourceLAN && !same
	})
	d.Transport = transport
	var fresh []store.Address
	for _, a := range hint {
		if !slices.ContainsFunc(addrs, func(k store.Address) bool { return string(k.Addr) == string(a) }) && len(fresh) < addressesMax {
			fresh = append(fresh, store.Address{Addr: a, Source: sourceRecord})
		}
	}
	d.Addrs = append(addrs[:min(len(addrs), addressesMax-len(fresh))], fresh...)
}

// shortError says in words why an address led nowhere.
func shortError(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "nobody answered in time"
	}
	if there := whatIsThere(err); there != "" {
		return there
	}
	return event.Clean(err.Error(), 200) // some systems speak another language: no letter may be cut in two
}

// whatIsThere says what a failed dial tells of its address, or nothing.
func whatIsThere(err error) string {
	_, other := errors.AsType[sec.ErrPeerIDMismatch](err)
	switch {
	case other:
		return "another node is there now"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "no node runs there"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "no way leads there from this network"
	}
	return ""
}
