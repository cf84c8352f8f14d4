package node

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/rv"
)

// TestRecordOfTomorrowIsNoNews: the record of tomorrow that was published this evening
// does not override what its device has said in a session since, though its seq counts
// as midnight. One that was written later adds its addresses behind those; but it puts no
// other key in place of one that cannot be noted any more.
func TestRecordOfTomorrowIsNoNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		net := testnet.New(t, 1, testnet.Options{})
		now := func() time.Time { return time.Now().Add(22*time.Hour + 30*time.Minute) } // in the evening, from midnight
		ada := opened(t, Config{Name: "Ada", NoLAN: true, NoDHT: true, Now: now, Network: net.Host(0).Configure})
		bob := opened(t, Config{Name: "Bob", NoLAN: true, NoDHT: true, Now: now, Network: net.Host(1).Configure})
		meet(t, ada, bob)
		time.Sleep(10 * time.Second)
		before, moved, after := multiaddr.StringCast("/ip4/8.9.9.9/udp/4001/quic-v1"), multiaddr.StringCast("/ip4/8.1.1.1/udp/4001/quic-v1"), multiaddr.StringCast("/ip4/8.2.2.2/udp/4001/quic-v1")
		var a account
		at(t, ada, ada, func(l *loop, _ *device) { a = *l.acct })
		record := func(addr multiaddr.Multiaddr, seq uint64) (rv.Hint, rv.Stamp) {
			place := rv.Place{Transport: a.transport, Proof: a.proof, Addrs: [][]byte{addr.Bytes()}}
			return rv.Hint{Devices: []rv.Place{place}, Made: uint32(now().Unix())}, rv.Stamp{Period: rv.PeriodAt(now()) + 1, Seq: seq}
		}
		old, stamp := record(before, 0)
		time.Sleep(5 * time.Minute) // she moves, and says so
		at(t, ada, ada, func(l *loop, _ *device) { l.placed(place{addrs: [][]byte{moved.Bytes()}}) })
		time.Sleep(10 * time.Second)
		found := func(h rv.Hint, s rv.Stamp, want ...string) {
			t.Helper()
			if err := bob.change(ctx, func(l *loop, tx *store.Tx) error {
				seen := seenOf(&l.acct.devices[ada.device].Device).Told
				return l.found(tx, ada.device, h, tier{secret: rv.Secret(a.secret), seen: seen.Add(l.now(), s)})
			}); err != nil {
				t.Fatal(err)
			}
			at(t, bob, ada, func(_ *loop, d *device) {
				var got []string
				for _, k := range d.Addrs {
					if m, err := multiaddr.NewMultiaddrBytes(k.Addr); err == nil && k.Source != sourceSeen {
						got = append(got, m.String()+" "+k.Source)
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("at %s Bob knows %v, want %v", now().UTC().Format("15:04"), got, want)
				}
			})
		}
		found(old, stamp, moved.String()+" "+sourceTold)
		time.Sleep(time.Minute)
		next, stamp := record(after, 1)
		found(next, stamp, moved.String()+" "+sourceTold, after.String()+" "+sourceRecord)
		if err := bob.FillFormer(ctx, ada.me); err != nil { // the key that she has could not be noted
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		next, stamp = record(before, 2)
		next.Devices[0].Transport[0] ^= 1
		found(next, stamp, moved.String()+" "+sourceTold, after.String()+" "+sourceRecord)
		closed(t, ada, bob)
	})
}

// TestFoundByYesterdaysRecord: who knows one server finds a contact by the record of
// yesterday, where she has published none since, though the server was asked for that of
// today: by whatever way that contact may reach this node.
func TestFoundByYesterdaysRecord(t *testing.T) {
	for _, ways := range []string{WaysAny, WaysRelay} {
		t.Run(ways, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				net := testnet.New(t, 1, testnet.Options{})
				now := func() time.Time { return time.Now().Add(19 * time.Hour) } // in the evening, from midnight
				server := opened(t, Config{Name: "Server", NoLAN: true, Profile: "server", Now: now, Network: net.Host(0).Configure})
				main, _ := server.edge.ids()
				named := []string{server.edge.listening()[0] + "/p2p/" + main}
				open := func(i int, name string) *Node {
					return opened(t, Config{Name: name, NoLAN: true, Profile: "client", Bootstrap: named, Now: now, Network: net.Host(i).Configure})
				}
				ada, bob := open(1, "Ada"), open(2, "Bob")
				meet(t, ada, bob)
				if _, err := bob.SetWays(ctx, "Ada", ways); err != nil {
					t.Fatal(err)
				}
				day := rv.PeriodAt(now())
				time.Sleep(10 * time.Minute)
				closed(t, ada)
				time.Sleep(5 * time.Hour)
				var look *lookup
				at(t, bob, ada, func(l *loop, d *device) { look = l.lookupOf(d) })
				if look == nil || look.veiled != (ways == WaysRelay) || len(look.tiers) == 0 {
					t.Fatalf("nothing to look for: %+v", look)
				}
				h, found, err := bob.edge.find(ctx, *look)
				if err != nil || len(h.Devices) == 0 || len(h.Devices[0].Addrs) == 0 || found.seen.Stamp.Period != day {
					t.Errorf("found %+v of day %d, %v; want that of day %d", h, found.seen.Stamp.Period, err, day)
				}
				closed(t, bob, server)
			})
		})
	}
}

// TestFoundWithADeadServer: of four servers one is gone. The search for a contact who has
// published yesterday alone goes on where only that one has seen no other day of it.
func TestFoundWithADeadServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{})
		now := func() time.Time { return time.Now().Add(19 * time.Hour) }
		var named []string
		var servers []*Node
		for _, i := range []int{0, 3, 4, 5} {
			s := opened(t, Config{Name: "Server", NoLAN: true, Profile: "server", Now: now, Bootstrap: named, Network: net.Host(i).Configure})
			main, _ := s.edge.ids()
			named = append(named, s.edge.listening()[0]+"/p2p/"+main)
			servers = append(servers, s)
		}
		open := func(i int, name string) *Node {
			return opened(t, Config{Name: name, NoLAN: true, Profile: "client", Bootstrap: named, Now: now, Network: net.Host(i).Configure})
		}
		ada, bob := open(1, "Ada"), open(2, "Bob")
		meet(t, ada, bob)
		day := rv.PeriodAt(now())
		time.Sleep(10 * time.Minute)
		closed(t, ada, servers[3])
		time.Sleep(5 * time.Hour)
		for range 6 { // whom it asks first is drawn
			var look *lookup
			at(t, bob, ada, func(l *loop, d *device) {
				d.queue.findAt = time.Time{} // now
				look = l.lookupOf(d)
			})
			h, found, err := bob.edge.find(t.Context(), *look)
			if err != nil || len(h.Devices) == 0 || found.seen.Stamp.Period != day {
				t.Errorf("found %+v of day %d, %v; want that of day %d", h, found.seen.Stamp.Period, err, day)
			}
			time.Sleep(10 * time.Minute)
		}
		closed(t, append(servers[:3], bob)...)
	})
}
