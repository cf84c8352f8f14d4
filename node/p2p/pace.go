package p2p

import (
	"errors"
	"maps"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// heldLong is how long a reservation lasts at least of a relay that may be asked
	// again as soon as it is lost. One that ends sooner keeps its relay out for
	// waitLost, twice that the next time, up to waitRelayMax.
	heldLong = 10 * time.Minute
	waitLost = 2 * time.Second
	// ownDoing is how long after a change of the network here no relay is blamed.
	ownDoing = time.Minute
	// tellBurst changes of what others find out about this node are told at once, more
	// of them in each tellEvery together. A change of the network here is always told.
	tellBurst = 8
	tellEvery = 15 * time.Second
)

// ErrRelayLeft is the cause of a RelayTry when the relay took back what it had given.
var ErrRelayLeft = errors.New("the relay gave a reservation and ended it soon after")

// left is lost for a reservation that the other side ended: by going, or by relaying
// no more. Whoever does so again and again is asked less and less often.
func (r *relays) left(n *Net, p peer.ID) bool {
	now := time.Now()
	r.mu.Lock()
	if now.Sub(r.began) < ownDoing {
		clear(r.short) // it may be this node that went
	} else if v := r.have[p]; v != nil && now.Sub(v.since) >= heldLong {
		delete(r.short, p)
	} else if v != nil {
		wait := min(waitLost<<min(r.short[p], 16), waitRelayMax)
		r.note(&RelayTry{Peer: p, At: now, Again: now.Add(wait), Err: ErrRelayLeft}, now)
		if r.tried[p] != nil {
			r.short[p]++
		}
	}
	r.mu.Unlock()
	return r.lost(n, p)
}

// note keeps an attempt, unless too many others wait. The caller holds mu.
func (r *relays) note(t *RelayTry, now time.Time) {
	before := r.tried[t.Peer]
	if len(r.tried) >= maxTried && before == nil {
		maps.DeleteFunc(r.tried, func(_ peer.ID, t *RelayTry) bool { return !now.Before(t.Again) })
	}
	if len(r.tried) < maxTried || before != nil {
		r.tried[t.Peer] = t
	}
	if len(r.short) >= maxTried {
		maps.DeleteFunc(r.short, func(p peer.ID, _ int) bool { return r.tried[p] == nil && r.have[p] == nil })
	}
}

// pacer decides when the Handler is told. It belongs to one goroutine.
type pacer struct {
	network, state string // as told last
	bucket         bucket
}

// due reports whether the node is found elsewhere since the last time, where it may be
// told now: other sides can change what is known about this node as often as they like.
func (p *pacer) due(network, state string, now time.Time) bool {
	switch {
	case network != p.network:
		p.bucket = bucket{tokens: tellBurst, at: now}
	case state == p.state || !p.bucket.take(now, 1/tellEvery.Seconds(), tellBurst):
		return false
	}
	p.network, p.state = network, state
	return true
}
