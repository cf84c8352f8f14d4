package p2p

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	lpevent "github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Verdict is what others found when they tried to dial back (AutoNAT v1). A server
// is Public and a client Private by its profile.
type Verdict string

// The verdicts.
const (
	Unknown Verdict = "unknown" // nobody has tried yet: normal without public peers
	Public  Verdict = "public"
	Private Verdict = "private"
)

// Reachability is how this node can be reached from elsewhere at the moment.
type Reachability struct {
	Verdict Verdict
	// Forced is set where the verdict is the profile's and nobody's finding.
	Forced bool
	// Direct are the public addresses at which somebody dialled back: each one by
	// itself (AutoNAT v2), or, where nobody does that, all of them together (v1). Those
	// of a server also count once somebody came in from outside its networks.
	Direct []ma.Multiaddr
	// Relays are the reservations held now, contacts' first.
	Relays []Relay
	// Mapped are the addresses that the router opened (UPnP, NAT-PMP), by its own
	// account: a router can lie, and can be behind another one.
	Mapped []ma.Multiaddr
	// Symmetric is set where the router's mapping was seen to depend on the destination:
	// hole punching will fail with another one of this kind.
	Symmetric bool
}

// Relay is a reservation held.
type Relay struct {
	Peer  peer.ID
	Addrs []ma.Multiaddr // .../p2p/PEER/p2p-circuit, public, at most maxRelayAddrs
	Until time.Time      // by this machine's clock; it is renewed before
}

// Internet reports whether the node can be reached from outside its network.
func (r Reachability) Internet() bool { return len(r.Direct)+len(r.Relays) > 0 }

// key tells two states apart; renewing a reservation is no change.
func (r Reachability) key() string {
	for i := range r.Relays {
		r.Relays[i].Until = time.Time{}
	}
	return fmt.Sprint(r)
}

// mapper is libp2p's NAT manager.
type mapper interface {
	GetMapping(ma.Multiaddr) ma.Multiaddr
}

// reach is what libp2p's events told so far. The zero value is ready.
type reach struct {
	mu          sync.Mutex // guards all below
	verdict     Verdict
	reachable   []ma.Multiaddr
	unreachable []ma.Multiaddr
	symmetric   bool
	mappings    map[peer.ID]mapping // of those who are connected
	router      mapper
	visited     bool // somebody came in from outside the networks of this machine
}

func (r *reach) setRouter(m mapper) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.router = m
}

// forget drops what was found out about a host that is gone.
func (r *reach) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verdict, r.reachable, r.unreachable, r.symmetric, r.mappings, r.router, r.visited = "", nil, nil, false, nil, nil, false
}

// verdict is the profile's, or what others found.
func (n *Net) verdict() Verdict {
	switch {
	case n.cfg.Profile == Server:
		return Public
	case n.cfg.Profile == Client || n.proxy != nil || n.cfg.Veiled:
		return Private
	}
	n.reach.mu.Lock()
	defer n.reach.mu.Unlock()
	return cmp.Or(n.reach.verdict, Unknown)
}

// visit notes where a connection came from, and reports whether that is news: that
// strangers outside get in.
func (r *reach) visit(c network.Conn) bool {
	if c.Stat().Direction != network.DirInbound || isCircuit(c.RemoteMultiaddr()) || !manet.IsPublicAddr(c.RemoteMultiaddr()) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.visited {
		return false // the first has told all that there is to know
	}
	ip, err := manet.ToIP(c.RemoteMultiaddr())
	r.visited = err == nil && !inOwnNetwork(ip)
	return r.visited
}

// inOwnNetwork reports whether an address is of a network that this machine is in: who
// is there comes in behind the router.
func inOwnNetwork(ip net.IP) bool {
	all, err := net.InterfaceAddrs()
	return err != nil || slices.ContainsFunc(all, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.Contains(ip)
	})
}

// proven reports whether this node is public by more than the word of one peer, which
// is what AutoNAT v1 is and could be a lie to have it give up its relays: by its
// profile, or as a public address was dialled back by itself (v2).
func (n *Net) proven() bool {
	if n.verdict() != Public || n.cfg.Profile == Server {
		return n.cfg.Profile == Server
	}
	n.reach.mu.Lock()
	defer n.reach.mu.Unlock()
	return slices.ContainsFunc(n.reach.reachable, manet.IsPublicAddr)
}

// withoutUnreachable drops from addrs what a dial back found to lead nowhere.
func (r *reach) withoutUnreachable(addrs []ma.Multiaddr) []ma.Multiaddr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(addrs, func(a ma.Multiaddr) bool { return ma.Contains(r.unreachable, a) })
}

// Reachability returns what is known now. The Handler's AddrsChanged tells when it
// has changed.
func (n *Net) Reachability() Reachability {
	h := n.host(mainHost)
	if h == nil || n.cfg.LANOnly {
		return Reachability{Verdict: Unknown}
	}
	out := Reachability{Verdict: n.verdict(), Forced: n.cfg.Profile != Home || n.proxy != nil || n.cfg.Veiled, Relays: n.relays.held()}
	public := slices.DeleteFunc(n.directAddrs(h), func(a ma.Multiaddr) bool { return !manet.IsPublicAddr(a) })
	n.reach.mu.Lock()
	router := n.reach.router
	visited := n.reach.visited
	out.Symmetric = n.reach.symmetric || n.reach.dependent()
	proven := slices.DeleteFunc(slices.Clone(public), func(a ma.Multiaddr) bool { return !ma.Contains(n.reach.reachable, a) })
	n.reach.mu.Unlock()
	switch {
	case n.cfg.Profile == Client:
	case len(proven) > 0:
		out.Direct = proven
	case n.cfg.Profile == Server && visited, n.cfg.Profile != Server && out.Verdict == Public:
		out.Direct = public
	}
	if router != nil {
		for _, l := range h.Network().ListenAddresses() {
			if a := router.GetMapping(l); a != nil {
				out.Mapped = append(out.Mapped, a)
			}
		}
		sortAddrs(out.Mapped, nil)
	}
	return out
}

// watch keeps the state by the events of the main host, and runs the relay service
// while others find the node public.
func (n *Net) watch(ctx context.Context, h *p2pHost) {
	sub, err := h.EventBus().Subscribe([]any{
		new(lpevent.EvtLocalReachabilityChanged), new(lpevent.EvtHostReachableAddrsChanged), new(lpevent.EvtNATDeviceTypeChanged),
		new(lpevent.EvtPeerIdentificationCompleted), new(lpevent.EvtPeerProtocolsUpdated), new(lpevent.EvtPeerConnectednessChanged),
	}, eventbus.Name("kinloom"), eventbus.BufSize(64))
	if err != nil {
		n.log.Warn("reachability is not known", "err", err)
		return
	}
	defer sub.Close()
	svc := newRelayService(n, h)
	defer svc.stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-sub.Out():
			if !ok {
				return
			}
			n.observe(e)
		}
		if err := svc.run(n.cfg.Profile.serves() && n.verdict() == Public); err != nil {
			n.log.Warn("no relay service", "err", err)
		}
	}
}

// observe takes in one event.
func (n *Net) observe(e any) {
	r := &n.reach
	switch e := e.(type) {
	case lpevent.EvtLocalReachabilityChanged:
		r.mu.Lock()
		r.verdict = map[network.Reachability]Verdict{network.ReachabilityPublic: Public, network.ReachabilityPrivate: Private}[e.Reachability]
		r.mu.Unlock()
		n.relays.signal()
	case lpevent.EvtHostReachableAddrsChanged:
		r.mu.Lock()
		r.reachable, r.unreachable = e.Reachable, e.Unreachable
		r.mu.Unlock()
		n.relays.signal()
	case lpevent.EvtNATDeviceTypeChanged:
		if e.TransportProtocol == network.NATTransportUDP {
			r.mu.Lock()
			r.symmetric = e.NatDeviceType == network.NATDeviceTypeEndpointDependent
			r.mu.Unlock()
		}
	case lpevent.EvtPeerIdentificationCompleted:
		if slices.Contains(e.Protocols, proto.ProtoIDv2Hop) {
			n.relays.offers(e.Peer)
		}
		if !r.maps(e) {
			return
		}
	case lpevent.EvtPeerProtocolsUpdated:
		if slices.Contains(e.Added, proto.ProtoIDv2Hop) {
			n.relays.offers(e.Peer)
		}
		if !slices.Contains(e.Removed, proto.ProtoIDv2Hop) || !n.relays.left(n, e.Peer) {
			return
		}
	case lpevent.EvtPeerConnectednessChanged:
		if e.Connectedness == network.NotConnected {
			r.unmaps(e.Peer)
		}
		if e.Connectedness == network.Connected || !n.relays.left(n, e.Peer) {
			return
		}
	}
	n.events.signal()
}
