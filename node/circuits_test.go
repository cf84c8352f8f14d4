package node_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	pb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/util"
	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// routed gives a server on machine 0, Ada behind a router on machine 1, whom others reach
// over it, and the home of her contact Bob, whose node is closed.
func routed(ctx context.Context, t *testing.T, net *testnet.Net) (server, ada *node.Node, home string) {
	t.Helper()
	home = t.TempDir()
	server = onto(t, net, 0, "", "Server", "server")
	ada = onto(t, net, 1, "", "Ada", "home", server)
	bob := onto(t, net, 2, home, "Bob", "home", server)
	befriend(ctx, t, ada, bob)
	net.Host(1).Firewall(true)
	time.Sleep(3 * time.Minute)
	closeAll(t, bob)
	time.Sleep(time.Minute)
	return server, ada, home
}

// transport gives the transport id of a node.
func transport(ctx context.Context, t *testing.T, n *node.Node) peer.ID {
	t.Helper()
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

// TestIdleCircuitsOfStrangers: strangers who hold all the connections over its relay
// that a node behind a router may have do not keep a contact out, and are sent away.
func TestIdleCircuitsOfStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		server, ada, home := routed(ctx, t, net)
		key, relay := transport(ctx, t, ada), transport(ctx, t, server)
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
		bob := onto(t, net, 60, home, "", "home", server) // where ada does not look for it
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

// silent opens circuits to dest over the relay one after the other with a pause, says
// nothing on them, and counts tries and those held, until ctx ends.
func silent(ctx context.Context, h host.Host, relay, dest peer.ID, pause time.Duration, tries, held *atomic.Int32) {
	connect := &pb.HopMessage{Type: pb.HopMessage_CONNECT.Enum(), Peer: util.PeerInfoToPeerV2(peer.AddrInfo{ID: dest})}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		s, err := h.NewStream(ctx, relay, proto.ProtoIDv2Hop)
		if err != nil {
			continue
		}
		tries.Add(1)
		ended := context.AfterFunc(ctx, func() { _ = s.Reset() })
		var answer pb.HopMessage
		if util.NewDelimitedWriter(s).WriteMsg(connect) == nil && util.NewDelimitedReader(s, 4096).ReadMsg(&answer) == nil && answer.GetStatus() == pb.Status_OK {
			held.Add(1)
			_, _ = io.Copy(io.Discard, s)
			held.Add(-1)
		}
		ended()
		_ = s.Reset()
	}
}

// TestSilentCircuitsOfStrangers: strangers who open connections over its relay to a node
// behind a router, never say who they are and come again at once, do not keep out a
// contact, nor somebody who has an invite.
func TestSilentCircuitsOfStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		server, ada, home := routed(ctx, t, net)
		key, relay := transport(ctx, t, ada), transport(ctx, t, server)
		var tries, held atomic.Int32
		var wg sync.WaitGroup
		attack, end := context.WithCancel(ctx)
		for i := range 8 {
			h, err := bare(net.Host(20 + i))
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			if err := h.Connect(ctx, peer.AddrInfo{ID: relay, Addrs: []multiaddr.Multiaddr{net.Host(0).Addr}}); err != nil {
				t.Fatal(err)
			}
			for j := range 6 {
				pause := time.Second + time.Duration(6*i+j)*7*time.Millisecond // not all at once
				wg.Go(func() { silent(attack, h, relay, key, pause, &tries, &held) })
			}
		}
		time.Sleep(20 * time.Second) // their bursts are over
		if tries.Load() < 100 || held.Load() == 0 {
			t.Errorf("%d tries, %d circuits held: no attack", tries.Load(), held.Load())
		}
		bob := onto(t, net, 60, home, "", "home", server) // where ada does not look for it
		net.Host(60).Firewall(true)
		began := time.Now()
		may, stop := context.WithTimeout(ctx, 30*time.Second)
		delivered(may, t, bob, say(may, t, bob, "Ada", "let me in"))
		stop()
		t.Logf("delivered after %v; %d tries, %d held", time.Since(began), tries.Load(), held.Load())
		carol := onto(t, net, 61, "", "Carol", "home", server)
		net.Host(61).Firewall(true)
		began = time.Now()
		link, err := ada.Invite(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 { // of strangers each one has the same chance
			if _, err = carol.AddContact(ctx, link, node.AddOptions{}); err == nil {
				break
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		may, stop = context.WithTimeout(ctx, 5*time.Minute)
		delivered(may, t, carol, say(may, t, carol, "Ada", "and me"))
		stop()
		t.Logf("by invite after %v; %d tries, %d held", time.Since(began), tries.Load(), held.Load())
		end()
		wg.Wait()
		closeAll(t, ada, bob, carol, server)
	})
}
