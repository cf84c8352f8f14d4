package testnet

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/p2p"
)

// follower is a Handler that remembers paths and counts changes.
type follower struct {
	conn    chan change
	changed chan struct{} // one slot
}

type change struct {
	up   bool
	peer peer.ID
	path p2p.Path
}

func newFollower() *follower {
	return &follower{conn: make(chan change, 256), changed: make(chan struct{}, 1)}
}

func (w *follower) Found(peer.AddrInfo)                   {}
func (w *follower) Connected(p peer.ID, path p2p.Path)    { w.conn <- change{true, p, path} }
func (w *follower) Disconnected(p peer.ID, path p2p.Path) { w.conn <- change{false, p, path} }
func (w *follower) AddrsChanged() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// until waits, by the events of AddrsChanged alone, for a state; it returns how long
// it took.
func (w *follower) until(t *testing.T, u *up, what string, limit time.Duration, ok func(p2p.Reachability) bool) time.Duration {
	t.Helper()
	begin := time.Now()
	deadline := time.After(limit)
	for {
		if ok(u.Reachability()) {
			return time.Since(begin)
		}
		select {
		case <-w.changed:
		case <-deadline:
			t.Fatalf("%s: not within %v: %+v", what, limit, u.Reachability())
		}
	}
}

// next waits for a change of the connection with p.
func (w *follower) next(t *testing.T, p peer.ID, limit time.Duration) change {
	t.Helper()
	deadline := time.After(limit)
	for {
		select {
		case c := <-w.conn:
			if c.peer == p {
				return c
			}
		case <-deadline:
			t.Fatalf("no change of the connection with %s within %v", p, limit)
		}
	}
}

// server starts a server-profile node on machine i.
func server(t *testing.T, n *Net, i int, cfg p2p.Config) *up {
	t.Helper()
	cfg.Profile = p2p.Server
	return start(t, n, i, cfg)
}

// walled starts a node on machine i behind a firewall, which knows the servers.
func walled(t *testing.T, n *Net, i int, cfg p2p.Config, servers ...*up) (*up, *follower) {
	t.Helper()
	n.Host(i).Firewall(true)
	w := newFollower()
	cfg.Handler = w
	cfg.Relays = known(servers)
	return start(t, n, i, cfg), w
}

func known(servers []*up) func() []peer.AddrInfo {
	return func() []peer.AddrInfo {
		var out []peer.AddrInfo
		for _, s := range servers {
			out = append(out, peer.AddrInfo{ID: s.id, Addrs: []ma.Multiaddr{s.addr}})
		}
		return out
	}
}

// over sends a line to somebody at the addresses given and returns the path of it.
func over(ctx context.Context, from, to *up, addrs []ma.Multiaddr, text string) (p2p.Path, error) {
	path, err := from.Dial(ctx, to.id, addrs)
	if dial, ok := errors.AsType[*p2p.DialError](err); ok {
		return path, fmt.Errorf("%w: %s", err, dial.Details())
	}
	if err != nil {
		return path, err
	}
	return path, from.say(ctx, to, text)
}

// TestRelayReservation: an unreachable node gets a relay at once and says so, a
// message comes over it, and what it says turns false when the relay dies.
func TestRelayReservation(t *testing.T) {
	for _, profile := range []p2p.Profile{p2p.Home, p2p.Client} {
		t.Run(string(profile), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := New(t, 1, Options{})
				relay := server(t, n, 0, p2p.Config{})
				b, w := walled(t, n, 1, p2p.Config{Profile: profile}, relay)
				within(t, "relay found", w.until(t, b, "relay", time.Minute, func(r p2p.Reachability) bool { return r.Internet() }), 0, 2*time.Second)
				r := b.Reachability()
				if len(r.Relays) != 1 || r.Relays[0].Peer != relay.id || len(r.Direct) > 0 {
					t.Errorf("reachability: %+v", r)
				}
				if left := time.Until(r.Relays[0].Until); left < 50*time.Minute || left > time.Hour {
					t.Errorf("term of %v", left)
				}
				best, ok := b.BestAddr(p2p.Internet)
				if want := relay.addr.Encapsulate(ma.StringCast("/p2p/" + relay.id.String() + "/p2p-circuit")); !ok || !best.Equal(want) {
					t.Errorf("best address %v %v, want %v", best, ok, want)
				}
				if addrs := b.Addrs(); len(addrs) < 1 || !addrs[0].Equal(best) {
					t.Errorf("addresses: %v", addrs)
				}
				a := start(t, n, 2, p2p.Config{Profile: p2p.Client})
				path, err := over(t.Context(), a, b, []ma.Multiaddr{best}, "over the relay")
				if err != nil {
					t.Fatal(err)
				}
				if path.Route != p2p.Relayed || path.Relay != relay.id || path.Transport != "quic" {
					t.Errorf("path %+v", path)
				}
				relay.stop()
				w.until(t, b, "relay lost", time.Minute, func(r p2p.Reachability) bool { return !r.Internet() })
				if _, ok := b.BestAddr(p2p.Internet); ok {
					t.Error("an address for the Internet without a relay")
				}
			})
		})
	}
}

// TestRelayIsRenewed: a reservation lasts an hour and is held for a day.
func TestRelayIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		relay := server(t, n, 0, p2p.Config{})
		b, w := walled(t, n, 1, p2p.Config{Profile: p2p.Client}, relay)
		w.until(t, b, "relay", time.Minute, func(r p2p.Reachability) bool { return r.Internet() })
		for range 24 {
			time.Sleep(time.Hour)
			if r := b.Reachability(); !r.Internet() || time.Until(r.Relays[0].Until) < 10*time.Minute {
				t.Fatalf("after an hour: %+v", r)
			}
		}
	})
}

// TestVerdicts covers H148: what a home says of itself is what others found, from the
// first minute on, and changes with it.
func TestVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		var servers []*up
		for i := range 4 {
			servers = append(servers, server(t, n, i, p2p.Config{}))
		}
		b, w := walled(t, n, 4, p2p.Config{}, servers...)
		if r := b.Reachability(); r.Verdict != p2p.Unknown || r.Internet() || r.Forced {
			t.Errorf("at the start: %+v", r)
		}
		took := w.until(t, b, "private", 2*time.Minute, func(r p2p.Reachability) bool { return r.Verdict == p2p.Private })
		t.Logf("private after %v: %+v", took, b.Reachability())
		if r := b.Reachability(); len(r.Direct) > 0 || len(r.Relays) != 3 {
			t.Errorf("behind the firewall: %+v", r)
		}
		n.Host(4).Firewall(false)
		took = w.until(t, b, "public", 2*time.Hour, func(r p2p.Reachability) bool { return r.Verdict == p2p.Public && len(r.Direct) > 0 })
		t.Logf("public %v after the firewall went: %+v", took, b.Reachability())
		if r := b.Reachability(); !r.Direct[0].Equal(b.addr) {
			t.Errorf("without the firewall: %+v", r)
		}
		if best, ok := b.BestAddr(p2p.Internet); !ok || !best.Equal(b.addr) {
			t.Errorf("best address: %v %v", best, ok)
		}
		w.until(t, b, "no relays needed", 2*time.Hour, func(r p2p.Reachability) bool { return len(r.Relays) == 0 })

		// Now it relays for others.
		c, wc := walled(t, n, 5, p2p.Config{Profile: p2p.Client}, b)
		wc.until(t, c, "relay", time.Minute, hasRelay)
		if r := c.Reachability().Relays[0]; r.Peer != b.id {
			t.Errorf("relay: %+v", r)
		}

		n.Host(4).Firewall(true)
		took = w.until(t, b, "private again", 3*time.Hour, func(r p2p.Reachability) bool { return r.Verdict == p2p.Private && len(r.Direct) == 0 })
		t.Logf("private %v after the firewall came: %+v", took, b.Reachability())
		wc.until(t, c, "the relay that is none any more is given up", time.Minute, func(r p2p.Reachability) bool { return !r.Internet() })
	})
}

// TestForcedPrivateIgnoresDialBacks: a client is private by its profile, though its
// address answers and others offer AutoNAT v2.
func TestForcedPrivateIgnoresDialBacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		var servers []*up
		for i := range 3 {
			servers = append(servers, server(t, n, i, p2p.Config{}))
		}
		w := newFollower()
		c := start(t, n, 3, p2p.Config{Profile: p2p.Client, Handler: w})
		for _, s := range servers {
			if err := c.say(t.Context(), s, "hello"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		r := c.Reachability()
		if r.Verdict != p2p.Private || !r.Forced || len(r.Direct) > 0 || len(r.Relays) != 1 {
			t.Errorf("%+v", r)
		}
		if best, ok := c.BestAddr(p2p.Internet); !ok || !best.Equal(r.Relays[0].Addrs[0]) {
			t.Errorf("best address %v %v", best, ok)
		}
	})
}

// TestServerThatIsNone: a server claims nothing before somebody comes in, nor once dial
// backs fail.
func TestServerThatIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		w := newFollower()
		s := server(t, n, 0, p2p.Config{Handler: w})
		if r := s.Reachability(); r.Verdict != p2p.Public || !r.Forced || r.Internet() {
			t.Errorf("at the start: %+v", r)
		}
		if _, ok := s.BestAddr(p2p.Internet); ok {
			t.Error("an address that nobody has tried")
		}
		if err := server(t, n, 5, p2p.Config{}).say(t.Context(), s, "hello"); err != nil {
			t.Fatal(err)
		}
		w.until(t, s, "somebody came in", time.Second, func(r p2p.Reachability) bool { return len(r.Direct) == 1 })
		n.Host(0).Firewall(true)
		for i := range 4 {
			if err := s.say(t.Context(), server(t, n, i+1, p2p.Config{}), "hello"); err != nil {
				t.Fatal(err)
			}
		}
		took := w.until(t, s, "claim dropped", time.Hour, func(r p2p.Reachability) bool { return len(r.Direct) == 0 })
		t.Logf("dropped after %v: %+v, %v", took, s.Reachability(), s.Addrs())
		if _, ok := s.BestAddr(p2p.Internet); ok {
			t.Error("an address that leads nowhere")
		}
	})
}

// TestIdleHomeIsCheap holds the traffic of a home with its tests of reachability
// and its three relays: network.md 6 allows 60 MB a day with 20 contacts.
func TestIdleHomeIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		var servers []*up
		for i := range 4 {
			servers = append(servers, server(t, n, i, p2p.Config{}))
		}
		b, w := walled(t, n, 4, p2p.Config{}, servers...)
		c, wc := walled(t, n, 5, p2p.Config{Profile: p2p.Client}, servers...)
		w.until(t, b, "relays", time.Hour, func(r p2p.Reachability) bool { return len(r.Relays) == 3 && r.Verdict == p2p.Private })
		wc.until(t, c, "relay", time.Hour, hasRelay)
		sum := func(i int) (bytes int) {
			for j := range 4 {
				bytes += n.Traffic(i, j).Bytes + n.Traffic(j, i).Bytes
			}
			return bytes
		}
		home, client := sum(4), sum(5)
		hours := 24
		if testing.Short() { // beside the race detector
			hours = 2
		}
		time.Sleep(time.Duration(hours) * time.Hour)
		home, client = (sum(4)-home)*24/hours, (sum(5)-client)*24/hours
		t.Logf("idle home with 3 relays and no contacts: %d bytes a day; client with 1: %d", home, client)
		if home > 8_000_000 || client > 1_000_000 {
			t.Error("too much")
		}
	})
}

// TestRelaysAreConfirmed: after a sleep or a change of network, what was held is asked
// about, and an invite tells the truth again within seconds, where QUIC alone would
// notice after half a minute.
func TestRelaysAreConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		servers := []*up{server(t, n, 0, p2p.Config{}), server(t, n, 1, p2p.Config{})}
		b, w := walled(t, n, 2, p2p.Config{}, servers...)
		w.until(t, b, "both relays", time.Minute, func(r p2p.Reachability) bool { return len(r.Relays) == 2 })
		before := b.Reachability().Relays[0].Until
		time.Sleep(time.Minute)
		b.FindRelays()
		time.Sleep(time.Second)
		if r := b.Reachability(); len(r.Relays) != 2 || !r.Relays[0].Until.After(before) {
			t.Errorf("confirmed: %+v", r)
		}
		n.Cut([]int{2}, []int{0})
		b.FindRelays()
		within(t, "one lost", w.until(t, b, "one lost", time.Minute, func(r p2p.Reachability) bool { return len(r.Relays) == 1 }), 0, 5*time.Second)
		if r := b.Reachability().Relays[0]; r.Peer != servers[1].id {
			t.Errorf("the wrong one was given up: %v", r.Peer)
		}
		n.Heal()
		took := w.until(t, b, "back", 2*time.Minute, func(r p2p.Reachability) bool { return len(r.Relays) == 2 })
		t.Logf("back after %v", took)
		within(t, "back", took, 0, time.Minute)
	})
}

// TestDoubtedRelayAlone: somebody who comes over one relay and is silent has this node ask
// that relay whether it is there, and no other one, and not again within a minute.
func TestDoubtedRelayAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		servers := []*up{server(t, n, 0, p2p.Config{}), server(t, n, 1, p2p.Config{})}
		b, w := walled(t, n, 2, p2p.Config{}, servers...)
		w.until(t, b, "both relays", time.Minute, func(r p2p.Reachability) bool { return len(r.Relays) == 2 })
		until := func(s *up) time.Time {
			for _, r := range b.Reachability().Relays {
				if r.Peer == s.id {
					return r.Until
				}
			}
			return time.Time{}
		}
		doubt := func(when string, asked bool) {
			t.Helper()
			before, other := until(servers[0]), until(servers[1])
			b.DoubtRelay(servers[0].id)
			time.Sleep(5 * time.Second)
			if until(servers[0]).After(before) != asked || !until(servers[1]).Equal(other) {
				t.Errorf("%s: asked %v, want %v; the other one asked: %v", when, !asked, asked, !until(servers[1]).Equal(other))
			}
		}
		time.Sleep(time.Minute)
		doubt("at first", true)
		doubt("at once again", false)
		time.Sleep(51 * time.Second)
		doubt("after a minute", true)
		time.Sleep(time.Minute)
		n.Cut([]int{2}, []int{0})
		b.DoubtRelay(servers[0].id)
		within(t, "lost", w.until(t, b, "lost", time.Minute, func(r p2p.Reachability) bool { return len(r.Relays) == 1 }), 0, 5*time.Second)
	})
}

// TestNoPublicPeer covers H61: without anybody who could dial back or relay, the node
// runs, says that it does not know, and keeps what it is told.
func TestNoPublicPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		a, _ := walled(t, n, 0, p2p.Config{})
		b := start(t, n, 1, p2p.Config{Profile: p2p.Client})
		if err := a.say(t.Context(), b, "hello"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if r := a.Reachability(); r.Verdict != p2p.Unknown || r.Internet() || len(a.RelayTries()) > 0 {
			t.Errorf("%+v, %v", r, a.RelayTries())
		}
		if _, ok := a.BestAddr(p2p.Internet); ok {
			t.Error("an address that nobody has tried")
		}
	})
}
