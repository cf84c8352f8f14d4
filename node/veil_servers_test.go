package node_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/protocol/rv"
)

// asked counts how often a recorded machine was asked by another one, since some time, to
// look something up or to put it.
func asked(t *testing.T, r *testnet.Recording, by *testnet.Host, since time.Time) (count int) {
	t.Helper()
	at, err := manet.ToIP(by.Addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Conns() {
		if from, err := manet.ToIP(c.Addr); err != nil || !c.Inbound || !from.Equal(at) {
			continue
		}
		for _, s := range c.Streams {
			if s.Protocol == string(rv.ProxyID) && !s.At.Before(since) {
				count++
			}
		}
	}
	return count
}

// TestRelayOnlyRecordsGoByOwnServers: what is published and looked up for a contact who
// may reach Ada by relays only goes through the server that she named. Another server
// that she knows of the DHT is asked for nothing, as it could be his; nor is one at her
// own place, though she named it, as it would ask others from her address.
func TestRelayOnlyRecordsGoByOwnServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 48*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		net.HostAt(1, ma.StringCast(strings.Replace(net.Host(2).Addr.String(), "/udp/4001", "/udp/4009", 1)))
		var heard [4]*testnet.Recording
		for _, i := range []int{0, 1, 3} {
			heard[i] = net.Host(i).Record()
		}
		relay := onto(t, net, 0, "", "Relay", "server")
		near, other := onto(t, net, 1, "", "Near", "server", relay), onto(t, net, 3, "", "Other", "server", relay)
		ada, bob := onto(t, net, 2, "", "Ada", "client", relay, near), onto(t, net, 4, "", "Bob", "client", relay)
		befriend(ctx, t, ada, bob)
		time.Sleep(time.Minute)
		since := time.Now()
		setWays(ctx, t, ada, "Bob", node.WaysRelay)
		overRelay(ctx, t, bob, ada, "Ada", "Bob", "hello")
		time.Sleep(time.Hour)
		if asked(t, heard[0], net.Host(2), since) == 0 {
			t.Error("nothing was published")
		}
		closeAll(t, bob)
		lost := time.Now()
		say(ctx, t, ada, "Bob", "where are you?")
		time.Sleep(time.Hour)
		if asked(t, heard[0], net.Host(2), lost) < 4 {
			t.Error("he was not looked for")
		}
		for i, who := range map[int]string{1: "her own server", 3: "another"} {
			if c := asked(t, heard[i], net.Host(2), since); c > 0 {
				t.Errorf("%s was asked %d times", who, c)
			}
		}
		closeAll(t, ada, relay, near, other)
	})
}

// TestRelayOnlyContactsGivenServerIsNotUsed: the server of a contact who may reach Ada by
// relays only does not carry for her where she was started with it, either.
func TestRelayOnlyContactsGivenServerIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		relay, bob := around(t, net, 0, "", "Relay", "server"), around(t, net, 2, "", "Bob", "server")
		dir := t.TempDir()
		ada := around(t, net, 1, dir, "Ada", "home", relay, bob)
		befriend(ctx, t, bob, ada)
		time.Sleep(time.Minute)
		setWays(ctx, t, ada, "Bob", node.WaysRelay)
		time.Sleep(time.Minute)
		quiet := net.Traffic(1, 2).Packets
		for range 2 {
			overRelay(ctx, t, bob, ada, "Ada", "Bob", "hello")
			time.Sleep(10 * time.Minute)
			for _, r := range node.VeilRelays(ada) {
				if s, err := bob.Status(ctx); err != nil || r.Peer == peerOf(t, s.PeerID) {
					t.Errorf("his own server carries, %v", err)
				}
			}
		}
		closeAll(t, ada)
		ada = around(t, net, 1, dir, "", "home", relay, bob)
		time.Sleep(10 * time.Minute)
		if c := net.Traffic(1, 2).Packets - quiet; c > 0 {
			t.Errorf("%d packets went to Bob's server", c)
		}
		closeAll(t, ada, bob, relay)
	})
}

// TestNoCarrierStaysUnseen: where this machine does not know where it is, those that
// carried so far go on, but for who may not carry any more.
func TestNoCarrierStaysUnseen(t *testing.T) {
	at := func(id, addr string) peer.AddrInfo {
		return peer.AddrInfo{ID: peer.ID(id), Addrs: []ma.Multiaddr{ma.StringCast(addr)}}
	}
	mine, his := at("mine", "/ip4/8.0.0.1/tcp/443"), at("his", "/ip4/8.0.0.2/tcp/443")
	moved := at("mine", "/ip4/8.0.0.3/tcp/443")
	if got := node.StillCarrying([]peer.AddrInfo{mine, his}, []peer.AddrInfo{moved}); len(got) != 1 || got[0].ID != mine.ID || !got[0].Addrs[0].Equal(mine.Addrs[0]) {
		t.Errorf("carried on by %v, want mine, where it was seen to be elsewhere", got)
	}
	if got := node.StillCarrying(nil, []peer.AddrInfo{mine}); len(got) > 0 {
		t.Errorf("carried by %v, which were not seen to be elsewhere", got)
	}
}

func peerOf(t *testing.T, s string) peer.ID {
	t.Helper()
	id, err := peer.Decode(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
