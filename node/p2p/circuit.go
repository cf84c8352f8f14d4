package p2p

import (
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

var (
	errGuardRelay    = errors.New("not a relay of ours")
	errGuardCircuits = errors.New("too many connections over this relay")
)

// circuits is what comes in over one relay that we hold a reservation on.
type circuits struct {
	all     []*circuitIn // in the order they came
	arrive  bucket
	streams bucket
}

// circuitIn is a connection that somebody opened to us over a relay.
type circuitIn struct {
	of    *circuits
	since time.Time
	peer  peer.ID // empty before the handshake
	known bool    // a contact, or about to be one
}

// relay notes that others may reach us over p, or no longer.
func (g *guard) relay(p peer.ID, on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !on:
		delete(g.relays, p)
	case g.relays[p] == nil:
		g.relays[p] = &circuits{arrive: bucket{tokens: CircuitBurst}, streams: bucket{tokens: StreamBurstSubnet}}
	}
}

// arrive decides about a connection that somebody opens to us over a relay. Any peer
// can play the relay and make up who comes; only those that we asked to relay are
// heard. Where all places are taken, the stranger who has been there longest goes.
func (g *guard) arrive(relay peer.ID, now time.Time) (*circuitIn, error) {
	g.mu.Lock()
	c := g.relays[relay]
	if c == nil {
		g.mu.Unlock()
		return nil, errGuardRelay
	}
	var goes peer.ID
	full := len(c.all) >= MaxCircuitsRelay
	if full {
		goes = c.stranger(0)
	}
	if full && goes == "" || !c.arrive.take(now, CircuitRate, CircuitBurst) {
		g.mu.Unlock()
		return nil, errGuardCircuits
	}
	in := &circuitIn{of: c, since: now}
	c.all = append(c.all, in)
	g.mu.Unlock()
	if goes != "" {
		g.cut(goes)
	}
	return in, nil
}

// stranger takes the longest stranger off the list if there are more than keep of
// them, and returns who that is. The caller holds mu.
func (c *circuits) stranger(keep int) (oldest peer.ID) {
	at, n := -1, 0
	for i, in := range c.all {
		if in.peer != "" && !in.known {
			if at < 0 {
				at = i
			}
			n++
		}
	}
	if at < 0 || n <= keep {
		return ""
	}
	oldest = c.all[at].peer
	c.all = slices.Delete(c.all, at, at+1)
	return oldest
}

// came notes who it is, after the handshake: half of the places are for those who
// are known.
func (g *guard) came(in *circuitIn, p peer.ID) {
	known := g.trusted(p)
	g.mu.Lock()
	in.peer, in.known = p, known
	goes := in.of.stranger(MaxCircuitsRelay / 2)
	g.mu.Unlock()
	if goes != "" {
		g.cut(goes)
	}
}

// ended gives the place back.
func (g *guard) ended(in *circuitIn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	in.of.all = slices.DeleteFunc(in.of.all, func(other *circuitIn) bool { return other == in })
}

// recognise notes that p is known, however it came.
func (g *guard) recognise(p peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.relays {
		for _, in := range c.all {
			in.known = in.known || in.peer == p
		}
	}
}

// strangers takes those off the lists who had their time to say who they are.
func (g *guard) strangers(now time.Time) (out []peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.relays {
		c.all = slices.DeleteFunc(c.all, func(in *circuitIn) bool {
			over := in.peer != "" && !in.known && now.Sub(in.since) >= CircuitStranger
			if over {
				out = append(out, in.peer)
			}
			return over
		})
	}
	return out
}

// Recognise notes that p is about to be a contact, as who shows an invite: it may keep
// its connection over a relay.
func (n *Net) Recognise(p peer.ID) { n.guard.recognise(p) }

// cutStrangers ends the connections over relays of those who have not become known.
func (n *Net) cutStrangers(now time.Time) {
	for _, p := range n.guard.strangers(now) {
		n.cutCircuits(p)
	}
}

// cutCircuits ends the connections that p has opened to us over relays.
func (n *Net) cutCircuits(p peer.ID) {
	h := n.host(mainHost)
	if h == nil {
		return
	}
	for _, c := range h.Network().ConnsToPeer(p) {
		if c.Stat().Direction == network.DirInbound && isCircuit(c.RemoteMultiaddr()) {
			n.log.Debug("a stranger's connection over a relay ended", "peer", short(p))
			if err := c.Close(); err != nil {
				n.log.Debug("close connection", "peer", short(p), "err", err)
			}
		}
	}
}

// circuitEndpoint is what the resource manager is told of a connection over a relay.
// By the address it would count all of them as the relay's own, against the bounds
// of one address; loopback it does not count by address.
var circuitEndpoint = ma.StringCast("/ip4/127.0.0.1/tcp/1")

// openCircuit is OpenConnection for a connection over a relay.
func (h *hostGuard) openCircuit(dir network.Direction, a ma.Multiaddr) (network.ConnManagementScope, error) {
	if h.local {
		return nil, errGuardPublic
	}
	if dir == network.DirOutbound {
		return h.ResourceManager.OpenConnection(dir, false, circuitEndpoint)
	}
	_, relay, _ := splitCircuit(a)
	in, err := h.arrive(relay, time.Now())
	if err != nil {
		return nil, err
	}
	scope, err := h.ResourceManager.OpenConnection(dir, false, circuitEndpoint)
	if err != nil {
		h.ended(in)
		return nil, err
	}
	return &circuitScope{ConnManagementScope: scope, guard: h.guard, in: in}, nil
}

// circuitScope tells whose the connection is, and when it has ended.
type circuitScope struct {
	network.ConnManagementScope
	guard *guard
	in    *circuitIn
}

// SetPeer implements network.ConnManagementScope.
func (s *circuitScope) SetPeer(p peer.ID) error {
	if err := s.ConnManagementScope.SetPeer(p); err != nil {
		return err
	}
	s.guard.came(s.in, p)
	return nil
}

// Done implements network.ConnManagementScope.
func (s *circuitScope) Done() {
	s.guard.ended(s.in)
	s.ConnManagementScope.Done()
}
