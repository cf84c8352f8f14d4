package node

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/rv"
)

// alone is a node on machine i that takes part in no DHT, and meet makes two of them
// contacts.
func alone(t *testing.T, net *testnet.Net, i int, name string) *Node {
	t.Helper()
	return opened(t, Config{Name: name, NoLAN: true, NoDHT: true, Network: net.Host(i).Configure})
}

func opened(t *testing.T, c Config) *Node {
	t.Helper()
	n, err := Open(t.Context(), c)
	if err != nil {
		t.Fatalf("open %s: %v", c.Name, err)
	}
	return n
}

func meet(t *testing.T, a, b *Node) {
	t.Helper()
	link, err := a.Invite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.AddContact(t.Context(), link, AddOptions{}); err != nil {
		t.Fatal(err)
	}
}

func closed(t *testing.T, nodes ...*Node) {
	t.Helper()
	for _, n := range nodes {
		if err := n.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

// at runs f on the loop of n with the device of another node.
func at(t *testing.T, n, of *Node, f func(l *loop, d *device)) {
	t.Helper()
	if err := n.ask(t.Context(), func(l *loop) { f(l, l.acct.devices[of.device]) }); err != nil {
		t.Fatal(err)
	}
}

// TestTransportKeyOfAnotherClaimed: a contact who names the transport key of another
// contact in what she says of herself is passed over. Pings to her do not go there,
// messages for her neither, and to block her does not shut the other one out.
func TestTransportKeyOfAnotherClaimed(t *testing.T) {
	for _, tc := range []struct {
		name  string
		proof func(own, theirs [64]byte) [64]byte
	}{
		{"with her own proof", func(own, _ [64]byte) [64]byte { return own }},
		{"with the proof of its owner", func(_, theirs [64]byte) [64]byte { return theirs }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				net := testnet.New(t, 1, testnet.Options{})
				v, c, m := alone(t, net, 0, "Victim"), alone(t, net, 1, "Carol"), alone(t, net, 2, "Mallory")
				meet(t, v, c)
				meet(t, v, m)
				time.Sleep(10 * time.Second)
				var carol account
				var addrs [][]byte
				at(t, c, c, func(l *loop, _ *device) { carol, addrs = *l.acct, l.place.addrs })
				key := contact.Transport(carol.transport).PeerID()
				if err := m.change(ctx, func(l *loop, _ *store.Tx) error {
					l.acct.transport, l.acct.proof = carol.transport, tc.proof(l.acct.proof, carol.proof)
					l.place.addrs, l.place.offers = addrs, event.OffersRelay|event.OffersRecords
					l.unplace()
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Second)
				at(t, v, m, func(l *loop, d *device) {
					if string(d.Transport) == string(key) {
						t.Error("Mallory's device has Carol's transport key now")
					}
					if d, ok := l.byTransport(key); !ok || d.ID != c.device {
						t.Errorf("Carol's key is not taken for hers: another device's %v", ok)
					}
				})
				closed(t, m)
				time.Sleep(2 * time.Minute)
				pinging, cancel := context.WithTimeout(ctx, 30*time.Second)
				defer cancel()
				pongs, err := v.Ping(pinging, "Mallory")
				for _, p := range pongs {
					if p.Answered {
						t.Errorf("a ping to Mallory, whose node has ended, was answered: %+v, %v", p, err)
					}
				}
				if _, err := v.Block(ctx, "Mallory"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				at(t, v, c, func(l *loop, d *device) {
					if got, ok := l.byTransport(key); !ok || got != d || d.queue.link == nil {
						t.Errorf("after the block Carol's key is hers: %v; she has a link: %v", ok && got == d, d.queue.link != nil)
					}
				})
				closed(t, v, c)
			})
		})
	}
}

// TestTransportKeyHeldByAnother: two devices with one transport key, which only its
// holder could bring about, stay told apart: who has it first keeps it, and who is shut
// out is never meant.
func TestTransportKeyHeldByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{})
		v, c, m := alone(t, net, 0, "Victim"), alone(t, net, 1, "Carol"), alone(t, net, 2, "Mallory")
		meet(t, v, c)
		meet(t, v, m)
		time.Sleep(10 * time.Second)
		// Mallory's friend: the holder of one key signs for a device of another person.
		key := transportKey(t, 5)
		claim := func(n *Node) {
			t.Helper()
			if err := n.change(t.Context(), func(l *loop, _ *store.Tx) error {
				l.unplace()
				return l.acct.answerAs(key)
			}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
		}
		claim(m)
		claim(c)
		at(t, v, m, func(l *loop, d *device) {
			other := l.acct.devices[c.device]
			if got, ok := l.byTransport(d.Transport); !ok || got != d || string(other.Transport) == string(d.Transport) {
				t.Errorf("the key that Mallory's device had first is hers: %v; Carol's is another: %v", ok && got == d, string(other.Transport) != string(d.Transport))
			}
			other.Transport = d.Transport // however that came about
			for range 20 {
				l.acct.contacts[d.Person].Trust = store.Blocked
				if got, ok := l.byTransport(d.Transport); !ok || got != other {
					t.Fatalf("a key of a blocked device and another one is taken for that of the blocked one")
				}
			}
		})
		closed(t, v, c, m)
	})
}

// TestRecordNamesTransportOfAnother: a look-up record whose owner names the key of
// another device in it is no news: nothing in it is dialled or kept.
func TestRecordNamesTransportOfAnother(t *testing.T) {
	device := identity.NewDeviceKey([32]byte{1}).ID()
	a := &account{device: device}
	if err := a.answerAs(transportKey(t, 2)); err != nil {
		t.Fatal(err)
	}
	own := rv.Place{Transport: a.transport, Proof: a.proof}
	other := &account{device: identity.NewDeviceKey([32]byte{3}).ID()}
	if err := other.answerAs(transportKey(t, 4)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		places []rv.Place
		want   bool
	}{
		{"its own", []rv.Place{own}, true},
		{"its own, and one of a sibling", []rv.Place{own, {Transport: other.transport}}, true},
		{"of another, with the proof of that one", []rv.Place{{Transport: other.transport, Proof: other.proof}}, false},
		{"of another, with its own proof", []rv.Place{{Transport: other.transport, Proof: a.proof}}, false},
		{"its own, without a proof", []rv.Place{{Transport: a.transport}}, false},
		{"none", nil, false},
	} {
		if got := (lookup{device: device}).proved(rv.Hint{Devices: tc.places}); got != tc.want {
			t.Errorf("%s: believed %v, want %v", tc.name, got, tc.want)
		}
	}
}

func transportKey(t *testing.T, seed byte) crypto.PrivKey {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(bytes.NewReader(bytes.Repeat([]byte{seed}, 64)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}
