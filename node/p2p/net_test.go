package p2p

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

var (
	quicTransport = quic.NewTransport
	tcpTransport  = tcp.NewTCPTransport
)

const echoID = "/kinloom/test-echo/1"

var (
	loopQUIC = ma.StringCast("/ip4/127.0.0.1/udp/0/quic-v1")
	loopTCP  = ma.StringCast("/ip4/127.0.0.1/tcp/0")
)

// recorder is a Handler that hands the events to the test.
type recorder struct {
	found chan peer.AddrInfo
	conn  chan event
	addrs chan struct{}
}

type event struct {
	up   bool
	peer peer.ID
	path Path
}

func newRecorder() *recorder {
	return &recorder{found: make(chan peer.AddrInfo, 100), conn: make(chan event, 100), addrs: make(chan struct{}, 100)}
}

func (r *recorder) Found(i peer.AddrInfo)             { r.found <- i }
func (r *recorder) Connected(p peer.ID, path Path)    { r.conn <- event{true, p, path} }
func (r *recorder) Disconnected(p peer.ID, path Path) { r.conn <- event{false, p, path} }
func (r *recorder) AddrsChanged()                     { r.addrs <- struct{}{} }

// await returns the next value or fails after 20 s.
func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("no %s within 20 s", what)
		panic("unreachable")
	}
}

func newKey(t testing.TB) crypto.PrivKey {
	t.Helper()
	k, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// start opens and runs a Net that echoes, until the test ends.
func start(t testing.TB, cfg Config) *Net {
	t.Helper()
	if cfg.Key == nil {
		cfg.Key = newKey(t)
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Handle(echoID, Limits{}, echo)
	ctx, cancel := context.WithCancel(t.Context())
	if err := n.Open(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error("Run:", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("Run did not return within 20 s")
		}
	})
	return n
}

func echo(s network.Stream) {
	r := bufio.NewReader(s)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		if _, err := s.Write(line); err != nil {
			return
		}
	}
}

// say sends one line over a new stream and checks the answer.
func say(ctx context.Context, n *Net, p peer.ID, text string) error {
	s, err := n.NewStream(ctx, p, echoID)
	if err != nil {
		return err
	}
	defer s.Reset()
	if d, ok := ctx.Deadline(); ok {
		s.SetDeadline(d)
	}
	if _, err := io.WriteString(s, text+"\n"); err != nil {
		return err
	}
	got := make([]byte, len(text)+1)
	if _, err := io.ReadFull(s, got); err != nil {
		return err
	}
	if !bytes.Equal(got, []byte(text+"\n")) {
		return errors.New("wrong echo")
	}
	return nil
}

func TestTwoNetsOverLoopback(t *testing.T) {
	for _, tc := range []struct {
		name      string
		listen    ma.Multiaddr
		transport string
	}{
		{"quic", loopQUIC, "quic"},
		{"tcp", loopTCP, "tcp"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ha, hb := newRecorder(), newRecorder()
			a := start(t, Config{Listen: []ma.Multiaddr{tc.listen}, Handler: ha})
			b := start(t, Config{Listen: []ma.Multiaddr{tc.listen}, Handler: hb})
			idA, _ := a.PeerIDs()
			idB, _ := b.PeerIDs()
			await(t, "address event", ha.addrs)
			addrs := b.Addrs()
			if len(addrs) != 1 || !isLoopback(addrs[0]) {
				t.Fatalf("Addrs: got %v, want the loopback address", addrs)
			}
			if best, ok := b.BestAddr(OnLAN); !ok || !best.Equal(addrs[0]) {
				t.Fatalf("BestAddr(OnLAN): got %v %v, want %v", best, ok, addrs[0])
			}
			if best, ok := b.BestAddr(Internet); ok {
				t.Fatalf("BestAddr(Internet): got %v, want none", best)
			}
			if got := a.Clean(addrs); len(got) != 1 {
				t.Fatalf("Clean dropped loopback on a node that has only loopback: %v", got)
			}
			ctx := t.Context()
			path, err := a.Dial(ctx, idB, addrs)
			if err != nil {
				t.Fatal(err)
			}
			if path.Route != LAN || path.Transport != tc.transport || path.Inbound || path.Local != idA || !path.Addr.Equal(addrs[0]) {
				t.Fatalf("path: got %+v", path)
			}
			if e := await(t, "Connected at a", ha.conn); !e.up || e.peer != idB {
				t.Fatalf("event at a: %+v", e)
			}
			if e := await(t, "Connected at b", hb.conn); !e.up || e.peer != idA || !e.path.Inbound {
				t.Fatalf("event at b: %+v", e)
			}
			for _, text := range []string{"one", "two"} {
				if err := say(ctx, a, idB, text); err != nil {
					t.Fatal(err)
				}
				if err := say(ctx, b, idA, text); err != nil {
					t.Fatal("back:", err)
				}
			}
			if st := b.Stats(echoID); st.Served != 2 || st.Refused != 0 {
				t.Fatalf("stats: %+v", st)
			}
			s, err := a.NewStream(ctx, idB, "/kinloom/nobody/1")
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(s, "x")
			if _, err := s.Read(make([]byte, 1)); !errors.Is(err, ErrNotSupported) {
				t.Fatalf("unknown protocol: got %v, want ErrNotSupported", err)
			}
			s.Reset()
			a.ClosePeer(idB)
			if e := await(t, "Disconnected at b", hb.conn); e.up || e.peer != idA {
				t.Fatalf("event at b: %+v", e)
			}
			if _, err := a.NewStream(ctx, idB, echoID); !errors.Is(err, ErrNotConnected) {
				t.Fatalf("stream without connection: got %v", err)
			}
		})
	}
}

func TestPortTaken(t *testing.T) {
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udpAddr, _ := manet.FromNetAddr(udp.LocalAddr())
	tcpAddr, _ := manet.FromNetAddr(tcp.Addr())
	other := start(t, Config{Listen: []ma.Multiaddr{loopTCP}})
	for _, taken := range []ma.Multiaddr{
		udpAddr.Encapsulate(ma.StringCast("/quic-v1")), tcpAddr, other.ListenAddrs()[0],
	} {
		// The second address is free: it must not hide the taken one.
		n, err := New(Config{Key: newKey(t), Listen: []ma.Multiaddr{loopTCP, taken}})
		if err != nil {
			t.Fatal(err)
		}
		err = n.Open(t.Context())
		got, ok := errors.AsType[*ErrPortTaken](err)
		if !ok || !got.Addr.Equal(taken) {
			t.Errorf("listen on %s: got %v, want ErrPortTaken", taken, err)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestPreferredPortsComeBack(t *testing.T) {
	for _, listen := range [][]ma.Multiaddr{nil, {loopQUIC, loopTCP}} {
		key := newKey(t)
		first, err := New(Config{Key: key, Listen: listen})
		if err != nil {
			t.Fatal(err)
		}
		if err := first.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := first.ListenAddrs()
		if err := errors.Join(first.Close(), first.Close()); err != nil {
			t.Fatal(err)
		}
		second := start(t, Config{Key: key, Listen: listen, Prefer: before})
		for _, a := range second.ListenAddrs() {
			if !ma.Contains(before, a) {
				t.Errorf("got %v, want one of %v", a, before)
			}
		}
		// A third one finds the ports taken and takes others.
		third := start(t, Config{Listen: listen, Prefer: before})
		if len(third.ListenAddrs()) != len(before) {
			t.Errorf("got %v, want %d addresses", third.ListenAddrs(), len(before))
		}
	}
}

// TestOtherPeerIDsAreRefused covers threats.md H17: only Ed25519 keys are spoken
// to, in both directions.
func TestOtherPeerIDsAreRefused(t *testing.T) {
	n := start(t, Config{Listen: []ma.Multiaddr{loopQUIC, loopTCP}})
	id, _ := n.PeerIDs()
	for _, typ := range []int{crypto.RSA, crypto.Secp256k1, crypto.ECDSA} {
		key, _, err := crypto.GenerateKeyPairWithReader(typ, 2048, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		h := rawHost(t, libp2p.Identity(key), libp2p.ListenAddrs(loopQUIC, loopTCP))
		for _, a := range n.Addrs() {
			h.Peerstore().ClearAddrs(id)
			_ = h.Connect(t.Context(), peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{a}})
			if _, ok := n.Connected(h.ID()); ok {
				t.Errorf("key type %d over %s: connected", typ, a)
			}
			h.Network().ClosePeer(id)
		}
		if _, err := n.Dial(t.Context(), h.ID(), h.Addrs()); !errors.Is(err, ErrPeerID) {
			t.Errorf("dial key type %d: got %v, want ErrPeerID", typ, err)
		}
	}
}

// rawHost is a libp2p host with nothing of ours in it: the hostile side.
func rawHost(t testing.TB, opts ...libp2p.Option) host.Host {
	t.Helper()
	h, err := libp2p.New(append(opts, libp2p.DisableMetrics(), libp2p.ResourceManager(&network.NullResourceManager{}))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// TestLANOnlyOnOneMachine is two homes with --lan-only: with a network they talk
// over it, and with nothing but loopback over that.
func TestLANOnlyOnOneMachine(t *testing.T) {
	a := start(t, Config{LAN: true, LANOnly: true, MDNS: true})
	b := start(t, Config{LAN: true, LANOnly: true, MDNS: true})
	id, _ := b.PeerIDs()
	addr, ok := b.BestAddr(OnLAN)
	if !ok {
		t.Fatal("no address for an invite")
	}
	if got := a.Clean(b.Addrs()); len(got) == 0 {
		t.Errorf("a's addresses %v, b's %v: none of them usable", a.Addrs(), b.Addrs())
	}
	path, err := a.Dial(t.Context(), id, []ma.Multiaddr{addr})
	if err != nil {
		t.Fatal(err)
	}
	if path.Route != LAN {
		t.Errorf("path %+v", path)
	}
	if err := say(t.Context(), a, id, "hello"); err != nil {
		t.Error(err)
	}
}

// TestSecondHostIsCheap: the figure for an idle node is 1.3 times the memory of a
// bare host, so the LAN host must cost little beside the first one.
func TestSecondHostIsCheap(t *testing.T) {
	start(t, Config{}) // what is allocated once
	var memory, goroutines []int64
	for range 5 { // the median: what earlier tests left behind goes away meanwhile
		before, goBefore := used()
		start(t, Config{})
		one, goOne := used()
		start(t, Config{LAN: true})
		two, goTwo := used()
		memory = append(memory, (int64(two)-int64(one))-(int64(one)-int64(before)))
		goroutines = append(goroutines, int64(goTwo-goOne)-int64(goOne-goBefore))
	}
	t.Logf("the LAN host holds %d B and %d goroutines", memory, goroutines)
	slices.Sort(memory)
	slices.Sort(goroutines)
	if memory[2] > 2<<20 || goroutines[2] > 40 {
		t.Errorf("the LAN host holds %d KiB and %d goroutines", memory[2]>>10, goroutines[2])
	}
}

// TestRekeyLeavesTheOldAddress: who knew a node, and was left behind by another key, does
// not learn that key by dialling where the node was.
func TestRekeyLeavesTheOldAddress(t *testing.T) {
	v := start(t, Config{Listen: []ma.Multiaddr{loopQUIC, loopTCP}, NoDHT: true})
	m := start(t, Config{Listen: []ma.Multiaddr{loopQUIC, loopTCP}, NoDHT: true})
	old, _ := v.PeerIDs()
	before := v.Addrs()
	if err := v.Rekey(t.Context(), newKey(t)); err != nil {
		t.Fatal(err)
	}
	next, _ := v.PeerIDs()
	for _, a := range before {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		_, err := m.Dial(ctx, old, []ma.Multiaddr{a})
		cancel()
		if told, ok := errors.AsType[sec.ErrPeerIDMismatch](err); ok || err == nil {
			t.Errorf("a dial to %s with the old key: %v; it tells the new one: %v", a, err, told.Actual == next)
		}
		if slices.ContainsFunc(v.Addrs(), a.Equal) {
			t.Errorf("the node still listens at %s", a)
		}
	}
}
