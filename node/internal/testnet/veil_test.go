package testnet

import (
	"context"
	"errors"
	"slices"
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

// TestRecordsKeepAwayFromHome: a chosen server that sees this machine at its own address,
// or at one of a private network, is at the same place. It is asked for no record and
// given none, whatever is known of this machine's address, and that is no fault of it.
func TestRecordsKeepAwayFromHome(t *testing.T) {
	for _, tc := range []struct {
		name, own string
		other     error // with one more server that is elsewhere
	}{
		{"at one address", "/ip4/8.7.7.7/udp/4002/quic-v1", nil},
		{"behind one router", "/ip4/192.168.1.7/udp/4001/quic-v1", p2p.ErrRelayHere}, // as all see the private address here
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := New(t, 1, Options{Latency: 5 * time.Millisecond})
				n.HostAt(0, ma.StringCast("/ip4/8.7.7.7/udp/4001/quic-v1"))
				n.HostAt(1, ma.StringCast(tc.own))
				home, other := server(t, n, 0, p2p.Config{}), server(t, n, 2, p2p.Config{})
				a := start(t, n, 1, knowing(p2p.Config{Profile: p2p.Client}, home))
				time.Sleep(time.Minute)
				before := home.Stats(rv.ProxyID).Served
				point, record := newDevice(1).now(t, 1)
				if err := a.PublishRecordBy(t.Context(), known([]*up{home})(), point, record); !errors.Is(err, p2p.ErrRelayHere) {
					t.Errorf("published: %v", err)
				}
				each := func([]byte, time.Time) { t.Error("an answer") }
				if _, err := a.FindRecordBy(t.Context(), known([]*up{home})(), p2p.Point{ID: point}, each); !errors.Is(err, p2p.ErrRelayHere) {
					t.Errorf("looked up: %v", err)
				}
				for range 8 { // in either order
					if err := a.PublishRecordBy(t.Context(), known([]*up{home, other})(), point, record); !errors.Is(err, tc.other) {
						t.Errorf("published with another one: %v", err)
					}
				}
				if c := home.Stats(rv.ProxyID).Served - before; c > 0 {
					t.Errorf("the server at home was asked %d times", c)
				}
				if b := a.Book(); len(b) != 1 || b[0].Fails > 0 {
					t.Errorf("the book has %+v", b)
				}
			})
		})
	}
}

// TestElsewhere: a node at this machine's own address is none to hide behind, and as long
// as that is not known, none is.
func TestElsewhere(t *testing.T) {
	const (
		private = "/ip4/192.168.1.2/tcp/443"
		v4, v6  = "/ip4/8.1.1.1/tcp/443", "/ip6/2a00:1:2:3::1/tcp/443"
	)
	for _, tc := range []struct {
		name, own string
		known     bool
		nodes     [][]string
		here      int      // which is at this machine's place
		want      []string // addresses of those that are elsewhere
	}{
		{"IPv4", "/ip4/8.0.0.1/udp/4001/quic-v1", true, [][]string{
			{v4, "/ip4/8.0.0.1/tcp/443"}, {private}, {private, v4}, {v4 + "/p2p-circuit"}, {v6}, {v6, "/ip4/8.0.0.2/tcp/443"},
		}, 0, []string{v4, "/ip4/8.0.0.2/tcp/443"}},
		{"IPv6", "/ip6/2a00:9:9:1::1/udp/4001/quic-v1", true, [][]string{
			{v6}, {v4}, {"/ip6/2a00:9:9:2::1/tcp/443"}, {"/ip6/2a00:9:8:1::1/tcp/443"},
		}, 2, []string{v6, "/ip6/2a00:9:8:1::1/tcp/443"}},
		{"behind a router", "/ip4/192.168.1.7/udp/4001/quic-v1", false, [][]string{{v4}}, -1, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := New(t, 1, Options{})
				n.HostAt(0, ma.StringCast(tc.own))
				a := start(t, n, 0, p2p.Config{NoDHT: true})
				var nodes []peer.AddrInfo
				for i, addrs := range tc.nodes {
					node := peer.AddrInfo{ID: peer.ID(rune('a' + i))}
					for _, s := range addrs {
						node.Addrs = append(node.Addrs, ma.StringCast(s))
					}
					nodes = append(nodes, node)
				}
				var got []string
				out, left, known := a.Elsewhere(nodes)
				for i, node := range nodes {
					if err := left[node.ID]; known && errors.Is(err, p2p.ErrRelayHere) != (i == tc.here) {
						t.Errorf("%v: %v", node.Addrs, err)
					}
				}
				for _, node := range out {
					for _, at := range node.Addrs {
						got = append(got, at.String())
					}
				}
				if known != tc.known || !slices.Equal(got, tc.want) {
					t.Errorf("%v, %v", got, known)
				}
			})
		})
	}
}

// TestVeilKeepsAwayFromHome: a relay that sees a veiled Net at its own address, or at one
// of a private network, is at the same place. It is not used, whatever is known of this
// machine's address, and nobody is told of it.
func TestVeilKeepsAwayFromHome(t *testing.T) {
	for name, own := range map[string]string{"at one address": "/ip4/8.7.7.7/udp/4002/quic-v1", "behind one router": "/ip4/192.168.1.7/udp/4001/quic-v1"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := New(t, 1, Options{Latency: 5 * time.Millisecond})
				n.HostAt(0, ma.StringCast("/ip4/8.7.7.7/udp/4001/quic-v1"))
				n.HostAt(1, ma.StringCast(own))
				home := server(t, n, 0, p2p.Config{})
				b, wb := walled(t, n, 3, p2p.Config{}, home)
				wb.until(t, b, "a relay", time.Minute, hasRelay)
				a := start(t, n, 1, p2p.Config{Veiled: true, Relays: known([]*up{home})})
				time.Sleep(time.Minute)
				if addrs := a.Addrs(); len(addrs) > 0 {
					t.Errorf("it is found at %v", addrs)
				}
				if tries := a.RelayTries(); len(tries) != 1 || !errors.Is(tries[0].Err, p2p.ErrRelayHere) {
					t.Errorf("tried %+v", tries)
				}
				if _, err := a.Dial(t.Context(), b.id, b.Addrs()); !errors.Is(err, p2p.ErrNoAddress) {
					t.Errorf("dialled over it: %v", err)
				}
			})
		})
	}
}
