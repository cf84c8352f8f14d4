package node_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// onLAN is a node on machine i that has neighbours, and no way into the Internet.
func onLAN(t *testing.T, net *testnet.Net, i int, dir, name string, now func() time.Time) *node.Node {
	t.Helper()
	n, err := node.Open(t.Context(), node.Config{Dir: dir, Name: name, NoDHT: true, Network: net.Host(i).Configure, Now: now})
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	return n
}

// TestKeyChangeAtMidnightDuringATransfer: neighbours talk without a pause while the LAN
// hosts of both change their keys, and their ports with them. All arrives once and in order.
func TestKeyChangeAtMidnightDuringATransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{Latency: time.Millisecond})
		homes := []string{t.TempDir(), t.TempDir()}
		ada, bob := onLAN(t, net, 0, homes[0], "Ada", nil), onLAN(t, net, 1, homes[1], "Bob", nil)
		befriend(ctx, t, ada, bob)
		closeAll(t, ada, bob)
		// Neither is where the other knew it: the LAN hosts are all that they have.
		var clock shifted
		now := time.Now()
		clock.set(now.Truncate(24 * time.Hour).Add(24*time.Hour - 10*time.Second).Sub(now))
		ada, bob = onLAN(t, net, 2, homes[0], "", clock.now), onLAN(t, net, 3, homes[1], "", clock.now)
		defer closeAll(t, ada, bob)
		net.Cut([]int{2}, []int{0, 1})
		delivered(ctx, t, bob, say(ctx, t, bob, "Ada", "0"))
		before, err := ada.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		const lines = 200 // 10 a second, for 20 s about midnight
		var last node.Message
		for i := 1; i <= lines; i++ {
			last = say(ctx, t, bob, "Ada", fmt.Sprintf("%d%s", i, strings.Repeat(" ", 4000)+"."))
			time.Sleep(100 * time.Millisecond)
		}
		delivered(ctx, t, bob, last)
		after, err := ada.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if before.LANPeerID == after.LANPeerID || after.LANPeerID == "" {
			t.Errorf("the LAN host was %q and is %q: no midnight", before.LANPeerID, after.LANPeerID)
		}
		if before.PeerID != after.PeerID {
			t.Error("the main host changed its key, too")
		}
		all, err := ada.Read(ctx, "Bob", node.ReadQuery{Peek: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(all) != lines+1 {
			t.Errorf("%d lines came, want %d", len(all), lines+1)
		}
		for i, m := range all {
			if text, _, _ := strings.Cut(m.Text, " "); text != fmt.Sprint(i) {
				t.Fatalf("line %d is %q", i, text)
			}
			if i > 0 && m.Route != "lan" {
				t.Fatalf("line %d came by %q", i, m.Route)
			}
		}
	})
}
