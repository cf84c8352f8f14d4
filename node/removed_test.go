package node_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/rv"
	"github.com/kinloom/kinloom/protocol/wire"
)

// TestRemovedFindsNothing is threats.md H59 for whole nodes. Who was removed, or
// blocked, keeps all that they knew: the contact secret, the secret of the pair, the
// keys of the device, its transport key, its addresses and an invite. With all of it
// they compute no point of the records that come, find none, open none, and reach
// nobody: while the node that removed them runs on, and after it was restarted at once.
// Each of the four takes seconds: two of them, or all with KINLOOM_NIGHTLY=1.
func TestRemovedFindsNothing(t *testing.T) {
	for _, tc := range []struct {
		name  string
		end   func(context.Context, *node.Node) (node.Contact, error)
		again bool
		short bool
	}{
		{"removed, running on", func(ctx context.Context, n *node.Node) (node.Contact, error) {
			return n.RemoveContact(ctx, "Bob", false)
		}, false, true},
		{"removed, restarted", func(ctx context.Context, n *node.Node) (node.Contact, error) {
			return n.RemoveContact(ctx, "Bob", false)
		}, true, false},
		{"blocked, running on", func(ctx context.Context, n *node.Node) (node.Contact, error) { return n.Block(ctx, "Bob") }, false, false},
		{"blocked, restarted", func(ctx context.Context, n *node.Node) (node.Contact, error) { return n.Block(ctx, "Bob") }, true, true},
	} {
		if !tc.short && os.Getenv("KINLOOM_NIGHTLY") != "1" || testing.Short() && !tc.again {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 48*time.Hour)
				defer cancel()
				time.Sleep(22 * time.Hour) // before the records of tomorrow go out
				today := rv.PeriodAt(time.Now())
				net := testnet.New(t, 1, testnet.Options{})
				rec := net.Host(0).Record()
				server := onto(t, net, 0, "", "Server", "server")
				home := t.TempDir()
				ada, bob, carol := onto(t, net, 1, home, "Ada", "home", server), onto(t, net, 2, "", "Bob", "home", server), onto(t, net, 3, "", "Carol", "home", server)
				used := link(ctx, t, ada, false)
				if _, err := bob.AddContact(ctx, used, node.AddOptions{}); err != nil {
					t.Fatal(err)
				}
				befriend(ctx, t, ada, carol)
				open := link(ctx, t, ada, false)
				time.Sleep(5 * time.Minute)

				// What Bob knows, and keeps.
				status, err := ada.Status(ctx)
				if err != nil {
					t.Fatal(err)
				}
				_, _, others, err := bob.Placed(ctx)
				if err != nil {
					t.Fatal(err)
				}
				pairs, err := bob.PairSecrets(ctx)
				if err != nil {
					t.Fatal(err)
				}
				key := identity.NewRendezvousKey(secrets{}.ofHome(t, home, nil).Rendezvous).Public()
				knew := others[status.Person]
				known := []rv.Secret{rv.Secret(knew.Secret), pairs[status.Person], {}}
				if known[0] == (rv.Secret{}) || known[1] == (rv.Secret{}) {
					t.Fatal("Bob was not told where Ada is found")
				}
				if found := lookedUp(ctx, t, bob, key, known[:1], today); len(found) == 0 {
					t.Fatal("Bob does not find Ada as long as he is a contact")
				}
				before := carriages(t, rec.Conns())

				if _, err := tc.end(ctx, ada); err != nil {
					t.Fatal(err)
				}
				if tc.again {
					closeAll(t, ada)
					ada = onto(t, net, 1, home, "", "home", server)
				}
				wait := say(ctx, t, bob, "Ada", "are you there?")
				time.Sleep(time.Until((today + 1).Start().Add(10 * time.Minute)))

				// The records that came, and who opens them.
				secret, transport, _, err := ada.Placed(ctx)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range known {
					if s == rv.Secret(secret) {
						t.Error("the contact secret is one that Bob knows")
					}
				}
				opened := map[rv.Period]bool{}
				old := func(record []byte) bool {
					return slices.ContainsFunc(before, func(c carriage) bool { return bytes.Equal(c.record, record) })
				}
				for _, c := range carriages(t, rec.Conns()) {
					if !c.put || old(c.record) {
						continue
					}
					for p := today - 1; p < today+4; p++ {
						for i, s := range known {
							if at, err := rv.PointOf(key, s, p); err != nil || at == c.point {
								t.Errorf("what Bob knows (%d) leads to what was published at %s, of period %d (%v)", i, c.at, p, err)
							}
							if _, _, err := rv.Open(key, s, p, c.record); err == nil {
								t.Errorf("what Bob knows (%d) opens what was published at %s", i, c.at)
							}
						}
						if _, _, err := rv.Open(key, rv.Secret(secret), p, c.record); err == nil {
							opened[p] = true
						}
					}
				}
				if !opened[today] || !opened[today+1] {
					t.Errorf("Ada published for %v: there was nothing to be found", opened)
				}
				for _, b := range lookedUp(ctx, t, bob, key, known, today) {
					if !old(b) {
						t.Error("Bob found a record that is newer than the end of their contact")
					}
				}

				dialledByAll(ctx, t, net, ada, bob, carol, knew.Transport, transport)
				for name, was := range map[string]string{"used": used, "open": open} {
					if _, err := bob.AddContact(ctx, was, node.AddOptions{}); err == nil {
						t.Errorf("the %s invite of before was answered", name)
					}
				}
				if got, err := bob.Status(ctx); err != nil || got.Queued != 1 || got.Online != 0 {
					t.Errorf("Bob has %d waiting and %d devices online, %v", got.Queued, got.Online, err)
				}
				if got := texts(ctx, t, ada, "Bob"); strings.Contains(got, wait.Text) {
					t.Errorf("Ada reads %q of Bob", got)
				}
				delivered(ctx, t, carol, say(ctx, t, carol, "Ada", "still here"))
				closeAll(t, ada, bob, carol, server)
			})
		})
	}
}

// lookedUp is what a node finds by secrets, from yesterday to the day after tomorrow.
func lookedUp(ctx context.Context, t *testing.T, n *node.Node, key [32]byte, known []rv.Secret, today rv.Period) (found [][]byte) {
	t.Helper()
	for _, s := range known {
		for p := today - 1; p < today+4; p++ {
			point, err := rv.PointOf(key, s, p)
			if err != nil {
				t.Fatal(err)
			}
			records, err := n.LookUp(ctx, point)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, records...)
		}
	}
	return found
}

// dialledByAll dials a's address for the key that Bob knew, which nobody has any more,
// and for the present one, as if he had been told: with what is left to him he is a
// stranger there, where Carol is known.
func dialledByAll(ctx context.Context, t *testing.T, net *testnet.Net, a, bob, carol *node.Node, old []byte, now [32]byte) {
	t.Helper()
	h, err := bare(net.Host(9))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	current := peer.ID(contact.Transport(now).PeerID())
	if string(current) == string(old) {
		t.Error("the transport key is that of before")
	}
	status, err := a.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	at := multiaddr.StringCast(status.Listening[0])
	direct := network.WithForceDirectDial(ctx, "test")
	if err := h.Connect(direct, peer.AddrInfo{ID: peer.ID(old), Addrs: []multiaddr.Multiaddr{at}}); err == nil || !strings.Contains(err.Error(), "peer id mismatch") {
		t.Errorf("dialled for the key of before: %v, want another key there", err)
	}
	if err := h.Connect(direct, peer.AddrInfo{ID: current, Addrs: []multiaddr.Multiaddr{at}}); err != nil {
		t.Fatalf("dialled for the key of now: %v", err)
	}
	for name, who := range map[string]*node.Node{"Bob": bob, "Carol": carol} {
		pairs, err := who.Pairs(ctx)
		if err != nil || len(pairs) == 0 {
			t.Fatalf("%s has %d pairs, %v", name, len(pairs), err)
		}
		s, err := h.NewStream(ctx, current, wire.Hello)
		if err != nil {
			t.Fatal(err)
		}
		channel, err := contact.StreamChannel(s)
		if err != nil {
			t.Fatal(err)
		}
		g, err := contact.SayHello(ctx, s, contact.NewHelloDialer(contact.About{}, channel, pairs, rand.Reader))
		if err != nil || g.Known != (who == carol) {
			t.Errorf("hello of %s: known %v, %v", name, g.Known, err)
		}
	}
}
