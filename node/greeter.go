package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sync/errgroup"

	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/wire"
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
	// failedEvery is when one is tried again at an address where they were not: anybody can
	// announce anybody at an address of their own.
	failedEvery = 30 * time.Second
)

var (
	errStranger = errors.New("no contact")
	errOther    = errors.New("found at another address")
)

// greeter chooses whom of those found on the LAN to say hello to. Anybody there can
// announce neighbours who do not answer, and must not keep the others waiting.
type greeter struct {
	waiting   []peer.AddrInfo         // the newest last
	busy      map[string]bool         // addresses at which somebody is greeted
	strangers map[peer.ID]time.Time   // when they were
	failed    map[announced]time.Time // when there was no hello
}

// announced is who is said to be where. That they are not there says nothing of others
// who say so, nor of them elsewhere.
type announced struct {
	id peer.ID
	at string
}

func announcedAs(info peer.AddrInfo) announced { return announced{info.ID, addressOf(info)} }

func newGreeter() *greeter {
	return &greeter{busy: map[string]bool{}, strangers: map[peer.ID]time.Time{}, failed: map[announced]time.Time{}}
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
	maps.DeleteFunc(g.failed, func(_ announced, at time.Time) bool { return now.Sub(at) >= failedEvery })
	if _, asked := g.strangers[info.ID]; asked || len(info.Addrs) == 0 {
		return
	}
	if _, tried := g.failed[announcedAs(info)]; tried {
		return
	}
	g.waiting = slices.DeleteFunc(g.waiting, func(w peer.AddrInfo) bool { return announcedAs(w) == announcedAs(info) })
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
func (g *greeter) greeted(info peer.AddrInfo, err error, now time.Time) {
	delete(g.busy, addressOf(info))
	switch {
	case errors.Is(err, errStranger):
		remember(g.strangers, info.ID, now)
	case err != nil:
		remember(g.failed, announcedAs(info), now)
	}
}

// remember notes k in place of the oldest where there are strangersMax.
func remember[K comparable](table map[K]time.Time, k K, now time.Time) {
	if len(table) >= strangersMax {
		first := k
		for other, at := range table {
			if first == k || at.Before(table[first]) {
				first = other
			}
		}
		delete(table, first)
	}
	table[k] = now
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
			g.greeted(a.info, a.err, time.Now())
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

// greet asks one neighbour who it is. A contact's device is known by its tag;
// from then on its LAN host is one of the ways to it, and the first to be used. Who is
// announced at several addresses at once is said hello where they are, and by the limits of
// the protocol once at a time.
func (e *edge) greet(ctx context.Context, info peer.AddrInfo) (*link, error) {
	pairs, err := e.n.pairs(ctx)
	if err != nil {
		return nil, err
	}
	if len(pairs) == 0 {
		return nil, errStranger
	}
	ctx, cancel := context.WithTimeout(ctx, greetTime)
	defer cancel()
	if _, err := e.n.net.DialLAN(ctx, info.ID, info.Addrs); err != nil {
		return nil, err
	}
	if !e.n.net.ConnectedAt(info.ID, info.Addrs) {
		return nil, errOther
	}
	s, err := e.n.net.NewStream(ctx, info.ID, wire.Hello)
	if err != nil {
		return nil, err
	}
	channel, err := contact.StreamChannel(s)
	if err != nil {
		return nil, errors.Join(err, s.Reset())
	}
	g, err := contact.SayHello(ctx, s, contact.NewHelloDialer(contact.About{}, channel, pairs, e.n.cfg.Random))
	if err == nil && !g.Known {
		err = errStranger
	}
	if err != nil {
		e.n.net.ClosePeer(info.ID)
		return nil, err
	}
	e.hand(change{apply: func(l *loop, tx *store.Tx) error { return l.neighbour(tx, g.Device, info) }, reply: func(error) {}})
	k, err := e.open(ctx, e.n.net, info.ID, info.Addrs)
	if err == nil {
		k.device, k.known = g.Device, true
	}
	return k, err
}
