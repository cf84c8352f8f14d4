package p2p

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// Dial connects with p at one of addrs, unless a connection exists. The LAN host
// dials those it found on the LAN, by their key of today and at the addresses there;
// the main host dials everybody else, and every other address, so that the two sides
// of a connection know each other by keys that last equally long. A veiled Net dials
// relays, and others through its relays. It returns as soon
// as the handshake is done, after one round trip over QUIC. libp2p tries QUIC first,
// addresses here and elsewhere side by side, each for at most 15 s (LAN: 5 s); the
// deadline of all is ctx's. The handshake shows our key to nobody but p. Errors:
// ErrPeerID, ErrAvoided, ErrNoAddress, ErrClosed, DialError, ctx.Err().
func (n *Net) Dial(ctx context.Context, p peer.ID, addrs []ma.Multiaddr) (Path, error) {
	return n.dial(ctx, p, addrs, false)
}

// DialLAN is Dial by the LAN host alone: for somebody who was found on the LAN and
// may be a stranger, who is not to learn the key of the main host.
func (n *Net) DialLAN(ctx context.Context, p peer.ID, addrs []ma.Multiaddr) (Path, error) {
	return n.dial(ctx, p, addrs, true)
}

func (n *Net) dial(ctx context.Context, p peer.ID, addrs []ma.Multiaddr, lanOnly bool) (Path, error) {
	if !isEd25519(p) {
		return Path{}, ErrPeerID
	}
	if !lanOnly && n.avoids(p) { // on the LAN strangers are greeted, and it must not be missed that one is not
		return Path{}, ErrAvoided
	}
	if path, ok := n.Connected(p); ok {
		return path, nil
	}
	hosts := [...]*p2pHost{mainHost: n.host(mainHost), lanHost: n.host(lanHost)}
	if hosts[mainHost] == nil {
		return Path{}, ErrClosed
	}
	near := lanOnly || hosts[lanHost] != nil && n.neighbours.has(p, time.Now())
	var by [len(hosts)][]ma.Multiaddr
	if n.cfg.Veiled {
		by[mainHost], addrs = n.throughRelays(ctx, hosts[mainHost], p, addrs), nil
	}
	for _, a := range addrs[:min(len(addrs), MaxAddrs)] {
		a, ok := usable(a)
		inside := ok && isLocal(a) && !isCircuit(a)
		switch {
		case inside && near:
			if hosts[lanHost] != nil {
				by[lanHost] = append(by[lanHost], a)
			}
		case ok && !lanOnly && (inside || !hosts[mainHost].local):
			by[mainHost] = append(by[mainHost], a)
		}
	}
	var all []ma.Multiaddr
	for i := range by {
		by[i] = n.turned.sift(p, by[i])
		all = append(all, by[i]...)
	}
	if len(all) == 0 {
		return Path{}, ErrNoAddress
	}
	err := firstDial(ctx, p, hosts[:], by[:])
	if path, ok := n.Connected(p); ok {
		n.tried.dialled(all, path, time.Now())
		return path, nil
	}
	switch {
	case ctx.Err() != nil:
		return Path{}, ctx.Err()
	case err == nil:
		err = errors.New("connection closed at once")
	case errors.Is(err, swarm.ErrSwarmClosed) || n.isClosed():
		return Path{}, ErrClosed
	}
	n.tried.failed(err, time.Now())
	return Path{}, dialError(p, all, err)
}

// firstDial has each host dial its addresses, side by side: anybody on the LAN can
// announce the id of somebody who is elsewhere. The first connection ends the rest.
func firstDial(ctx context.Context, p peer.ID, hosts []*p2pHost, by [][]ma.Multiaddr) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(hosts))
	var connected atomic.Bool
	var wg sync.WaitGroup
	for i, addrs := range by {
		if len(addrs) == 0 {
			continue
		}
		wg.Go(func() {
			if errs[i] = hosts[i].dial(ctx, p, addrs); errs[i] == nil {
				connected.Store(true)
				cancel()
			}
		})
	}
	wg.Wait()
	if connected.Load() {
		return nil
	}
	return errors.Join(errs...)
}

// ErrStrange is the cause of an Attempt where something answered that is no node.
var ErrStrange = errors.New("what answers there is no node: a login page, or a box on the way that opens connections")

// isStrange reports whether a dial failed as the answer was none of ours. libp2p has no
// name for that; what is cut off or refused is not meant.
func isStrange(err error) bool {
	text := err.Error()
	if !strings.Contains(text, "failed to negotiate security protocol") {
		return errors.Is(err, ErrStrange)
	}
	return slices.ContainsFunc([]string{"trailing newline", "unrecognized response", "incorrect version", "too large", "unexpected EOF"}, func(s string) bool {
		return strings.Contains(text, s)
	})
}

// dials counts the dials of a host under way. A connection that ends takes the addresses
// of its peer with it, and a dial those of before, but not those that another dial is
// about to try.
type dials struct {
	mu sync.Mutex // guards of, and the addresses of peers that are not dialled
	of map[peer.ID]int
}

func (d *dials) begin(p peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of == nil {
		d.of = map[peer.ID]int{}
	}
	d.of[p]++
}

func (d *dials) end(p peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of[p]--; d.of[p] == 0 {
		delete(d.of, p)
	}
}

// unless runs f if nobody dials p.
func (d *dials) unless(p peer.ID, f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of[p] == 0 {
		f()
	}
}

// dialError sorts what libp2p says about each address.
func dialError(p peer.ID, tried []ma.Multiaddr, err error) error {
	causes := make(map[string]error)
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap() // of each host one
	}
	for _, err := range all {
		if de, ok := errors.AsType[*swarm.DialError](err); ok {
			for _, t := range de.DialErrors {
				causes[string(t.Address.Bytes())] = t.Cause
			}
		}
	}
	out := &DialError{Peer: p}
	for _, a := range tried {
		cause := causes[string(a.Bytes())]
		if cause == nil {
			cause = err
		}
		if isStrange(cause) && !errors.Is(cause, ErrStrange) {
			cause = fmt.Errorf("%w: %w", ErrStrange, cause)
		}
		out.Attempts = append(out.Attempts, Attempt{Addr: a, Err: cause})
	}
	return out
}

// NewStream opens a stream for a protocol on the existing connection with p, over
// the LAN if there is the choice, and over a relay only if there is none. It does not wait for anything of the other side:
// the protocol header leaves with the first Write. The other side's limits show
// as a failing Read; a protocol that it does not speak as ErrNotSupported. Other
// errors: ErrNotConnected, or our own limits.
func (n *Net) NewStream(ctx context.Context, p peer.ID, id protocol.ID) (network.Stream, error) {
	c := n.conn(p)
	if c == nil {
		return nil, ErrNotConnected
	}
	return n.streamOn(ctx, c, id)
}

// streamOn opens a stream on one connection.
func (n *Net) streamOn(ctx context.Context, c network.Conn, id protocol.ID) (network.Stream, error) {
	s, err := c.NewStream(network.WithAllowLimitedConn(ctx, "kinloom"))
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	if err := s.SetProtocol(id); err != nil {
		s.ResetWithError(network.StreamResourceLimitExceeded)
		return nil, fmt.Errorf("open stream: %w", err)
	}
	if l, ok := n.limits.get(id); ok {
		if err := s.Scope().ReserveMemory(l.StreamMemory, network.ReservationPriorityAlways); err != nil {
			s.ResetWithError(network.StreamResourceLimitExceeded)
			return nil, fmt.Errorf("open stream: %w", err)
		}
	}
	return newLazyStream(s, id), nil
}

// conn returns the connection to use for p: that of the LAN host if there is one.
func (n *Net) conn(p peer.ID) network.Conn {
	for _, which := range []int{lanHost, mainHost} {
		if h := n.host(which); h != nil {
			if c := h.conn(p); c != nil {
				return c
			}
		}
	}
	return nil
}

// Connected returns the path of the connection with p, and false if there is none.
func (n *Net) Connected(p peer.ID) (Path, bool) {
	c := n.conn(p)
	if c == nil {
		return Path{}, false
	}
	return pathOf(c), true
}

// ConnectedAt reports whether a connection with p goes to the machine of one of addrs:
// a dial there may have ended with one that was made elsewhere.
func (n *Net) ConnectedAt(p peer.ID, addrs []ma.Multiaddr) bool {
	for which := range n.hosts {
		h := n.host(which)
		if h == nil {
			continue
		}
		for _, c := range h.Network().ConnsToPeer(p) {
			ip, ok := ipOf(c.RemoteMultiaddr())
			if ok && !c.IsClosed() && !isCircuit(c.RemoteMultiaddr()) && slices.ContainsFunc(addrs, func(a ma.Multiaddr) bool {
				at, ok := ipOf(a)
				return ok && at == ip
			}) {
				return true
			}
		}
	}
	return false
}

// ClosePeer closes all connections with p.
func (n *Net) ClosePeer(p peer.ID) {
	for which := range n.hosts {
		if h := n.host(which); h != nil {
			if err := h.Network().ClosePeer(p); err != nil {
				n.log.Debug("close connection", "peer", short(p), "err", err)
			}
		}
	}
}

// Protect keeps the connections with p when there are too many: for contacts.
func (n *Net) Protect(p peer.ID, on bool) {
	const tag = "kinloom"
	if on {
		n.guard.recognise(p, n.owner(p))
	}
	for which := range n.hosts {
		if h := n.host(which); h == nil {
			continue
		} else if on {
			h.ConnManager().Protect(p, tag)
		} else {
			h.ConnManager().Unprotect(p, tag)
		}
	}
}

// short is enough of an id to tell peers apart in a log.
func short(p peer.ID) string {
	s := p.String()
	return s[max(0, len(s)-8):]
}
