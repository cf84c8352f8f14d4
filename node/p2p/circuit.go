package p2p

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
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
	from  peer.ID // who comes, as the relay says
	peer  peer.ID // empty before the handshake
	owner string  // the person: of peer, before the handshake of from
	known bool    // a contact, or about to be one; before the handshake if from is
	gone  bool    // off the list
	end   func()  // ends the connection at once
}

func (in *circuitIn) silent() bool   { return in.peer == "" && !in.known }
func (in *circuitIn) stranger() bool { return in.peer != "" && !in.known }

// knownOf matches what somebody who is known has.
func knownOf(owner string) func(*circuitIn) bool {
	return func(in *circuitIn) bool { return in.known && in.owner == owner }
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
// heard. These are believed who comes until the handshake shows it: they could as well
// bring nobody, and strangers who never come to a handshake must not keep out a contact.
// Where a place is needed, the one goes who has been there longest and is not known; who
// is known has a share, whatever keys they come with, and loses the oldest of their own.
func (g *guard) arrive(relay, from peer.ID, end func(), now time.Time) (*circuitIn, error) {
	known, owner := g.trusted(from), g.owner(from)
	g.mu.Lock()
	c := g.relays[relay]
	if c == nil {
		g.mu.Unlock()
		return nil, errGuardRelay
	}
	if !known && !c.arrive.take(now, CircuitRate, CircuitBurst) {
		g.mu.Unlock()
		return nil, errGuardCircuits
	}
	goes := c.trim(MaxCircuitsFrom-1, func(in *circuitIn) bool { return in.peer == "" && in.from == from })
	if known {
		goes = append(goes, c.trim(MaxCircuitsPerson-1, knownOf(owner))...)
	} else {
		goes = append(goes, c.trim(MaxCircuitsRelay/2-1, (*circuitIn).silent)...)
	}
	if n := len(c.all) - MaxCircuitsRelay + 1; n > 0 {
		goes = append(goes, c.oldest(n, func(in *circuitIn) bool { return !in.known })...)
	}
	var in *circuitIn
	err := errGuardCircuits
	if len(c.all) < MaxCircuitsRelay {
		in, err = &circuitIn{of: c, since: now, from: from, owner: owner, known: known, end: end}, nil
		c.all = append(c.all, in)
	}
	g.mu.Unlock()
	endAll(goes)
	return in, err
}

// trim takes the oldest of those that match off the list until keep of them are left,
// and returns them. The caller holds mu, and ends them without it.
func (c *circuits) trim(keep int, match func(*circuitIn) bool) []*circuitIn {
	n := -keep
	for _, in := range c.all {
		if match(in) {
			n++
		}
	}
	return c.oldest(n, match)
}

// oldest takes up to n that match off the list, those first who came first.
func (c *circuits) oldest(n int, match func(*circuitIn) bool) (goes []*circuitIn) {
	c.all = slices.DeleteFunc(c.all, func(in *circuitIn) bool {
		if len(goes) >= n || !match(in) {
			return false
		}
		in.gone = true
		goes = append(goes, in)
		return true
	})
	return goes
}

func endAll(goes []*circuitIn) {
	for _, in := range goes {
		in.end()
	}
}

// came notes who it is, after the handshake: half of the places are for those who
// are known.
func (g *guard) came(in *circuitIn, p peer.ID) error {
	known, owner := g.trusted(p), g.owner(p)
	g.mu.Lock()
	in.peer, in.owner, in.known = p, owner, known
	goes := in.of.trim(MaxCircuitsRelay/2, (*circuitIn).stranger)
	goes = append(goes, in.of.trim(MaxCircuitsPerson, knownOf(owner))...)
	gone := in.gone
	g.mu.Unlock()
	endAll(goes)
	if gone {
		return errGuardCircuits
	}
	return nil
}

// ended gives the place back.
func (g *guard) ended(in *circuitIn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	in.of.all = slices.DeleteFunc(in.of.all, func(other *circuitIn) bool { return other == in })
}

// recognise notes that p is known, however it came, and whose it is: a key that nobody
// has told yet counts among theirs.
func (g *guard) recognise(p peer.ID, owner string) {
	g.mu.Lock()
	var goes []*circuitIn
	for _, c := range g.relays {
		for _, in := range c.all {
			if in.peer == p {
				in.known, in.owner = true, owner
			}
		}
		goes = append(goes, c.trim(MaxCircuitsPerson, knownOf(owner))...)
	}
	g.mu.Unlock()
	endAll(goes)
}

// strangers ends those who had their time to become known.
func (g *guard) strangers(now time.Time) {
	g.mu.Lock()
	var goes []*circuitIn
	for _, c := range g.relays {
		goes = append(goes, c.oldest(len(c.all), func(in *circuitIn) bool {
			return in.stranger() && now.Sub(in.since) >= CircuitStranger
		})...)
	}
	g.mu.Unlock()
	endAll(goes)
}

// Recognise notes that p is of a contact, or about to be one, as who shows an invite: it
// may keep its connection over a relay, as one of MaxCircuitsPerson of its owner, as
// Config.Owner names them. Who has no name yet shares the empty one.
func (n *Net) Recognise(p peer.ID, owner string) { n.guard.recognise(p, owner) }

// circuitEndpoint is what the resource manager is told of a connection over a relay.
// By the address it would count all of them as the relay's own, against the bounds
// of one address; loopback it does not count by address.
var circuitEndpoint = ma.StringCast("/ip4/127.0.0.1/tcp/1")

// openCircuit is OpenConnection for a connection that we open over a relay.
func (h *hostGuard) openCircuit() (network.ConnManagementScope, error) {
	if h.local {
		return nil, errGuardPublic
	}
	return h.ResourceManager.OpenConnection(network.DirOutbound, false, circuitEndpoint)
}

// circuitListener is where those come who open connections to us over relays. The
// resource manager is told no more than an address, and the relay has said who comes.
type circuitListener struct {
	*client.Listener
	guard *hostGuard
}

// Accept implements transport.GatedMaListener.
func (l *circuitListener) Accept() (manet.Conn, network.ConnManagementScope, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, nil, err
		}
		c, ok := conn.(*client.Conn)
		if !ok {
			return nil, nil, errors.Join(fmt.Errorf("bug: circuit %T", conn), conn.Close())
		}
		in := &circuitConn{Conn: c}
		in.close = sync.OnceValue(c.Close)
		scope, err := l.guard.letIn(in)
		if err != nil {
			_ = in.Close()
			continue
		}
		return in, scope, nil
	}
}

// circuitConn is a connection over a relay that can be closed more than once: libp2p's
// counts each time.
type circuitConn struct {
	*client.Conn
	close func() error
}

// Close implements net.Conn.
func (c *circuitConn) Close() error { return c.close() }

// letIn is OpenConnection for a connection that somebody opens to us over a relay.
func (h *hostGuard) letIn(c *circuitConn) (network.ConnManagementScope, error) {
	if h.local {
		return nil, errGuardPublic
	}
	_, relay, _ := splitCircuit(c.RemoteMultiaddr())
	from := peer.ID("")
	if a, ok := c.RemoteAddr().(*client.NetAddr); ok {
		from, _ = peer.Decode(a.Remote) // who has no id is a stranger
	}
	in, err := h.arrive(relay, from, func() { _ = c.Close() }, time.Now())
	if err != nil {
		return nil, err
	}
	scope, err := h.ResourceManager.OpenConnection(network.DirInbound, false, circuitEndpoint)
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
	return s.guard.came(s.in, p)
}

// Done implements network.ConnManagementScope.
func (s *circuitScope) Done() {
	s.guard.ended(s.in)
	s.ConnManagementScope.Done()
}
