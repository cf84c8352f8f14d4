package p2p

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// triedFor is how long a connection shows something of the network here: firewalls and
// routers are changed, and not only left.
const triedFor = 3 * time.Hour

// Tried is what the connections of the last hours in this network show of it.
type Tried struct {
	UDP     int    // connections with others outside over QUIC
	TCP     int    // and over TCP,
	Skipped int    // to whom QUIC was tried at the same time, and lost
	Strange int    // dials at which something else than a node answered
	LAN     string // why neighbours cannot be found, or nothing
	Found   int    // neighbours now, the newest maxNeighbours of them
	Answers int    // to look-ups, those of this node for others included
	// False are those of them that nobody had signed. One that is true and older than
	// another is not among them: the newest reaches not every server. Nor is one of
	// another time, as it is this machine's clock that may be wrong.
	False int
}

// tried counts, in two parts of triedFor/2: what is older than both is dropped. Its lock
// guards the fields.
type tried struct {
	mu     sync.Mutex
	seen   Tried     // in this part; LAN is as of now
	before Tried     // in the one before, without LAN
	since  time.Time // the begin of this part
}

// turn begins another part where that is due. The caller holds mu.
func (t *tried) turn(now time.Time) {
	if gone := now.Sub(t.since); gone >= triedFor {
		t.part(now)
		t.part(now)
	} else if gone >= triedFor/2 {
		t.part(now)
	}
}

func (t *tried) part(now time.Time) {
	lan := t.seen.LAN
	t.seen.LAN = ""
	t.before, t.seen, t.since = t.seen, Tried{LAN: lan}, now
}

// forget drops what was seen of another network.
func (t *tried) forget(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.part(now)
	t.part(now)
}

// dialled notes which of the addresses of somebody answered.
func (t *tried) dialled(addrs []ma.Multiaddr, path Path, now time.Time) {
	if path.Route != Direct {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turn(now)
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
func (t *tried) failed(err error, now time.Time) {
	de, ok := errors.AsType[*swarm.DialError](err)
	if !ok || !slices.ContainsFunc(de.DialErrors, func(e swarm.TransportError) bool { return isStrange(e.Cause) }) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turn(now)
	t.seen.Strange++
}

// answered notes whether an answer to a look-up was true.
func (t *tried) answered(ok bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turn(now)
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

// Tried tells what the connections of the last hours in this network show.
func (n *Net) Tried() Tried {
	out := n.tried.now(time.Now())
	for _, p := range n.Peers() {
		if p.Route == Direct && p.Transport == "quic" {
			out.UDP++ // those who dialled this node count too
		}
	}
	out.Found = n.neighbours.count(time.Now())
	return out
}

func (t *tried) now(now time.Time) Tried {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turn(now)
	out := t.seen
	out.UDP, out.TCP, out.Skipped = out.UDP+t.before.UDP, out.TCP+t.before.TCP, out.Skipped+t.before.Skipped
	out.Strange, out.Answers, out.False = out.Strange+t.before.Strange, out.Answers+t.before.Answers, out.False+t.before.False
	return out
}
