package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
)

// The rules of ways.
const (
	WaysAny = "any"
	// WaysRelay: over relays of this node's own choosing only. They learn its address by
	// nothing that kinloom does.
	WaysRelay = "relay"
	WaysLAN   = "lan" // on the local network only
)

var waysNames = map[store.Ways]string{store.AnyWay: WaysAny, store.RelayOnly: WaysRelay, store.LANOnly: WaysLAN}

func waysName(w store.Ways) string { return cmp.Or(waysNames[w], WaysAny) }

// SetWays says by which routes a contact's devices are reached, and may reach this
// one: WaysAny, WaysRelay or WaysLAN. Who is given less than before knows where this
// node was, and not where it will be: its transport key changes for all, and open
// invites end. With WaysRelay it returns when the connections without a relay have
// ended, a few seconds later, or with an error of KindTimeout besides the contact.
func (n *Node) SetWays(ctx context.Context, who, ways string) (Contact, error) {
	var rule store.Ways
	known := false
	for w, name := range waysNames {
		if name == ways {
			rule, known = w, true
		}
	}
	if !known {
		return Contact{}, usage("Give any, relay or lan.", "%q says nothing about routes", event.Clean(ways, maxName))
	}
	c, err := n.amend(ctx, who, func(l *loop, tx *store.Tx, c *store.Contact) error {
		before := c.Ways
		if c.Ways = rule; c.Ways == before {
			return nil
		}
		l.unplace()
		l.then(l.tellKnown) // before the next key is used, and the veil looks for its relays
		for _, d := range l.acct.devices {
			if d.Person != c.Person {
				continue
			}
			d.queue.tryAt, d.queue.fails = time.Time{}, 0
			d.queue.findAt, d.queue.finds = time.Time{}, 0
			// By the link that they have they are told of the veil; it ends a moment later.
			if link := d.queue.link; link != nil && rule != store.RelayOnly && !l.mayUse(c.Ways, link) {
				l.then(link.close)
			}
		}
		switch {
		case rule == store.RelayOnly:
			if before == store.AnyWay && l.net != nil {
				l.parting[c.Person] = 0
			}
			return l.goUnder(tx, c.Person)
		case rule == store.LANOnly && before == store.RelayOnly:
			return l.raiseVeil(tx) // of which they knew
		case before == store.AnyWay:
			if err := l.tellNamed(tx, c.Person, false); err != nil {
				return err
			}
			return l.vanish(tx, c.Person) // what they knew was good everywhere
		}
		return nil
	})
	if err == nil && rule == store.RelayOnly && n.net != nil {
		err = n.parted(ctx, c.ID)
	}
	return c, err
}

// goUnder replaces what a contact knew of this node by the veil.
func (l *loop) goUnder(tx *store.Tx, p identity.PersonID) error {
	if l.acct.veil == [32]byte{} {
		if err := l.raiseVeil(tx); err != nil {
			return err
		}
	}
	if err := l.unsay(tx, p); err != nil {
		return err
	}
	if err := l.tellNamed(tx, p, true); err != nil {
		return err
	}
	return l.vanish(tx, p)
}

// goUnderAgain hides this node anew from somebody who may reach it by relays only, and
// has seen where it is: by an invite, or as they were added once more after a removal.
func (l *loop) goUnderAgain(tx *store.Tx, p identity.PersonID) error {
	name := l.acct.shown(p)
	l.notify(Notice{Kind: "route", Who: p, Text: fmt.Sprintf("%s could see where this node is, by an invite. From now on they reach it by relays only again, as you said before; to change that: kinloom contact ways %s any.", name, quoteName(name))})
	return l.goUnder(tx, p)
}

// mayUse says whether a link runs by a way that a contact may be reached by.
func (l *loop) mayUse(w store.Ways, k *link) bool {
	switch w {
	case store.RelayOnly:
		return k.veiled && k.route == RouteRelay
	case store.LANOnly:
		return k.route == RouteLAN
	}
	return true
}

// Way is one way to a device, tried or not.
type Way struct {
	Device    string
	Route     string // "direct", "lan", "relay"; "lookup": its record is looked for, which has no address
	Transport string // "quic", "tcp", …
	Address   string
	Source    string // how it is known: "told", "invite", "seen", "lan", "record"; "" of a connection that came in; "own" of the way to this node
	LastTry   time.Time
	LastOK    time.Time
	Result    string
	Live      bool
}

// Route tells every way to a person's devices: the live one, then the addresses
// known in the order in which they are tried, with when that was and what came of
// it.
func (n *Node) Route(ctx context.Context, who string) ([]Way, error) {
	c, err := n.Contact(ctx, who)
	if err != nil {
		return nil, err
	}
	var out []Way
	var rule store.Ways
	err = n.ask(ctx, func(l *loop) {
		out = nil // it may run again, where another input of its batch failed
		rule = store.AnyWay
		if known, ok := l.acct.contacts[c.ID]; ok {
			rule = known.Ways
		}
		for _, d := range l.acct.devicesOf(c.ID) {
			if d.ID != l.acct.device {
				out = append(out, d.ways(rule)...)
			}
		}
	})
	if err == nil && rule == store.RelayOnly && n.net != nil {
		out = n.underWays(out)
	}
	return out, err
}

// underWays adds to the ways to somebody who may be reached by relays only which of them
// are not used, and how they reach this node.
func (n *Node) underWays(ways []Way) []Way {
	for i := range ways {
		w := &ways[i]
		a, err := multiaddr.NewMultiaddr(w.Address)
		if err != nil || w.Route != "relay" || w.Live {
			continue
		}
		if relay, ok := p2p.RelayOf(a); ok && !n.edge.carries(relay) {
			w.Result = "not used: a relay of their choosing could tell them where this node is"
		}
	}
	for _, b := range n.edge.veilPlaces() {
		if a, err := multiaddr.NewMultiaddrBytes(b); err == nil {
			ways = append(ways, Way{Route: "relay", Transport: transportName(a.String()), Address: a.String(), Source: "own", Result: "held for them to reach this node"})
		}
	}
	if trouble := n.veilTrouble(); trouble != "" {
		ways = append(ways, Way{Route: "relay", Source: "own", Result: trouble})
	}
	return ways
}

// devicesOf gives the devices of a person, those heard of last first.
func (a *account) devicesOf(p identity.PersonID) (out []*device) {
	for _, d := range a.devices {
		if d.Person == p {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b *device) int { return cmp.Or(b.Seen.Compare(a.Seen), slices.Compare(a.ID[:], b.ID[:])) })
	return out
}

// ways lists the ways to one device, as edge.reach goes through them: the live
// connection, then transport by transport, and the look-up record after all that is
// known.
func (d *device) ways(rule store.Ways) []Way {
	var live, rest []Way
	if k := d.queue.link; k != nil {
		live = append(live, Way{
			Device: d.ID.Short(), Route: routeName(k.route), Transport: transportName(k.addr), Address: k.addr,
			LastTry: k.since, LastOK: k.since, Result: "connected", Live: true,
		})
	}
	var first []byte
	for _, a := range d.Addrs {
		key := d.Transport
		if a.Source == sourceLAN {
			key = d.LAN
		}
		if first == nil {
			first = key
		}
		w := way(d, a, rule)
		switch {
		case d.queue.link != nil && live[0].Address == w.Address:
			live[0].Source = w.Source
		case string(key) == string(first):
			live = append(live, w)
		default:
			rest = append(rest, w)
		}
	}
	live = append(live, rest...)
	if q := &d.queue; q.link == nil && q.finds > 0 {
		w := Way{
			Device: d.ID.Short(), Route: "lookup", Source: sourceRecord, Result: "found nothing that answers",
			LastTry: q.findAt.Add(-findWaits[min(q.finds, len(findWaits))-1]),
		}
		if q.dialing {
			w.Result = "being looked for"
		}
		live = append(live, w)
	}
	return live
}

// way shows one known address of a device.
func way(d *device, a store.Address, rule store.Ways) Way {
	w := Way{Device: d.ID.Short(), Route: "lan", Source: a.Source, LastTry: a.LastTry, LastOK: a.LastOK, Result: a.LastError}
	addr, err := multiaddr.NewMultiaddrBytes(a.Addr)
	if err == nil {
		w.Address, w.Transport = addr.String(), transportName(addr.String())
	}
	switch {
	case err != nil:
	case isRelayed(addr):
		w.Route = "relay"
	case manet.IsPublicAddr(addr):
		w.Route = "direct"
	}
	if a.Source == sourceExchange {
		w.Source = "invite"
	}
	switch {
	case err != nil:
		w.Result = "cannot be read"
	case !mayDial(rule, dialWay{addr: addr, lan: a.Source == sourceLAN}):
		w.Result = "not used: your rule for this contact forbids it"
	case d.queue.dialing && d.queue.link == nil:
		w.Result = "being tried"
	case w.Result != "":
	case a.LastTry.IsZero():
		w.Result = "not tried yet"
	default:
		w.Result = "worked"
	}
	return w
}

// isRelayed reports whether an address leads over a relay.
func isRelayed(a multiaddr.Multiaddr) bool {
	_, err := a.ValueForProtocol(multiaddr.P_CIRCUIT)
	return err == nil
}
