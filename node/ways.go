package node

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/store"
)

// Way is one way to a device, tried or not.
type Way struct {
	Device    string
	Route     string // "direct", "lan", "relay"; "lookup": its record is looked for, which has no address
	Transport string // "quic", "tcp", …
	Address   string
	Source    string // how it is known: "told", "invite", "seen", "lan", "record"; "" of a connection that came in
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
	err = n.ask(ctx, func(l *loop) {
		out = nil // it may run again, where another input of its batch failed
		rule := store.AnyWay
		if known, ok := l.acct.contacts[c.ID]; ok {
			rule = known.Ways
		}
		for _, d := range l.acct.devicesOf(c.ID) {
			if d.ID != l.acct.device {
				out = append(out, d.ways(rule)...)
			}
		}
	})
	return out, err
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
