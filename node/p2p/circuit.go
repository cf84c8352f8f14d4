package p2p

import (
	"errors"
	"sync"
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
	open    int
	arrive  bucket
	streams bucket
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

// arrive decides about a connection that somebody opens to us over a relay, and
// returns what to call when it has ended. Any peer can play the relay and make up
// who comes; only those that we asked to relay are heard.
func (g *guard) arrive(relay peer.ID, now time.Time) (func(), error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.relays[relay]
	if c == nil {
		return nil, errGuardRelay
	}
	if c.open >= MaxCircuitsRelay || !c.arrive.take(now, CircuitRate, CircuitBurst) {
		return nil, errGuardCircuits
	}
	c.open++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		c.open--
	}, nil
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
	gone, err := h.arrive(relay, time.Now())
	if err != nil {
		return nil, err
	}
	scope, err := h.ResourceManager.OpenConnection(dir, false, circuitEndpoint)
	if err != nil {
		gone()
		return nil, err
	}
	return &circuitScope{ConnManagementScope: scope, gone: sync.OnceFunc(gone)}, nil
}

// circuitScope tells when the connection has ended.
type circuitScope struct {
	network.ConnManagementScope
	gone func()
}

// Done implements network.ConnManagementScope.
func (s *circuitScope) Done() {
	s.gone()
	s.ConnManagementScope.Done()
}
