package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// home is a node with a folder, a clock and a machine of its own, that a test
// stops and starts.
type home struct {
	*node.Node
	dir, name string
	clock     shifted
	machine   int
}

// stage is a simulated network with homes on it.
type stage struct {
	net   *testnet.Net
	homes []*home
}

func (s *stage) config(t *testing.T, h *home) node.Config {
	return node.Config{
		Dir: h.dir, Name: h.name, NoLAN: true, NoDHT: true, Network: s.net.Host(h.machine).Configure, Now: h.clock.now,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)).With("node", h.name),
	}
}

func (s *stage) start(t *testing.T, h *home) {
	t.Helper()
	n, err := node.Open(t.Context(), s.config(t, h))
	if err != nil {
		t.Fatalf("start %s: %v", h.name, err)
	}
	h.Node = n
}

func (s *stage) stop(t *testing.T, h *home) {
	t.Helper()
	if err := h.Close(); err != nil {
		t.Errorf("stop %s: %v", h.name, err)
	}
	h.Node = nil
}

func (s *stage) dropSessions(t *testing.T, h *home) {
	t.Helper()
	c := s.config(t, h)
	c.Network = nil
	if err := node.DropSessions(t.Context(), c); err != nil {
		t.Fatalf("drop the sessions of %s: %v", h.name, err)
	}
}

// pass lets virtual time go by.
func (s *stage) pass(d time.Duration) { time.Sleep(d) }

// later moves the clocks of all homes.
func (s *stage) later(days int) {
	for _, h := range s.homes {
		h.clock.set(time.Duration(days) * 24 * time.Hour)
	}
}

// staged runs f with Ada and Bob, who are contacts, in virtual time.
func staged(t *testing.T, f func(ctx context.Context, t *testing.T, s *stage, ada, bob *home)) {
	t.Helper()
	stagedAt(t, 20*time.Millisecond, f)
}

// stagedAt is staged with a latency, one way.
func stagedAt(t *testing.T, latency time.Duration, f func(ctx context.Context, t *testing.T, s *stage, ada, bob *home)) {
	t.Helper()
	strangers(t, latency, func(ctx context.Context, t *testing.T, s *stage) {
		befriend(ctx, t, s.homes[0].Node, s.homes[1].Node)
		f(ctx, t, s, s.homes[0], s.homes[1])
	})
}

// strangers is stagedAt with an Ada and a Bob who have not met.
func strangers(t *testing.T, latency time.Duration, f func(ctx context.Context, t *testing.T, s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &stage{net: testnet.New(t, 1, testnet.Options{Latency: latency})}
		for i, name := range []string{"Ada", "Bob"} {
			h := &home{dir: t.TempDir(), name: name, machine: i}
			s.start(t, h)
			s.homes = append(s.homes, h)
		}
		defer func() {
			for _, h := range s.homes {
				if h.Node != nil {
					s.stop(t, h)
				}
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour) // virtual
		defer cancel()
		f(ctx, t, s)
	})
}

// soon waits for a receipt and wants it within a time.
func soon(ctx context.Context, t *testing.T, n *node.Node, m node.Message, within time.Duration) {
	t.Helper()
	begin := time.Now()
	delivered(ctx, t, n, m)
	if took := time.Since(begin); took > within {
		t.Errorf("%q was delivered after %v, want within %v", m.Text, took, within)
	}
}

// both wants the same texts on both sides.
func both(ctx context.Context, t *testing.T, ada, bob *home, want string) {
	t.Helper()
	if got := texts(ctx, t, ada.Node, "bob"); got != want {
		t.Errorf("Ada reads %q, want %q", got, want)
	}
	if got := texts(ctx, t, bob.Node, "ada"); got != want {
		t.Errorf("Bob reads %q, want %q", got, want)
	}
}

// recovered is how long it may take until a message is delivered after sessions
// were lost: the round trips to begin anew, and a second look.
const recovered = 5 * time.Second

// TestSessionsLostOnOneSide: one side loses every row of session state, while
// messages wait in both directions; all arrive, once and in order, soon after both
// are online, whoever dials.
func TestSessionsLostOnOneSide(t *testing.T) {
	for _, tc := range []struct {
		name             string
		adaLost, bobLost bool
		adaFirst         bool // Ada is online before Bob, so Bob dials
	}{
		{"Ada lost, Bob dials", true, false, true},
		{"Ada lost, Ada dials", true, false, false},
		{"Bob lost, Bob dials", false, true, true},
		{"Bob lost, Ada dials", false, true, false},
		{"both lost", true, true, true},
	} {
		for _, queued := range []string{"both", "ada", "bob", "none"} {
			if testing.Short() && queued != "both" { // beside the race detector
				continue
			}
			t.Run(tc.name+", queued by "+queued, func(t *testing.T) {
				staged(t, func(ctx context.Context, t *testing.T, s *stage, ada, bob *home) {
					want := []string{"one", "two"}
					delivered(ctx, t, bob.Node, say(ctx, t, bob.Node, "ada", "one"))
					delivered(ctx, t, ada.Node, say(ctx, t, ada.Node, "bob", "two"))
					waiting := map[*home][]node.Message{}
					s.stop(t, bob)
					for i := range 3 {
						if queued == "ada" || queued == "both" {
							text := fmt.Sprint("from Ada ", i)
							waiting[ada] = append(waiting[ada], say(ctx, t, ada.Node, "bob", text))
							want = append(want, text)
						}
					}
					s.stop(t, ada)
					time.Sleep(time.Minute)
					s.start(t, bob)
					for i := range 3 {
						if queued == "bob" || queued == "both" {
							text := fmt.Sprint("from Bob ", i)
							waiting[bob] = append(waiting[bob], say(ctx, t, bob.Node, "ada", text))
							want = append(want, text)
						}
					}
					s.stop(t, bob)
					if tc.adaLost {
						s.dropSessions(t, ada)
					}
					if tc.bobLost {
						s.dropSessions(t, bob)
					}
					first, second := ada, bob
					if !tc.adaFirst {
						first, second = bob, ada
					}
					s.start(t, first)
					time.Sleep(20 * time.Minute)
					s.start(t, second)
					recovers(ctx, t, ada, bob, waiting, want, recovered)
				})
			})
		}
	}
}

// TestRenewedWhileAway: Bob is offline for 70 days. Meanwhile Ada's certificate was
// renewed and the sessions are past their time; Bob renews at once when he is
// back. Each side learns the other's news with the keys that they certify.
func TestRenewedWhileAway(t *testing.T) {
	for _, tc := range []struct {
		name             string
		adaLost, bobLost bool // sessions
		adaFirst         bool // Bob dials
		queued           bool // by Ada
	}{
		{"sessions as they are", false, false, true, true},
		{"Ada's sessions gone, Bob dials", true, false, true, true},
		{"Ada's sessions gone, Ada dials", true, false, false, true},
		{"Bob's sessions gone", false, true, true, true},
		{"all sessions gone, Bob dials", true, true, true, true},
		{"all sessions gone, Ada dials", true, true, false, true},
		{"all sessions gone, nothing queued", true, true, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			staged(t, func(ctx context.Context, t *testing.T, s *stage, ada, bob *home) {
				delivered(ctx, t, bob.Node, say(ctx, t, bob.Node, "ada", "one"))
				delivered(ctx, t, ada.Node, say(ctx, t, ada.Node, "bob", "two"))
				var want strings.Builder
				want.WriteString("one|two")
				s.stop(t, bob)
				var waiting []node.Message
				for _, day := range []int{20, 40, 65} {
					s.later(day)
					time.Sleep(10 * time.Second)
					if tc.queued {
						text := fmt.Sprint("day ", day)
						waiting = append(waiting, say(ctx, t, ada.Node, "bob", text))
						want.WriteString("|" + text)
					}
				}
				s.stop(t, ada)
				s.later(70)
				for h, lost := range map[*home]bool{ada: tc.adaLost, bob: tc.bobLost} {
					if lost {
						s.dropSessions(t, h)
					}
				}
				if tc.adaFirst {
					s.start(t, ada)
					time.Sleep(20 * time.Minute)
				}
				s.start(t, bob)
				time.Sleep(10 * time.Second) // Bob's renewal
				if !tc.adaFirst {
					s.start(t, ada)
				}
				begin := time.Now()
				for _, m := range waiting {
					delivered(ctx, t, ada.Node, m)
				}
				delivered(ctx, t, bob.Node, say(ctx, t, bob.Node, "ada", "Bob is back"))
				delivered(ctx, t, ada.Node, say(ctx, t, ada.Node, "bob", "welcome"))
				if took := time.Since(begin); took > 30*time.Second {
					t.Errorf("all was delivered after %v, want within 30 s", took)
				}
				both(ctx, t, ada, bob, want.String()+"|Bob is back|welcome")
			})
		})
	}
}

// TestBothExpired: both were away for longer than their certificates last, so
// neither may send to the other by what it knows. The news make up for it, whoever
// writes first.
func TestBothExpired(t *testing.T) {
	for _, lost := range []bool{false, true} {
		for _, adaWrites := range []bool{false, true} {
			staged(t, func(ctx context.Context, t *testing.T, s *stage, ada, bob *home) {
				delivered(ctx, t, bob.Node, say(ctx, t, bob.Node, "ada", "one"))
				s.stop(t, ada)
				s.stop(t, bob)
				s.later(200)
				if lost {
					s.dropSessions(t, ada)
					s.dropSessions(t, bob)
				}
				s.start(t, ada)
				s.start(t, bob)
				time.Sleep(10 * time.Second)
				from, to := bob, "ada"
				if adaWrites {
					from, to = ada, "bob"
				}
				soon(ctx, t, from.Node, say(ctx, t, from.Node, to, "two"), 5*time.Second)
				both(ctx, t, ada, bob, "one|two")
			})
		}
	}
}

// recovers wants all that waits delivered in time, two more messages as soon, and
// the same on both sides then.
func recovers(ctx context.Context, t *testing.T, ada, bob *home, waiting map[*home][]node.Message, want []string, within time.Duration) {
	t.Helper()
	begin := time.Now()
	for _, h := range []*home{ada, bob} {
		for _, m := range waiting[h] {
			delivered(ctx, t, h.Node, m)
		}
	}
	if took := time.Since(begin); took > within {
		t.Errorf("all was delivered after %v, want within %v", took, within)
	}
	soon(ctx, t, ada.Node, say(ctx, t, ada.Node, "bob", "three"), within)
	soon(ctx, t, bob.Node, say(ctx, t, bob.Node, "ada", "four"), within)
	both(ctx, t, ada, bob, strings.Join(append(want, "three", "four"), "|"))
}
