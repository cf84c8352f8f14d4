package p2p

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// skewNoise is up to where a clock counts as right: nothing rests on less.
	skewNoise = 5 * time.Minute
	// skewServers is how many servers' clocks are remembered, and skewFor how long.
	skewServers = 16
	skewFor     = 24 * time.Hour
)

// said is what one server said of the time.
type said struct {
	server peer.ID
	offset time.Duration
	at     time.Time // by this machine's timer
}

// saysTime notes what a server said of the time, which is now by the own clock.
func (p *proxies) saysTime(id peer.ID, at, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clocks = slices.DeleteFunc(p.clocks, func(s said) bool { return s.server == id || time.Since(s.at) > skewFor })
	p.clocks = append(p.clocks, said{server: id, offset: at.Sub(now), at: time.Now()})
	if len(p.clocks) > skewServers {
		p.clocks = p.clocks[1:]
	}
}

// Skew is what has to be added to this machine's clock, by what the servers say that
// looked something up for this node lately: the middle of them, 0 while that is less
// than five minutes or nobody has said anything. Each of them can lie.
func (n *Net) Skew() time.Duration {
	n.proxies.mu.Lock()
	defer n.proxies.mu.Unlock()
	var all []time.Duration
	for _, s := range n.proxies.clocks {
		if time.Since(s.at) <= skewFor {
			all = append(all, s.offset)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	if middle := all[(len(all)-1)/2]; middle.Abs() >= skewNoise {
		return middle
	}
	return 0
}

// Clocks is how many servers have said lately what time it is.
func (n *Net) Clocks() (said int) {
	n.proxies.mu.Lock()
	defer n.proxies.mu.Unlock()
	for _, s := range n.proxies.clocks {
		if time.Since(s.at) <= skewFor {
			said++
		}
	}
	return said
}
