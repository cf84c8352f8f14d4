package p2p

import (
	"context"
	"crypto/rand"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// How the routing table is kept filled.
const (
	// thinTable: with fewer servers than this, those of the book are dialled.
	thinTable = 8
	// joinAtOnce is how many of them at a time.
	joinAtOnce  = 3
	joinTimeout = 10 * time.Second
	// joinRetry is the first pause after an attempt that helped nothing; it doubles up
	// to joinRetryMax, or to the refresh below where the network is just small, with a
	// quarter of chance. A new network ends it.
	joinRetry    = 2 * time.Second
	joinRetryMax = 10 * time.Minute
	// smallRetry is the shortest pause where servers are known, and no more of them.
	smallRetry = time.Minute
	// How often the routing table is looked through. It costs some 10 walks, and those
	// who are asked as much, homes that serve among them: with the 10 minutes of kad-dht
	// 5.7 MB in the first hour of a network of 30, now 2.1. A table that is an hour old is
	// good enough for a walk that passes over the dead.
	serverRefresh = time.Hour
	homeRefresh   = 3 * time.Hour
	clientRefresh = 12 * time.Hour

	// silentAfter is how many attempts in a row have to help nothing before somebody else
	// than the address book is asked, as long as there is anybody in it left to try.
	silentAfter = 3

	sweepEvery = time.Minute
	storeSweep = time.Hour
)

// kick has the DHT look for servers at once: the network has changed, or somebody
// was named.
func (d *dht) kick() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// refreshEvery is how often the routing table is looked through.
func (d *dht) refreshEvery() time.Duration {
	switch d.net.cfg.Profile {
	case Server:
		return serverRefresh
	case Client:
		return clientRefresh
	}
	return homeRefresh
}

// run keeps the routing table filled and the book and the store tidy until ctx ends.
func (d *dht) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { d.tidy(ctx) })
	defer wg.Wait()
	pause, every := joinRetry, d.refreshEvery()
	refreshed, failed := time.Now(), 0
	// A client keeps no table; it must know whom to ask.
	known := d.size
	if d.net.cfg.Profile == Client {
		known = d.net.book.fresh
	}
	for ctx.Err() == nil {
		wait := every - time.Since(refreshed)
		if before := known(); before < thinTable || wait <= 0 {
			if d.join(ctx) {
				refreshed = time.Now()
			}
			d.learn()
			after, longest := known(), joinRetryMax
			failed++
			if after > 0 {
				failed = 0
			} else if n := d.net; n.cfg.Silent != nil && (failed >= silentAfter || n.book.silent()) && ctx.Err() == nil {
				n.cfg.Silent()
			}
			switch {
			case after == 0:
			case after > before:
				pause = joinRetry
			default: // a small network
				pause, longest = max(pause, smallRetry), every
			}
			wait = pause + chance(pause/4)
			pause = min(2*pause, longest)
		} else {
			pause = joinRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(wait, every)):
		case <-d.wake:
			pause = joinRetry
		}
	}
}

// Silent reports whether this node takes part in the DHT, no server of it is known that
// did not fail the last time, and none is in the routing table.
func (n *Net) Silent() bool {
	d := n.dht.Load()
	return d != nil && d.size() == 0 && n.book.silent()
}

// join dials some servers of the book, asks those that answer for others, and
// reports whether anybody answered.
func (d *dht) join(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*joinTimeout)
	defer cancel()
	// A client asks for anybody's neighbours, and is content with what it is told: a walk
	// over the whole network would cost it half a megabyte.
	client := d.net.cfg.Profile == Client
	target := d.net.self()
	if client {
		target = peer.ID(rand.Text())
	}
	var up atomic.Int32
	var wg sync.WaitGroup
	for _, info := range d.net.book.candidates(joinAtOnce, func(p peer.ID) bool { return p == d.net.self() || d.knows(p) }) {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, joinTimeout)
			defer cancel()
			d.host.touch(info.ID)
			if err := d.dial(ctx, info); err != nil {
				d.net.book.failed(info.ID)
				return
			}
			// Who does not serve the DHT helps nobody.
			closer, err := d.msg.GetClosestPeers(ctx, info.ID, target)
			if err != nil {
				d.net.book.failed(info.ID)
				return
			}
			d.net.book.worked(info.ID)
			up.Add(1)
			for _, c := range closer[:min(len(closer), 20)] {
				d.net.book.add(peer.AddrInfo{ID: c.ID, Addrs: d.dialable(c.Addrs)}, FromDHT)
			}
		})
	}
	wg.Wait()
	if up.Load() == 0 && d.size() == 0 || client {
		return up.Load() > 0
	}
	select {
	case <-d.kad.Load().RefreshRoutingTable():
	case <-ctx.Done():
	}
	return true
}

// dial connects the main host with a server.
func (d *dht) dial(ctx context.Context, info peer.AddrInfo) error {
	h := d.net.host(mainHost)
	if h == nil {
		return ErrClosed
	}
	if h.conn(info.ID) != nil {
		return nil
	}
	if d.net.theirs(info.ID) {
		return ErrAvoided
	}
	addrs := d.net.turned.sift(info.ID, info.Addrs)
	err := h.dial(ctx, info.ID, addrs)
	if c := h.conn(info.ID); err == nil && c != nil {
		d.net.tried.dialled(addrs, pathOf(c), time.Now())
	} else if err != nil {
		d.net.tried.failed(err, time.Now())
	}
	return err
}

// learn writes the routing table into the book.
func (d *dht) learn() {
	ps := d.host.Host.Peerstore()
	for _, p := range d.kad.Load().RoutingTable().ListPeers() {
		if addrs := d.dialable(ps.Addrs(p)); len(addrs) > 0 {
			d.net.book.add(peer.AddrInfo{ID: p, Addrs: addrs}, FromDHT)
			if d.host.Network().Connectedness(p) == network.Connected {
				d.net.book.worked(p)
			}
		}
	}
}

// tidy closes idle connections and forgets what is old.
func (d *dht) tidy(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	swept := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			d.learn()
			d.host.sweep(now)
			d.net.book.save(ctx, now, false)
			if now.Sub(swept) >= storeSweep {
				swept = now
				if err := d.store.expire(ctx); err != nil {
					d.net.log.Warn("old records stay", "err", err)
				}
			}
		}
	}
}
