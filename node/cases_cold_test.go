package node_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// reachSoon waits until new invites say how far they reach, and gives the last one.
func reachSoon(ctx context.Context, t *testing.T, n *node.Node, want string, within time.Duration) node.Invite {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(time.Second) {
		v, err := n.NewInvite(ctx, node.InviteRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if v.Reach == want && n.Reach().Reach == want {
			t.Logf("invites say %q after %s", want, time.Since(begin).Round(time.Second))
			return v
		}
		if time.Since(begin) > within {
			t.Fatalf("after %s an invite still says %q, and the node %+v; want %q", within, v.Reach, n.Reach(), want)
		}
	}
}

// TestInviteIsTrueAndTakenBack: an invite made while nobody could be reached says that it
// works on the LAN alone, one for the Internet is refused, and both are true of new
// ones as soon as a server dialled back, until that is lost.
func TestInviteIsTrueAndTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		server := onto(t, net, 0, "", "Server", "server")
		net.Host(1).Firewall(true) // as behind a router: a relay is what it can have
		ada := onto(t, net, 1, "", "Ada", "home")
		seen := ada.Watch()
		old := reachSoon(ctx, t, ada, node.ReachLAN, 0)
		_, err := ada.NewInvite(ctx, node.InviteRequest{For: node.ReachInternet})
		wantKind(t, "an invite for the Internet", err, node.KindRefused, "cannot be made now")

		status, err := server.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ada.AddBootstrap(ctx, status.Listening[0]+"/p2p/"+status.PeerID); err != nil {
			t.Fatal(err)
		}
		far := reachSoon(ctx, t, ada, node.ReachInternet, 5*time.Minute)
		bob := onto(t, net, 2, "", "Bob", "home", server)
		if _, err := bob.AddContact(ctx, far.Link, node.AddOptions{}); err != nil {
			t.Errorf("an invite that says internet, opened far away: %v", err)
		}

		net.Cut([]int{0, 2}, []int{1}) // Bob, who is public, would relay too
		reachSoon(ctx, t, ada, node.ReachLAN, 30*time.Minute)
		net.Heal()
		reachSoon(ctx, t, ada, node.ReachInternet, 30*time.Minute)
		var told []string
		for _, notice := range seen() {
			if notice.Kind == "reach" {
				told = append(told, notice.Text)
			}
		}
		if len(told) != 3 || !strings.Contains(told[0], "work anywhere") || !strings.Contains(told[1], "on the local network only") || !strings.Contains(told[2], "work anywhere") {
			t.Errorf("the owner was told %q", told)
		}
		// The first one is as good as when it was made.
		if all, err := ada.Invites(ctx); err != nil || !slices.ContainsFunc(all, func(v node.Invite) bool { return v.ID == old.ID && !v.Revoked }) {
			t.Errorf("the invite of before is gone: %v", err)
		}
		closeAll(t, ada, bob, server)
	})
}

// TestLANInviteAfterTheDailyKeyChanged: an invite for the LAN names the key that stays,
// so it is still good after midnight, and after a restart, when the LAN hosts have
// other keys.
func TestLANInviteAfterTheDailyKeyChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 72*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{Latency: time.Millisecond})
		dir := t.TempDir()
		open := func(i int, dir, name string) *node.Node {
			n, err := node.Open(ctx, node.Config{Dir: dir, Name: name, LANOnly: true, Network: net.Host(i).Configure})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		time.Sleep(23*time.Hour + 50*time.Minute)
		ada := open(0, dir, "Ada")
		var links []string
		for range 2 {
			v, err := ada.NewInvite(ctx, node.InviteRequest{For: node.ReachLAN})
			if err != nil || v.Reach != node.ReachLAN {
				t.Fatalf("%+v, %v", v, err)
			}
			links = append(links, v.Link)
		}
		key := func() string {
			s, err := ada.Status(ctx)
			if err != nil {
				t.Fatal(err)
			}
			return s.LANPeerID
		}
		before := key()
		time.Sleep(time.Hour)
		if key() == before {
			t.Fatal("the LAN host has the key of yesterday")
		}
		bob := open(1, "", "Bob")
		if _, err := bob.AddContact(ctx, links[0], node.AddOptions{}); err != nil {
			t.Errorf("on the next day: %v", err)
		}
		closeAll(t, ada)
		ada = open(0, dir, "")
		eve := open(2, "", "Eve")
		if _, err := eve.AddContact(ctx, links[1], node.AddOptions{}); err != nil {
			t.Errorf("after a restart: %v", err)
		}
		closeAll(t, ada, bob, eve)
	})
}
