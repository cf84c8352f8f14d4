package node

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sync/errgroup"
)

const (
	strangerEvery = 10 * time.Minute
	strangersMax  = 1024 // remembered, the newest
	// greetTime bounds a dial on the LAN and a hello there, and greetsAtOnce how many of
	// them there are, each at another address.
	greetTime    = 5 * time.Second
	greetsAtOnce = 8
	// waitingAt is how many neighbours at one address wait, the newest.
	waitingAt = 4
)

// greeter chooses whom of those found on the LAN to say hello to. Anybody there can
// announce neighbours who do not answer, and must not keep the others waiting.
type greeter struct {
	waiting   []peer.AddrInfo       // the newest last
	busy      map[string]bool       // addresses at which somebody is greeted
	strangers map[peer.ID]time.Time // when they were
}

func newGreeter() *greeter {
	return &greeter{busy: map[string]bool{}, strangers: map[peer.ID]time.Time{}}
}

// addressOf is where a neighbour is: one announcement names one machine.
func addressOf(info peer.AddrInfo) string {
	ip, err := manet.ToIP(info.Addrs[0])
	if err != nil {
		return ""
	}
	return ip.String()
}

// found notes a neighbour. A stranger is asked again after strangerEvery at the
// earliest: they may have become a contact.
func (g *greeter) found(info peer.AddrInfo, now time.Time) {
	maps.DeleteFunc(g.strangers, func(_ peer.ID, at time.Time) bool { return now.Sub(at) >= strangerEvery })
	if _, asked := g.strangers[info.ID]; asked || len(info.Addrs) == 0 {
		return
	}
	g.waiting = slices.DeleteFunc(g.waiting, func(w peer.AddrInfo) bool { return w.ID == info.ID })
	at, same, oldest := addressOf(info), 0, -1
	for i, w := range slices.Backward(g.waiting) {
		if addressOf(w) == at {
			same, oldest = same+1, i
		}
	}
	switch {
	case same >= waitingAt:
		g.waiting = slices.Delete(g.waiting, oldest, oldest+1)
	case len(g.waiting) >= neighboursWaiting:
		g.waiting = g.waiting[1:]
	}
	g.waiting = append(g.waiting, info)
}

// next takes the newest at an address where nobody is greeted yet.
func (g *greeter) next() (peer.AddrInfo, bool) {
	if len(g.busy) >= greetsAtOnce {
		return peer.AddrInfo{}, false
	}
	for i, w := range slices.Backward(g.waiting) {
		if !g.busy[addressOf(w)] {
			g.waiting = slices.Delete(g.waiting, i, i+1)
			g.busy[addressOf(w)] = true
			return w, true
		}
	}
	return peer.AddrInfo{}, false
}

// greeted notes how it went.
func (g *greeter) greeted(info peer.AddrInfo, stranger bool, now time.Time) {
	delete(g.busy, addressOf(info))
	if !stranger {
		return
	}
	if len(g.strangers) >= strangersMax {
		first := info.ID
		for p, at := range g.strangers {
			if first == info.ID || at.Before(g.strangers[first]) {
				first = p
			}
		}
		delete(g.strangers, first)
	}
	g.strangers[info.ID] = now
}

// neighbours says hello to those found until ctx ends, and runs the links with those
// who are contacts.
func (e *edge) neighbours(ctx context.Context) error {
	type answer struct {
		info peer.AddrInfo
		err  error
	}
	var links errgroup.Group
	g, answers := newGreeter(), make(chan answer, greetsAtOnce)
	for {
		select {
		case info := <-e.found:
			if _, known := e.n.net.Connected(info.ID); !known {
				g.found(info, time.Now())
			}
		case a := <-answers:
			if a.err != nil {
				e.n.cfg.Log.Debug("a neighbour is no contact, or did not answer", "peer", a.info.ID.ShortString(), "error", a.err)
			}
			g.greeted(a.info, a.err != nil, time.Now())
		case <-ctx.Done():
			return links.Wait()
		}
		for info, ok := g.next(); ok; info, ok = g.next() {
			links.Go(func() error {
				k, err := e.greet(ctx, info)
				answers <- answer{info, err} // there is room for all who are greeted
				if err == nil {
					e.run(ctx, k)
				}
				return nil
			})
		}
	}
}
