package testnet

import (
	"context"
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
