package p2p

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// FindRelays asks all relays again at once, those that refused included, and gives up
// what is held where the relay does not confirm it within a few seconds: after a sleep,
// or when Config.Relays has something new. The Net does it by itself when its
// addresses change.
func (n *Net) FindRelays() {
	n.relays.mu.Lock()
	clear(n.relays.tried)
	clear(n.relays.short)
	n.relays.doubt, n.relays.began = true, time.Now()
	n.relays.mu.Unlock()
	n.relays.signal()
}

// DoubtRelay has one relay confirm within a few seconds that this node is reached over
// it, or gives it up: where somebody who came over it, or was called over it, does not
// answer. They may as well be silent on purpose, so no other relay is asked, and this one
// not more often than each minute.
func (n *Net) DoubtRelay(p peer.ID) {
	n.relays.mu.Lock()
	v, now := n.relays.have[p], time.Now()
	again := v != nil && now.Sub(v.doubted) >= doubtEvery
	if again {
		v.doubt, v.doubted = true, now
	}
	n.relays.mu.Unlock()
	if again {
		n.relays.signal()
	}
}

// renewRelays renews what is due. A node that is proven public lets its reservations
// run out instead: what it told contacts stays true as long.
func (n *Net) renewRelays(ctx context.Context, h *p2pHost, now time.Time) {
	n.relays.mu.Lock()
	all := n.relays.doubt
	n.relays.doubt = false
	var due, doubted []*reservation
	for _, v := range n.relays.have {
		switch {
		case all || v.doubt:
			doubted = append(doubted, v)
		case !now.Before(v.renew):
			due = append(due, v)
		}
		v.doubt = false
	}
	n.relays.mu.Unlock()
	if n.proven() {
		for _, v := range append(due, doubted...) {
			if !now.Before(v.Until) {
				n.relays.lost(n, v.Peer)
				n.events.signal()
			}
		}
		return
	}
	var wg sync.WaitGroup
	for _, v := range due {
		wg.Go(func() { n.askRelay(ctx, h, peer.AddrInfo{ID: v.Peer}) })
	}
	for _, v := range doubted {
		wg.Go(func() { n.confirmRelay(ctx, v.Peer) })
	}
	wg.Wait()
}

// confirmRelay has a relay give a new term at once, or gives it up.
func (n *Net) confirmRelay(ctx context.Context, p peer.ID) {
	quick, cancel := context.WithTimeout(ctx, confirmTime)
	defer cancel()
	if got, err := n.reserve(quick, peer.AddrInfo{ID: p}); err == nil {
		n.relays.confirm(got)
	} else if ctx.Err() == nil && n.relays.lost(n, p) {
		n.ClosePeer(p) // the next one is dialled from where we are now
		n.events.signal()
	}
}

// confirm notes a new term, unless the reservation is lost meanwhile.
func (r *relays) confirm(v *reservation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if before := r.have[v.Peer]; before != nil {
		v.follows(before)
		r.have[v.Peer] = v
	}
}
