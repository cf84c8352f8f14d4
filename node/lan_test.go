package node_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// TestFoundAgainOnTheLAN: two contacts whose addresses have both changed find each
// other by their announcements and the hello, and talk by their LAN hosts.
func TestFoundAgainOnTheLAN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{Latency: time.Millisecond})
		var clock shifted
		clock.set(24*time.Hour - 3*time.Minute)
		open := func(i int, dir, name string) *node.Node {
			host := net.Host(i)
			n, err := node.Open(t.Context(), node.Config{
				Dir: dir, Name: name, Network: host.Configure, Now: clock.now, Log: slog.New(slog.NewTextHandler(t.Output(), nil)).With("node", name),
			})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		homes := []string{t.TempDir(), t.TempDir()}
		ada, bob := open(0, homes[0], "Ada"), open(1, homes[1], "Bob")
		befriend(ctx, t, ada, bob)
		delivered(ctx, t, bob, say(ctx, t, bob, "ada", "before"))
		closeAll(t, ada, bob)
		ada, bob = open(2, homes[0], "Ada"), open(3, homes[1], "Bob")
		defer func() { closeAll(t, ada, bob) }()
		begin := time.Now()
		delivered(ctx, t, bob, say(ctx, t, bob, "ada", "after"))
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("delivered on the LAN after %v, want at most 3 s", took)
		}
		m, err := ada.Read(ctx, "bob", node.ReadQuery{Limit: 1, Peek: true})
		if err != nil || len(m) != 1 || m[0].Text != "after" || m[0].Route != "lan" {
			t.Errorf("Ada reads %+v, %v", m, err)
		}
		ways, err := bob.Route(ctx, "ada")
		if err != nil || len(ways) == 0 || !ways[0].Live || ways[0].Route != "lan" {
			t.Errorf("ways to Ada: %+v, %v", ways, err)
		}
		// Over midnight the LAN hosts change their keys; the talk goes on.
		time.Sleep(5 * time.Minute)
		delivered(ctx, t, ada, say(ctx, t, ada, "bob", "next day"))
	})
}
