package node_test

import (
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

// TestTwoNodesWithOneIdentity: a home was copied and both copies run in one LAN with a
// contact. No node falls, everybody is told of the copy, what each says arrives and is
// shown once. The contact answers the copy that spoke last, so what the other one sent
// at the same time may have to be sent again, which is after five minutes at the latest.
func TestTwoNodesWithOneIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{Latency: time.Millisecond})
		home, twin := t.TempDir(), t.TempDir()
		ada, bob := onLAN(t, net, 0, "", "Ada", nil), onLAN(t, net, 1, home, "Bob", nil)
		befriend(ctx, t, ada, bob)
		delivered(ctx, t, bob, say(ctx, t, bob, "Ada", "before"))
		closeAll(t, bob)
		if err := os.CopyFS(twin, os.DirFS(home)); err != nil {
			t.Fatal(err)
		}
		one, two := onLAN(t, net, 1, home, "", nil), onLAN(t, net, 2, twin, "", nil)
		time.Sleep(time.Minute)
		for i := range 5 {
			say(ctx, t, one, "Ada", fmt.Sprint("one ", i))
			say(ctx, t, two, "Ada", fmt.Sprint("two ", i))
			say(ctx, t, ada, "Bob", fmt.Sprint("ada ", i))
			time.Sleep(10 * time.Second)
		}
		time.Sleep(15 * time.Minute)
		before := net.Total()
		time.Sleep(3 * time.Minute)
		after := net.Total()
		t.Logf("%d packets in 3 minutes of silence", after.Packets-before.Packets)
		if n := after.Packets - before.Packets; n > 18*150 {
			t.Errorf("%d packets in 3 minutes of silence: the copies fight", n)
		}
		for name, n := range map[string]*node.Node{"Ada": ada, "one": one, "two": two} {
			s, err := n.Status(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if s.Contacts != 1 || s.Online > 1 || s.Queued > 0 {
				t.Errorf("%s has %d contacts, %d devices connected, %d messages waiting", name, s.Contacts, s.Online, s.Queued)
			}
			if !strings.Contains(strings.Join(s.Warnings, " "), "a copy of it is running") {
				t.Errorf("%s is told %q", name, s.Warnings)
			}
		}
		seen := map[string]int{}
		all, err := ada.Read(ctx, "Bob", node.ReadQuery{Peek: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			seen[m.Text]++
		}
		for i := range 5 {
			for _, who := range []string{"one", "two", "ada"} {
				if n := seen[fmt.Sprint(who, " ", i)]; n != 1 {
					t.Errorf("Ada shows line %d of %s %d times", i, who, n)
				}
			}
		}
		// One of them goes for good; the other and Ada talk as before.
		closeAll(t, two)
		time.Sleep(time.Minute)
		delivered(ctx, t, one, say(ctx, t, one, "Ada", "I am the one"))
		delivered(ctx, t, ada, say(ctx, t, ada, "Bob", "I see"))
		closeAll(t, ada, one)
	})
}
