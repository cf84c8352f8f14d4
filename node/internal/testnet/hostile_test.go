package testnet

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/p2p"
)

// raw is a hostile machine: libp2p with nothing of ours in it and no scruples.
func raw(t testing.TB, h *Host, more ...libp2p.Option) host.Host {
	t.Helper()
	opts := append(h.Options(),
		libp2p.ListenAddrs(h.Addr),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.DisableMetrics(),
		libp2p.DisableRelay(),
		libp2p.UDPBlackHoleSuccessCounter(nil),
		libp2p.ResourceManager(&network.NullResourceManager{}))
	out, err := libp2p.New(append(opts, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	return out
}

// TestTenThousandConnectionsOfOne24 covers threats.md H9: 10,000 connection attempts from one
// /24. The subnet gets its share and no more, others are served all the while.
func TestTenThousandConnectionsOfOne24(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attackers, each := 50, 200 // 10,000 attempts
		if testing.Short() {
			each = 20
		}
		n := New(t, 1, Options{Latency: 10 * time.Millisecond})
		victim, honest := start(t, n, 0, p2p.Config{}), start(t, n, 1, p2p.Config{})
		var hostile []host.Host
		for i := range attackers {
			h := n.HostAt(100+i, ma.StringCast(fmt.Sprintf("/ip4/9.9.9.%d/udp/4001/quic-v1", i+1)))
			hostile = append(hostile, raw(t, h))
		}
		var got, refused, held atomic.Int64
		var wg sync.WaitGroup
		for _, h := range hostile {
			wg.Go(func() {
				for range each {
					ctx, cancel := context.WithTimeout(network.WithForceDirectDial(t.Context(), "flood"), time.Second)
					err := h.Connect(ctx, peer.AddrInfo{ID: victim.id, Addrs: []ma.Multiaddr{victim.addr}})
					cancel()
					if err != nil {
						refused.Add(1)
					} else {
						got.Add(1)
					}
					// Who got in makes room for the next try half of the time, to exercise rates
					// and totals.
					if got.Load()%2 == 0 {
						h.Network().ClosePeer(victim.id)
					}
					time.Sleep(50 * time.Millisecond)
				}
			})
		}
		stop := make(chan struct{})
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(250 * time.Millisecond):
					in := 0
					for _, h := range hostile {
						if _, ok := victim.Connected(h.ID()); ok {
							in++
						}
					}
					held.Store(max(held.Load(), int64(in)))
				}
			}
		})
		var q Quality
		for i := range 20 {
			k := fmt.Sprint("line ", i)
			q.Sent(k)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if err := honest.say(ctx, victim, k); err == nil {
				q.Got(k)
			} else {
				t.Log(k, err)
			}
			cancel()
			honest.ClosePeer(victim.id) // dials anew each time
			time.Sleep(2 * time.Second)
		}
		close(stop)
		wg.Wait()
		r := q.Report()
		t.Logf("flood: %d in, %d refused, at most %d at a time; honest: %v", got.Load(), refused.Load(), held.Load(), r)
		if r.Share() != 1 || r.Max > time.Second {
			t.Error("the honest host suffers")
		}
		if held.Load() > p2p.MaxConnsSubnet {
			t.Errorf("%d connections of one /24 at a time, want at most %d", held.Load(), p2p.MaxConnsSubnet)
		}
		if refused.Load() < int64(attackers*each/2) {
			t.Errorf("only %d of %d refused", refused.Load(), attackers*each)
		}
	})
}
