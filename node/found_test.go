package node_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/protocol/wire"
)

// onto is a node on machine i that gets into the network by others.
func onto(t *testing.T, net *testnet.Net, i int, dir, name, profile string, by ...*node.Node) *node.Node {
	t.Helper()
	var known []string
	for _, n := range by {
		s, err := n.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		known = append(known, s.Listening[0]+"/p2p/"+s.PeerID)
	}
	n, err := node.Open(t.Context(), node.Config{
		Dir: dir, Name: name, NoLAN: true, Profile: profile, Bootstrap: known, Network: net.Host(i).Configure,
	})
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	return n
}

// talking says something each way and gives how long it took until both were
// delivered.
func talking(ctx context.Context, t *testing.T, a, b *node.Node, nameA, nameB string) time.Duration {
	t.Helper()
	begin := time.Now()
	one, two := say(ctx, t, a, nameB, "here I am"), say(ctx, t, b, nameA, "and here am I")
	delivered(ctx, t, a, one)
	delivered(ctx, t, b, two)
	return time.Since(begin)
}

// TestFoundThroughAThird: two who met, stopped, moved to other addresses and started
// again find each other through a server that they never told each other about.
func TestFoundThroughAThird(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		server := onto(t, net, 0, "", "Server", "server")
		adaHome, bobHome := t.TempDir(), t.TempDir()
		ada, bob := onto(t, net, 1, adaHome, "Ada", "home", server), onto(t, net, 2, bobHome, "Bob", "home", server)
		befriend(ctx, t, ada, bob)
		time.Sleep(time.Minute)
		closeAll(t, ada, bob)
		time.Sleep(8 * time.Hour)
		ada, bob = onto(t, net, 3, adaHome, "", "home", server), onto(t, net, 4, bobHome, "", "home", server)
		if took := talking(ctx, t, ada, bob, "Ada", "Bob"); took > 10*time.Second {
			t.Errorf("talking again after %s, want at most 10 s", took)
		} else {
			t.Logf("talking again after %s", took)
		}
		closeAll(t, ada, bob, server)
	})
}

// TestFoundOverDays: who comes back finds the other by a record that was
// published days ago, and the other's of today.
func TestFoundOverDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		server := onto(t, net, 0, "", "Server", "server")
		bobHome := t.TempDir()
		ada, bob := onto(t, net, 1, "", "Ada", "home", server), onto(t, net, 2, bobHome, "Bob", "home", server)
		befriend(ctx, t, ada, bob)
		days, away := 3, 25*time.Hour
		if testing.Short() { // beside the race detector
			days, away = 1, 3*time.Hour
		}
		for day := range days {
			time.Sleep(time.Minute)
			closeAll(t, bob)
			time.Sleep(away)
			bob = onto(t, net, 3+day, bobHome, "", "home", server)
			// Ada has not moved: he dials her, and tells her where he is. Cut that way, so
			// that she has to find him.
			m := say(ctx, t, ada, "Bob", "where are you?")
			delivered(ctx, t, ada, m)
		}
		closeAll(t, ada, bob, server)
	})
}

// TestNobodyLooksForThemselves: a node without contacts asks nobody for a record, its
// own neither.
func TestNobodyLooksForThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{})
		rec := net.Host(0).Record()
		server := onto(t, net, 0, "", "Server", "server")
		ada := onto(t, net, 1, "", "Ada", "home", server)
		time.Sleep(10 * time.Minute)
		closeAll(t, ada, server)
		streams := 0
		for _, c := range rec.Conns() {
			for _, s := range c.Streams {
				streams++
				if s.Protocol == wire.DHTProxy {
					t.Errorf("at %s: %s", s.At, s)
				}
			}
		}
		if streams < 10 {
			t.Errorf("%d streams were recorded", streams)
		}
	})
}
