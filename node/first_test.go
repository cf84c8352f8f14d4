package node_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// TestFirstMessage: over a round trip of 100 ms, from the moment Bob answers Ada's invite until he has the durable
// receipt of his first message takes at most a bare connection of libp2p over the same line and three round trips.
func TestFirstMessage(t *testing.T) {
	const rtt = 100 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{Latency: rtt / 2})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		here, err := bare(net.Host(2))
		if err != nil {
			t.Fatal(err)
		}
		defer here.Close()
		there, err := bare(net.Host(3))
		if err != nil {
			t.Fatal(err)
		}
		defer there.Close()
		begin := time.Now()
		if err := here.Connect(network.WithForceDirectDial(ctx, "test"), peer.AddrInfo{ID: there.ID(), Addrs: []multiaddr.Multiaddr{net.Host(3).Addr}}); err != nil {
			t.Fatal(err)
		}
		connect := time.Since(begin)

		ada, bob := simulated(t, net, 0, "", "Ada"), simulated(t, net, 1, "", "Bob")
		defer closeAll(t, ada, bob)
		invite := link(ctx, t, ada, false)
		begin = time.Now()
		added, err := bob.AddContact(ctx, invite, node.AddOptions{})
		if err != nil {
			t.Fatal(err)
		}
		met := time.Since(begin)
		m, err := bob.Send(ctx, added.Contact.Conversation, node.Text("hello"))
		if err != nil {
			t.Fatal(err)
		}
		delivered(ctx, t, bob, m)
		all := time.Since(begin)
		t.Logf("bare connection %v; contact made after %v, first receipt after %v: %.2f round trips beside the connection", connect, met, all, float64(all-connect)/float64(rtt))
		if connect < rtt || connect > 5*rtt {
			t.Errorf("a bare connection takes %v: not what is compared with", connect)
		}
		if all > connect+3*rtt {
			t.Errorf("the first receipt came after %v, want at most %v", all, connect+3*rtt)
		}
	})
}
