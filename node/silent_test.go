package node_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/protocol/wire"
)

// TestSilentStreamsHoldNoPlaces: strangers of five networks who open all the streams
// of the contact protocol that they may, and say nothing, or one byte, keep nobody from
// answering an invite at the first try.
func TestSilentStreamsHoldNoPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{Latency: 500 * time.Millisecond}) // 1 s there and back
		open := func(i int, name string) *node.Node {
			n, err := node.Open(ctx, node.Config{Name: name, NoLAN: true, NoDHT: true, Network: net.Host(i).Configure})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		ada, bob := open(0, "Ada"), open(1, "Bob")
		link, err := ada.Invite(ctx)
		if err != nil {
			t.Fatal(err)
		}
		status, err := ada.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.Decode(status.PeerID)
		if err != nil {
			t.Fatal(err)
		}
		flood, stop := context.WithCancel(ctx)
		var all sync.WaitGroup
		for i := range 20 {
			h, err := libp2p.New(append(net.Host(300+i%5).Options(), libp2p.NoListenAddrs,
				libp2p.ForceReachabilityPrivate(), libp2p.DisableIdentifyAddressDiscovery(), libp2p.DisableMetrics())...)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			if err := h.Connect(ctx, peer.AddrInfo{ID: id, Addrs: []multiaddr.Multiaddr{net.Host(0).Addr}}); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				all.Go(func() {
					for flood.Err() == nil {
						s, err := h.NewStream(flood, id, wire.Contact)
						if err != nil {
							time.Sleep(time.Second)
							continue
						}
						if i%2 == 0 {
							_, _ = s.Write([]byte{100}) // the length, and nothing after it
						}
						_, _ = s.Read(make([]byte, 1)) // until the node gives up
						_ = s.Reset()
					}
				})
			}
		}
		time.Sleep(2 * time.Minute)
		begin := time.Now()
		if _, err := bob.AddContact(ctx, link, node.AddOptions{}); err != nil {
			t.Errorf("no answer to an invite after %v: %v", time.Since(begin), err)
		}
		stop()
		if err := errors.Join(ada.Close(), bob.Close()); err != nil {
			t.Error(err)
		}
		all.Wait()
	})
}
