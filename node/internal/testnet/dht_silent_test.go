package testnet

import (
	"bytes"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/p2p"
)

// nobodyAt returns servers that are not there, from host at on.
func nobodyAt(t *testing.T, n *Net, at, count int) (dead []peer.AddrInfo) {
	t.Helper()
	for i := range count {
		id, err := peer.IDFromPrivateKey(key(t, 9, at+i))
		if err != nil {
			t.Fatal(err)
		}
		dead = append(dead, peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{n.Host(at + 250*i).Addr}})
	}
	return dead
}

// leadsIn starts a node whose servers do not answer. Somebody else must be asked within
// some time; that one names a server, by which a record is found; and nobody else is
// asked any more while it answers.
func leadsIn(t *testing.T, within time.Duration, config func(*testing.T, *Net) p2p.Config) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		server := start(t, n, 0, p2p.Config{Profile: p2p.Server})
		point, record := newDevice(1).now(t, 1)
		if err := server.PublishRecord(t.Context(), point, record); err != nil {
			t.Fatal(err)
		}
		asked := make(chan struct{}, 100)
		var times atomic.Int32
		cfg := config(t, n)
		cfg.Silent = func() {
			times.Add(1)
			asked <- struct{}{}
		}
		alone := start(t, n, 1, cfg)
		begin := time.Now()
		<-asked
		took := time.Since(begin)
		t.Logf("asked after %v", took)
		if took > within {
			t.Errorf("somebody else was asked after %v, want at most %v", took, within)
		}
		alone.AddBootstrap(p2p.FromDNS, server.info())
		time.Sleep(10 * time.Second)
		if got, _, err := alone.find(t.Context(), point); err != nil || !bytes.Equal(got, record) {
			t.Errorf("after a server was named: %d bytes, %v", len(got), err)
		}
		time.Sleep(time.Minute) // what was under way
		before := times.Load()
		time.Sleep(2 * time.Hour)
		if now := times.Load(); now != before {
			t.Errorf("asked %d times more although a server answers", now-before)
		}
	})
}

// TestNoBootstrapReachable: none is known, or the one that was named is not there.
func TestNoBootstrapReachable(t *testing.T) {
	t.Run("none", func(t *testing.T) {
		leadsIn(t, time.Second, func(*testing.T, *Net) p2p.Config { return p2p.Config{} })
	})
	t.Run("one that is not there", func(t *testing.T) {
		leadsIn(t, time.Minute, func(t *testing.T, n *Net) p2p.Config { return p2p.Config{Bootstrap: nobodyAt(t, n, 500, 1)} })
	})
}

// TestDeadCacheLeadsToOthers: all cached peers dead, more of them than are tried in half an hour.
func TestDeadCacheLeadsToOthers(t *testing.T) {
	leadsIn(t, 2*time.Minute, func(t *testing.T, n *Net) p2p.Config {
		disk := dssync.MutexWrap(ds.NewMapDatastore())
		cached := start(t, n, 1, p2p.Config{Data: disk})
		cached.AddBootstrap(p2p.FromDHT, nobodyAt(t, n, 500, 38)...)
		if got := len(cached.Book()); got != 38 {
			t.Errorf("%d servers in the book", got)
		}
		cached.stop()
		return p2p.Config{Data: disk}
	})
}
