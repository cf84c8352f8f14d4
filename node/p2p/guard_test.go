package p2p

import (
	"crypto/rand"
	"net/netip"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

func TestStreamBuckets(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var kicked []peer.ID
	g := newGuard(func(p peer.ID) { kicked = append(kicked, p) })
	p, q := newID(t), newID(t)
	allowed := func(p peer.ID, tries int) int {
		n := 0
		for range tries {
			if g.stream(p, now) == nil {
				n++
			}
		}
		return n
	}
	if n := allowed(p, StreamBurstPeer+StrikesToBan/2); n != StreamBurstPeer {
		t.Errorf("burst: got %d streams, want %d", n, StreamBurstPeer)
	}
	now = now.Add(time.Second)
	if n := allowed(p, StreamRatePeer+StrikesToBan/4); n != StreamRatePeer {
		t.Errorf("a second later: got %d streams, want %d", n, StreamRatePeer)
	}
	if n := allowed(q, 1); n != 1 || len(kicked) > 0 || g.banned(p, now) {
		t.Error("another peer pays, or the ban came too early")
	}
	allowed(p, StrikesToBan)
	if !g.banned(p, now) || len(kicked) == 0 || kicked[0] != p || g.banned(q, now) {
		t.Errorf("after %d refusals: banned %v, kicked %d times", StrikesToBan, g.banned(p, now), len(kicked))
	}
	now = now.Add(BanTime)
	if g.banned(p, now) || allowed(p, 1) != 1 {
		t.Error("the ban does not end")
	}
	// A peer that comes back gets no new burst.
	allowed(q, StreamBurstPeer)
	g.gone(q, now)
	if n := allowed(q, 1); n != 0 {
		t.Error("reconnecting earned a new burst")
	}
	// An honest peer that was refused now and then is not banned in the long run.
	for range 20 * StrikesToBan {
		now = now.Add(time.Minute)
		allowed(q, StreamBurstPeer+1)
	}
	if g.banned(q, now) {
		t.Error("strikes are never forgiven")
	}
}

func TestSubnetBuckets(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	g := newGuard(func(peer.ID) {})
	n := 0
	for i := range 20 {
		p := newID(t)
		g.connected(p, ma.StringCast("/ip4/8.8.8."+string('0'+byte(i%10))+"/tcp/1"))
		for range StreamBurstPeer {
			if g.stream(p, now) == nil {
				n++
			}
		}
	}
	if n != StreamBurstSubnet {
		t.Errorf("20 peers of one /24: got %d streams, want %d", n, StreamBurstSubnet)
	}
	p := newID(t)
	g.connected(p, ma.StringCast("/ip4/8.8.9.1/tcp/1"))
	if err := g.stream(p, now); err != nil {
		t.Error("another /24:", err)
	}
}

// TestLoopbackIsBounded: whoever comes over the loopback gets more than a subnet, and
// not all that there is.
func TestLoopbackIsBounded(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	g := newGuard(func(peer.ID) {})
	n := 0
	for range 40 {
		p := newID(t)
		g.connected(p, ma.StringCast("/ip4/127.0.0.1/tcp/1"))
		for range StreamBurstPeer {
			if g.stream(p, now) == nil {
				n++
			}
		}
	}
	if n != loopbackStreams*StreamBurstSubnet {
		t.Errorf("40 peers of this machine: got %d streams, want %d", n, loopbackStreams*StreamBurstSubnet)
	}
	rm, err := newResourceManager(newLimiter())
	if err != nil {
		t.Fatal(err)
	}
	defer rm.Close()
	in := func(from string, tries int) (n int) {
		for range tries {
			c, err := rm.OpenConnection(network.DirInbound, false, ma.StringCast(from))
			if err != nil {
				continue
			}
			p := newID(t)
			if err := c.SetPeer(p); err == nil {
				n++
			}
		}
		return n
	}
	if n := in("/ip4/127.0.0.1/udp/1/quic-v1", MaxConnsIn); n != MaxConnsLoopback {
		t.Errorf("%d connections over the loopback, want %d", n, MaxConnsLoopback)
	}
	if n := in("/ip6/::1/tcp/1", 1); n != 1 {
		t.Error("IPv4 has used up what IPv6 has")
	}
	if n := in("/ip4/8.8.8.8/udp/1/quic-v1", 1); n != 1 {
		t.Error("the loopback has used up what others have")
	}
}

func TestTablesAreBounded(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	g := newGuard(func(peer.ID) {})
	id := func() peer.ID {
		raw := make([]byte, 32)
		if _, err := rand.Read(raw); err != nil {
			t.Fatal(err)
		}
		return peer.ID("\x00\x24\x08\x01\x12\x20" + string(raw))
	}
	for range maxBuckets + 100 {
		_ = g.stream(id(), now)
	}
	if len(g.peers) > maxBuckets {
		t.Errorf("%d buckets, want at most %d", len(g.peers), maxBuckets)
	}
	now = now.Add(time.Minute) // all full again: forgotten for newcomers
	if err := g.stream(id(), now); err != nil {
		t.Error("a newcomer is refused for ever:", err)
	}
	for range maxBans + 100 {
		g.ban(id(), now)
	}
	if len(g.bans) > maxBans {
		t.Errorf("%d bans, want at most %d", len(g.bans), maxBans)
	}
}

func TestSubnetOf(t *testing.T) {
	for _, tc := range []struct{ addr, want string }{
		{"/ip4/8.8.8.8/tcp/1", "8.8.8.0/24"},
		{"/ip6/2001:db8:1:2::3/udp/1/quic-v1", "2001:db8:1::/48"},
		{"/ip6/::ffff:8.8.8.8/tcp/1", "8.8.8.0/24"},
		{"/ip4/127.0.0.1/tcp/1", ""},
		{"/dns4/example.org/tcp/1", ""},
	} {
		got, ok := subnetOf(ma.StringCast(tc.addr))
		want := netip.Prefix{}
		if tc.want != "" {
			want = netip.MustParsePrefix(tc.want)
		}
		if got != want || ok != (tc.want != "") {
			t.Errorf("%s: got %v, want %q", tc.addr, got, tc.want)
		}
	}
}

func TestEd25519IDs(t *testing.T) {
	if id := newID(t); !isEd25519(id) {
		t.Error("an Ed25519 id is refused")
	}
	for _, typ := range []int{crypto.RSA, crypto.Secp256k1, crypto.ECDSA} {
		key, _, err := crypto.GenerateKeyPairWithReader(typ, 2048, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.IDFromPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if isEd25519(id) {
			t.Errorf("key type %d taken for Ed25519", typ)
		}
	}
	for _, id := range []peer.ID{"", "x", newID(t)[:37], newID(t) + "x"} {
		if isEd25519(id) {
			t.Errorf("%q taken for Ed25519", id)
		}
	}
}

func TestCleanAndAdvertise(t *testing.T) {
	n := start(t, Config{})
	const id = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"
	var in, want []ma.Multiaddr
	for _, tc := range []struct {
		addr string
		keep bool
	}{
		{"/ip4/8.8.8.8/udp/4001/quic-v1", true},
		{"/ip4/8.8.8.8/udp/4001/quic-v1", false}, // twice
		{"/ip4/192.168.1.2/tcp/4001/p2p/" + id, true},
		{"/ip6/fd00::1/tcp/1", true},
		{"/ip6/fe80::1/tcp/1", false},
		{"/ip4/127.0.0.1/tcp/22", false},
		{"/ip6/::1/tcp/22", false},
		{"/ip4/0.0.0.0/tcp/1", false},
		{"/ip4/224.0.0.251/udp/5353/quic-v1", false},
		{"/dns4/example.org/tcp/1", false},
		{"/ip4/8.8.8.8/tcp/1/ws", false},
		{"/ip4/8.8.8.8/udp/1/quic-v1/webtransport", false},
		{"/ip4/8.8.8.8/udp/1", false},
		{"/ip4/8.8.8.8/tcp/1/p2p/" + id + "/p2p-circuit", true},
		{"/ip4/8.8.8.8/tcp/1/p2p/" + id + "/p2p-circuit/p2p/" + id, false}, // the same
		{"/ip4/8.8.4.4/tcp/1/p2p/" + id + "/p2p-circuit/p2p/" + id, true},
		{"/ip4/8.8.8.8/tcp/1/p2p/" + id + "/p2p/" + id + "/p2p-circuit", false},
		{"/ip4/8.8.8.8/tcp/1/p2p/" + id + "/p2p-circuit/p2p/" + id + "/p2p-circuit", false},
		{"/ip4/8.8.8.8/tcp/1/p2p/" + id + "/p2p-circuit/tcp/1", false},
		{"/ip4/8.8.8.8/tcp/1/p2p/QmSoLPppuBtQSGwKDZT2M73ULpjvfd3aZ6ha4oFGL1KrGM/p2p-circuit", false},
		{"/ip4/8.8.8.8/tcp/1/p2p-circuit", false},
		{"/p2p-circuit", false},
		{"/ip4/127.0.0.1/tcp/1/p2p/" + id + "/p2p-circuit", false},
		{"/ip4/8.8.8.8/tcp/443/tls/ws", true},
		{"/ip4/8.8.8.8/tcp/443/tls/ws/p2p/" + id + "/p2p-circuit", true},
		{"/ip4/8.8.8.8/tcp/443/tls/sni/example.org/ws", false},
	} {
		a := ma.StringCast(tc.addr)
		in = append(in, a)
		if tc.keep {
			if _, p := peer.SplitAddr(a); p != "" && tc.keep {
				a, _ = peer.SplitAddr(a)
			}
			want = append(want, a)
		}
	}
	if n.loopbackOnly() {
		want = append(want, ma.StringCast("/ip4/127.0.0.1/tcp/22"), ma.StringCast("/ip6/::1/tcp/22"))
	}
	got := n.Clean(in)
	if len(got) != len(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, a := range want {
		if !ma.Contains(got, a) {
			t.Errorf("dropped %v", a)
		}
	}
	for i := range 100 {
		in = append(in, ma.StringCast("/ip4/8.8.4.4/tcp/"+string('1'+byte(i%9))+"00"+string('0'+byte(i/10))))
	}
	if got := n.Clean(in); len(got) > MaxAddrs {
		t.Errorf("%d addresses kept, want at most %d", len(got), MaxAddrs)
	}
	// What strangers learn by identify: no address of the home network.
	for _, a := range n.host(mainHost).Addrs() {
		if isLocal(a) && !isLoopback(a) {
			t.Errorf("identify tells everybody %v", a)
		}
	}
	own := []ma.Multiaddr{
		ma.StringCast("/ip4/127.0.0.1/tcp/1"), ma.StringCast("/ip4/192.168.1.2/tcp/1"), ma.StringCast("/ip4/8.8.8.8/tcp/1"),
	}
	if got := advertisable(own, false); len(got) != 2 || ma.Contains(got, own[0]) {
		t.Errorf("advertisable: got %v", got)
	}
	if got := advertisable(own, true); len(got) != 1 || !got[0].Equal(own[1]) {
		t.Errorf("advertisable on the LAN: got %v", got)
	}
	if got := advertisable(own[:1], true); len(got) != 1 {
		t.Errorf("only loopback: got %v", got)
	}
	if got := identifyAddrs(false, nil)(own); len(got) != 1 || !got[0].Equal(own[2]) {
		t.Errorf("identify: got %v", got)
	}
	// A provider's public address stands for the private one.
	public := []netip.Addr{netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("2620:fe::9")}
	if got := identifyAddrs(false, public)(own); len(got) != 2 || !ma.Contains(got, ma.StringCast("/ip4/9.9.9.9/tcp/1")) {
		t.Errorf("identify with a public address: got %v", got)
	}
	if got := announced(own, public); len(got) != 4 {
		t.Errorf("announced: got %v", got)
	}
}

func TestConfigIsChecked(t *testing.T) {
	rsa, _, err := crypto.GenerateKeyPairWithReader(crypto.RSA, 2048, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	for name, cfg := range map[string]Config{
		"no key":      {},
		"RSA key":     {Key: rsa},
		"RSA LAN key": {Key: key, LANKey: rsa},
		"one key":     {Key: key, LANKey: key},
		"limits":      {Key: key, ConnLow: 10, ConnHigh: 5},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
