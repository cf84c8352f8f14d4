package testnet

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/p2p"
)

const echoID = "/kinloom/test-echo/1"

// key returns the transport key of host i, the same at each start.
func key(t testing.TB, seed uint64, i int) crypto.PrivKey {
	t.Helper()
	src := rand.NewChaCha8([32]byte{byte(seed), byte(i), byte(i >> 8), 1})
	k, _, err := crypto.GenerateEd25519Key(src)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// up is a running p2p.Net that echoes lines.
type up struct {
	*p2p.Net
	id   peer.ID
	addr ma.Multiaddr
	stop func()
}

func start(t testing.TB, n *Net, i int, cfg p2p.Config) *up {
	t.Helper()
	h := n.Host(i)
	cfg.Key = key(t, n.seed, i)
	h.Configure(&cfg)
	pn, err := p2p.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	pn.Handle(echoID, p2p.Limits{}, func(s network.Stream) {
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
	})
	ctx, cancel := context.WithCancel(t.Context())
	if err := pn.Open(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- pn.Run(ctx) }()
	u := &up{Net: pn, addr: cfg.Listen[0]}
	u.id, _ = pn.PeerIDs()
	u.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error("Run:", err)
		}
	})
	t.Cleanup(u.stop)
	return u
}

// say dials if need be, sends a line over a stream of its own and waits for the
// echo.
func (u *up) say(ctx context.Context, to *up, text string) error {
	if _, err := u.Dial(ctx, to.id, []ma.Multiaddr{to.addr}); err != nil {
		return err
	}
	s, err := u.NewStream(ctx, to.id, echoID)
	if err != nil {
		return err
	}
	defer s.Reset()
	if d, ok := ctx.Deadline(); ok {
		if err := s.SetDeadline(d); err != nil {
			return err
		}
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

// within checks a virtual time against a lower and an upper bound.
func within(t *testing.T, what string, got, low, high time.Duration) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s: got %v, want %v to %v", what, got, low, high)
	}
}

// TestRoundTrips holds the figure that the whole node's first message rests on: a
// dial costs one round trip, the first answer on a stream one more.
func TestRoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rtt = 100 * time.Millisecond
		n := New(t, 1, Options{Latency: rtt / 2})
		a, b := start(t, n, 0, p2p.Config{}), start(t, n, 1, p2p.Config{})
		begin := time.Now()
		path, err := a.Dial(t.Context(), b.id, []ma.Multiaddr{b.addr})
		if err != nil {
			t.Fatal(err)
		}
		within(t, "dial", time.Since(begin), rtt, rtt+10*time.Millisecond)
		if path.Route != p2p.Direct || path.Transport != "quic" {
			t.Errorf("path: got %+v", path)
		}
		begin = time.Now()
		if err := a.say(t.Context(), b, "hello"); err != nil {
			t.Fatal(err)
		}
		within(t, "first answer", time.Since(begin), rtt, rtt+10*time.Millisecond)
		begin = time.Now()
		if err := a.say(t.Context(), b, "again"); err != nil {
			t.Fatal(err)
		}
		within(t, "second stream", time.Since(begin), rtt, rtt+5*time.Millisecond)
		// Back over the same connection, without knowing an address.
		begin = time.Now()
		if err := b.say(t.Context(), &up{id: a.id}, "back"); err != nil {
			t.Fatal(err)
		}
		within(t, "way back", time.Since(begin), rtt, rtt+5*time.Millisecond)
		if c := n.Traffic(0, 1); c.Packets == 0 || c.Bytes < 1200 || c.Lost+c.Cut+c.Doubled > 0 {
			t.Errorf("traffic: %+v", c)
		}
	})
}

func TestIdleDayIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		// Without the tests of reachability that a home makes all day.
		cfg := p2p.Config{Profile: p2p.Client}
		a, b := start(t, n, 0, cfg), start(t, n, 1, cfg)
		if err := a.say(t.Context(), b, "hello"); err != nil {
			t.Fatal(err)
		}
		before := n.Total()
		time.Sleep(24 * time.Hour)
		if _, ok := a.Connected(b.id); !ok {
			t.Error("the idle connection did not last a day")
		}
		if err := a.say(t.Context(), b, "still there"); err != nil {
			t.Error(err)
		}
		used := n.Total().Bytes - before.Bytes
		t.Logf("one idle connection: %d bytes in 24 h, both directions", used)
		// network.md 2: an idle connection costs about 0.9 MB a day.
		if used > 1_200_000 {
			t.Errorf("idle connection: %d bytes a day, want at most 1.2 MB", used)
		}
	})
}

func TestLossAndDisorder(t *testing.T) {
	for _, seed := range []uint64{1, 2, 3} {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := New(t, seed, Options{Jitter: 20 * time.Millisecond, Loss: 0.05, Duplicate: 0.02})
				a, b := start(t, n, 0, p2p.Config{}), start(t, n, 1, p2p.Config{})
				var q Quality
				for i := range 200 {
					k := fmt.Sprint("line", i)
					q.Sent(k)
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					if err := a.say(ctx, b, k); err == nil {
						q.Got(k)
					} else {
						t.Log(k, err)
					}
					cancel()
					// Within the rate of streams that one peer may open.
					time.Sleep(150 * time.Millisecond)
				}
				r := q.Report()
				t.Log(r)
				if r.Share() != 1 || r.Doubled > 0 || r.P50 > 200*time.Millisecond || r.Max > 5*time.Second {
					t.Error("quality too low")
				}
				c := n.Total()
				lost := float64(c.Lost) / float64(c.Packets)
				if lost < 0.03 || lost > 0.07 {
					t.Errorf("lost %.3f of %d packets, want 0.05", lost, c.Packets)
				}
				if c.Doubled == 0 {
					t.Error("no packet was doubled")
				}
			})
		})
	}
}

func TestTwentyHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := 20
		if testing.Short() { // beside the race detector
			hosts = 7
		}
		n := New(t, 7, Options{Loss: 0.05, Jitter: 10 * time.Millisecond})
		var all []*up
		for i := range hosts {
			all = append(all, start(t, n, i, p2p.Config{}))
		}
		var q Quality
		round := func(name string) {
			var wg sync.WaitGroup
			for i, a := range all {
				for j, b := range all {
					if i >= j {
						continue
					}
					wg.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
						defer cancel()
						k := fmt.Sprintf("%s %d>%d", name, i, j)
						q.Sent(k)
						if err := a.say(ctx, b, k); err == nil {
							q.Got(k)
						} else {
							t.Log(k, err)
						}
					})
				}
			}
			wg.Wait()
		}
		round("first")
		r := q.Report()
		t.Log(r)
		if r.Share() != 1 || r.Max > 30*time.Second {
			t.Error("full mesh not reached")
		}
		// Two halves apart for ten minutes: nothing passes, then it heals by itself.
		left, right := make([]int, 0, hosts), make([]int, 0, hosts)
		for i := range hosts {
			if i%2 == 0 {
				left = append(left, i)
			} else {
				right = append(right, i)
			}
		}
		n.Cut(left, right)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if err := all[0].say(ctx, all[1], "through the cut"); err == nil {
			t.Error("a line went through the cut")
		}
		cancel()
		time.Sleep(10 * time.Minute)
		if _, ok := all[0].Connected(all[1].id); ok {
			t.Error("a cut connection is still called connected after 10 min")
		}
		if err := all[0].say(t.Context(), all[2], "same side"); err != nil {
			t.Error("same side:", err)
		}
		n.Heal()
		begin := time.Now()
		round("healed")
		r = q.Report()
		t.Log(r)
		if r.Share() != 1 {
			t.Error("not healed")
		}
		within(t, "heal", time.Since(begin), 0, time.Minute)
		if c := n.Traffic(0, 1); c.Cut == 0 {
			t.Errorf("no packet ran into the cut: %+v", c)
		}
	})
}

func TestOneWayCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		a, b := start(t, n, 0, p2p.Config{}), start(t, n, 1, p2p.Config{})
		n.CutOneWay([]int{1}, []int{0})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := a.Dial(ctx, b.id, []ma.Multiaddr{b.addr}); err == nil {
			t.Error("dialled although nothing comes back")
		}
		if to, back := n.Traffic(0, 1), n.Traffic(1, 0); to.Cut != 0 || back.Cut == 0 {
			t.Errorf("cut packets: there %d, back %d", to.Cut, back.Cut)
		}
		n.Heal()
		if err := a.say(t.Context(), b, "both ways"); err != nil {
			t.Error(err)
		}
	})
}

func TestRestartOnTheSameAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		a, b := start(t, n, 0, p2p.Config{}), start(t, n, 1, p2p.Config{})
		for i := range 3 {
			if err := a.say(t.Context(), b, "hello"); err != nil {
				t.Fatal("round", i, err)
			}
			b.stop()
			time.Sleep(time.Second)
			if _, ok := a.Connected(b.id); ok {
				t.Error("still connected with a stopped host: a clean stop says good-bye")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			if err := a.say(ctx, b, "nobody there"); err == nil {
				t.Error("a stopped host answered")
			}
			cancel()
			again := start(t, n, 1, p2p.Config{})
			if again.id != b.id || !again.addr.Equal(b.addr) {
				t.Fatal("another host came back")
			}
			b = again
		}
		if err := b.say(t.Context(), a, "hello from the restarted one"); err != nil {
			t.Error(err)
		}
	})
}

func TestTapSeesWhatAWireSees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{Loss: 0.1})
		var seen, lost int
		var bytesSeen int
		const secret = "the words that nobody else may read"
		n.Tap(func(p Packet) {
			seen++
			bytesSeen += len(p.Data)
			if p.Lost {
				lost++
			}
			if bytes.Contains(p.Data, []byte(secret)) {
				t.Error("a packet shows the text")
			}
		})
		a, b := start(t, n, 0, p2p.Config{}), start(t, n, 1, p2p.Config{})
		for range 20 {
			if err := a.say(t.Context(), b, secret); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		c := n.Total()
		if seen != c.Packets || bytesSeen != c.Bytes || lost != c.Lost || lost == 0 {
			t.Errorf("tap saw %d packets, %d bytes, %d lost; counters say %+v", seen, bytesSeen, lost, c)
		}
	})
}
