package node_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// TestClock26HoursOff is threats.md H50 for whole nodes: somebody whose clock is 26 h
// fast, or slow, since the last start is found by record, finds others by theirs, and
// is told by the doctor what is wrong and what to do. Also two who are wrong by so much
// in opposite directions find each other (KINLOOM_NIGHTLY=1). The servers have the right
// time.
func TestClock26HoursOff(t *testing.T) {
	const off = 26 * time.Hour
	rounds := 2
	if testing.Short() { // beside the race detector
		rounds = 1
	}
	for _, tc := range []struct {
		adas, bobs time.Duration
		says       string
		nightly    bool
	}{
		{off, 0, "26 hours ahead of the others'", false},
		{-off, 0, "is behind what this home wrote on 2000-01-01", false}, // a certificate, and needs nobody's word
		{off, -off, "26 hours ahead of the others'", true},
	} {
		if tc.nightly && os.Getenv("KINLOOM_NIGHTLY") != "1" || testing.Short() && tc.adas < 0 {
			continue
		}
		t.Run(fmt.Sprintf("%s and %s", tc.adas, tc.bobs), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Hour)
				defer cancel()
				time.Sleep(20 * time.Hour)
				net := testnet.New(t, 1, testnet.Options{})
				servers := []*node.Node{onto(t, net, 0, "", "Server", "server")}
				for i := range 2 {
					servers = append(servers, onto(t, net, i+1, "", "Server", "server", servers[0]))
				}
				homes, names := []string{t.TempDir(), t.TempDir()}, []string{"Ada", "Bob"}
				machine := 10
				start := func(i int, clock time.Duration) *node.Node {
					machine++
					var known []string
					for _, s := range servers[i : i+2] {
						status, err := s.Status(ctx)
						if err != nil {
							t.Fatal(err)
						}
						known = append(known, status.Listening[0]+"/p2p/"+status.PeerID)
					}
					n, err := node.Open(ctx, node.Config{
						Dir: homes[i], Name: names[i], NoLAN: true, Bootstrap: known, Network: net.Host(machine).Configure,
						Now: func() time.Time { return time.Now().Add(clock) },
					})
					if err != nil {
						t.Fatal(err)
					}
					return n
				}
				ada, bob := start(0, 0), start(1, 0)
				befriend(ctx, t, ada, bob)
				time.Sleep(5 * time.Minute)
				closeAll(t, ada, bob)
				time.Sleep(2*time.Hour + 30*time.Minute)
				ada, bob = start(0, tc.adas), start(1, tc.bobs)
				if took := talking(ctx, t, ada, bob, "Ada", "Bob"); took > 30*time.Second {
					t.Errorf("talking again after %s, want at most 30 s", took)
				} else {
					t.Logf("talking again after %s", took)
				}
				// Over the change of the day, by the right clock and by the others.
				for range rounds {
					finds(ctx, t, ada, bob)
					finds(ctx, t, bob, ada)
					time.Sleep(2 * time.Hour)
				}
				if f := examined(ctx, t, ada)["clock"]; f.Verdict != node.Fail || !strings.Contains(f.Found, tc.says) || !strings.Contains(f.Fix, "Set the clock") {
					t.Errorf("the doctor says %+v", f)
				}
				if f := examined(ctx, t, bob)["clock"]; (f.Verdict == node.Fail) != (tc.bobs != 0) {
					t.Errorf("the doctor of the other says %+v", f)
				}
				closeAll(t, append(servers, ada, bob)...)
			})
		})
	}
}

// finds fails unless one finds another by record, where it is now.
func finds(ctx context.Context, t *testing.T, finder, found *node.Node) {
	t.Helper()
	status, err := found.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, transport, _, err := found.Placed(ctx)
	if err != nil {
		t.Fatal(err)
	}
	hint, err := finder.Find(ctx, status.Person)
	if err != nil || len(hint.Devices) == 0 || !bytes.Equal(hint.Devices[0].Transport[:], transport[:]) || len(hint.Devices[0].Addrs) == 0 {
		t.Errorf("%s is not found at %s: %+v, %v", status.Name, time.Now(), hint.Devices, err)
	}
}
