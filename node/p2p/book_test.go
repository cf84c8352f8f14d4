package p2p

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// serverAt returns somebody new at an address.
func serverAt(t testing.TB, format string, args ...any) peer.AddrInfo {
	t.Helper()
	_, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{ma.StringCast(fmt.Sprintf(format, args...))}}
}

// TestBookIsDiverseAndBounded: one network fills its part and no more, strangers push
// nobody out that the owner named, and the size is bounded.
func TestBookIsDiverseAndBounded(t *testing.T) {
	at := &clock{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	b := newBook(nil, slog.New(slog.DiscardHandler), at.now)
	mine := serverAt(t, "/ip4/9.9.0.1/udp/443/quic-v1")
	b.add(mine, FromUser)
	for i := range 500 {
		b.add(serverAt(t, "/ip4/9.9.%d.1/udp/1/quic-v1", i%250), FromDHT)
	}
	if n := len(b.known); n != maxBookGroup || b.known[mine.ID] == nil {
		t.Errorf("one /16 fills %d entries, want %d and the owner's among them", n, maxBookGroup)
	}
	for i := range 500 {
		b.add(serverAt(t, "/ip4/%d.%d.0.1/udp/1/quic-v1", 11+i/200, i%200), FromDHT)
	}
	if n := len(b.known); n != MaxBook || b.known[mine.ID] == nil {
		t.Errorf("%d entries, want %d and the owner's among them", n, MaxBook)
	}
	// What a stranger says about the owner's server changes nothing.
	b.add(peer.AddrInfo{ID: mine.ID, Addrs: serverAt(t, "/ip4/66.6.6.6/udp/1/quic-v1").Addrs}, FromDHT)
	if got := b.known[mine.ID].Peer.Addrs; len(got) != 1 || !got[0].Equal(mine.Addrs[0]) {
		t.Errorf("the owner's server is now at %v", got)
	}
	networks := map[any]bool{}
	for _, c := range b.candidates(20, func(peer.ID) bool { return false }) {
		networks[wideGroup(c.Addrs[0])] = true
	}
	if len(networks) != 20 {
		t.Errorf("20 candidates of %d networks, want each of another", len(networks))
	}
	// No relays, names or rubbish.
	n := len(b.known)
	b.add(peer.AddrInfo{ID: "rsa", Addrs: mine.Addrs}, FromDHT)
	b.add(serverAt(t, "/ip4/8.8.8.8/udp/1/quic-v1/p2p/%s/p2p-circuit", mine.ID), FromUser)
	b.add(serverAt(t, "/dns4/example.org/tcp/1"), FromDHT)
	if len(b.known) > n {
		t.Error("a relay, a name or another kind of key got in")
	}
}

// TestDeadServersFallBehindAndOut.
func TestDeadServersFallBehindAndOut(t *testing.T) {
	at := &clock{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	b := newBook(nil, slog.New(slog.DiscardHandler), at.now)
	good, never, once, mine := serverAt(t, "/ip4/11.1.0.1/tcp/1"), serverAt(t, "/ip4/12.1.0.1/tcp/1"), serverAt(t, "/ip4/13.1.0.1/tcp/1"), serverAt(t, "/ip4/14.1.0.1/tcp/1")
	for _, i := range []peer.AddrInfo{good, never, once} {
		b.add(i, FromDHT)
	}
	b.add(mine, FromUser)
	b.worked(good.ID)
	b.worked(once.ID)
	for range 3 {
		b.failed(never.ID)
		b.failed(once.ID)
		b.failed(mine.ID)
	}
	if l := b.list(); l[0].Peer.ID != good.ID || l[1].Source != FromUser || l[3].Peer.ID != never.ID {
		t.Errorf("order: %v", l)
	}
	b.failed(never.ID)
	if b.known[never.ID] != nil {
		t.Error("a server that never answered stays after 4 attempts")
	}
	for range 20 {
		b.failed(once.ID)
		b.failed(mine.ID)
	}
	if b.known[once.ID] == nil {
		t.Error("one that answered a minute ago went")
	}
	at.at = at.at.Add(deadAfter + time.Hour)
	b.failed(once.ID)
	b.failed(mine.ID)
	if b.known[once.ID] != nil || b.known[mine.ID] == nil {
		t.Error("two weeks later the silent one should have gone, and the owner's have stayed")
	}
}

// TestBookSurvivesARestart, and a damaged one is an empty one.
func TestBookSurvivesARestart(t *testing.T) {
	at := &clock{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	disk := dssync.MutexWrap(ds.NewMapDatastore())
	log := slog.New(slog.DiscardHandler)
	b := newBook(disk, log, at.now)
	one, two := serverAt(t, "/ip4/11.1.0.1/tcp/1"), serverAt(t, "/ip6/2001:4860::1/udp/1/quic-v1")
	b.add(one, FromContact)
	b.add(two, FromDHT)
	b.worked(two.ID)
	b.failed(one.ID)
	b.save(t.Context(), at.at, true)
	again := newBook(disk, log, at.now)
	again.load(t.Context())
	if got, want := fmt.Sprint(again.list()), fmt.Sprint(b.list()); got != want || again.private() {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if err := disk.Put(t.Context(), bookKey, []byte(`[{"Peer":`)); err != nil {
		t.Fatal(err)
	}
	again = newBook(disk, log, at.now)
	again.load(t.Context())
	if len(again.known) != 0 {
		t.Error("a damaged book was read")
	}
}

// TestWhoNamedAServerTakesItBack: others stay, those that somebody better has named too.
func TestWhoNamedAServerTakesItBack(t *testing.T) {
	at := &clock{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	b := newBook(nil, slog.New(slog.DiscardHandler), at.now)
	stays, goes, mine, other := serverAt(t, "/ip4/11.1.0.1/tcp/1"), serverAt(t, "/ip4/12.1.0.1/tcp/1"), serverAt(t, "/ip4/13.1.0.1/tcp/1"), serverAt(t, "/ip4/14.1.0.1/tcp/1")
	for _, i := range []peer.AddrInfo{stays, goes, mine} {
		b.add(i, FromList)
	}
	b.add(mine, FromUser)
	b.add(other, FromDHT)
	b.keep(FromList, []peer.AddrInfo{stays})
	if len(b.known) != 3 || b.known[goes.ID] != nil {
		t.Errorf("%d left, the one taken back among them: %v", len(b.known), b.known[goes.ID] != nil)
	}
}

// TestSilentBook: an empty one, or one of which nobody answered the last time.
func TestSilentBook(t *testing.T) {
	at := &clock{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	b := newBook(nil, slog.New(slog.DiscardHandler), at.now)
	if !b.silent() {
		t.Error("an empty one is not silent")
	}
	one, two := serverAt(t, "/ip4/11.1.0.1/tcp/1"), serverAt(t, "/ip4/12.1.0.1/tcp/1")
	b.add(one, FromList)
	b.add(two, FromUser)
	b.failed(one.ID)
	if b.silent() {
		t.Error("silent, and one was never tried")
	}
	b.failed(two.ID)
	if !b.silent() {
		t.Error("not silent, and both failed")
	}
	b.worked(one.ID)
	if b.silent() {
		t.Error("silent, and one answered")
	}
}

// TestNeighboursAreNoServers: a flood of announcements on the LAN puts nobody into the
// book, so it pushes nobody out.
func TestNeighboursAreNoServers(t *testing.T) {
	n := start(t, Config{Profile: Client, Listen: loopbackListen})
	mine := serverAt(t, "/ip4/11.1.0.1/udp/1/quic-v1")
	n.AddBootstrap(FromDHT, mine)
	for i := range 2 * MaxBook {
		n.foundOnLAN(serverAt(t, "/ip4/192.168.%d.%d/udp/1/quic-v1", i/250, 1+i%250))
	}
	if got := n.Book(); len(got) != 1 || got[0].Peer.ID != mine.ID {
		t.Errorf("%d servers in the book: %v", len(got), got)
	}
}

// TestRelaysOfAnInvite: those of the Internet, and nothing else.
func TestRelaysOfAnInvite(t *testing.T) {
	one, two := serverAt(t, "/ip4/11.1.0.1/udp/1/quic-v1"), serverAt(t, "/ip4/192.168.0.1/tcp/1")
	var addrs []ma.Multiaddr
	for _, s := range []peer.AddrInfo{one, two} {
		addrs = append(addrs, s.Addrs[0], ma.StringCast(fmt.Sprintf("%s/p2p/%s/p2p-circuit", s.Addrs[0], s.ID)))
	}
	got := RelaysOf(append(addrs, ma.StringCast("/dns4/example.org/tcp/1/p2p/"+one.ID.String()+"/p2p-circuit")))
	if len(got) != 1 || got[0].ID != one.ID || len(got[0].Addrs) != 1 || !got[0].Addrs[0].Equal(one.Addrs[0]) {
		t.Errorf("relays %v, want %v", got, one)
	}
}

// TestNamesLeadToTheInternet: whoever forges the answer of a name brings in no private
// address, and makes this no network of its own, in which strangers' private addresses
// would be dialled.
func TestNamesLeadToTheInternet(t *testing.T) {
	for _, private := range []string{"/ip4/192.168.1.66/udp/1/quic-v1", "/ip4/127.0.0.1/udp/1/quic-v1"} {
		n := start(t, Config{Listen: []ma.Multiaddr{ma.StringCast("/ip4/0.0.0.0/tcp/0")}})
		forged := serverAt(t, "%s", private)
		n.AddBootstrap(FromDNS, forged)
		if len(n.Book()) > 0 {
			t.Errorf("%s is in the book", private)
		}
		strange := []ma.Multiaddr{ma.StringCast("/ip4/192.168.1.1/tcp/80"), ma.StringCast("/ip4/127.0.0.1/tcp/6379")}
		if got := n.dht.Load().dialable(strange); len(got) > 0 {
			t.Errorf("after %s strangers have %v dialled", private, got)
		}
	}
}

// TestBookOthersReplaceNoAddress: whoever names a server that somebody else named adds
// addresses to it and replaces none, wakes nobody by it, and brings in no private one.
func TestBookOthersReplaceNoAddress(t *testing.T) {
	good, claimed, inside := ma.StringCast("/ip4/8.8.8.8/tcp/443"), ma.StringCast("/ip4/66.6.6.6/tcp/443"), ma.StringCast("/ip4/192.168.1.1/tcp/22")
	for _, by := range []Source{FromDHT, FromList, FromInvite} {
		b := newBook(nil, slog.New(slog.DiscardHandler), time.Now)
		id := newID(t)
		b.add(peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{good}}, by)
		b.worked(id)
		for i := range 10 { // two who claim it in turn
			for _, a := range []ma.Multiaddr{claimed, good, inside} {
				if b.add(peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{a}}, FromInvite) {
					t.Errorf("%s, round %d: %s wakes the DHT", by, i, a)
				}
			}
		}
		if k := b.known[id]; len(k.Peer.Addrs) != 2 || !k.Peer.Addrs[0].Equal(good) || !k.Peer.Addrs[1].Equal(claimed) {
			t.Errorf("known by %s, it is at %v now, want what was known first and no private address", by, k.Peer.Addrs)
		}
		// Its own node says where it is: that counts, once.
		moved := ma.StringCast("/ip4/9.9.9.9/tcp/443")
		for i, want := range []bool{true, false} {
			if got := b.add(peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{moved, inside}}, FromContact); got != want {
				t.Errorf("%s: told by its own node the %d. time: news %v", by, i+1, got)
			}
		}
		if k := b.known[id]; len(k.Peer.Addrs) != 1 || !k.Peer.Addrs[0].Equal(moved) {
			t.Errorf("known by %s, and told by its own node, it is at %v", by, k.Peer.Addrs)
		}
	}
	b := newBook(nil, slog.New(slog.DiscardHandler), time.Now)
	if id := newID(t); b.add(peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{inside}}, FromContact) || b.known[id] != nil {
		t.Error("a contact's private address came into an empty book")
	}
}
