package p2p

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// Tried is what the connections since the start show of the network here.
type Tried struct {
	UDP     int    // connections with others outside over QUIC
	TCP     int    // and over TCP,
	Skipped int    // to whom QUIC was tried at the same time, and lost
	Strange int    // dials at which something else than a node answered
	LAN     string // why neighbours cannot be found, or nothing
	Found   int    // neighbours now, the newest maxNeighbours of them
	Answers int    // to look-ups, those of this node for others included
	// False are those of them that nobody had signed, or of another time. One that is
	// true and older than another is not among them: the newest reaches not every server.
	False int
}

// tried counts. Its lock guards the fields.
type tried struct {
	mu   sync.Mutex
	seen Tried
}

// dialled notes which of the addresses of somebody answered.
func (t *tried) dialled(addrs []ma.Multiaddr, path Path) {
	if path.Route != Direct {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if path.Transport == "quic" {
		t.seen.UDP++
		return
	}
	t.seen.TCP++
	if slices.ContainsFunc(addrs, func(a ma.Multiaddr) bool { _, transport := transportOf(a); return transport == "quic" && !isLocal(a) }) {
		t.seen.Skipped++
	}
}

// failed notes what a dial failed of.
func (t *tried) failed(err error) {
	de, ok := errors.AsType[*swarm.DialError](err)
	if !ok || !slices.ContainsFunc(de.DialErrors, func(e swarm.TransportError) bool { return isStrange(e.Cause) }) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen.Strange++
}

// answered notes whether an answer to a look-up was true.
func (t *tried) answered(ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen.Answers++
	if !ok {
		t.seen.False++
	}
}

// lan notes how the search for neighbours goes.
func (t *tried) lan(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen.LAN = ""
	if err != nil {
		t.seen.LAN = err.Error()
	}
}

// Tried tells what the connections since the start show.
func (n *Net) Tried() Tried {
	n.tried.mu.Lock()
	out := n.tried.seen
	n.tried.mu.Unlock()
	for _, p := range n.Peers() {
		if p.Route == Direct && p.Transport == "quic" {
			out.UDP++ // those who dialled this node count too
		}
	}
	out.Found = n.neighbours.count(time.Now())
	return out
}
