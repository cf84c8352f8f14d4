package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/dm"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/wire"
)

// A contact of the rule store.RelayOnly must not learn where this node is. It is
// spoken to from a network of its own, the veil (p2p.Config.Veiled): another transport
// key, no address but those over relays of this node's own choosing, and no dial but to
// these relays. They are servers that the owner named, and those of contacts who may
// reach this node by any way and so may know where it is already; what the contact says
// of relays only picks among them. To the other hosts such a contact is a stranger: no
// hello, no cell and no reservation of it is told from anybody's. The records that find
// this node for it, and it for this node, pass through the same servers alone, as
// whoever knows the point of a record may have a server that waits there.

// settingVeil is where the transport key of the veil lies.
const settingVeil = "veiled transport key"

// veilRest is how long the veil lives on when no contact needs it any more: so long
// they are told there where this node is now.
const veilRest = 10 * time.Minute

var errNoVeil = errors.New("no relay of this node's own is held")

// needsVeil says whether there is a contact who may reach this node by relays only.
func (l *loop) needsVeil() bool {
	for _, c := range l.acct.contacts {
		if c.Ways == store.RelayOnly && c.State != store.Removed && c.Trust != store.Blocked {
			return true
		}
	}
	return false
}

// raiseVeil draws the key of the veil, in place of the one that there may be.
func (l *loop) raiseVeil(tx *store.Tx) error {
	key, err := drawTransport(tx, l.cfg.Random, settingVeil)
	if err != nil {
		return err
	}
	if l.acct.veil, l.acct.veilProof, err = proveKey(key, l.acct.device); err != nil {
		return err
	}
	l.wrote = true
	l.unplace()
	l.unveilAt = time.Time{}
	l.then(l.tellKnown) // so that it finds its carriers
	if net := l.net; net != nil {
		l.then(func() { net.veil(key) })
	}
	return nil
}

// keepVeil has a veil while a contact needs one, whatever made them need it, and ends it
// some time after the last of them, or at once.
func (l *loop) keepVeil(tx *store.Tx, now time.Time, atOnce bool) error {
	switch {
	case l.acct.veil == [32]byte{} && l.needsVeil():
		return l.raiseVeil(tx)
	case l.acct.veil == [32]byte{}:
		return nil
	case l.needsVeil():
		l.unveilAt = time.Time{}
		return nil
	case l.unveilAt.IsZero() && !atOnce:
		l.unveilAt = now.Add(veilRest)
		return nil
	case now.Before(l.unveilAt):
		return nil
	}
	l.acct.veil, l.acct.veilProof, l.wrote = [32]byte{}, [64]byte{}, true
	if net := l.net; net != nil {
		l.then(func() { net.veil(nil) })
	}
	return tx.PutSetting(settingVeil, nil, true)
}

// openVeil starts the veil of the last run, if it is still needed.
func (l *loop) openVeil(tx *store.Tx) error {
	before := l.acct.veil
	if err := l.keepVeil(tx, l.now(), true); err != nil || l.acct.veil != before || before == [32]byte{} {
		return err
	}
	raw, err := tx.Setting(settingVeil)
	if err != nil {
		return err
	}
	key, err := crypto.UnmarshalPrivateKey(raw)
	if err == nil {
		net := l.net
		l.then(func() { net.veil(key) })
	}
	return err
}

// unsay takes back what was said to a person of where this device is: what has not
// arrived is not sent any more, and nothing is sent again.
func (l *loop) unsay(tx *store.Tx, p identity.PersonID) error {
	c, ok := l.acct.pair(p)
	if !ok {
		return nil
	}
	said, err := tx.OwnOf(c.Row, event.Reach)
	if err != nil {
		return err
	}
	for _, e := range said {
		pending, err := tx.PendingOf(e.Row)
		if err != nil {
			return err
		}
		var rows []store.Row
		for _, o := range pending {
			rows = append(rows, o.Row)
			if d, ok := l.acct.byRow[o.Device]; ok {
				d.queue.drop([]store.Row{o.Row})
			}
			if o.Seq > 0 {
				l.acct.sessions.TakeBack(o.Session, []uint64{o.Seq})
			}
		}
		if err := tx.GiveUp(rows, "not to be told any more"); err != nil {
			return err
		}
		if err := tx.DeleteEvent(e.Row); err != nil {
			return err
		}
	}
	// Nor does what was said last count as told: the same may have to be said again.
	return tx.DropControl(c.Row, l.acct.me, event.Reach, l.acct.device.String())
}

// hidden says whether a device must not find out by this link whose node is here. Whose
// rule has just become this knows that of a host which has its key for a moment yet, and
// is told there of the veil.
func (l *loop) hidden(d *device, k *link) bool {
	return !k.veiled && l.waysOf(d) == store.RelayOnly && !l.parts(d.Person)
}

// parts says whether a person is under the rule since a moment, so that the main host has
// a key yet which they know.
func (l *loop) parts(p identity.PersonID) bool {
	_, ok := l.parting[p]
	return ok
}

// may gives whose cells a link brings, but for the one that it is known to be of.
func (l *loop) may(k *link) func(identity.DeviceID) bool {
	return func(id identity.DeviceID) bool {
		d, ok := l.acct.devices[id]
		return !ok || k.known && k.device == id || !l.hidden(d, k)
	}
}

// part ends the links that run by a way which their device may not be reached by, now
// that the main host has a key, and the hosts of before are gone. Those because of whom a
// later key was drawn may be connected until that takes its place.
func (l *loop) part(key uint64) {
	l.hasKeys = key
	maps.DeleteFunc(l.parting, func(_ identity.PersonID, drawn uint64) bool { return drawn != 0 && drawn <= key })
	l.then(l.hub.turn)
	for k := range l.links {
		if d, ok := l.acct.devices[k.device]; ok && k.known && !l.mayUse(l.waysOf(d), k) && !l.parts(d.Person) {
			l.then(k.replaced)
		}
	}
}

// notParted says why somebody under the rule may still be connected without a relay.
const notParted = "the key that they knew answers until another one takes its place"

// partTime bounds the wait for that.
const partTime = 2 * rekeyAgain

// parted waits until a person is not connected any more by a way that is forbidden, and
// cannot be. That it is not so in time is an error: the rule stands, and it goes on.
func (n *Node) parted(ctx context.Context, p identity.PersonID) error {
	ctx, cancel := context.WithTimeout(ctx, partTime)
	defer cancel()
	var key uint64 // the last that was drawn until now
	for {
		turned := n.hub.turns()
		left := false
		err := n.ask(ctx, func(l *loop) {
			if key == 0 {
				key = l.keys
			}
			left = l.hasKeys < key // dials that began go on until then
			for k := range l.links {
				d, ok := l.acct.devices[k.device]
				left = left || ok && k.known && d.Person == p && !l.mayUse(l.waysOf(d), k)
			}
		})
		switch {
		case err == nil && !left:
			return nil
		case err != nil && ctx.Err() == nil:
			return err
		}
		select {
		case <-turned:
		case <-ctx.Done():
			return &Error{Kind: KindTimeout, Text: "the rule stands, but this node is not parted from them yet: " + notParted, Next: "It goes on by itself; see when it is done: kinloom status."}
		case <-n.ended:
			return ErrClosed
		}
	}
}

// veil implements jobs.
func (e *edge) veil(key crypto.PrivKey) {
	select {
	case <-e.veils: // it was never used
	default:
	}
	e.veils <- key // the loop alone puts keys here, and has just made room
}

// veiler runs the veil with the keys that the loop draws, none where it is nil, until
// ctx ends.
func (e *edge) veiler(ctx context.Context) error {
	lower := func() {}
	defer func() { lower() }()
	up := false
	var due <-chan time.Time
	var key crypto.PrivKey
	for {
		select {
		case key = <-e.veils:
			wait := time.Duration(0)
			if up && key != nil {
				wait = rekeyAfter
			}
			due = time.After(wait)
		case <-due:
			due = nil
			lower()
			lower, up = func() {}, false
			if key == nil || e.n.cfg.LANOnly {
				continue
			}
			stop, err := e.raise(ctx, key)
			if err != nil {
				if ctx.Err() == nil {
					e.n.cfg.Log.Error("the host for contacts who may reach this node by relays only could not start; trying again", "error", err)
				}
				due = time.After(rekeyAgain)
				continue
			}
			lower, up = stop, true
		case <-ctx.Done():
			return nil
		}
	}
}

// veilHost is how the host of the veil is configured.
func (e *edge) veilHost(key crypto.PrivKey) p2p.Config {
	cfg := e.hosts
	cfg.Veiled, cfg.Key, cfg.Data, cfg.Bootstrap, cfg.MDNS, cfg.Discovery = true, key, nil, nil, false, nil
	cfg.Relays, cfg.Handler, cfg.Silent = e.veilRelays, unveiled{e}, nil
	cfg.Trusted, cfg.Owner, cfg.Shunned, cfg.Avoid = e.veilTrusts, e.veilOwner, nil, nil
	if cfg.Throwaway != nil {
		cfg.Options = cfg.Throwaway()
	}
	return cfg
}

// raise starts the veil, and gives what ends it.
func (e *edge) raise(ctx context.Context, key crypto.PrivKey) (lower func(), err error) {
	n, err := p2p.New(e.veilHost(key))
	if err != nil {
		return nil, err
	}
	n.Handle(wire.DM, p2p.Limits{Streams: linksMax, PerPeer: 4, StreamMemory: dm.Memory}, func(s network.Stream) {
		e.run(ctx, e.link(n, s, false))
	})
	if err := n.Open(ctx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	run, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	e.under.Store(n)
	go func() {
		defer close(done)
		if err := n.Run(run); err != nil {
			e.n.cfg.Log.Warn("the host for contacts who may reach this node by relays only did not close well", "error", err)
		}
	}()
	return func() {
		e.under.Store(nil)
		cancel()
		<-done
	}, nil
}

// unveiled hears what happens under the veil.
type unveiled struct{ e *edge }

func (unveiled) Found(peer.AddrInfo)            {}
func (unveiled) Connected(peer.ID, p2p.Path)    {}
func (unveiled) Disconnected(peer.ID, p2p.Path) {}

// AddrsChanged implements p2p.Handler: a relay was found or lost.
func (u unveiled) AddrsChanged() {
	place := u.e.place()
	u.e.hand(change{apply: func(l *loop, _ *store.Tx) error {
		l.placed(place)
		for _, d := range l.acct.devices {
			if l.waysOf(d) == store.RelayOnly {
				d.queue.tryAt, d.queue.fails, d.queue.ring = time.Time{}, 0, true
				l.touch(d)
			}
		}
		l.then(u.e.wake)
		l.wrote = true
		return nil
	}, reply: func(error) {}})
}

// veilRelays are the nodes that may carry for the veil, and look records up for it:
// of contacts, then servers that the owner named; none of them a contact who may reach
// this node by relays only, or at this node's own address.
func (e *edge) veilRelays() []peer.AddrInfo {
	if c := e.carriers.Load(); c != nil {
		return slices.Clone(c.use)
	}
	return nil
}

// veilTrusts says whether a transport is one that a contact has now who is spoken to
// from the veil. Keys that they had, and those of who was blocked or removed, are
// strangers' there too.
func (e *edge) veilTrusts(id peer.ID) bool { return e.veilOwner(id) != "" }

// veilOwner names that contact.
func (e *edge) veilOwner(id peer.ID) string {
	if k := e.known.Load(); k != nil {
		if p, ok := k.veiled[id]; ok {
			return p.String()
		}
	}
	return ""
}

// avoid says whether a transport is that of a contact who may reach this node by relays
// only, and is not called by an invite.
func (e *edge) avoid(id peer.ID) bool {
	if k := e.known.Load(); k == nil || !k.hidden[id] {
		return false
	}
	_, called := e.called.Load(id)
	return !called
}

// outdated says whether a dial began when its device could be reached by any way, and
// it may be by relays only now.
func (e *edge) outdated(r dialRequest) bool {
	k := e.known.Load()
	return k != nil && r.rule != store.RelayOnly && k.under[r.device]
}

// veilPlaces are the addresses at which the veil is found now.
func (e *edge) veilPlaces() (out [][]byte) {
	n := e.under.Load()
	if n == nil {
		return nil
	}
	for _, a := range n.Addrs() {
		if len(out) < event.MaxPlaces && len(a.Bytes()) <= event.MaxPlace {
			out = append(out, a.Bytes())
		}
	}
	return out
}

// mayCall refuses to answer an own invite, and that of a contact who may reach this
// node by relays only: it would have it call where they say. Who was removed is called,
// as the owner wants them back (goUnderAgain).
func (n *Node) mayCall(ctx context.Context, invite contact.Invite) error {
	if invite.Person == n.me.Hash16() {
		return exchangeError(contact.ErrOwnInvite)
	}
	return n.read(ctx, func(v *view) error {
		contacts, err := v.tx.Contacts()
		for _, c := range contacts {
			if c.Ways == store.RelayOnly && c.State != store.Removed && c.Person.Hash16() == invite.Person {
				name := called(&c)
				return refused("If they may learn its address: kinloom contact ways "+quoteName(name)+" any, then try again.", "%s may reach this node by relays only, and the invite would show them its address", name)
			}
		}
		return err
	})
}
