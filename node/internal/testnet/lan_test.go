package testnet

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/p2p"
)

// watcher is a p2p.Handler that keeps what it was told.
type watcher struct {
	found chan peer.AddrInfo
	up    chan peer.ID
	down  chan peer.ID
	addrs chan struct{}
}

func newWatcher() *watcher {
	return &watcher{make(chan peer.AddrInfo, 1000), make(chan peer.ID, 1000), make(chan peer.ID, 1000), make(chan struct{}, 1000)}
}

func (w *watcher) Found(i peer.AddrInfo)              { w.found <- i }
func (w *watcher) Connected(p peer.ID, _ p2p.Path)    { w.up <- p }
func (w *watcher) Disconnected(p peer.ID, _ p2p.Path) { w.down <- p }
func (w *watcher) AddrsChanged()                      { w.addrs <- struct{}{} }

func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatalf("no %s within a minute", what)
		panic("unreachable")
	}
}

// TestNeighboursMeet covers threats.md H116 and H121 in virtual time: with no
// Internet two nodes find each other and talk, and the LAN sees a key that is
// not the main one and is another one the next day.
func TestNeighboursMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{Latency: time.Millisecond})
		wa, wb := newWatcher(), newWatcher()
		a := start(t, n, 0, p2p.Config{LAN: true, LANKey: key(t, 1, 100), Handler: wa})
		b := start(t, n, 1, p2p.Config{LAN: true, LANKey: key(t, 1, 101), Handler: wb})
		mainB, lanB := b.PeerIDs()
		_, lanA := a.PeerIDs()
		info := await(t, "neighbour", wa.found)
		if info.ID != lanB || info.ID == mainB || len(info.Addrs) != 1 || !info.Addrs[0].Equal(n.Host(1).LANAddr) {
			t.Fatalf("found %v, want the LAN host %v at %v", info, lanB, n.Host(1).LANAddr)
		}
		path, err := a.Dial(t.Context(), info.ID, info.Addrs)
		if err != nil {
			t.Fatal(err)
		}
		if path.Route != p2p.LAN || path.Local != lanA {
			t.Errorf("path %+v, want the LAN host's own key %v", path, lanA)
		}
		if got := await(t, "Connected at b", wb.up); got != lanA {
			t.Errorf("b sees %v, want a's LAN key %v and never the main one", got, lanA)
		}
		if err := a.say(t.Context(), &up{id: lanB}, "hello neighbour"); err != nil {
			t.Error(err)
		}

		// The next day: another key, found anew, the old connection gone.
		old := lanA
		if err := a.RotateLAN(key(t, 1, 102)); err != nil {
			t.Fatal(err)
		}
		if _, lanA = a.PeerIDs(); lanA == old {
			t.Fatal("RotateLAN kept the key")
		}
		if got := await(t, "Disconnected at b", wb.down); got != old {
			t.Errorf("b lost %v, want %v", got, old)
		}
		for {
			if info = await(t, "the new neighbour", wb.found); info.ID == lanA {
				break
			}
		}
		if err := b.say(t.Context(), &up{id: lanA, addr: info.Addrs[0]}, "good morning"); err != nil {
			t.Error(err)
		}
		if err := a.RotateLAN(key(t, 1, 0)); err == nil {
			t.Error("RotateLAN took the main key")
		}
		// Rotating is no change of network: a node that rotates on AddrsChanged must not
		// do so for ever.
		time.Sleep(time.Minute)
		if len(wa.addrs) != 1 {
			t.Errorf("AddrsChanged called %d times, want once", len(wa.addrs))
		}
	})
}

// TestInviteOnTheLAN dials the stable key at its LAN address, as an invite for
// the LAN asks for. The two know each other by keys that are still there after
// the LAN keys have changed.
func TestInviteOnTheLAN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{Latency: time.Millisecond})
		a := start(t, n, 0, p2p.Config{LAN: true, LANOnly: true})
		b := start(t, n, 1, p2p.Config{LAN: true, LANOnly: true})
		addr, ok := b.BestAddr(p2p.OnLAN)
		if !ok {
			t.Fatal("no address for a LAN invite")
		}
		if _, ok := b.BestAddr(p2p.Internet); ok {
			t.Error("an address for the Internet on a LAN-only node")
		}
		for range 2 {
			path, err := a.Dial(t.Context(), b.id, []ma.Multiaddr{addr})
			if err != nil {
				t.Fatal(err)
			}
			if path.Local != a.id || path.Route != p2p.LAN {
				t.Errorf("path %+v, want from the main host over the LAN", path)
			}
			if err := errors.Join(a.RotateLAN(nil), b.RotateLAN(nil)); err != nil {
				t.Fatal(err)
			}
			if err := a.say(t.Context(), b, "not cut by the rotation"); err != nil {
				t.Error(err)
			}
			a.ClosePeer(b.id)
		}
	})
}

// TestLANOnlyRefusesTheInternet: neither direction, and not even a handshake.
func TestLANOnlyRefusesTheInternet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{Latency: time.Millisecond})
		a := start(t, n, 0, p2p.Config{})
		b := start(t, n, 1, p2p.Config{LANOnly: true})
		if _, err := b.Dial(t.Context(), a.id, []ma.Multiaddr{a.addr}); !errors.Is(err, p2p.ErrNoAddress) {
			t.Errorf("LAN-only node dials a public address: got %v, want ErrNoAddress", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := a.Dial(ctx, b.id, []ma.Multiaddr{b.addr}); err == nil {
			t.Error("LAN-only node accepts a public address")
		}
		// A handshake would answer with a certificate of some hundred bytes.
		if back := n.Traffic(1, 0); back.Bytes > 200*back.Packets {
			t.Errorf("it answered with %+v", back)
		}
	})
}

// TestTwoRoutesToOnePeer has a peer with an address here and one elsewhere: a
// dead one does not delay the other.
func TestTwoRoutesToOnePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{Latency: 20 * time.Millisecond})
		a := start(t, n, 0, p2p.Config{LAN: true})
		b := start(t, n, 1, p2p.Config{})
		dead := ma.StringCast("/ip4/10.9.9.9/udp/4001/quic-v1")
		begin := time.Now()
		path, err := a.Dial(t.Context(), b.id, []ma.Multiaddr{dead, b.addr})
		if err != nil {
			t.Fatal(err)
		}
		if path.Route != p2p.Direct || !path.Addr.Equal(b.addr) {
			t.Errorf("path %+v", path)
		}
		within(t, "dial", time.Since(begin), 40*time.Millisecond, 50*time.Millisecond)
	})
}

// TestNeighbourAnnouncesForeignID: anybody on the LAN can announce the id of somebody
// who is elsewhere, at an address of its own. Who is meant is dialled elsewhere as
// before, by the main host, and what was announced is forgotten with the LAN key.
func TestNeighbourAnnouncesForeignID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{Latency: time.Millisecond})
		wa := newWatcher()
		a := start(t, n, 0, p2p.Config{LAN: true, Handler: wa})
		b := start(t, n, 1, p2p.Config{Profile: p2p.Server})
		stranger := n.Host(7).LANAddr
		n.mu.Lock()
		n.lan[7] = &neighbour{info: peer.AddrInfo{ID: b.id, Addrs: []ma.Multiaddr{stranger}}, found: func(peer.AddrInfo) {}}
		n.mu.Unlock()
		await(t, "announcement", wa.found)
		mainA, _ := a.PeerIDs()
		for _, addrs := range [][]ma.Multiaddr{{b.addr}, {stranger, b.addr}} {
			begin := time.Now()
			path, err := a.Dial(t.Context(), b.id, addrs)
			if err != nil || path.Route != p2p.Direct || path.Local != mainA || time.Since(begin) > time.Second {
				t.Errorf("dial at %v: %+v after %v, %v; want the main host at the address elsewhere", addrs, path, time.Since(begin), err)
			}
			a.ClosePeer(b.id)
		}
		if _, err := a.DialLAN(t.Context(), b.id, []ma.Multiaddr{b.addr}); !errors.Is(err, p2p.ErrNoAddress) {
			t.Errorf("dialled for the LAN at an address elsewhere: %v", err)
		}
		n.mu.Lock()
		delete(n.lan, 7)
		n.mu.Unlock()
		if got := a.Tried().Found; got != 1 {
			t.Errorf("%d neighbours, want the stranger", got)
		}
		if err := a.RotateLAN(nil); err != nil {
			t.Fatal(err)
		}
		if got := a.Tried().Found; got != 0 {
			t.Errorf("%d neighbours known after the key changed, want none", got)
		}
	})
}
