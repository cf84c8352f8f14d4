package node_test

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/protocol/rv"
)

// TestPeriodChangesDuringQuery: all keys change at midnight. Whoever asks shortly before
// and is answered after it, finds.
func TestPeriodChangesDuringQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 48*time.Hour)
		defer cancel()
		time.Sleep(23*time.Hour + 30*time.Minute)
		midnight := (rv.PeriodAt(time.Now()) + 1).Start()
		net := testnet.New(t, 1, testnet.Options{Latency: 100 * time.Millisecond})
		server := onto(t, net, 0, "", "Server", "server")
		ada, bob := onto(t, net, 1, "", "Ada", "home", server), onto(t, net, 2, "", "Bob", "home", server)
		befriend(ctx, t, ada, bob)
		var wg sync.WaitGroup
		var over atomic.Int32
		for i := range 8 {
			finder, found := ada, bob
			if i%2 == 1 {
				finder, found = bob, ada
			}
			time.Sleep(time.Until(midnight.Add(time.Duration(i-6) * 200 * time.Millisecond)))
			begin := time.Now()
			wg.Go(func() {
				finds(ctx, t, finder, found)
				if begin.Before(midnight) && time.Now().After(midnight) {
					over.Add(1)
				}
			})
		}
		wg.Wait()
		if over.Load() == 0 {
			t.Error("no query was under way at midnight")
		}
		closeAll(t, ada, bob, server)
	})
}

// TestSeqAfterRestartWithClockSetBack: a device is restarted with a clock that is hours
// behind, at another address. What it publishes then is newer than what it published
// before, at each point, and those who ask find it.
func TestSeqAfterRestartWithClockSetBack(t *testing.T) {
	for _, back := range []time.Duration{3 * time.Hour, 26 * time.Hour} {
		t.Run(back.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 96*time.Hour)
				defer cancel()
				time.Sleep(37 * time.Hour)
				net := testnet.New(t, 1, testnet.Options{})
				rec := net.Host(0).Record()
				server := onto(t, net, 0, "", "Server", "server")
				home := t.TempDir()
				ada, bob := onto(t, net, 1, home, "Ada", "home", server), onto(t, net, 2, "", "Bob", "home", server)
				befriend(ctx, t, ada, bob)
				time.Sleep(5 * time.Minute)
				before, today := published(ctx, t, rec, ada, home), rv.PeriodAt(time.Now())
				closeAll(t, ada)
				status, err := server.Status(ctx)
				if err != nil {
					t.Fatal(err)
				}
				ada, err = node.Open(ctx, node.Config{
					Dir: home, NoLAN: true, Bootstrap: []string{status.Listening[0] + "/p2p/" + status.PeerID}, Network: net.Host(3).Configure,
					Now: func() time.Time { return time.Now().Add(-back) },
				})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(45 * time.Minute)
				finds(ctx, t, bob, ada)

				after := published(ctx, t, rec, ada, home)
				if len(before) == 0 || len(after[today]) <= len(before[today]) {
					t.Errorf("for today %d records were published before, and %d in all", len(before[today]), len(after[today]))
				}
				for p, seqs := range after {
					was := before[p]
					for seq := range seqs {
						if !was[seq] && len(was) > 0 && seq <= slices.Max(slices.Collect(maps.Keys(was))) {
							t.Errorf("for period %d seq %d goes out after %v", p, seq, was)
						}
					}
				}
				closeAll(t, ada, bob, server)
			})
		})
	}
}

// published gives the seqs that a device gave to the records for all of its contacts, of
// each period, as a recorded server has them.
func published(ctx context.Context, t *testing.T, rec *testnet.Recording, n *node.Node, home string) map[rv.Period]map[uint64]bool {
	t.Helper()
	secret, _, _, err := n.Placed(ctx)
	if err != nil {
		t.Fatal(err)
	}
	key := identity.NewRendezvousKey(secrets{}.ofHome(t, home, nil).Rendezvous).Public()
	out := map[rv.Period]map[uint64]bool{}
	for _, c := range carriages(t, rec.Conns()) {
		if !c.put {
			continue
		}
		stamp, err := rv.Verify(c.point, c.record)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := rv.Open(key, rv.Secret(secret), stamp.Period, c.record); err != nil {
			continue // another's, or for the two alone
		}
		if out[stamp.Period] == nil {
			out[stamp.Period] = map[uint64]bool{}
		}
		out[stamp.Period][stamp.Seq] = true
	}
	return out
}
