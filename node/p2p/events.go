package p2p

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// maxFound bounds neighbours that were found and not delivered yet. More are
// dropped: mDNS repeats itself, and a LAN has not that many nodes.
const maxFound = 64

// events is what waits for the Handler. It holds which peers changed, not how:
// the state is looked up on delivery, so nothing can pile up and nothing is
// missed. Its size is bounded by the connections there are.
type events struct {
	wake chan struct{} // one slot

	mu     sync.Mutex // guards the fields below
	dirty  map[peer.ID]struct{}
	order  []peer.ID // of dirty
	kicked []peer.ID
	found  map[sighting]peer.AddrInfo
	foundQ []sighting
	told   map[peer.ID]told // who was reported as connected
}

// sighting is who is said to be where: anybody can announce anybody, but at an address of
// their own.
type sighting struct {
	id peer.ID
	at netip.Addr
}

type told struct {
	conn network.Conn
	path Path
}

func newEvents() *events {
	return &events{
		wake:  make(chan struct{}, 1),
		dirty: make(map[peer.ID]struct{}),
		found: make(map[sighting]peer.AddrInfo),
		told:  make(map[peer.ID]told),
	}
}

func (e *events) signal() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// touch notes that the connections with p changed.
func (e *events) touch(p peer.ID) {
	e.mu.Lock()
	if _, ok := e.dirty[p]; !ok {
		e.dirty[p] = struct{}{}
		e.order = append(e.order, p)
	}
	e.mu.Unlock()
	e.signal()
}

// kick asks for all connections with p to be closed.
func (e *events) kick(p peer.ID) {
	e.mu.Lock()
	if slices.Contains(e.kicked, p) {
		e.mu.Unlock()
		return
	}
	if len(e.kicked) < MaxConns {
		e.kicked = append(e.kicked, p)
	}
	e.mu.Unlock()
	e.signal()
}

// foundPeer queues a neighbour; a newer announcement from there replaces the one waiting.
func (e *events) foundPeer(info peer.AddrInfo, ip netip.Addr) {
	key := sighting{info.ID, ip}
	e.mu.Lock()
	_, waiting := e.found[key]
	if waiting || len(e.found) < maxFound {
		e.found[key] = info
		if !waiting {
			e.foundQ = append(e.foundQ, key)
		}
	}
	e.mu.Unlock()
	e.signal()
}

// next delivers one thing and reports whether there may be more.
func (e *events) next(n *Net) bool {
	h := n.cfg.Handler
	e.mu.Lock()
	switch {
	case len(e.kicked) > 0:
		p := e.kicked[0]
		e.kicked = e.kicked[1:]
		e.mu.Unlock()
		n.log.Warn("peer disconnected: it opens streams without end", "peer", short(p))
		n.ClosePeer(p)
		return true
	case len(e.order) > 0:
		p := e.order[0]
		e.order = e.order[1:]
		delete(e.dirty, p)
		before, was := e.told[p]
		c := n.conn(p)
		if was && c != nil && !before.conn.IsClosed() && !betterPath(pathOf(c), before.path) {
			e.mu.Unlock()
			return true // the one reported lives; further ones are silent
		}
		var now told
		if c != nil {
			now = told{conn: c, path: pathOf(c)}
			e.told[p] = now
		} else {
			delete(e.told, p)
		}
		e.mu.Unlock()
		if was && h != nil {
			h.Disconnected(p, before.path)
		}
		if c != nil && h != nil {
			h.Connected(p, now.path)
		}
		return true
	case len(e.foundQ) > 0:
		first := e.foundQ[0]
		e.foundQ = e.foundQ[1:]
		info := e.found[first]
		delete(e.found, first)
		e.mu.Unlock()
		if h != nil {
			h.Found(info)
		}
		return true
	}
	e.mu.Unlock()
	return false
}

// betterPath reports whether a connection beside one over a relay does without it.
func betterPath(now, before Path) bool { return before.Route == Relayed && now.Route != Relayed }

// notifiee feeds connection changes of a host into the events.
func (n *Net) notifiee() network.Notifiee {
	return &network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) {
			if isCircuit(c.RemoteMultiaddr()) {
				select {
				case n.circuits <- struct{}{}:
				default:
				}
			}
			if n.cfg.Profile == Server && n.reach.visit(c) {
				n.events.signal()
			}
			n.events.touch(c.RemotePeer())
		},
		DisconnectedF: func(nw network.Network, c network.Conn) {
			p := c.RemotePeer()
			n.turned.note(c)
			if nw.Connectedness(p) == network.NotConnected {
				n.guard.gone(p, time.Now())
				// What it said about itself is of no use, but to the routing table.
				if d := n.dht.Load(); d == nil || !d.knows(p) {
					for which := range n.hosts {
						if h := n.host(which); h != nil && h.Network() == nw {
							h.dialling.unless(p, func() { nw.Peerstore().ClearAddrs(p) })
						}
					}
				}
			}
			n.events.touch(p)
		},
	}
}

// discoverRetry is how long to wait after the discovery failed, as it does on a
// machine without a network.
const discoverRetry = 30 * time.Second

// discover runs the discovery for each LAN host in turn.
func (n *Net) discover(ctx context.Context) {
	for ctx.Err() == nil {
		n.mu.RLock()
		lan, changed := n.hosts[lanHost], n.changed[lanHost]
		n.mu.RUnlock()
		if lan == nil {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		n.announce(ctx, lan, changed)
	}
}

// announce runs the discovery for one LAN host until it, or its set of
// addresses, changes.
func (n *Net) announce(ctx context.Context, lan *p2pHost, changed <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	self := peer.AddrInfo{ID: lan.ID(), Addrs: n.lanAddrs(lan)}
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		if len(self.Addrs) == 0 {
			return // loopback only: nobody to talk to
		}
		n.tried.lan(nil)
		if err := n.cfg.Discovery.Run(ctx, self, n.foundOnLAN); err != nil && ctx.Err() == nil {
			n.tried.lan(err)
			n.log.Info("no LAN discovery at the moment", "err", err)
		}
	})
	defer wg.Wait()
	defer cancel()
	tick := time.NewTicker(addrsPoll)
	defer tick.Stop()
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			return
		case <-done:
			done = nil
			again = time.After(discoverRetry)
		case <-again:
			return
		case <-tick.C:
			if !sameAddrs(self.Addrs, n.lanAddrs(lan)) {
				return
			}
		}
	}
}

// foundOnLAN checks an announcement before it goes any further.
func (n *Net) foundOnLAN(info peer.AddrInfo) {
	self, lan := n.PeerIDs()
	if info.ID == self || info.ID == lan || !isEd25519(info.ID) {
		return
	}
	out := peer.AddrInfo{ID: info.ID}
	for _, a := range info.Addrs {
		// Loopback is never a neighbour's address, whatever this node has itself.
		if a, ok := usable(a); ok && isLocal(a) && !isLoopback(a) && !isCircuit(a) && len(out.Addrs) < MaxAddrs {
			out.Addrs = append(out.Addrs, a)
		}
	}
	if len(out.Addrs) == 0 {
		return
	}
	now := time.Now()
	if ip, ok := ipOf(out.Addrs[0]); ok && n.guard.neighbour(ip, now) {
		n.neighbours.add(out.ID, now)
		n.events.foundPeer(out, ip)
	}
}

const (
	// maxNeighbours bounds the ids that are known to be those of LAN hosts.
	maxNeighbours = 512
	// neighbourTime is how long an announcement counts: nodes on a LAN ask each other
	// every minute.
	neighbourTime = 5 * time.Minute
)

// neighbours are the ids found on this LAN a moment ago, the newest maxNeighbours of
// them. Anybody there can announce any id.
type neighbours struct {
	mu    sync.Mutex // guards known, order
	known map[peer.ID]time.Time
	order []peer.ID // of known, the one heard of longest ago first
}

func (l *neighbours) add(p peer.ID, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil {
		l.known = make(map[peer.ID]time.Time)
	}
	if _, ok := l.known[p]; ok {
		l.order = slices.DeleteFunc(l.order, func(q peer.ID) bool { return q == p })
	}
	l.known[p] = now
	l.order = append(l.order, p)
	l.prune(now)
}

// prune forgets who is too many or was not heard of for long. The caller holds mu.
func (l *neighbours) prune(now time.Time) {
	for len(l.order) > 0 && (len(l.order) > maxNeighbours || now.Sub(l.known[l.order[0]]) >= neighbourTime) {
		delete(l.known, l.order[0])
		l.order = l.order[1:]
	}
}

func (l *neighbours) has(p peer.ID, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.prune(now)
	_, ok := l.known[p]
	return ok
}

func (l *neighbours) count(now time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.prune(now)
	return len(l.order)
}

// forget drops all: this is another LAN, or this node is another one there.
func (l *neighbours) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known, l.order = nil, nil
}
