package p2p

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	lpevent "github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	pb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/util"
	ma "github.com/multiformats/go-multiaddr"
)

// router is a router that opens ports, or says so.
type router struct{ to ma.Multiaddr }

func (r router) GetMapping(a ma.Multiaddr) ma.Multiaddr {
	if _, transport := direct(a); transport != "quic" {
		return nil
	}
	return r.to
}

// TestRouterLies covers H120: what a router says it opened is shown as that, and is
// no address for an invite until somebody dialled it back.
func TestRouterLies(t *testing.T) {
	mapped := ma.StringCast("/ip4/8.8.8.8/udp/4001/quic-v1")
	rec := newRecorder()
	n := start(t, Config{Listen: []ma.Multiaddr{loopQUIC, loopTCP}, Handler: rec})
	await(t, "first address event", rec.addrs)
	n.reach.setRouter(router{mapped})
	r := n.Reachability()
	if len(r.Mapped) != 1 || !r.Mapped[0].Equal(mapped) || r.Internet() {
		t.Errorf("%+v", r)
	}
	if a, ok := n.BestAddr(Internet); ok {
		t.Errorf("an invite with %v, which only the router vouches for", a)
	}
	n.reach.mu.Lock()
	n.reach.unreachable = []ma.Multiaddr{mapped}
	n.reach.mu.Unlock()
	if got := n.reach.withoutUnreachable([]ma.Multiaddr{mapped}); len(got) != 0 {
		t.Errorf("still told to contacts: %v", got)
	}
}

// TestObserve: each event changes what it is about, and the handler is told.
func TestObserve(t *testing.T) {
	rec := newRecorder()
	n := start(t, Config{Listen: []ma.Multiaddr{loopTCP}, Handler: rec})
	await(t, "first address event", rec.addrs)
	for _, tc := range []struct {
		event any
		ok    func(Reachability) bool
	}{
		{lpevent.EvtLocalReachabilityChanged{Reachability: network.ReachabilityPrivate}, func(r Reachability) bool { return r.Verdict == Private }},
		{lpevent.EvtLocalReachabilityChanged{Reachability: network.ReachabilityPublic}, func(r Reachability) bool { return r.Verdict == Public }},
		{lpevent.EvtLocalReachabilityChanged{Reachability: network.ReachabilityUnknown}, func(r Reachability) bool { return r.Verdict == Unknown }},
		{
			lpevent.EvtNATDeviceTypeChanged{TransportProtocol: network.NATTransportUDP, NatDeviceType: network.NATDeviceTypeEndpointDependent},
			func(r Reachability) bool { return r.Symmetric },
		},
		{
			lpevent.EvtNATDeviceTypeChanged{TransportProtocol: network.NATTransportUDP, NatDeviceType: network.NATDeviceTypeEndpointIndependent},
			func(r Reachability) bool { return !r.Symmetric },
		},
	} {
		n.observe(tc.event)
		await(t, "address event", rec.addrs)
		if r := n.Reachability(); !tc.ok(r) {
			t.Errorf("%+v: %+v", tc.event, r)
		}
	}
}

// TestPublicByOneWord: the word of one peer that this node is public (AutoNAT v1) ends
// no search for relays; an address that was dialled back does (v2).
func TestPublicByOneWord(t *testing.T) {
	h := rawHost(t, libp2p.ListenAddrs(loopTCP), libp2p.Transport(tcpTransport))
	h.SetStreamHandler(proto.ProtoIDv2Hop, func(s network.Stream) {
		defer s.Close()
		rd := util.NewDelimitedReader(s, relayMessage)
		defer rd.Close()
		var msg pb.HopMessage
		until := uint64(time.Now().Add(time.Hour).Unix())
		if rd.ReadMsg(&msg) != nil || util.NewDelimitedWriter(s).WriteMsg(&pb.HopMessage{
			Type: pb.HopMessage_STATUS.Enum(), Status: pb.Status_OK.Enum(),
			Reservation: &pb.Reservation{Expire: &until, Addrs: [][]byte{ma.StringCast("/ip4/9.9.9.9/udp/443/quic-v1").Bytes()}},
		}) != nil {
			s.Reset()
		}
	})
	rec := newRecorder()
	n := start(t, Config{Listen: []ma.Multiaddr{loopQUIC, loopTCP}, NoDHT: true, Handler: rec})
	n.observe(lpevent.EvtLocalReachabilityChanged{Reachability: network.ReachabilityPublic})
	if _, err := n.Dial(t.Context(), h.ID(), h.Addrs()); err != nil {
		t.Fatal(err)
	}
	for len(n.Reachability().Relays) == 0 {
		await(t, "relay", rec.addrs)
	}
	for _, tc := range []struct {
		addr string
		want bool
	}{{"/ip4/192.168.1.1/udp/1/quic-v1", false}, {"/ip4/8.8.8.8/udp/1/quic-v1", true}} {
		n.observe(lpevent.EvtHostReachableAddrsChanged{Reachable: []ma.Multiaddr{ma.StringCast(tc.addr)}})
		if n.proven() != tc.want {
			t.Errorf("%s was dialled back: proven public %v, want %v", tc.addr, n.proven(), tc.want)
		}
	}
}

// TestLANOnlyIsNotReachable: none of it where only the LAN is spoken to.
func TestLANOnlyIsNotReachable(t *testing.T) {
	n := start(t, Config{Profile: LANProfile, Listen: []ma.Multiaddr{loopQUIC, loopTCP}})
	if r := n.Reachability(); r.Internet() || r.Verdict != Unknown {
		t.Errorf("%+v", r)
	}
	for _, id := range n.host(mainHost).Mux().Protocols() {
		switch id {
		case "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", PingID, echoID:
		default:
			t.Errorf("answers %s", id)
		}
	}
	relay := ma.StringCast("/ip4/192.168.1.1/tcp/1/p2p/" + newID(t).String() + "/p2p-circuit")
	if _, err := n.Dial(t.Context(), newID(t), []ma.Multiaddr{relay}); err == nil {
		t.Error("dials over a relay")
	}
	if _, err := (&hostGuard{local: true}).OpenConnection(network.DirOutbound, false, relay); err == nil {
		t.Error("a relay with a private address is let through")
	}
}

// seenConn is a connection as an event has it.
type seenConn struct {
	network.Conn
	local, remote string
}

func (c seenConn) LocalMultiaddr() ma.Multiaddr  { return ma.StringCast(c.local) }
func (c seenConn) RemoteMultiaddr() ma.Multiaddr { return ma.StringCast(c.remote) }

// TestSymmetricByFewObservers: two who are connected and see different ports are enough;
// two who see the same, one alone, what came over TCP or from the own network is not.
func TestSymmetricByFewObservers(t *testing.T) {
	type told struct{ remote, observed string }
	const a, b, c = "/ip4/45.1.0.1/udp/443/quic-v1", "/ip4/45.2.0.1/udp/443/quic-v1", "/ip4/45.3.0.1/udp/443/quic-v1"
	seen := func(port string) string { return "/ip4/45.9.0.1/udp/" + port + "/quic-v1" }
	for _, tc := range []struct {
		name string
		says []told
		gone int // the first of them are not connected any more
		want bool
	}{
		{"nobody", nil, 0, false},
		{"one", []told{{a, seen("1001")}}, 0, false},
		{"one address twice", []told{{a, seen("1001")}, {a, seen("1002")}}, 0, false},
		{"two", []told{{a, seen("1001")}, {b, seen("1002")}}, 0, true},
		{"two, and one left", []told{{a, seen("1001")}, {b, seen("1002")}}, 1, false},
		{"a cone", []told{{a, seen("1001")}, {b, seen("1001")}}, 0, false},
		{"a cone, and one who lies", []told{{a, seen("1001")}, {b, seen("1001")}, {c, seen("1003")}}, 0, false},
		{"TCP", []told{{"/ip4/45.1.0.1/tcp/443", "/ip4/45.9.0.1/tcp/1"}, {"/ip4/45.2.0.1/tcp/443", "/ip4/45.9.0.1/tcp/2"}}, 0, false},
		{"neighbours", []told{{"/ip4/192.168.1.2/udp/443/quic-v1", seen("1001")}, {"/ip4/192.168.1.3/udp/443/quic-v1", seen("1002")}}, 0, false},
	} {
		n := start(t, Config{Listen: []ma.Multiaddr{loopTCP}, Handler: newRecorder()})
		for i, s := range tc.says {
			n.observe(lpevent.EvtPeerIdentificationCompleted{
				Peer: peer.ID(rune('a' + i)), Conn: seenConn{local: "/ip4/192.168.1.5/udp/4001/quic-v1", remote: s.remote}, ObservedAddr: ma.StringCast(s.observed),
			})
		}
		for i := range tc.gone {
			n.observe(lpevent.EvtPeerConnectednessChanged{Peer: peer.ID(rune('a' + i)), Connectedness: network.NotConnected})
		}
		if got := n.Reachability().Symmetric; got != tc.want {
			t.Errorf("%s: symmetric %v, want %v", tc.name, got, tc.want)
		}
	}
}
