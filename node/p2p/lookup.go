package p2p

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"

	"github.com/kinloom/kinloom/protocol/rv"
)

// How a server walks through the DHT for others. kad-dht's own walk ends at the 20
// servers nearest to a key, and believes the first of them.
const (
	// walkWidth is how many of the nearest servers keep a record and are asked for
	// it. With 20, somebody who puts 20 servers next to a key has all of them.
	walkWidth = 40
	// walkAtOnce is how many are asked at a time.
	walkAtOnce = 10
	// walkPatience is when a server that was asked makes room for another, and
	// walkTimeout when its answer is no longer waited for.
	walkPatience = time.Second
	walkTimeout  = 4 * time.Second
	// walkMax bounds the servers that a walk hears of, walkGroup those of one /24 or
	// /48 that it asks, walkFailed those named by one server that did not answer:
	// more of its servers are asked last.
	walkMax    = 512
	walkGroup  = 3
	walkFailed = 3
	// putWalk and getWalk bound a walk; a proxy's dialler waits a bit longer.
	putWalk = 8 * time.Second
	getWalk = 12 * time.Second
	// quorum is how many servers, each of another /24 or /48, must agree on the best
	// record before the walk ends early. By then quorumAsked have answered, or twice as
	// many if one of them had another record; and those that were asked have quorumWait
	// more to bring a better one.
	quorum      = 3
	quorumAsked = 10
	quorumWait  = 250 * time.Millisecond
)

// errNotStored is the error of a put that reached nobody.
var errNotStored = errors.New("no server took the record")

// hop is a server that a walk has heard of.
type hop struct {
	id    peer.ID
	far   [32]byte
	from  peer.ID // who named it; empty: the routing table
	state hopState
}

type hopState uint8

const (
	hopHeard hopState = iota
	hopAsked
	hopSlow // asked, and made room for another
	hopAnswered
	hopFailed
)

// answer is what one server said.
type answer struct {
	hop    *hop
	record []byte
	closer []*peer.AddrInfo
	err    error
}

// walk is one walk towards a point. One goroutine owns it.
type walk struct {
	d      *dht
	point  rv.Point
	target [32]byte
	hops   []*hop // by distance
	known  map[peer.ID]*hop
	bad    map[peer.ID]int // servers named by that did not answer
	votes  map[string]map[any]bool
	best   []byte
	turn   bool // whose turn it was in next
}

func (d *dht) newWalk(point rv.Point) *walk {
	w := &walk{
		d: d, point: point, target: sha256.Sum256([]byte(rv.DHTKey(point))),
		known: make(map[peer.ID]*hop), bad: make(map[peer.ID]int), votes: make(map[string]map[any]bool),
	}
	for _, p := range d.kad.Load().RoutingTable().NearestPeers(w.target[:], walkWidth) {
		w.hear(p, "")
	}
	return w
}

func (w *walk) hear(p, from peer.ID) {
	if w.known[p] != nil || len(w.hops) >= walkMax || p == w.d.net.self() || !isEd25519(p) {
		return
	}
	h := &hop{id: p, far: distance(w.target, sha256.Sum256([]byte(p))), from: from}
	i, _ := slices.BinarySearchFunc(w.hops, h, func(a, b *hop) int { return bytes.Compare(a.far[:], b.far[:]) })
	w.hops = slices.Insert(w.hops, i, h)
	w.known[p] = h
}

// group is what servers of one owner probably share: their /24 or /48. In a private
// network everybody does, so there each stands for itself.
func (d *dht) group(p peer.ID) any {
	if d.net.book.private() {
		return p
	}
	if c := d.host.Network().ConnsToPeer(p); len(c) > 0 {
		if prefix, ok := subnetOf(c[0].RemoteMultiaddr()); ok {
			return prefix
		}
	}
	for _, a := range d.host.Host.Peerstore().Addrs(p) {
		if prefix, ok := subnetOf(a); ok {
			return prefix
		}
	}
	return p
}

// next returns whom to ask, nil if nobody is left or the nearest walkWidth have
// answered. It is the nearest and one of the nearest walkWidth in turn: those who
// crowd around a point are asked, but not before all others.
func (w *walk) next() *hop {
	groups := make(map[any]int)
	var near, last []*hop
	done := 0
	for _, h := range w.hops {
		if h.state == hopFailed {
			continue
		}
		g := w.d.group(h.id)
		if _, ok := g.(netip.Prefix); ok && groups[g] >= walkGroup {
			continue
		}
		groups[g]++
		switch {
		case h.state == hopAnswered || h.state == hopAsked:
			done++
		case h.state == hopHeard && h.from != "" && w.bad[h.from] >= walkFailed:
			last = append(last, h)
		case h.state == hopHeard:
			near = append(near, h)
		}
		if done+len(near) >= walkWidth {
			break
		}
	}
	if len(near) == 0 && done < walkWidth {
		near = last
	}
	if len(near) == 0 {
		return nil
	}
	w.turn = !w.turn
	if w.turn {
		return near[0]
	}
	return near[chance(len(near))]
}

// run asks until nobody is left, ctx ends, or the best record has its quorum.
func (w *walk) run(ctx context.Context, early bool) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	answers := make(chan answer)
	late := make(chan *hop)
	busy, out := 0, 0
	var settled <-chan time.Time
	for {
		for busy < walkAtOnce {
			h := w.next()
			if h == nil {
				break
			}
			h.state = hopAsked
			busy++
			out++
			wg.Go(func() {
				patience := time.AfterFunc(walkPatience, func() {
					select {
					case late <- h:
					case <-ctx.Done():
					}
				})
				defer patience.Stop()
				select {
				case answers <- w.d.ask(ctx, h, w.point):
				case <-ctx.Done():
				}
			})
		}
		if out == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-settled:
			return
		case h := <-late:
			if h.state == hopAsked {
				h.state = hopSlow
				busy--
			}
		case a := <-answers:
			out--
			if a.hop.state == hopAsked {
				busy--
			}
			w.take(a)
			if early && settled == nil && w.agreed() {
				settled = time.After(quorumWait)
			}
		}
	}
}

// agreed reports whether the best record has its quorum.
func (w *walk) agreed() bool {
	if w.best == nil || len(w.votes[string(w.best)]) < quorum {
		return false
	}
	answers := 0
	for _, h := range w.hops {
		answers += b2i(h.state == hopAnswered)
	}
	return answers >= quorumAsked*min(len(w.votes), 2)
}

// take notes an answer.
func (w *walk) take(a answer) {
	if a.err == nil && a.record != nil {
		_, a.err = rv.Validate(w.d.net.cfg.Now(), w.point, a.record)
		lie := a.err
		if errors.Is(lie, rv.ErrNotAfter) { // or this machine's clock is wrong
			_, lie = rv.Verify(w.point, a.record)
		}
		w.d.net.tried.answered(lie == nil, time.Now())
	}
	if a.err != nil {
		a.hop.state = hopFailed
		if a.hop.from != "" {
			w.bad[a.hop.from]++
		}
		return
	}
	a.hop.state = hopAnswered
	w.vote(a.hop.id, a.record)
	for _, info := range a.closer[:min(len(a.closer), 20)] {
		addrs := w.d.dialable(info.Addrs)
		if len(addrs) == 0 || info.ID == w.d.net.self() {
			continue
		}
		if w.d.host.Network().Connectedness(info.ID) != network.Connected {
			w.d.host.Host.Peerstore().AddAddrs(info.ID, addrs, peerstore.TempAddrTTL)
		}
		w.hear(info.ID, a.hop.id)
	}
}

// vote counts a valid record.
func (w *walk) vote(p peer.ID, record []byte) {
	if record == nil {
		return
	}
	if w.votes[string(record)] == nil {
		w.votes[string(record)] = make(map[any]bool)
	}
	w.votes[string(record)][w.d.group(p)] = true
	if w.best == nil || rv.Select([][]byte{w.best, record}) == 1 {
		w.best = record
	}
}

// ask sends one request.
func (d *dht) ask(ctx context.Context, h *hop, point rv.Point) answer {
	ctx, cancel := context.WithTimeout(ctx, walkTimeout)
	defer cancel()
	if err := d.host.Connect(ctx, peer.AddrInfo{ID: h.id}); err != nil {
		return answer{hop: h, err: err}
	}
	env, closer, err := d.msg.GetValue(ctx, h.id, rv.DHTKey(point))
	return answer{hop: h, record: env.GetValue(), closer: closer, err: err}
}

// getRecord searches for the best record of a point; nil: there is none.
func (d *dht) getRecord(ctx context.Context, point rv.Point) []byte {
	ctx, cancel := context.WithTimeout(ctx, getWalk)
	defer cancel()
	w := d.newWalk(point)
	if mine := d.store.record(ctx, point); mine != nil {
		if _, err := rv.Validate(d.net.cfg.Now(), point, mine); err == nil {
			w.vote(d.net.self(), mine)
		}
	}
	w.run(ctx, true)
	return w.best
}

// putRecord brings a record to the servers that are nearest to its point. This one is
// among them if it serves and is as near as they are: there it counts for its source.
// Error: errNotStored.
func (d *dht) putRecord(ctx context.Context, point rv.Point, value []byte, from source) error {
	if _, err := rv.Validate(d.net.cfg.Now(), point, value); err != nil {
		return err
	}
	w := d.newWalk(point)
	walkCtx, cancel := context.WithTimeout(ctx, putWalk)
	w.run(walkCtx, false)
	cancel()
	var near []*hop
	for _, h := range w.hops {
		if h.state == hopAnswered && len(near) < walkWidth {
			near = append(near, h)
		}
	}
	stored := 0
	mine := distance(w.target, sha256.Sum256([]byte(d.net.self())))
	if d.serving.Load() && (len(near) < walkWidth || bytes.Compare(mine[:], near[len(near)-1].far[:]) < 0) {
		if err := d.store.add(ctx, point, value, from); err != nil {
			d.net.log.Warn("record not stored here", "err", err)
		} else {
			stored++
		}
	}
	var mu sync.Mutex // guards stored
	var wg sync.WaitGroup
	for _, h := range near {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, walkTimeout)
			defer cancel()
			if err := d.msg.PutValue(ctx, h.id, record.MakePutRecord(rv.DHTKey(point), value)); err == nil {
				mu.Lock()
				defer mu.Unlock()
				stored++
			}
		})
	}
	wg.Wait()
	if stored == 0 {
		return fmt.Errorf("%w of %d asked", errNotStored, len(near))
	}
	return nil
}
