package node

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/node/store"
)

// Peer is somebody who is connected with this node.
type Peer struct {
	ID        string // transport key of the moment
	Kind      string // "contact", "request", "own", "server", "stranger"
	Person    identity.PersonID
	Name      string // of the person, as shown; empty for one who is not known
	Device    string
	Route     string
	Transport string
	Inbound   bool // the other side dialled
	Address   string
	Since     time.Time
}

// Peers lists who is connected, the longest connected first: devices of contacts,
// servers by their own word, and strangers, who may be contacts that have not said
// anything yet.
func (n *Node) Peers(ctx context.Context) ([]Peer, error) {
	if n.net == nil {
		return nil, errNoNetwork
	}
	connected := n.net.Peers()
	if under := n.edge.under.Load(); under != nil {
		connected = append(connected, under.Peers()...)
		slices.SortStableFunc(connected, func(a, b p2p.Peer) int { return a.Since.Compare(b.Since) })
	}
	out := make([]Peer, len(connected))
	err := n.ask(ctx, func(l *loop) {
		for i, p := range connected {
			out[i] = Peer{
				ID: p.ID.String(), Kind: "stranger", Route: string(p.Route), Transport: p.Transport, Inbound: p.Inbound,
				Address: p.Addr.String(), Since: p.Since,
			}
			if p.Serves {
				out[i].Kind = "server"
			}
			l.introduce(&out[i], p.ID)
		}
	})
	return out, err
}

// introduce says whose device a transport key belongs to, if that is known.
func (l *loop) introduce(p *Peer, id peer.ID) {
	d, ok := l.byTransport([]byte(id))
	for k := range l.links {
		if k.known && k.peer == id {
			d, ok = l.acct.devices[k.device]
			break
		}
	}
	if !ok || d == nil {
		return
	}
	c, known := l.acct.contacts[d.Person]
	if !known || c.State == store.Removed {
		return
	}
	p.Kind, p.Person, p.Name, p.Device = "contact", d.Person, l.acct.shown(d.Person), d.ID.Short()
	switch {
	case d.Person == l.acct.me:
		p.Kind = "own"
	case c.State == store.Request:
		p.Kind = "request"
	}
}

// byTransport finds the device whose transport key this is. Each has proved its own,
// so no two have one; if they did, who is shut out would come last.
func (l *loop) byTransport(id []byte) (found *device, ok bool) {
	for _, d := range l.acct.devices {
		if d.ID == l.acct.device || string(d.Transport) != string(id) && string(d.LAN) != string(id) {
			continue
		}
		if found == nil || l.before(d, found) {
			found = d
		}
	}
	return found, found != nil
}

// before says which of two devices with one transport key is meant by it.
func (l *loop) before(a, b *device) bool {
	if out := l.shutOut(a); out != l.shutOut(b) {
		return !out
	}
	return cmp.Or(b.Seen.Compare(a.Seen), bytes.Compare(a.ID[:], b.ID[:])) < 0
}

// errNoNetwork answers what only a node with a network can do.
var errNoNetwork = &Error{Kind: KindNotRunning, Text: "this node has no network", Next: "Start one: kinloom up."}

// transportName is the short name of what an address speaks.
func transportName(address string) string {
	parts := strings.Split(address, "/")
	for _, t := range []struct{ part, name string }{{"quic-v1", "quic"}, {"ws", "wss"}, {"wss", "wss"}, {"tcp", "tcp"}} {
		if slices.Contains(parts, t.part) {
			return t.name
		}
	}
	return ""
}
