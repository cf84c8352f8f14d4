package node_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// TestIdleCircuitsOfStrangers: strangers who hold all the connections over its relay
// that a node behind a router may have do not keep a contact out, and are sent away.
func TestIdleCircuitsOfStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		server := onto(t, net, 0, "", "Server", "server")
		home := t.TempDir()
		ada, bob := onto(t, net, 1, "", "Ada", "home", server), onto(t, net, 2, home, "Bob", "home", server)
		befriend(ctx, t, ada, bob)
		net.Host(1).Firewall(true)
		time.Sleep(3 * time.Minute)
		closeAll(t, bob)
		time.Sleep(time.Minute)
		at := func(n *node.Node) peer.ID {
			s, err := n.Status(ctx)
			if err != nil {
				t.Fatal(err)
			}
			id, err := peer.Decode(s.PeerID)
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		key, relay := at(ada), at(server)
		way := multiaddr.StringCast(net.Host(0).Addr.String() + "/p2p/" + relay.String() + "/p2p-circuit")
		stand := 0
		var gone atomic.Int32
		for i := range 20 {
			h, err := libp2p.New(append(net.Host(20+i).Options(), libp2p.NoListenAddrs, libp2p.EnableRelay(),
				libp2p.ForceReachabilityPrivate(), libp2p.DisableIdentifyAddressDiscovery(), libp2p.DisableMetrics())...)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			h.Network().Notify(&network.NotifyBundle{DisconnectedF: func(_ network.Network, c network.Conn) {
				if c.RemotePeer() == key {
					gone.Add(1)
				}
			}})
			may, end := context.WithTimeout(network.WithAllowLimitedConn(ctx, "test"), 15*time.Second)
			if err := h.Connect(may, peer.AddrInfo{ID: key, Addrs: []multiaddr.Multiaddr{way}}); err == nil {
				stand++
			}
			end()
		}
		if stand < 16 {
			t.Errorf("%d strangers came in, want more than there are places", stand)
		}
		bob = onto(t, net, 60, home, "", "home", server) // where ada does not look for it
		net.Host(60).Firewall(true)
		may, end := context.WithTimeout(ctx, 15*time.Second)
		delivered(may, t, bob, say(may, t, bob, "Ada", "let me in"))
		end()
		time.Sleep(30 * time.Second)
		if got := int(gone.Load()); got != stand {
			t.Errorf("%d of %d strangers are gone", got, stand)
		}
		if err := errors.Join(ada.Close(), bob.Close(), server.Close()); err != nil {
			t.Error(err)
		}
	})
}
