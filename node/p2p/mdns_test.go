package p2p

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/net/dns/dnsmessage"
)

var (
	ipA = netip.MustParseAddr("192.168.7.2")
	ipB = netip.MustParseAddr("192.168.7.3")
)

func newID(t testing.TB) peer.ID {
	t.Helper()
	id, err := peer.IDFromPrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func at(ip netip.Addr) []ma.Multiaddr {
	return []ma.Multiaddr{
		ma.StringCast(fmt.Sprintf("/ip4/%s/udp/4001/quic-v1", ip)),
		ma.StringCast(fmt.Sprintf("/ip4/%s/tcp/4001", ip)),
	}
}

func TestMDNSPackets(t *testing.T) {
	id := newID(t)
	self := peer.AddrInfo{ID: id, Addrs: append(at(ipA), append(at(ipB), ma.StringCast("/ip6/fd00::1/tcp/4001"))...)}
	query, err := appendQuery(nil)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := parseMDNS(query, ipB); err != nil || !h.asks || len(h.peers) > 0 {
		t.Errorf("query: got %+v, %v", h, err)
	}
	b, err := appendAnnounce(nil, strings.Repeat("a", 32), self, ipA, mdnsTTL)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > mdnsPacket {
		t.Errorf("announcement of %d B, want at most %d", len(b), mdnsPacket)
	}
	h, err := parseMDNS(b, ipA)
	if err != nil || h.asks || len(h.peers) != 1 || h.peers[0].ID != id || !sameAddrs(h.peers[0].Addrs, at(ipA)) {
		t.Errorf("announcement: got %+v, %v, want the addresses of this network only", h, err)
	}
	if h, err := parseMDNS(b, ipB); err != nil || len(h.peers) > 0 {
		t.Errorf("announcement sent by somebody else: got %+v, %v", h, err)
	}
	bye, err := appendAnnounce(nil, strings.Repeat("a", 32), self, ipA, 0)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := parseMDNS(bye, ipA); err != nil || len(h.peers) > 0 {
		t.Errorf("good-bye: got %+v, %v", h, err)
	}
	if _, err := appendAnnounce(nil, "a", self, netip.MustParseAddr("192.168.7.9"), 1); !errors.Is(err, ErrNoAddress) {
		t.Errorf("address of another network: got %v", err)
	}
	for n := range b {
		if h, err := parseMDNS(b[:n], ipA); err == nil && len(h.peers) > 0 {
			t.Errorf("the first %d of %d bytes are taken for a neighbour", n, len(b))
		}
	}
	if _, err := parseMDNS(append(b, make([]byte, mdnsPacket)...), ipA); !errors.Is(err, errMDNS) {
		t.Errorf("oversized: got %v", err)
	}
}

// announceRaw builds what a hostile neighbour may say.
func announceRaw(t testing.TB, txts ...string) []byte {
	t.Helper()
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{Response: true})
	name := dnsmessage.MustNewName("x." + mdnsService)
	if err := b.StartAnswers(); err != nil {
		t.Fatal(err)
	}
	if err := b.TXTResource(dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 120}, dnsmessage.TXTResource{TXT: txts}); err != nil {
		t.Fatal(err)
	}
	out, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestMDNSRefusesOthersAddresses(t *testing.T) {
	id := newID(t).String()
	for _, tc := range []struct{ name, txt string }{
		{"loopback", "dnsaddr=/ip4/127.0.0.1/tcp/22/p2p/" + id},
		{"unspecified", "dnsaddr=/ip4/0.0.0.0/tcp/22/p2p/" + id},
		{"another machine", "dnsaddr=/ip4/192.168.7.1/tcp/80/p2p/" + id},
		{"public", "dnsaddr=/ip4/8.8.8.8/tcp/443/p2p/" + id},
		{"name", "dnsaddr=/dns4/victim.example/tcp/443/p2p/" + id},
		{"relay", "dnsaddr=/ip4/192.168.7.2/tcp/1/p2p/" + id + "/p2p-circuit/p2p/" + id},
		{"websocket", "dnsaddr=/ip4/192.168.7.2/tcp/1/ws/p2p/" + id},
		{"no peer", "dnsaddr=/ip4/192.168.7.2/tcp/1"},
		{"RSA peer", "dnsaddr=/ip4/192.168.7.2/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"},
		{"no prefix", "/ip4/192.168.7.2/tcp/1/p2p/" + id},
		{"garbage", "dnsaddr=/////"},
		{"empty", ""},
	} {
		if h, err := parseMDNS(announceRaw(t, tc.txt), ipA); err != nil || len(h.peers) > 0 {
			t.Errorf("%s: got %+v, %v, want nobody", tc.name, h, err)
		}
	}
	var many []string
	for i := range 12 {
		many = append(many, fmt.Sprintf("dnsaddr=/ip4/192.168.7.2/tcp/%d/p2p/%s", i+1, newID(t)))
	}
	if h, err := parseMDNS(announceRaw(t, many...), ipA); err != nil || len(h.peers) != 4 {
		t.Errorf("12 peers in one packet: got %d, %v, want 4", len(h.peers), err)
	}
}

func FuzzParseMDNS(f *testing.F) {
	query, err := appendQuery(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(query)
	ann, err := appendAnnounce(nil, "instance", peer.AddrInfo{ID: newID(f), Addrs: at(ipA)}, ipA, mdnsTTL)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ann)
	f.Add(announceRaw(f, "dnsaddr=/ip4/192.168.7.2/tcp/1/p2p/x", "", "y"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.Clone(b)
		h, err := parseMDNS(b, ipA)
		if !bytes.Equal(in, b) {
			t.Fatal("input changed")
		}
		if err != nil && (h.asks || len(h.peers) > 0) {
			t.Fatalf("refused and yet: %+v", h)
		}
		if len(h.peers) > 4 {
			t.Fatalf("%d peers", len(h.peers))
		}
		for _, p := range h.peers {
			if !isEd25519(p.ID) || len(p.Addrs) == 0 || len(p.Addrs) > MaxAddrs {
				t.Fatalf("peer %+v", p)
			}
			for _, a := range p.Addrs {
				if ip, ok := ipOf(a); !ok || ip != ipA {
					t.Fatalf("address %s does not belong to the sender", a)
				}
			}
		}
	})
}

// bus is an mDNS group in memory.
type bus struct {
	mu   sync.Mutex // guards subs
	subs []*busConn
	sent int
}

type busPacket struct {
	b   []byte
	src netip.AddrPort
}

type busConn struct {
	bus    *bus
	in     chan busPacket
	closed chan struct{}
}

func (b *bus) open([]netip.Addr) (mdnsConn, error) {
	c := &busConn{bus: b, in: make(chan busPacket, 256), closed: make(chan struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs = append(b.subs, c)
	return c, nil
}

// say hands a packet to everybody, dropping where a queue is full.
func (b *bus) say(p []byte, src netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sent++
	for _, c := range b.subs {
		select {
		case c.in <- busPacket{bytes.Clone(p), src}:
		default:
		}
	}
}

func (b *bus) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sent
}

func (c *busConn) Read(b []byte) (int, netip.AddrPort, error) {
	select {
	case p := <-c.in:
		return copy(b, p.b), p.src, nil
	case <-c.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (c *busConn) Send(b []byte, ip netip.Addr) error {
	c.bus.say(b, netip.AddrPortFrom(ip, mdnsPort))
	return nil
}

func (c *busConn) Close() error {
	close(c.closed)
	return nil
}

func TestMDNSFindsAndSaysGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group := new(bus)
		m := &mdns{log: slog.New(slog.DiscardHandler), open: group.open}
		run := func(ip netip.Addr) (peer.ID, chan peer.AddrInfo, func()) {
			self := peer.AddrInfo{ID: newID(t), Addrs: at(ip)}
			found := make(chan peer.AddrInfo, 10_000)
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := m.Run(ctx, self, func(i peer.AddrInfo) { found <- i }); err != nil {
					t.Error(err)
				}
			})
			return self.ID, found, func() { cancel(); wg.Wait() }
		}
		idA, foundA, stopA := run(ipA)
		time.Sleep(time.Minute)
		if len(foundA) != 0 {
			t.Error("a node found itself")
		}
		begin := time.Now()
		idB, foundB, stopB := run(ipB)
		if got := await(t, "b at a", foundA); got.ID != idB || time.Since(begin) > 100*time.Millisecond {
			t.Errorf("a found %v after %v", got.ID, time.Since(begin))
		}
		if got := await(t, "a at b", foundB); got.ID != idA || !sameAddrs(got.Addrs, at(ipA)) || time.Since(begin) > 200*time.Millisecond {
			t.Errorf("b found %v after %v", got, time.Since(begin))
		}
		// A quiet day costs little: two questions a minute and their answers.
		before := group.count()
		time.Sleep(time.Hour)
		if n := group.count() - before; n > 60*2*3 {
			t.Errorf("two idle nodes sent %d packets in an hour", n)
		}
		// Somebody who asks without end gets an answer a second.
		query, err := appendQuery(nil)
		if err != nil {
			t.Fatal(err)
		}
		before = group.count()
		for range 1000 {
			group.say(query, netip.MustParseAddrPort("192.168.7.66:5353"))
			time.Sleep(10 * time.Millisecond)
		}
		if n := group.count() - before - 1000; n > 2*11+2 {
			t.Errorf("1000 questions in 10 s earned %d answers of two nodes", n)
		}
		// Floods of invented neighbours: what gets through is bounded per sender.
		for len(foundA) > 0 {
			<-foundA
		}
		for range 2000 {
			ip := netip.MustParseAddr("192.168.7.66")
			b, err := appendAnnounce(nil, "flood", peer.AddrInfo{ID: newID(t), Addrs: at(ip)}, ip, mdnsTTL)
			if err != nil {
				t.Fatal(err)
			}
			group.say(b, netip.AddrPortFrom(ip, mdnsPort))
			time.Sleep(time.Millisecond)
		}
		if n := len(foundA); n > mdnsBurst+mdnsRate*3 {
			t.Errorf("2000 announcements of one sender in 2 s: %d passed", n)
		}
		// An answer from another port than 5353 is not one.
		for len(foundA) > 0 {
			<-foundA
		}
		ip := netip.MustParseAddr("192.168.7.67")
		b, err := appendAnnounce(nil, "port", peer.AddrInfo{ID: newID(t), Addrs: at(ip)}, ip, mdnsTTL)
		if err != nil {
			t.Fatal(err)
		}
		group.say(b, netip.AddrPortFrom(ip, 4444))
		synctest.Wait()
		if len(foundA) != 0 {
			t.Error("believed an answer from port 4444")
		}
		before = group.count()
		stopB()
		if group.count() != before+1 {
			t.Error("no good-bye")
		}
		stopA()
	})
}

// TestMDNSOnTheRealNetwork runs two on this machine. Where no interface has
// multicast, opening says so and nothing else breaks.
func TestMDNSOnTheRealNetwork(t *testing.T) {
	hb, ha := newRecorder(), newRecorder()
	a := start(t, Config{LAN: true, MDNS: true, Handler: ha})
	b := start(t, Config{LAN: true, MDNS: true, Handler: hb})
	_, lanB := b.PeerIDs()
	ips := ip4sOf(a.lanAddrs(a.host(lanHost)))
	c, err := openMDNS(ips)
	if err != nil {
		t.Log("no multicast here:", err)
		return
	}
	c.Close()
	for {
		info := await(t, "neighbour", ha.found)
		if info.ID != lanB {
			continue // a node of somebody else
		}
		for _, addr := range info.Addrs {
			if isLoopback(addr) || !isLocal(addr) {
				t.Errorf("found at %s", addr)
			}
		}
		path, err := a.Dial(t.Context(), info.ID, info.Addrs)
		if err != nil {
			t.Fatal(err)
		}
		if _, lanA := a.PeerIDs(); path.Local != lanA || path.Route != LAN {
			t.Errorf("path %+v", path)
		}
		if err := say(t.Context(), a, lanB, "hello"); err != nil {
			t.Error(err)
		}
		return
	}
}

// TestMDNSFlood covers threats.md H121: a flood of announcements costs the
// node a bounded number of events, whoever sends it.
func TestMDNSFlood(t *testing.T) {
	n, err := New(Config{Key: newKey(t), LAN: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3000 {
		ip := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		raw := make([]byte, 32)
		if _, err := rand.Read(raw); err != nil {
			t.Fatal(err)
		}
		n.foundOnLAN(peer.AddrInfo{ID: peer.ID("\x00\x24\x08\x01\x12\x20" + string(raw)), Addrs: at(ip)})
	}
	if got := len(n.events.found); got == 0 || got > maxFound {
		t.Errorf("%d neighbours wait, want 1 to %d", got, maxFound)
	}
	if got := len(n.guard.found); got > maxBuckets {
		t.Errorf("%d buckets, want at most %d", got, maxBuckets)
	}
}

// TestLoopbackAddressesOfAnotherHost: a neighbour who announces addresses of our own
// machine is not passed on, and one who announces others beside them without these.
func TestLoopbackAddressesOfAnotherHost(t *testing.T) {
	n, err := New(Config{Key: newKey(t), LAN: true})
	if err != nil {
		t.Fatal(err)
	}
	v4, v6 := ma.StringCast("/ip4/127.0.0.1/tcp/22"), ma.StringCast("/ip6/::1/udp/22/quic-v1")
	other := ma.StringCast("/ip4/192.168.7.2/udp/4001/quic-v1")
	n.foundOnLAN(peer.AddrInfo{ID: newID(t), Addrs: []ma.Multiaddr{v4, v6}})
	if len(n.events.found) != 0 {
		t.Error("a neighbour on our loopback was believed")
	}
	p := newID(t)
	n.foundOnLAN(peer.AddrInfo{ID: p, Addrs: []ma.Multiaddr{v4, other, v6}})
	if len(n.events.found) != 1 {
		t.Fatalf("%d neighbours passed on, want 1", len(n.events.found))
	}
	for _, info := range n.events.found {
		if info.ID != p || len(info.Addrs) != 1 || !info.Addrs[0].Equal(other) {
			t.Errorf("passed on as %v", info)
		}
	}
}

// TestSightingsAreKeptApart: an announcement of somebody at another address does not take
// the place of one that waits.
func TestSightingsAreKeptApart(t *testing.T) {
	n, err := New(Config{Key: newKey(t), LAN: true})
	if err != nil {
		t.Fatal(err)
	}
	p := newID(t)
	for _, ip := range []string{"192.168.7.2", "192.168.7.3", "192.168.7.2"} {
		n.foundOnLAN(peer.AddrInfo{ID: p, Addrs: at(netip.MustParseAddr(ip))})
	}
	if got := len(n.events.found); got != 2 || len(n.events.foundQ) != 2 {
		t.Errorf("%d announcements wait, want one of each address", got)
	}
}
