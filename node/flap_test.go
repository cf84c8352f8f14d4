package node

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
)

// introduce makes contacts of two.
func introduce(t *testing.T, a, b *Node) {
	t.Helper()
	link, err := a.Invite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.AddContact(t.Context(), link, AddOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestRelaysComeAndGo: others can have this node find and lose relays all day. That
// changes no LAN key, and contacts are told of few of the changes; of another network
// they are told at once.
func TestRelaysComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{Latency: time.Millisecond})
		open := func(i int, name string) *Node {
			n, err := Open(t.Context(), Config{Name: name, NoDHT: true, Network: net.Host(i).Configure})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		ada, bob := open(0, "Ada"), open(1, "Bob")
		introduce(t, ada, bob)
		time.Sleep(30 * time.Second)
		told := func() (n uint64) {
			if err := ada.ask(t.Context(), func(l *loop) {
				for _, c := range l.acct.convs {
					if c.Kind == event.Pair {
						n = c.graph.Latest(l.acct.device).Seq
					}
				}
			}); err != nil {
				t.Fatal(err)
			}
			return n
		}
		found := func(addr string, moved bool) {
			ada.edge.AddrsChanged()
			if err := ada.ask(t.Context(), func(l *loop) {
				if moved {
					l.told.refill(l.now())
				}
				l.placed(place{addrs: [][]byte{multiaddr.StringCast(addr).Bytes()}})
			}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
		}
		before := told()
		_, lan := ada.net.PeerIDs()
		for range 60 {
			found("/ip4/9.9.9.9/udp/443/quic-v1", false)
			found("/ip4/9.9.9.8/udp/443/quic-v1", false)
		}
		if n := told() - before; n == 0 || n > tellBurst+1 {
			t.Errorf("120 changes in 4 minutes were told %d times, want at most %d", n, tellBurst+1)
		}
		if _, now := ada.net.PeerIDs(); now != lan {
			t.Error("the LAN host got another key in the same network")
		}
		before = told()
		found("/ip4/9.9.9.7/udp/443/quic-v1", true)
		if told() != before+1 {
			t.Error("another network was not told")
		}
		for range 2 * tellBurst {
			found("/ip4/9.9.9.6/udp/443/quic-v1", false)
			found("/ip4/9.9.9.5/udp/443/quic-v1", false)
		}
		time.Sleep(tellEvery)
		var last event.Whereabouts
		var want [][]byte // the last change, whoever reported it
		if err := ada.change(t.Context(), func(l *loop, tx *store.Tx) error {
			want = l.place.addrs
			for _, c := range l.acct.convs {
				if c.Kind != event.Pair {
					continue
				}
				said, err := tx.Control(c.Row, l.acct.me, event.Reach, l.acct.device.String())
				if err != nil {
					return err
				}
				last, err = event.ParseWhereabouts(said.Body)
				return err
			}
			return nil
		}); err != nil || len(want) == 0 || !slices.EqualFunc(last.Addrs, want, bytes.Equal) {
			t.Errorf("the last change was never told: %v, want %v, %v", last.Addrs, want, err)
		}
		if err := ada.Close(); err != nil {
			t.Error(err)
		}
		if err := bob.Close(); err != nil {
			t.Error(err)
		}
	})
}
