package node_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// shifted is a clock that a test sets.
type shifted struct{ by atomic.Int64 }

func (s *shifted) now() time.Time       { return time.Now().Add(time.Duration(s.by.Load())) }
func (s *shifted) set(by time.Duration) { s.by.Store(int64(by)) }

func withClocks(t *testing.T, f func(ctx context.Context, t *testing.T, ada, bob *node.Node, adas, bobs *shifted)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{Latency: 20 * time.Millisecond})
		var nodes [2]*node.Node
		var clocks [2]shifted
		for i, name := range []string{"Ada", "Bob"} {
			n, err := node.Open(t.Context(), node.Config{Name: name, NoLAN: true, Network: net.Host(i).Configure, Now: clocks[i].now})
			if err != nil {
				t.Fatal(err)
			}
			nodes[i] = n
		}
		defer closeAll(t, nodes[:]...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		f(ctx, t, nodes[0], nodes[1], &clocks[0], &clocks[1])
	})
}

// TestCertificatesRenewThemselves: at 61 days both renew, tell each other, and go
// on talking far beyond the end of the first certificate.
func TestCertificatesRenewThemselves(t *testing.T) {
	withClocks(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, adas, bobs *shifted) {
		befriend(ctx, t, ada, bob)
		delivered(ctx, t, bob, say(ctx, t, bob, "ada", "day 0"))
		for day := 30; day <= 300; day += 30 {
			adas.set(time.Duration(day) * 24 * time.Hour)
			bobs.set(time.Duration(day) * 24 * time.Hour)
			time.Sleep(10 * time.Second)
			delivered(ctx, t, bob, say(ctx, t, bob, "ada", "from Bob"))
			delivered(ctx, t, ada, say(ctx, t, ada, "bob", "from Ada"))
		}
		if got := len(texts(ctx, t, ada, "bob")); got != len("day 0")+10*len("|from Bob|from Ada") {
			t.Errorf("Ada reads %d characters: %s", got, texts(ctx, t, ada, "bob"))
		}
	})
}

// TestClockADayOff: neither adding a contact nor talking minds a clock that is a
// day off, in either direction.
func TestClockADayOff(t *testing.T) {
	for _, off := range []time.Duration{-25 * time.Hour, -23 * time.Hour, 23 * time.Hour, 25 * time.Hour} {
		withClocks(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, _, bobs *shifted) {
			bobs.set(off)
			befriend(ctx, t, ada, bob)
			delivered(ctx, t, bob, say(ctx, t, bob, "ada", "one"))
			delivered(ctx, t, ada, say(ctx, t, ada, "bob", "two"))
			delivered(ctx, t, bob, say(ctx, t, bob, "ada", "three"))
			for name, n := range map[string]*node.Node{"bob": ada, "ada": bob} {
				if got := texts(ctx, t, n, name); got != "one|two|three" {
					t.Errorf("off by %v: with %s reads %q", off, name, got)
				}
			}
		})
	}
}
