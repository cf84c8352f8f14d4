package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	identifypb "github.com/libp2p/go-libp2p/p2p/protocol/identify/pb"
	"github.com/libp2p/go-msgio/pbio"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// attack connects a raw host with n and returns the connection.
func attack(t testing.TB, n *Net, addr ma.Multiaddr) (host.Host, network.Conn) {
	t.Helper()
	id, _ := n.PeerIDs()
	h := rawHost(t, libp2p.NoListenAddrs, libp2p.Transport(quicTransport), libp2p.Transport(tcpTransport))
	if err := h.Connect(t.Context(), peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{addr}}); err != nil {
		t.Fatal(err)
	}
	return h, h.Network().ConnsToPeer(id)[0]
}

// used is what the process holds: heap and stacks after a collection.
func used() (bytes uint64, goroutines int) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse, runtime.NumGoroutine()
}

// TestStreamFlood covers threats.md H8: 10,000 streams opened and not used, while
// an honest peer goes on being served.
func TestStreamFlood(t *testing.T) {
	for _, listen := range []ma.Multiaddr{loopQUIC, loopTCP} {
		_, name := transportOf(listen)
		t.Run(name, func(t *testing.T) {
			rec := newRecorder()
			n := start(t, Config{Listen: []ma.Multiaddr{listen}, Handler: rec})
			honest := start(t, Config{Listen: []ma.Multiaddr{listen}})
			id, _ := n.PeerIDs()
			if _, err := honest.Dial(t.Context(), id, n.Addrs()); err != nil {
				t.Fatal(err)
			}
			bytesBefore, goBefore := used()
			h, c := attack(t, n, n.Addrs()[0])
			var current atomic.Pointer[network.Conn]
			current.Store(&c)
			var opened, failed atomic.Int64
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					for range 1000 {
						c := *current.Load()
						ctx, cancel := context.WithTimeout(t.Context(), time.Second)
						s, err := c.NewStream(ctx)
						cancel()
						if err != nil {
							// Yamux gives up by itself when it is flooded: come back until banned.
							failed.Add(1)
							if h.Connect(t.Context(), peer.AddrInfo{ID: id, Addrs: n.Addrs()}) == nil {
								if conns := h.Network().ConnsToPeer(id); len(conns) > 0 {
									current.Store(&conns[0])
								}
							}
						} else {
							opened.Add(1)
							// A single byte makes QUIC send the stream; it negotiates nothing.
							_, _ = s.Write([]byte{19})
						}
					}
				})
			}
			var worst time.Duration
			for i := range 20 {
				begin := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				if err := say(ctx, honest, id, fmt.Sprint("line ", i)); err != nil {
					t.Errorf("honest peer, line %d: %v", i, err)
				}
				cancel()
				worst = max(worst, time.Since(begin))
			}
			wg.Wait()
			bytesAfter, goAfter := used()
			t.Logf("opened %d, failed %d, honest peer's worst answer %v, %d KiB and %d goroutines more on both sides",
				opened.Load(), failed.Load(), worst, (int64(bytesAfter)-int64(bytesBefore))>>10, goAfter-goBefore)
			if more := int64(bytesAfter) - int64(bytesBefore); more > 8<<20 {
				t.Errorf("%d MiB more, want at most 8 on both sides together", more>>20)
			}
			if worst > 5*time.Second {
				t.Errorf("honest peer waited %v", worst)
			}
			// The flooder is out, and stays out for a while.
			for !n.guard.banned(h.ID(), time.Now()) {
				await(t, "end of the flooder", rec.conn)
			}
			h.Network().ClosePeer(id)
			_ = h.Connect(t.Context(), peer.AddrInfo{ID: id, Addrs: n.Addrs()})
			s, err := h.NewStream(t.Context(), id, echoID)
			if err == nil {
				_ = s.SetDeadline(time.Now().Add(2 * time.Second))
				_, _ = io.WriteString(s, "hello\n")
				if _, err = s.Read(make([]byte, 1)); err == nil {
					t.Error("a banned peer is served")
				}
			}
			if _, err := n.Dial(t.Context(), h.ID(), []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/9")}); err == nil {
				t.Error("we dial a banned peer")
			}
		})
	}
}

// TestPatientFlood holds as many streams open as the bounds allow and negotiates
// none: the honest peer must not notice.
func TestPatientFlood(t *testing.T) {
	n := start(t, Config{Listen: []ma.Multiaddr{loopQUIC}})
	honest := start(t, Config{Listen: []ma.Multiaddr{loopQUIC}})
	id, _ := n.PeerIDs()
	if _, err := honest.Dial(t.Context(), id, n.Addrs()); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		_, c := attack(t, n, n.Addrs()[0])
		for range MaxStreamsPeer {
			s, err := c.NewStream(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, _ = s.Write([]byte{19})
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := say(ctx, honest, id, "still served"); err != nil {
		t.Error(err)
	}
}

func TestLimitsOfOneProtocol(t *testing.T) {
	const id = "/kinloom/test-hold/1"
	n := start(t, Config{Listen: []ma.Multiaddr{loopQUIC}})
	ended := make(chan struct{}, 10)
	n.Handle(id, Limits{Streams: 3, PerPeer: 2}, func(s network.Stream) {
		defer func() { ended <- struct{}{} }()
		if _, err := s.Write([]byte{1}); err == nil {
			_, _ = io.Copy(io.Discard, s)
		}
	})
	self, _ := n.PeerIDs()
	open := func(h host.Host) error {
		s, err := h.NewStream(t.Context(), self, id)
		if err != nil {
			return err
		}
		_ = s.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err = io.ReadFull(s, make([]byte, 1))
		return err
	}
	a, _ := attack(t, n, n.Addrs()[0])
	b, _ := attack(t, n, n.Addrs()[0])
	for i, tc := range []struct {
		h  host.Host
		ok bool
	}{{a, true}, {a, true}, {a, false}, {b, true}, {b, false}} {
		if err := open(tc.h); (err == nil) != tc.ok {
			t.Errorf("stream %d: got %v, want served: %v", i, err, tc.ok)
		}
	}
	if st := n.Stats(id); st.Open != 3 || st.Served != 3 {
		t.Errorf("stats: %+v", st)
	}
	a.Close()
	for range 2 {
		await(t, "end of a handler", ended)
	}
	if err := open(b); err != nil {
		t.Error("streams of a peer that has gone are not given back:", err)
	}
	if err := say(t.Context(), n, b.ID(), "x"); err == nil {
		t.Error("the raw host speaks our protocol")
	}
}

func TestGarbageInsteadOfAProtocol(t *testing.T) {
	for _, listen := range []ma.Multiaddr{loopQUIC, loopTCP} {
		n := start(t, Config{Listen: []ma.Multiaddr{listen}})
		_, c := attack(t, n, n.Addrs()[0])
		for _, in := range []string{
			"\x00", "GET / HTTP/1.1\r\n\r\n", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\x13/multistream/9.9.9\n",
			"\x13/multistream/1.0.0\n\xff\x7f", "\x13/multistream/1.0.0\n\x01", "\x13/multistream/1.0.0\n\x05abcd\n",
		} {
			s, err := c.NewStream(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_ = s.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.WriteString(s, in); err != nil {
				t.Fatal(err)
			}
			_ = s.CloseWrite()
			got, err := io.ReadAll(io.LimitReader(s, 1<<16))
			if len(got) > 64 {
				t.Errorf("%q: answered with %d bytes", in, len(got))
			}
			if errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%q: hangs", in)
			}
			s.Reset()
		}
		honest := start(t, Config{Listen: []ma.Multiaddr{listen}})
		id, _ := n.PeerIDs()
		if _, err := honest.Dial(t.Context(), id, n.Addrs()); err != nil {
			t.Fatal(err)
		}
		if err := say(t.Context(), honest, id, "hello"); err != nil {
			t.Error(err)
		}
	}
}

// TestAddressBookIsBounded covers threats.md H22 as far as a peer's word about
// itself goes: 500 addresses by identify push are not dialled and not kept.
func TestAddressBookIsBounded(t *testing.T) {
	rec := newRecorder()
	n := start(t, Config{Listen: []ma.Multiaddr{loopQUIC}, Handler: rec})
	self, _ := n.PeerIDs()
	h, _ := attack(t, n, n.Addrs()[0])
	for range 5 {
		s, err := h.NewStream(t.Context(), self, identify.IDPush)
		if err != nil {
			t.Fatal(err)
		}
		msg := new(identifypb.Identify)
		for i := range 600 {
			msg.ListenAddrs = append(msg.ListenAddrs, ma.StringCast(fmt.Sprintf("/ip4/8.8.%d.%d/tcp/22", i/250, i%250)).Bytes())
		}
		if err := pbio.NewDelimitedWriter(s).WriteMsg(msg); err != nil {
			t.Fatal(err)
		}
		_ = s.CloseWrite()
		_, _ = io.ReadAll(s)
	}
	ps := n.host(mainHost).Peerstore()
	if got := len(ps.Addrs(h.ID())); got > 500 {
		t.Errorf("%d addresses of a connected peer, want at most 500", got)
	}
	h.Close()
	for {
		if e := await(t, "Disconnected", rec.conn); !e.up {
			break
		}
	}
	if got := ps.Addrs(h.ID()); len(got) > 0 {
		t.Errorf("%d addresses kept of a peer that has gone", len(got))
	}
}

// TestForgedPeerRecords covers threats.md H21: a record about somebody else, or
// signed by somebody else, tells us nothing.
func TestForgedPeerRecords(t *testing.T) {
	n := start(t, Config{Listen: []ma.Multiaddr{loopQUIC}})
	self, _ := n.PeerIDs()
	h, _ := attack(t, n, n.Addrs()[0])
	victimKey, otherKey := newKey(t), newKey(t)
	victim, err := peer.IDFromPrivateKey(victimKey)
	if err != nil {
		t.Fatal(err)
	}
	lie := []ma.Multiaddr{ma.StringCast("/ip4/8.8.8.8/tcp/22")}
	for _, about := range []peer.ID{victim, h.ID(), self} {
		for _, by := range []crypto.PrivKey{victimKey, otherKey} {
			env, err := record.Seal(&peer.PeerRecord{PeerID: about, Addrs: lie, Seq: 1 << 60}, by)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := env.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			s, err := h.NewStream(t.Context(), self, identify.IDPush)
			if err != nil {
				t.Fatal(err)
			}
			if err := pbio.NewDelimitedWriter(s).WriteMsg(&identifypb.Identify{SignedPeerRecord: raw}); err != nil {
				t.Fatal(err)
			}
			_ = s.CloseWrite()
			_, _ = io.ReadAll(s)
		}
	}
	ps := n.host(mainHost).Peerstore()
	for _, p := range []peer.ID{victim, h.ID(), self} {
		if ma.Contains(ps.Addrs(p), lie[0]) {
			t.Errorf("believed a forged record about %v", p)
		}
	}
}

// TestPacketsOfNobody covers threats.md H20 as far as packets go that belong to no
// connection: no panic, no memory, others are served.
func TestPacketsOfNobody(t *testing.T) {
	n := start(t, Config{Listen: []ma.Multiaddr{loopQUIC}})
	honest := start(t, Config{Listen: []ma.Multiaddr{loopQUIC}})
	addr, err := manet.ToNetAddr(n.Addrs()[0].Decapsulate(ma.StringCast("/quic-v1")))
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	before, _ := used()
	rng := mrand.New(mrand.NewChaCha8([32]byte{1}))
	first := []byte{0xc0, 0xc3, 0xd0, 0xe0, 0xf0, 0x40, 0x5f, 0x00} // long headers, short ones, not QUIC
	for i := range 20_000 {
		b := make([]byte, 1+rng.IntN(1300))
		for j := range b {
			b[j] = byte(rng.Uint32())
		}
		b[0] = first[i%len(first)] | b[0]&0x0f
		if len(b) > 5 && i%2 == 0 {
			copy(b[1:], []byte{0, 0, 0, 1}) // QUIC version 1
		}
		_, _ = c.Write(b)
	}
	after, _ := used()
	if more := int64(after) - int64(before); more > 16<<20 {
		t.Errorf("20,000 packets cost %d MiB", more>>20)
	}
	id, _ := n.PeerIDs()
	if _, err := honest.Dial(t.Context(), id, n.Addrs()); err != nil {
		t.Fatal(err)
	}
	if err := say(t.Context(), honest, id, "hello"); err != nil {
		t.Error(err)
	}
}
