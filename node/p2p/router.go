package p2p

import (
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// route is one registered protocol.
type route struct {
	id      protocol.ID
	limits  Limits
	handle  func(network.Stream)
	open    atomic.Int64
	served  atomic.Int64
	refused atomic.Int64
	asking  asking
}

// RouteStats counts the streams that others opened for one protocol.
type RouteStats struct {
	Open    int64 // handlers at work now
	Served  int64 // handlers started
	Refused int64 // streams reset because a limit was reached after negotiation
}

// Handle registers a protocol on both hosts, also on LAN hosts to come. h is
// called in a goroutine of its own for each stream that somebody opened, within
// l. The stream is closed when h returns; h must return when its stream fails.
// Handle may be called before Open or later, and replaces an earlier handler.
func (n *Net) Handle(id protocol.ID, l Limits, h func(network.Stream)) {
	r := &route{id: id, limits: l.withDefaults(), handle: h}
	n.limits.set(id, r.limits)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	n.routes[id] = r
	for _, host := range n.hosts {
		if host != nil {
			host.SetStreamHandler(id, n.serve(r))
		}
	}
}

// Stats returns the counters of a protocol.
func (n *Net) Stats(id protocol.ID) RouteStats {
	n.mu.RLock()
	r := n.routes[id]
	n.mu.RUnlock()
	if r == nil {
		return RouteStats{}
	}
	return RouteStats{Open: r.open.Load(), Served: r.served.Load(), Refused: r.refused.Load()}
}

// serve wraps a handler. libp2p has counted the stream against the limits of its
// protocol and peer when it negotiated; here its memory is reserved and it is
// counted for shutdown.
func (n *Net) serve(r *route) network.StreamHandler {
	return func(s network.Stream) {
		if !n.enter(r) {
			s.ResetWithError(network.StreamResourceLimitExceeded)
			return
		}
		defer n.served.Done()
		defer r.open.Add(-1)
		if err := s.Scope().ReserveMemory(r.limits.StreamMemory, network.ReservationPriorityAlways); err != nil {
			r.refused.Add(1)
			s.ResetWithError(network.StreamResourceLimitExceeded)
			return
		}
		if r.limits.PerSubnet > 0 {
			in := r.asking.admit(s, r.limits)
			if in == nil {
				r.refused.Add(1)
				s.ResetWithError(network.StreamResourceLimitExceeded)
				return
			}
			defer in.end(in.timer)
			s = in
		}
		r.served.Add(1)
		defer s.Close()
		r.handle(s)
	}
}

// enter counts a handler in, unless the Net is closing.
func (n *Net) enter(r *route) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.closed {
		return false
	}
	n.served.Add(1)
	r.open.Add(1)
	return true
}
