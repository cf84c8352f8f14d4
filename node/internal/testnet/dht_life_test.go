package testnet

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/protocol/rv"
)

// TestOneServer is the smallest network there is: two people and one server that they
// were told of. The record survives a restart of the server, and its end is kept.
func TestOneServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		disk := dssync.MutexWrap(ds.NewMapDatastore())
		server := start(t, n, 0, p2p.Config{Profile: p2p.Server, Data: disk})
		pub := start(t, n, 1, knowing(p2p.Config{}, server))
		fin := start(t, n, 2, knowing(p2p.Config{Profile: p2p.Client}, server))
		point, record := newDevice(1).now(t, 1)
		if err := pub.PublishRecord(t.Context(), point, record); err != nil {
			t.Fatal(err)
		}
		check := func(when string, want []byte) {
			t.Helper()
			got, _, err := fin.find(t.Context(), point)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: found %d bytes, %v; want %d", when, len(got), err, len(want))
			}
		}
		check("at once", record)
		server.stop()
		if _, _, err := fin.find(t.Context(), point); err == nil {
			t.Error("found with no server: a failure must not look like an answer")
		}
		if err := pub.PublishRecord(t.Context(), point, record); err == nil {
			t.Error("published with no server")
		}
		time.Sleep(time.Minute)
		server = start(t, n, 0, p2p.Config{Profile: p2p.Server, Data: disk})
		time.Sleep(time.Minute)
		check("after a restart of the server", record)
		pub.stop()
		fin.stop()
		time.Sleep(time.Until(rv.PeriodAt(time.Now()).NotAfter()) + time.Hour)
		fin = start(t, n, 2, knowing(p2p.Config{Profile: p2p.Client}, server))
		check("after its end", nil)
		// A server that knows no other answers itself.
		point, record = newDevice(2).now(t, 1)
		if err := server.PublishRecord(t.Context(), point, record); err != nil {
			t.Error("the server's own record:", err)
		}
		if got, _, err := server.find(t.Context(), point); err != nil || !bytes.Equal(got, record) {
			t.Errorf("the server's own record: %d bytes, %v", len(got), err)
		}
	})
}

// TestNobodyThere covers threats.md H118: no bootstrap at all. The node says what is
// missing.
func TestNobodyThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		point, record := newDevice(1).now(t, 1)
		alone := start(t, n, 1, p2p.Config{})
		if _, _, err := alone.find(t.Context(), point); !errors.Is(err, p2p.ErrNoProxy) {
			t.Errorf("with nobody named: %v, want ErrNoProxy", err)
		}
		if err := alone.PublishRecord(t.Context(), point, record); !errors.Is(err, p2p.ErrNoProxy) {
			t.Errorf("with nobody named: %v, want ErrNoProxy", err)
		}
	})
}

// TestAllCachedPeersDead is the rest of H118: all servers that a node remembers have
// gone, over a restart too. It says what happened, does not wear itself out, forgets
// them, and goes on as soon as somebody is named.
func TestAllCachedPeersDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		server := start(t, n, 0, p2p.Config{Profile: p2p.Server})
		point, record := newDevice(1).now(t, 1)
		if err := server.PublishRecord(t.Context(), point, record); err != nil {
			t.Fatal(err)
		}
		disk := dssync.MutexWrap(ds.NewMapDatastore())
		var dead []peer.AddrInfo
		for i := range 30 {
			id, err := peer.IDFromPrivateKey(key(t, 9, i))
			if err != nil {
				t.Fatal(err)
			}
			dead = append(dead, peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{n.Host(500 + 250*i).Addr}})
		}
		cached := start(t, n, 2, p2p.Config{Data: disk})
		cached.AddBootstrap(p2p.FromDHT, dead...)
		if len(cached.Book()) != 30 {
			t.Fatalf("%d servers in the book", len(cached.Book()))
		}
		time.Sleep(10 * time.Second)
		cached.stop()
		cached = start(t, n, 2, p2p.Config{Data: disk})
		if len(cached.Book()) != 30 {
			t.Errorf("after a restart %d servers in the book, want 30", len(cached.Book()))
		}
		before := n.Traffic(2, -1).Packets
		if _, _, err := cached.find(t.Context(), point); err == nil || errors.Is(err, p2p.ErrNoProxy) {
			t.Errorf("with 30 dead servers: %v, want what happened at the last one", err)
		}
		time.Sleep(24 * time.Hour)
		t.Logf("a day with 30 dead servers: %d packets sent, %d servers left", n.Traffic(2, -1).Packets-before, len(cached.Book()))
		if left := len(cached.Book()); left > 5 {
			t.Errorf("%d dead servers left after a day", left)
		}
		if sent := n.Traffic(2, -1).Packets - before; sent > 10_000 {
			t.Errorf("%d packets into nothing", sent)
		}
		begin := time.Now()
		cached.AddBootstrap(p2p.FromContact, server.info())
		got, _, err := cached.find(t.Context(), point)
		if err != nil || !bytes.Equal(got, record) {
			t.Errorf("after a server was named: %d bytes, %v", len(got), err)
		}
		within(t, "found after a server was named", time.Since(begin), 0, 10*time.Second)
		time.Sleep(10 * time.Second)
		if cached.DHTPeers() == 0 {
			t.Error("no server in the routing table 10 s after one was named")
		}
	})
}

// TestSplitThenHeal: two halves of the DHT apart. Each serves what it has; healed, all
// find the newest.
func TestSplitThenHeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		all := servers(t, n, 8)
		a := start(t, n, 8, knowing(p2p.Config{}, all[0], all[2]))
		b := start(t, n, 9, knowing(p2p.Config{}, all[1], all[3]))
		time.Sleep(time.Minute)
		d := newDevice(1)
		point, first := d.now(t, 1)
		if err := a.PublishRecord(t.Context(), point, first); err != nil {
			t.Fatal(err)
		}
		n.Cut([]int{0, 2, 4, 6, 8}, []int{1, 3, 5, 7, 9})
		time.Sleep(10 * time.Minute)
		_, second := d.now(t, 30)
		if err := a.PublishRecord(t.Context(), point, second); err != nil {
			t.Error("publish in one half:", err)
		}
		if got, _, err := b.find(t.Context(), point); err != nil || !bytes.Equal(got, first) {
			t.Errorf("other half: %d bytes, %v; want the record from before", len(got), err)
		}
		n.Heal()
		begin := time.Now()
		for !t.Failed() {
			if got, _, err := b.find(t.Context(), point); err == nil && bytes.Equal(got, second) {
				break
			}
			time.Sleep(5 * time.Second)
			within(t, "healed", time.Since(begin), 0, 15*time.Minute)
		}
		t.Logf("the newest record is found %v after the halves met", time.Since(begin))
		time.Sleep(15 * time.Minute)
		for i, u := range all {
			if u.DHTPeers() < len(all)-1 { // and the two at home, who are reachable here
				t.Errorf("server %d knows %d others after healing", i, u.DHTPeers())
			}
		}
	})
}

// TestChurn: a third of the servers vanishes without a word, with what they stored.
// Every record is still found, and a new one put.
func TestChurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		size, contacts := dhtSize(t, 18, 18), 5
		n := New(t, 1, Options{})
		all := servers(t, n, size)
		pub := start(t, n, size, knowing(p2p.Config{}, all[0]))
		fin := start(t, n, size+1, knowing(p2p.Config{}, all[1]))
		time.Sleep(time.Minute)
		put := func(i int) {
			point, record := newDevice(i).now(t, 1)
			begin := time.Now()
			if err := pub.PublishRecord(t.Context(), point, record); err != nil {
				t.Errorf("record %d: %v after %v", i, err, time.Since(begin))
			}
		}
		for i := range contacts {
			put(i)
		}
		var gone, rest []int
		for i := range size + 2 {
			if i%3 == 2 && i < size {
				gone = append(gone, i)
			} else {
				rest = append(rest, i)
			}
		}
		n.Cut(gone, rest)
		put(contacts)
		var times []time.Duration
		for i := range contacts + 1 {
			point, record := newDevice(i).now(t, 1)
			got, after, err := fin.find(t.Context(), point)
			if err != nil || !bytes.Equal(got, record) {
				t.Errorf("record %d: found %d bytes, %v", i, len(got), err)
			}
			times = append(times, after)
		}
		t.Logf("%d of %d servers gone: found after p50 %v, p95 %v", len(gone), size, quantile(times, 0.5), quantile(times, 0.95))
		if p95 := quantile(times, 0.95); p95 > 10*time.Second {
			t.Errorf("p95 %v, want at most 10 s", p95)
		}
	})
}

// TestIdleBudget: what a node costs that does nothing in a network of 30, or 6 in the
// short form. Figures of network.md 6.
func TestIdleBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		size, hours := dhtSize(t, 6, 30), time.Duration(6)
		if os.Getenv("KINLOOM_NIGHTLY") == "1" {
			hours = 24
		} else if testing.Short() {
			hours = 2
		}
		n := New(t, 1, Options{})
		all := servers(t, n, size)
		start(t, n, size, knowing(p2p.Config{}, all[0]))
		start(t, n, size+1, knowing(p2p.Config{Profile: p2p.Client}, all[1]))
		traffic := func(i int) (sum int) {
			for j := range size {
				sum += n.Traffic(i, j).Bytes + n.Traffic(j, i).Bytes
			}
			return sum
		}
		time.Sleep(time.Hour)
		home, client, server := traffic(size), traffic(size+1), traffic(0)
		t.Logf("first hour: home %d kB, client %d kB, server %d kB", home/1000, client/1000, server/1000)
		firstClient := client
		time.Sleep(hours * time.Hour)
		perDay := func(i, before int) int { return (traffic(i) - before) * 24 / int(hours) }
		home, client, server = perDay(size, home), perDay(size+1, client), perDay(0, server)
		t.Logf("%d servers, %d hours idle: home %.1f MB a day, client %.2f MB, server %.1f MB",
			size, hours, float64(home)/1e6, float64(client)/1e6, float64(server)/1e6)
		if home > 30_000_000 {
			t.Errorf("home: %d bytes a day, want half of 60 MB at most", home)
		}
		// 0.9 MB of it is the connection with its relay.
		if client+firstClient > 1_500_000 {
			t.Errorf("client: %d bytes on its first day, want 1.5 of 2 MB at most", client+firstClient)
		}
	})
}
