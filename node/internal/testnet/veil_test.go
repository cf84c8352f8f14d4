package testnet

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/protocol/rv"
)

// TestVeilDialsItsOwnRelaysOnly: whatever somebody says of where they are, a veiled Net
// sends packets to no machine but its relays', and ends with those that it may not use
// any more.
func TestVeilDialsItsOwnRelaysOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const relays, evils, own, others = 0, 1, 2, 3
		n := New(t, 1, Options{Latency: 5 * time.Millisecond})
		relay, evil := server(t, n, relays, p2p.Config{}), server(t, n, evils, p2p.Config{})
		var may atomic.Pointer[[]peer.AddrInfo]
		list := known([]*up{relay})()
		may.Store(&list)
		w := newFollower()
		a := start(t, n, own, p2p.Config{Veiled: true, Handler: w, Relays: func() []peer.AddrInfo { return append([]peer.AddrInfo(nil), *may.Load()...) }})
		b, wb := walled(t, n, others, p2p.Config{}, relay, evil)
		w.until(t, a, "relay", time.Minute, hasRelay)
		wb.until(t, b, "relays", time.Minute, func(r p2p.Reachability) bool { return len(r.Relays) == 2 })

		over := func(at ma.Multiaddr, relay *up) ma.Multiaddr {
			return at.Encapsulate(ma.StringCast("/p2p/" + relay.id.String() + "/p2p-circuit"))
		}
		for _, tc := range []struct {
			name  string
			addrs []ma.Multiaddr
			want  error
		}{
			{"no way", nil, p2p.ErrNoAddress},
			{"a direct one", []ma.Multiaddr{b.addr}, p2p.ErrNoAddress},
			{"over another relay", []ma.Multiaddr{over(evil.addr, evil)}, p2p.ErrNoAddress},
			{"over another relay at ours", []ma.Multiaddr{over(relay.addr, evil)}, p2p.ErrNoAddress},
			{"over ours at another's address", []ma.Multiaddr{over(evil.addr, relay)}, nil},
			{"all of them", []ma.Multiaddr{b.addr, over(evil.addr, evil), over(evil.addr, relay)}, nil},
		} {
			path, err := a.Dial(t.Context(), b.id, tc.addrs)
			if !errors.Is(err, tc.want) || err == nil && (path.Route != p2p.Relayed || path.Relay != relay.id) {
				t.Errorf("%s: %+v, %v, want %v", tc.name, path, err, tc.want)
			}
			a.ClosePeer(b.id)
		}
		if _, err := a.Dial(t.Context(), evil.id, []ma.Multiaddr{evil.addr}); !errors.Is(err, p2p.ErrNoAddress) {
			t.Errorf("dialled another relay: %v", err)
		}
		for _, m := range []int{evils, others} {
			if c := n.Traffic(own, m); c.Packets > 0 {
				t.Errorf("%d packets went to machine %d", c.Packets, m)
			}
		}
		if addrs := a.Addrs(); len(addrs) != 1 || !addrs[0].Equal(over(relay.addr, relay)) {
			t.Errorf("it is found at %v", addrs)
		}
		time.Sleep(5 * time.Second)
		if _, err := b.Dial(t.Context(), a.id, a.Addrs()); err != nil {
			t.Errorf("not reached over its relay: %v", err)
		}

		list = nil
		may.Store(&list)
		a.FindRelays()
		w.until(t, a, "no relay", time.Second, func(r p2p.Reachability) bool { return !hasRelay(r) })
		if peers := a.Peers(); len(peers) > 0 {
			t.Errorf("still connected with %+v", peers)
		}
	})
}

// TestAskedByChosenServersOnly: what is looked up or published through chosen servers
// goes to no other, not where these fail, and not to this node's own part of the table.
func TestAskedByChosenServersOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{Latency: 5 * time.Millisecond})
		all := servers(t, n, 2)
		one, other := all[0], all[1]
		a := server(t, n, 2, knowing(p2p.Config{}, all...))
		time.Sleep(time.Minute)
		point, record := newDevice(1).now(t, 1)
		before := other.Stats(rv.ProxyID).Served
		if err := a.PublishRecordBy(t.Context(), known([]*up{one})(), point, record); err != nil {
			t.Error(err)
		}
		found := 0
		if _, err := a.FindRecordBy(t.Context(), known([]*up{one})(), p2p.Point{ID: point}, func(r []byte, _ time.Time) { found += len(r) }); err != nil || found == 0 {
			t.Errorf("found %d bytes, %v", found, err)
		}
		one.stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := a.FindRecordBy(ctx, known([]*up{one})(), p2p.Point{ID: point}, func([]byte, time.Time) { t.Error("an answer") }); err == nil {
			t.Error("asked somebody")
		}
		if err := a.PublishRecordBy(ctx, nil, point, record); !errors.Is(err, p2p.ErrNoProxy) {
			t.Errorf("published by nobody: %v", err)
		}
		if c := other.Stats(rv.ProxyID).Served - before; c > 0 {
			t.Errorf("the other server was asked %d times", c)
		}
	})
}

// TestElsewhere: a node at this machine's own address is none to hide behind.
func TestElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		a := start(t, n, 0, p2p.Config{NoDHT: true})
		here, there, private := ma.StringCast("/ip4/8.0.0.1/tcp/443"), ma.StringCast("/ip4/8.0.1.1/tcp/443"), ma.StringCast("/ip4/192.168.1.2/tcp/443")
		got, known := a.Elsewhere([]peer.AddrInfo{
			{ID: "neighbour", Addrs: []ma.Multiaddr{there, here}},
			{ID: "lan", Addrs: []ma.Multiaddr{private}},
			{ID: "far", Addrs: []ma.Multiaddr{private, there}},
			{ID: "relayed", Addrs: []ma.Multiaddr{there.Encapsulate(ma.StringCast("/p2p-circuit"))}},
		})
		if !known || len(got) != 1 || got[0].ID != "far" || len(got[0].Addrs) != 1 || !got[0].Addrs[0].Equal(there) {
			t.Errorf("%v, %v", got, known)
		}
	})
}
