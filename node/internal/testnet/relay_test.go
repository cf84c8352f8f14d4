package testnet

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	pb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	relayv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/util"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/p2p"
)

func hasRelay(r p2p.Reachability) bool { return len(r.Relays) > 0 }

// symmetric puts a machine behind a firewall that no hole goes through: it forgets
// a flow at once.
func noDirect(n *Net, a, b int) { n.Cut([]int{a}, []int{b}) }

// flood writes size bytes in lines on one stream, reading the echo, and returns how
// many came back.
func flood(ctx context.Context, from *up, to peer.ID, size int) (int, error) {
	s, err := from.NewStream(ctx, to, echoID)
	if err != nil {
		return 0, err
	}
	defer s.Reset()
	line := []byte(strings.Repeat("x", 1023) + "\n")
	got := 0
	for got < size {
		if err := s.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return got, err
		}
		if _, err := s.Write(line); err != nil {
			return got, err
		}
		if _, err := io.ReadFull(s, line); err != nil {
			return got, err
		}
		got += len(line)
	}
	return got, nil
}

// TestCircuitIsCut covers threats.md H119: strangers' circuits end after 128 KiB and
// after 2 minutes. Both ends hear of it, and a new circuit works at once.
func TestCircuitIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{Latency: 5 * time.Millisecond})
		relay := server(t, n, 0, p2p.Config{})
		b, wb := walled(t, n, 1, p2p.Config{Profile: p2p.Client}, relay)
		a, wa := walled(t, n, 2, p2p.Config{Profile: p2p.Client})
		noDirect(n, 1, 2)
		wb.until(t, b, "relay", time.Minute, hasRelay)
		addr, _ := b.BestAddr(p2p.Internet)
		ended := func(what string) {
			t.Helper()
			for _, c := range []struct {
				w *follower
				p peer.ID
			}{{wa, b.id}, {wb, a.id}} {
				if e := c.w.next(t, c.p, time.Minute); !e.up || e.path.Route != p2p.Relayed {
					t.Errorf("%s: first %+v", what, e)
				}
				if e := c.w.next(t, c.p, 3*time.Minute); e.up {
					t.Errorf("%s: then %+v", what, e)
				}
			}
		}
		if _, err := over(t.Context(), a, b, []ma.Multiaddr{addr}, "first"); err != nil {
			t.Fatal(err)
		}
		got, err := flood(t.Context(), a, b.id, 1<<20)
		t.Logf("cut by bytes: %d bytes came back, then %v", got, err)
		if err == nil || got < 64<<10 || got > 128<<10 {
			t.Errorf("%d bytes passed, %v; want a cut below 128 KiB", got, err)
		}
		ended("bytes")
		begin := time.Now()
		path, err := over(t.Context(), a, b, []ma.Multiaddr{addr}, "second")
		if err != nil || path.Route != p2p.Relayed {
			t.Fatalf("after the cut: %+v, %v", path, err)
		}
		ended("time")
		within(t, "cut by time", time.Since(begin), 110*time.Second, 130*time.Second)
		if _, err := over(t.Context(), a, b, []ma.Multiaddr{addr}, "third"); err != nil {
			t.Fatal(err)
		}
		if !b.Reachability().Internet() {
			t.Error("the reservation went with the circuit")
		}
	})
}

// TestContactsCircuitIsNotCut: the holder of the reservation is a contact of the
// relay, so its circuits have the larger limits, until it is a contact no more.
func TestContactsCircuitIsNotCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{Latency: 5 * time.Millisecond})
		var contact atomic.Pointer[peer.ID]
		relay := server(t, n, 0, p2p.Config{Trusted: func(p peer.ID) bool { c := contact.Load(); return c != nil && *c == p }})
		b, wb := walled(t, n, 1, p2p.Config{Profile: p2p.Client})
		contact.Store(&b.id)
		if _, err := b.Dial(t.Context(), relay.id, []ma.Multiaddr{relay.addr}); err != nil { // connected is found
			t.Fatal(err)
		}
		wb.until(t, b, "relay", time.Minute, hasRelay)
		addr, _ := b.BestAddr(p2p.Internet)
		a, wa := walled(t, n, 2, p2p.Config{Profile: p2p.Client})
		noDirect(n, 1, 2)
		if _, err := over(t.Context(), a, b, []ma.Multiaddr{addr}, "first"); err != nil {
			t.Fatal(err)
		}
		wa.next(t, b.id, time.Minute)
		if got, err := flood(t.Context(), a, b.id, 1<<20); err != nil {
			t.Errorf("%d bytes, then %v", got, err)
		}
		time.Sleep(10 * time.Minute)
		if err := a.say(t.Context(), b, "ten minutes later"); err != nil {
			t.Error(err)
		}
		contact.Store(nil)
		if e := wa.next(t, b.id, 31*time.Minute); e.up {
			t.Errorf("%+v, want the end of the circuit after 30 minutes", e)
		}
		if path, err := over(t.Context(), a, b, []ma.Multiaddr{addr}, "again"); err == nil {
			t.Errorf("relayed for one who is no contact any more, by his old reservation: %+v", path)
		}
	})
}

// TestContactsDayIsUsedUp: strangers do not use up what a contact of the relay may have in
// a day, and when it is used up others reach the contact by the limits of strangers.
func TestContactsDayIsUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{Latency: 5 * time.Millisecond})
		const day = 8 << 20
		names := map[peer.ID]string{peerID(t, n, 1): "ada", peerID(t, n, 2): "ada", peerID(t, n, 3): "bob"}
		relay := server(t, n, 0, p2p.Config{
			ContactBytes: day, Trusted: func(p peer.ID) bool { return names[p] != "" }, Owner: func(p peer.ID) string { return names[p] },
		})
		ada, w := walled(t, n, 1, p2p.Config{Profile: p2p.Client})
		if _, err := ada.Dial(t.Context(), relay.id, []ma.Multiaddr{relay.addr}); err != nil {
			t.Fatal(err)
		}
		w.until(t, ada, "relay", time.Minute, hasRelay)
		addr, _ := ada.BestAddr(p2p.Internet)
		var others []*up
		for i := 2; i < 7; i++ {
			u, _ := walled(t, n, i, p2p.Config{Profile: p2p.Client})
			noDirect(n, 1, i)
			others = append(others, u)
		}
		use := func(u *up, low, high int) {
			t.Helper()
			if _, err := over(t.Context(), u, ada, []ma.Multiaddr{addr}, "hello"); err != nil {
				t.Errorf("no way over the relay: %v", err)
				return
			}
			got, err := flood(t.Context(), u, ada.id, high)
			if got < low || got > high {
				t.Errorf("%d bytes each way, then %v; want %d to %d", got, err, low, high)
			}
			time.Sleep(3 * time.Minute) // the circuit has ended
		}
		device, bob, strangers := others[0], others[1], others[2:]
		const stranger, quarter = 128 << 10, day / 2 / 4 // what comes back counts, too
		for _, s := range strangers[:2] {
			use(s, quarter*3/4, quarter)
		}
		use(strangers[2], stranger/2, stranger) // half is used by strangers
		use(bob, quarter/2, quarter/2)
		use(device, quarter, 2*quarter)
		use(device, stranger/2, stranger) // all is used
		use(bob, stranger/2, stranger)
		use(strangers[0], stranger/2, stranger)
	})
}

// TestHoleIsPunched covers H113, cone and cone: the message goes at once over the
// relay, the connection without it comes after, and both sides are told.
func TestHoleIsPunched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		relay := server(t, n, 0, p2p.Config{})
		b, wb := walled(t, n, 1, p2p.Config{}, relay)
		a, wa := walled(t, n, 2, p2p.Config{})
		wb.until(t, b, "relay", time.Minute, hasRelay)
		addr, _ := b.BestAddr(p2p.Internet)
		begin := time.Now()
		path, err := over(t.Context(), a, b, []ma.Multiaddr{addr}, "at once")
		if err != nil || path.Route != p2p.Relayed {
			t.Fatalf("%+v, %v", path, err)
		}
		within(t, "over the relay", time.Since(begin), 0, 2*time.Second)
		for _, c := range []struct {
			w *follower
			p peer.ID
		}{{wa, b.id}, {wb, a.id}} {
			if e := c.w.next(t, c.p, time.Minute); !e.up || e.path.Route != p2p.Relayed || e.path.Relay != relay.id {
				t.Errorf("first: %+v", e)
			}
			if e := c.w.next(t, c.p, time.Minute); e.up || e.path.Route != p2p.Relayed {
				t.Errorf("then: %+v", e)
			}
			if e := c.w.next(t, c.p, time.Minute); !e.up || e.path.Route != p2p.Direct || e.path.Relay != "" {
				t.Errorf("last: %+v", e)
			}
		}
		within(t, "hole punched", time.Since(begin), 0, 10*time.Second)
		before := n.Traffic(0, 1).Bytes
		if got, err := flood(t.Context(), a, b.id, 100<<10); err != nil {
			t.Errorf("%d bytes, then %v", got, err)
		}
		if over := n.Traffic(0, 1).Bytes - before; over > 64<<10 {
			t.Errorf("%d bytes over the relay after the punch", over)
		}
		time.Sleep(5 * time.Minute) // the circuit is long gone
		if path, ok := a.Connected(b.id); !ok || path.Route != p2p.Direct {
			t.Errorf("after the circuit's end: %+v %v", path, ok)
		}
	})
}

// TestHoleIsPunchedLater: what failed at first is tried again while the circuit lasts.
func TestHoleIsPunchedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		relay := server(t, n, 0, p2p.Config{})
		b, wb := walled(t, n, 1, p2p.Config{}, relay)
		a, wa := walled(t, n, 2, p2p.Config{})
		wb.until(t, b, "relay", time.Minute, hasRelay)
		addr, _ := b.BestAddr(p2p.Internet)
		n.Cut([]int{1}, []int{2})
		if _, err := over(t.Context(), a, b, []ma.Multiaddr{addr}, "at once"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // libp2p itself has given up
		n.Heal()
		if path, _ := a.Connected(b.id); path.Route != p2p.Relayed {
			t.Fatalf("before: %+v", path)
		}
		for _, want := range []p2p.Route{p2p.Relayed, p2p.Relayed, p2p.Direct} {
			if e := wa.next(t, b.id, time.Minute); e.path.Route != want {
				t.Errorf("%+v, want %s", e, want)
			}
		}
	})
}

// relayOnly is a hostile or poor relay: libp2p's, with an ACL.
func relayOnly(t *testing.T, n *Net, i int, allow func(peer.ID) bool) host.Host {
	t.Helper()
	h := raw(t, n.Host(i))
	r, err := relayv2.New(h, relayv2.WithACL(acl(allow)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return h
}

type acl func(peer.ID) bool

func (a acl) AllowReserve(p peer.ID, _ ma.Multiaddr) bool      { return a(p) }
func (a acl) AllowConnect(peer.ID, ma.Multiaddr, peer.ID) bool { return true }

// TestAllRelaysRefuse covers H119: who has no relay says why, goes on asking, and
// takes the first that agrees.
func TestAllRelaysRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		var open atomic.Bool
		no := relayOnly(t, n, 0, func(peer.ID) bool { return false })
		later := relayOnly(t, n, 1, func(peer.ID) bool { return open.Load() })
		deaf := raw(t, n.Host(2)) // relays for nobody
		n.Host(3).Firewall(true)
		w := newFollower()
		b := start(t, n, 3, p2p.Config{Handler: w, Relays: func() []peer.AddrInfo {
			return []peer.AddrInfo{
				{ID: no.ID(), Addrs: no.Addrs()},
				{ID: later.ID(), Addrs: later.Addrs()},
				{ID: deaf.ID(), Addrs: deaf.Addrs()},
				{ID: peerID(t, n, 99), Addrs: []ma.Multiaddr{n.Host(99).Addr}}, // nobody there
			}
		}})
		time.Sleep(2 * time.Minute)
		if b.Reachability().Internet() {
			t.Errorf("%+v", b.Reachability())
		}
		why := map[peer.ID]error{}
		for _, try := range b.RelayTries() {
			why[try.Peer] = try.Err
		}
		if len(why) != 4 || !errors.Is(why[no.ID()], p2p.ErrRelayRefused) || !errors.Is(why[later.ID()], p2p.ErrRelayRefused) ||
			!errors.Is(why[deaf.ID()], p2p.ErrNotSupported) {
			t.Errorf("reasons: %v", why)
		}
		open.Store(true)
		b.FindRelays()
		took := w.until(t, b, "relay", time.Minute, hasRelay)
		within(t, "the one that agrees", took, 0, time.Second)
		if r := b.Reachability().Relays; len(r) != 1 || r[0].Peer != later.ID() {
			t.Errorf("relays: %v", r)
		}
	})
}

func peerID(t *testing.T, n *Net, i int) peer.ID {
	t.Helper()
	id, err := peer.IDFromPrivateKey(key(t, n.seed, i))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestStrangersCircuits covers H58: the relay's limits for strangers hold.
func TestStrangersCircuits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{Latency: 5 * time.Millisecond})
		relay := server(t, n, 0, p2p.Config{})
		b := relayOnly(t, n, 1, nil) // only to have something to hold a reservation
		a, a2 := raw(t, n.Host(2)), raw(t, n.Host(3))
		to := peer.AddrInfo{ID: relay.id, Addrs: []ma.Multiaddr{relay.addr}}
		for _, h := range []host.Host{a, a2, b} {
			if err := h.Connect(t.Context(), to); err != nil {
				t.Fatal(err)
			}
		}
		b.SetStreamHandler(proto.ProtoIDv2Stop, func(s network.Stream) {
			rd := util.NewDelimitedReader(s, 4096)
			var msg pb.StopMessage
			if rd.ReadMsg(&msg) == nil {
				_ = util.NewDelimitedWriter(s).WriteMsg(&pb.StopMessage{Type: pb.StopMessage_STATUS.Enum(), Status: pb.Status_OK.Enum()})
			}
		})
		ask := func(h host.Host, msg *pb.HopMessage) pb.Status {
			s, err := h.NewStream(t.Context(), relay.id, proto.ProtoIDv2Hop)
			if err != nil {
				t.Fatal(err)
			}
			if err := util.NewDelimitedWriter(s).WriteMsg(msg); err != nil {
				t.Fatal(err)
			}
			var answer pb.HopMessage
			if err := util.NewDelimitedReader(s, 4096).ReadMsg(&answer); err != nil {
				return pb.Status_UNUSED
			}
			if l := answer.GetLimit(); answer.GetStatus() == pb.Status_OK && (l.GetData() != 128<<10 || l.GetDuration() != 120) {
				t.Errorf("limit: %v", l)
			}
			return answer.GetStatus()
		}
		connect := &pb.HopMessage{Type: pb.HopMessage_CONNECT.Enum(), Peer: util.PeerInfoToPeerV2(peer.AddrInfo{ID: b.ID()})}
		if st := ask(a, connect); st != pb.Status_NO_RESERVATION {
			t.Errorf("without a reservation: %v", st)
		}
		if st := ask(b, &pb.HopMessage{Type: pb.HopMessage_RESERVE.Enum()}); st != pb.Status_OK {
			t.Fatalf("reservation: %v", st)
		}
		ok, refused := 0, 0
		for i := range 46 {
			switch st := ask([]host.Host{a, a2}[i%2], connect); st {
			case pb.Status_OK:
				ok++
			case pb.Status_RESOURCE_LIMIT_EXCEEDED:
				refused++
			default:
				t.Errorf("status %v", st)
			}
		}
		if ok != 32 || refused != 14 { // more than a node takes over one relay
			t.Errorf("%d circuits opened, %d refused, want 32 and 14", ok, refused)
		}
		if st := ask(a, &pb.HopMessage{Type: pb.HopMessage_STATUS.Enum()}); st != pb.Status_MALFORMED_MESSAGE {
			t.Errorf("nonsense: %v", st)
		}
	})
}

// TestNobodyPlaysTheRelay: only relays that this node asked may bring others.
func TestNobodyPlaysTheRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{Latency: 5 * time.Millisecond})
		w := newFollower()
		b := start(t, n, 0, p2p.Config{Profile: p2p.Client, Handler: w})
		m := raw(t, n.Host(1))
		if err := m.Connect(t.Context(), peer.AddrInfo{ID: b.id, Addrs: []ma.Multiaddr{b.addr}}); err != nil {
			t.Fatal(err)
		}
		s, err := m.NewStream(t.Context(), b.id, proto.ProtoIDv2Stop)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Reset()
		someone := util.PeerInfoToPeerV2(peer.AddrInfo{ID: peerID(t, n, 7)})
		if err := util.NewDelimitedWriter(s).WriteMsg(&pb.StopMessage{Type: pb.StopMessage_CONNECT.Enum(), Peer: someone}); err != nil {
			t.Fatal(err)
		}
		if err := s.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		rd := util.NewDelimitedReader(s, 4096)
		var msg pb.StopMessage
		_ = rd.ReadMsg(&msg) // libp2p says yes before it asks whether it may
		if _, err := io.ReadAll(s); !errors.Is(err, network.ErrReset) {
			t.Errorf("a made-up circuit: %v, want a reset before the handshake", err)
		}
	})
}

// TestSlowHop: a relay stream that says nothing, too much or half of it is not kept.
func TestSlowHop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{Latency: 5 * time.Millisecond})
		relay := server(t, n, 0, p2p.Config{})
		m := raw(t, n.Host(1))
		if err := m.Connect(t.Context(), peer.AddrInfo{ID: relay.id, Addrs: []ma.Multiaddr{relay.addr}}); err != nil {
			t.Fatal(err)
		}
		for name, tc := range map[string]struct {
			bytes string
			low   time.Duration
		}{
			"half":    {"\x20\x08", 9 * time.Second},
			"long":    {"\xff\x7f", 0},
			"longer":  {"\xff\xff\xff\xff\x0f", 0},
			"rubbish": {"\x03xyz", 0},
		} {
			s, err := m.NewStream(t.Context(), relay.id, proto.ProtoIDv2Hop)
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if _, err := io.WriteString(s, tc.bytes); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(s); !errors.Is(err, network.ErrReset) {
				t.Errorf("%s: %v, want a reset", name, err)
			}
			within(t, name, time.Since(begin), tc.low, tc.low+2*time.Second)
			_ = s.Reset()
		}
	})
}
