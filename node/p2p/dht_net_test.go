package p2p

import (
	"bufio"
	"bytes"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p-kbucket/peerdiversity"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/protocol/rv"
	"github.com/kinloom/kinloom/protocol/wire"
)

// loopback is where the tests of this package listen.
var loopbackListen = []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/udp/0/quic-v1"), ma.StringCast("/ip4/127.0.0.1/tcp/0")}

// TestThrowawayShowsNoKey: whom we look up through never sees our transport key, nor
// the same key or port twice (threats.md H139). It goes over the real transports.
func TestThrowawayShowsNoKey(t *testing.T) {
	server := start(t, Config{Profile: Server, Listen: loopbackListen})
	id, _ := server.PeerIDs()
	n := start(t, Config{Profile: Client, Listen: loopbackListen, Bootstrap: []peer.AddrInfo{{ID: id, Addrs: server.Addrs()}}})
	self, _ := n.PeerIDs()
	var mu sync.Mutex
	seen := map[peer.ID]bool{}
	ports := map[string]bool{}
	n.ClosePeer(id)
	server.Handle(rv.ProxyID, Limits{}, func(s network.Stream) {
		mu.Lock()
		seen[s.Conn().RemotePeer()] = true
		ports[s.Conn().RemoteMultiaddr().String()] = true
		mu.Unlock()
		server.serveProxy(s)
	})
	point, record := sealed(t, 1, rv.PeriodAt(time.Now()), 1)
	if err := n.PublishRecord(t.Context(), point, record); err != nil {
		t.Fatal(err)
	}
	const looks = 4
	for range looks {
		var got []byte
		if _, err := n.FindRecord(t.Context(), Point{ID: point}, func(b []byte, at time.Time) {
			got = b
			if d := time.Since(at); d < -2*time.Second || d > 2*time.Second {
				t.Errorf("the server's clock is told %v off", d)
			}
		}); err != nil || !bytes.Equal(got, record) {
			t.Fatalf("found %d bytes, %v", len(got), err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != looks+1 || len(ports) != looks+1 || seen[self] {
		t.Errorf("%d keys and %d ports for %d requests, own key among them: %v", len(seen), len(ports), looks+1, seen[self])
	}
	if got := n.Lookups(); got != (LookupStats{Asked: looks + 1}) {
		t.Errorf("counted %+v", got)
	}
	// Another record instead of the one asked for.
	_, lie := sealed(t, 2, rv.PeriodAt(time.Now()), 1)
	server.Handle(rv.ProxyID, Limits{}, func(s network.Stream) {
		if _, err := wire.ReadFrame(bufio.NewReader(s), rv.ProxySize); err != nil {
			t.Error(err)
		}
		b, err := rv.Reply{At: time.Now(), Record: lie}.Append(nil)
		if err != nil {
			t.Error(err)
		}
		if _, err := s.Write(wire.AppendFrame(nil, b)); err != nil {
			t.Error(err)
		}
	})
	if _, err := n.FindRecord(t.Context(), Point{ID: point}, func([]byte, time.Time) { t.Error("a lie got through") }); !errors.Is(err, rv.ErrForged) {
		t.Errorf("a lie: got %v", err)
	}
	if got := n.Lookups(); got != (LookupStats{Asked: looks + 2, Failed: 1, Forged: 1}) {
		t.Errorf("counted %+v", got)
	}
	server.Handle(rv.ProxyID, Limits{}, server.serveProxy)
	// The one who looks up for others is a server; we are not.
	if !server.DHTServer() || n.DHTServer() {
		t.Error("server and client changed places")
	}
	if err := server.throwaway(t.Context(), peer.AddrInfo{ID: self, Addrs: n.Addrs()}, false, rv.ProxyID, func(s network.Stream) error {
		_, err := rv.Get(t.Context(), s, point)
		return err
	}); err == nil {
		t.Error("a client looked up for somebody else")
	}
}

// TestWhoPutIsCounted: a record that comes over the network counts for who brought it,
// whatever that one says, and nothing of it is stored.
func TestWhoPutIsCounted(t *testing.T) {
	disk := dssync.MutexWrap(ds.NewMapDatastore())
	server := start(t, Config{Profile: Server, Listen: loopbackListen, Data: disk})
	id, _ := server.PeerIDs()
	n := start(t, Config{Profile: Client, Listen: loopbackListen})
	self, _ := n.PeerIDs()
	if _, err := n.Dial(t.Context(), id, server.Addrs()); err != nil {
		t.Fatal(err)
	}
	point, b := sealed(t, 1, rv.PeriodAt(time.Now()), 1)
	env := record.MakePutRecord(rv.DHTKey(point), b)
	source("somebody else").mark(env)
	if err := n.dht.Load().msg.PutValue(t.Context(), id, env); err != nil {
		t.Fatal(err)
	}
	store := server.dht.Load().store
	if got := store.record(t.Context(), point); !bytes.Equal(got, b) || len(store.held) != 1 || store.held[source(self)] != 1 {
		t.Errorf("%d bytes stored, held %v, want one of %s", len(got), store.held, self)
	}
	all, err := disk.Query(t.Context(), query.Query{Prefix: "/dht"})
	if err != nil {
		t.Fatal(err)
	}
	for e := range all.Next() {
		if bytes.Contains(e.Value, []byte("somebody")) || bytes.Contains(e.Value, []byte(self)) {
			t.Error("who brought it is on the disk")
		}
	}
}

// TestServersTellNoClientsAddress: what kad-dht is shown of the peer store has servers
// in it and nobody else.
func TestServersTellNoClientsAddress(t *testing.T) {
	server := start(t, Config{Profile: Server, Listen: loopbackListen})
	id, _ := server.PeerIDs()
	info := []peer.AddrInfo{{ID: id, Addrs: server.Addrs()}}
	other := start(t, Config{Profile: Server, Listen: loopbackListen, Bootstrap: info})
	client := start(t, Config{Profile: Client, Listen: loopbackListen, Bootstrap: info})
	for _, n := range []*Net{other, client} {
		// The server dials, so that it has the connection when this returns.
		p, _ := n.PeerIDs()
		if _, err := server.Dial(t.Context(), p, n.Addrs()); err != nil {
			t.Fatal(err)
		}
	}
	oid, _ := other.PeerIDs()
	cid, _ := client.PeerIDs()
	d := server.dht.Load()
	ps := d.host.Host.Peerstore()
	for _, p := range []peer.ID{oid, cid} {
		ps.AddAddr(p, loopbackListen[0], time.Hour)
	}
	if _, err := d.kad.Load().RoutingTable().TryAddPeer(oid, true, true); err != nil {
		t.Fatal(err)
	}
	shown := d.host.Peerstore()
	if len(shown.PeerInfo(oid).Addrs) == 0 {
		t.Error("another server is not told about")
	}
	if got := shown.PeerInfo(cid).Addrs; len(got) > 0 {
		t.Errorf("a client's address is told: %v", got)
	}
	// The addresses of the routing table outlive a connection, others do not.
	server.ClosePeer(oid)
	server.ClosePeer(cid)
	if len(ps.Addrs(oid)) == 0 {
		t.Error("a server's addresses went with its connection")
	}
}

// TestTableIsDiverse covers threats.md H53: a subnet gets 3 places in the routing
// table, 2 in one bucket.
func TestTableIsDiverse(t *testing.T) {
	f := &diversity{groups: make(map[peer.ID]netip.Prefix), cpls: make(map[peer.ID]int)}
	where := make(map[peer.ID]ma.Multiaddr)
	f.addr = func(p peer.ID) ma.Multiaddr { return where[p] }
	in := 0
	for i, c := range []struct {
		addr string
		cpl  int
		want bool
	}{
		{"/ip4/9.9.9.1/udp/1/quic-v1", 0, true},
		{"/ip4/9.9.9.2/udp/1/quic-v1", 0, true},
		{"/ip4/9.9.9.3/udp/1/quic-v1", 0, false}, // third of its bucket
		{"/ip4/9.9.9.4/udp/1/quic-v1", 1, true},
		{"/ip4/9.9.9.5/udp/1/quic-v1", 2, false}, // fourth of the table
		{"/ip4/9.9.8.1/udp/1/quic-v1", 0, true},
		{"/ip6/2001:4860:1:1::1/udp/1/quic-v1", 0, true},
		{"/ip6/2001:4860:1:2::1/udp/1/quic-v1", 0, true},
		{"/ip6/2001:4860:1:3::1/udp/1/quic-v1", 0, false}, // one /48
		{"/ip6/2001:4860:2::1/udp/1/quic-v1", 0, true},
		{"/ip4/127.0.0.1/udp/1/quic-v1", 0, true},
		{"/ip4/127.0.0.1/udp/2/quic-v1", 0, true},
		{"/ip4/127.0.0.1/udp/3/quic-v1", 0, true},
	} {
		p := peer.ID(rune('a' + i))
		where[p] = ma.StringCast(c.addr)
		g := peerdiversity.PeerGroupInfo{Id: p, Cpl: c.cpl}
		if got := f.Allow(g); got != c.want {
			t.Errorf("%s in bucket %d: got %v, want %v", c.addr, c.cpl, got, c.want)
		} else if got {
			f.Increment(g)
			in++
		}
	}
	f.Decrement(peerdiversity.PeerGroupInfo{Id: "a"})
	where["z"] = where["a"]
	if !f.Allow(peerdiversity.PeerGroupInfo{Id: "z", Cpl: 3}) {
		t.Error("the place of one that went is not free")
	}
	if f.Allow(peerdiversity.PeerGroupInfo{Id: "nobody"}) {
		t.Error("somebody without an address was let in")
	}
}

// TestServerNamesOwnMachine: a server of the DHT has nobody dial its own machine or its
// home network, unless all servers that were named are there too.
func TestServerNamesOwnMachine(t *testing.T) {
	public, home, self := ma.StringCast("/ip4/8.8.8.8/tcp/443"), ma.StringCast("/ip4/192.168.1.1/tcp/80"), ma.StringCast("/ip4/127.0.0.1/tcp/6379")
	for _, tc := range []struct {
		name  string
		named []ma.Multiaddr
		want  []ma.Multiaddr
	}{
		{"a fresh node", nil, []ma.Multiaddr{public}},
		{"a node that was named a public server", []ma.Multiaddr{home, public}, []ma.Multiaddr{public}},
		{"a laboratory", []ma.Multiaddr{home}, []ma.Multiaddr{public, home}},
		{"one machine", []ma.Multiaddr{self}, []ma.Multiaddr{public, home, self}},
	} {
		n, err := New(Config{Key: newKey(t)})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range tc.named {
			n.AddBootstrap(FromUser, peer.AddrInfo{ID: newID(t), Addrs: []ma.Multiaddr{a}})
		}
		n.AddBootstrap(FromDHT, peer.AddrInfo{ID: newID(t), Addrs: []ma.Multiaddr{home}})
		if got := (&dht{net: n}).dialable([]ma.Multiaddr{public, home, self}); !sameAddrs(got, tc.want) {
			t.Errorf("%s dials %v, want %v", tc.name, got, tc.want)
		}
	}
}
