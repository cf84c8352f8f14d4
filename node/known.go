package node

import (
	"maps"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
)

// knownEvery is how many ticks pass between two looks at who the contacts are: new
// ones get their share of the relay a moment later.
const knownEvery = 5

// known is what the network layer may ask of the account at any time and without
// waiting: a copy that the loop replaces.
type known struct {
	contacts map[peer.ID]store.Ways // transports of contacts' devices, and how they are reached
	servers  []peer.AddrInfo        // of contacts who relay, or keep records
	relays   []peer.AddrInfo        // of those that relay
	trusted  []peer.AddrInfo        // those of servers whose persons may reach this node by any way
	owners   map[peer.ID]identity.PersonID
	shunned  map[peer.ID]bool              // transports that those have, or had, who must not know the main host
	hidden   map[peer.ID]bool              // those of them that must not even be dialled: of contacts by relays only
	under    map[identity.DeviceID]bool    // and their devices
	veiled   map[peer.ID]identity.PersonID // whom the veil knows: those contacts, by the keys that their devices have now
	veil     bool                          // there is a veil, which needs its carriers
}

// tellKnown replaces the copy where something has changed.
func (l *loop) tellKnown() {
	if l.net == nil {
		return
	}
	l.net.know(l.knownNow())
}

// knownNow is the copy as it has to be now.
func (l *loop) knownNow() *known {
	next := &known{
		contacts: map[peer.ID]store.Ways{}, owners: map[peer.ID]identity.PersonID{}, shunned: map[peer.ID]bool{},
		hidden: map[peer.ID]bool{}, under: map[identity.DeviceID]bool{}, veiled: map[peer.ID]identity.PersonID{}, veil: l.acct.veil != [32]byte{},
	}
	for p, id := range l.acct.transports() {
		c, ok := l.acct.contacts[p]
		if !ok || c.State == store.Self || c.Trust != store.Blocked && c.State != store.Removed && c.Ways == store.AnyWay {
			continue
		}
		next.shunned[id] = true
		if c.Ways == store.RelayOnly {
			next.hidden[id] = true
		}
	}
	for _, d := range l.acct.devices {
		c, ok := l.acct.contacts[d.Person]
		counts := ok && d.ID != l.acct.device && c.State != store.Removed && c.State != store.Request && !l.shutOut(d)
		if l.waysOf(d) == store.RelayOnly {
			next.under[d.ID] = true
			if counts && len(d.Transport) > 0 {
				next.veiled[peer.ID(d.Transport)] = d.Person
			}
			continue // to all but the veil they are strangers
		}
		if !counts {
			continue
		}
		for _, id := range [][]byte{d.Transport, d.LAN} {
			if len(id) > 0 {
				next.contacts[peer.ID(id)], next.owners[peer.ID(id)] = c.Ways, d.Person
			}
		}
		if d.Offers&(event.OffersRelay|event.OffersRecords) == 0 || len(d.Transport) == 0 || c.Ways == store.LANOnly {
			continue
		}
		info := peer.AddrInfo{ID: peer.ID(d.Transport)}
		for _, a := range d.Addrs {
			if addr, err := multiaddr.NewMultiaddrBytes(a.Addr); err == nil && a.Source != sourceLAN {
				info.Addrs = append(info.Addrs, addr)
			}
		}
		next.servers = append(next.servers, info)
		if c.Ways == store.AnyWay {
			next.trusted = append(next.trusted, info)
		}
		if d.Offers&event.OffersRelay != 0 {
			next.relays = append(next.relays, info)
		}
	}
	return next
}

// know implements jobs.
func (e *edge) know(k *known) {
	before := e.known.Swap(k)
	if before == nil || !maps.Equal(before.contacts, k.contacts) {
		e.protect(before, k)
	}
	if before == nil || !maps.Equal(before.shunned, k.shunned) {
		e.n.net.LeaveShunned()
	}
	// Who is a contact no longer is not asked to relay, nor dialled before others.
	e.n.net.KeepBootstrap(p2p.FromContact, k.servers...)
	e.n.net.AddBootstrap(p2p.FromContact, k.servers...)
	e.chooseCarriers()
}

// protect keeps the connections of contacts when there are too many, and no longer
// those of who is none any more.
func (e *edge) protect(before, now *known) {
	for id := range now.contacts {
		e.n.net.Protect(id, true)
	}
	if before == nil {
		return
	}
	for id := range before.contacts {
		if _, ok := now.contacts[id]; !ok {
			e.n.net.Protect(id, false)
		}
	}
}

// trusted says whether a transport is that of a contact's device.
func (e *edge) trusted(id peer.ID) bool {
	k := e.known.Load()
	if k == nil {
		return false
	}
	_, ok := k.contacts[id]
	return ok
}

// owner names the contact behind a transport.
func (e *edge) owner(id peer.ID) string {
	if k := e.known.Load(); k != nil {
		if p, ok := k.owners[id]; ok {
			return p.String()
		}
	}
	return ""
}

// shuns says whether a transport is that of a person who is shut out. Contacts of the
// veil are avoided instead: to the main host they are strangers.
func (e *edge) shuns(id peer.ID) bool {
	k := e.known.Load()
	return k != nil && k.shunned[id] && !k.hidden[id]
}

// relaysMax bounds the servers of the address book that are asked to relay.
const relaysMax = 16

// relays are the nodes to ask for a reservation: of contacts, then servers that
// somebody named.
func (e *edge) relays() []peer.AddrInfo {
	var out []peer.AddrInfo
	if k := e.known.Load(); k != nil {
		out = append(out, k.relays...)
	}
	for _, s := range e.n.net.Book() {
		if s.Source != p2p.FromDHT && s.Source != p2p.FromDNS && len(out) < relaysMax {
			out = append(out, s.Peer)
		}
	}
	return out
}
