package p2p

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Source says how a server of the DHT came into the address book.
type Source string

// The sources, the most trusted first.
const (
	FromUser    Source = "user"    // the owner named it; it stays
	FromContact Source = "contact" // a contact's node
	FromInvite  Source = "invite"  // stood in an invite
	FromList    Source = "list"    // a signed list
	FromDNS     Source = "dns"     // a name that the owner named
	FromDHT     Source = "dht"     // other servers
)

// trust is a source's part of a score.
func (s Source) trust() int {
	sources := []Source{FromDHT, FromDNS, FromList, FromInvite, FromContact, FromUser}
	return slices.Index(sources, s)
}

// known reports whether it is somebody whom the owner knows, and not the public.
func (s Source) known() bool { return s.trust() >= FromInvite.trust() }

// Known is one server of the address book.
type Known struct {
	Peer    peer.AddrInfo
	Source  Source
	Added   time.Time
	Success time.Time // last one, zero if there was none
	Tried   time.Time // last failed attempt
	Fails   int       // attempts since Success that failed
}

// Bounds of the address book.
const (
	// MaxBook is how many servers the book has, and maxBookGroup how many of one /16
	// (IPv6: /32): who owns a network must not own the way into the DHT. go-libp2p's
	// table of autonomous systems has no IPv4, and IPv6 networks have a /32 at least.
	MaxBook      = 200
	maxBookGroup = 8
	// maxBookAddrs is how many addresses of one server are kept.
	maxBookAddrs = 6
	// deadNever and deadOnce are the failed attempts after which a server goes that
	// never answered, or that did and was then silent for deadAfter. The owner's stay.
	deadNever = 4
	deadOnce  = 8
	deadAfter = 14 * 24 * time.Hour
	// freshFor is how long a success says that a server is there.
	freshFor = 48 * time.Hour
	// bookSave is how often a changed book is written: a crash costs that much.
	bookSave = 5 * time.Minute
)

// bookKey holds the whole book: it is read once, and written as one.
var bookKey = ds.NewKey("/peers/book")

// book is the address book of servers of the DHT.
type book struct {
	data ds.Datastore // nil: memory only
	log  *slog.Logger
	now  func() time.Time

	shunned func(peer.ID) bool // nil: nobody is; Config.Shunned

	public atomic.Bool // there is a public address in it

	mu    sync.Mutex // guards all below
	known map[peer.ID]*Known
	dirty bool
	saved time.Time
}

func newBook(data ds.Datastore, log *slog.Logger, now func() time.Time) *book {
	return &book{data: data, log: log, now: now, known: make(map[peer.ID]*Known)}
}

// load reads the book of the last run. One that cannot be read is an empty one: all
// of it can be learned again.
func (b *book) load(ctx context.Context) {
	if b.data == nil {
		return
	}
	raw, err := b.data.Get(ctx, bookKey)
	if errors.Is(err, ds.ErrNotFound) {
		return
	}
	var stored []Known
	if err == nil {
		err = json.Unmarshal(raw, &stored)
	}
	if err != nil {
		b.log.Warn("address book lost", "err", err)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.note()
	for _, k := range stored[:min(len(stored), MaxBook)] {
		if out := b.shunned != nil && k.Source != FromUser && b.shunned(k.Peer.ID); !out && isEd25519(k.Peer.ID) && k.Source.trust() >= 0 && len(k.Peer.Addrs) > 0 && b.known[k.Peer.ID] == nil {
			b.known[k.Peer.ID] = &k
		}
	}
}

// note sees whether the book has public addresses. The caller holds mu.
func (b *book) note() {
	for _, k := range b.known {
		if slices.ContainsFunc(k.Peer.Addrs, manet.IsPublicAddr) {
			b.public.Store(true)
			return
		}
	}
	b.public.Store(false)
}

// save writes the book if it changed and is due, or if now is all there is.
func (b *book) save(ctx context.Context, now time.Time, must bool) {
	b.mu.Lock()
	if b.data == nil || !b.dirty || !must && now.Sub(b.saved) < bookSave {
		b.mu.Unlock()
		return
	}
	b.dirty, b.saved = false, now
	raw, err := json.Marshal(b.list())
	b.mu.Unlock()
	if err == nil {
		err = b.data.Put(ctx, bookKey, raw)
	}
	if err != nil {
		b.log.Warn("address book not saved", "err", err)
	}
}

// add notes a server, or more addresses or a better source of one that is known, and
// reports whether that is worth a try. Only who speaks for the server itself, the owner
// and a contact of whom it is the own node, replaces its addresses: what anybody else
// says of it is added.
func (b *book) add(info peer.AddrInfo, from Source) (news bool) {
	addrs := make([]ma.Multiaddr, 0, maxBookAddrs)
	for _, a := range info.Addrs {
		if a, ok := directAddr(a); ok && !ma.Contains(addrs, a) && len(addrs) < maxBookAddrs {
			addrs = append(addrs, a)
		}
	}
	if !isEd25519(info.ID) || len(addrs) == 0 || from.trust() < 0 || from != FromUser && b.shunned != nil && b.shunned(info.ID) {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.note()
	if (from == FromContact || from == FromInvite || from == FromDNS) && !b.home() { // what the owner named may be inside; the DHT has its own rule: dialable
		addrs = slices.DeleteFunc(addrs, func(a ma.Multiaddr) bool { return !manet.IsPublicAddr(a) })
		if len(addrs) == 0 {
			return false
		}
	}
	if k := b.known[info.ID]; k != nil {
		own := from == FromUser || from == FromContact
		if from.trust() < k.Source.trust() { // what strangers say is no news of what others know better
			return false
		}
		if !own {
			addrs = merged(k, addrs)
		}
		if !sameAddrs(k.Peer.Addrs, addrs) {
			k.Peer.Addrs, b.dirty = addrs, true
			if own {
				k.Fails, news = 0, true
			}
		}
		if from.trust() > k.Source.trust() {
			k.Source, b.dirty = from, true
		}
		return news
	}
	k := &Known{Peer: peer.AddrInfo{ID: info.ID, Addrs: addrs}, Source: from, Added: b.now()}
	b.known[info.ID] = k
	b.dirty = true
	b.shrink(k)
	return b.known[info.ID] == k
}

// home reports whether this is a network of its own, where all that is known has private
// addresses. The caller holds mu.
func (b *book) home() bool { return len(b.known) > 0 && !b.public.Load() }

// merged adds addresses to those of a server, as many as are kept: those at which it
// answers stay, and of one that does not, some of both.
func merged(k *Known, more []ma.Multiaddr) []ma.Multiaddr {
	out := slices.Clone(k.Peer.Addrs)
	if k.Fails > 0 {
		out = out[:min(len(out), maxBookAddrs/2)]
	}
	for _, a := range more {
		if !ma.Contains(out, a) && len(out) < maxBookAddrs {
			out = append(out, a)
		}
	}
	return out
}

// shrink removes the worst of k's network and of all, where there are too many. The
// caller holds mu.
func (b *book) shrink(k *Known) {
	group := func(k *Known) netip.Prefix { return wideGroup(k.Peer.Addrs[0]) }
	var near []*Known
	for _, other := range b.known {
		if g := group(k); g.IsValid() && group(other) == g {
			near = append(near, other)
		}
	}
	if len(near) > maxBookGroup {
		b.remove(near)
	}
	if len(b.known) > MaxBook {
		all := make([]*Known, 0, len(b.known))
		for _, other := range b.known {
			all = append(all, other)
		}
		b.remove(all)
	}
}

// remove forgets the worst of some that the owner did not name.
func (b *book) remove(of []*Known) {
	slices.SortFunc(of, b.rank)
	for _, k := range slices.Backward(of) {
		if k.Source != FromUser {
			delete(b.known, k.Peer.ID)
			return
		}
	}
}

// rank sorts the better server first: those that answered lately, then those that
// failed less often, then by trust, then by success.
func (b *book) rank(x, y *Known) int {
	now := b.now()
	fresh := func(k *Known) bool { return k.Fails == 0 && now.Sub(k.Success) < freshFor }
	return cmp.Or(
		cmp.Compare(b2i(fresh(y)), b2i(fresh(x))),
		cmp.Compare(x.Fails, y.Fails),
		cmp.Compare(y.Source.trust(), x.Source.trust()),
		y.Success.Compare(x.Success),
		cmp.Compare(x.Peer.ID, y.Peer.ID),
	)
}

// wideGroup is the /16 or /32 of an address; loopback and private networks have none.
func wideGroup(a ma.Multiaddr) netip.Prefix {
	ip, ok := ipOf(a)
	if !ok || !manet.IsPublicAddr(a) {
		return netip.Prefix{}
	}
	bits := 32
	if ip.Is4() {
		bits = 16
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// named reports whether the owner named p.
func (b *book) named(p peer.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.known[p]
	return k != nil && k.Source == FromUser
}

// told reports whether somebody who is known said of p that it is a server.
func (b *book) told(p peer.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.known[p]
	return k != nil && k.Source.known()
}

// leave forgets those of which out says yes.
func (b *book) leave(out func(Known) bool) {
	for _, k := range b.snapshot() {
		if !out(k) {
			continue
		}
		b.mu.Lock()
		delete(b.known, k.Peer.ID)
		b.dirty = true
		b.note()
		b.mu.Unlock()
	}
}

func (b *book) snapshot() []Known {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.list()
}

// worked notes that p answered, failed that it did not.
func (b *book) worked(p peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if k := b.known[p]; k != nil {
		k.Success, k.Fails, b.dirty = b.now(), 0, true
	}
}

func (b *book) failed(p peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.note()
	k := b.known[p]
	if k == nil {
		return
	}
	k.Fails++
	k.Tried, b.dirty = b.now(), true
	if k.Source == FromUser {
		return
	}
	never := k.Success.IsZero() && k.Fails >= deadNever
	if never || k.Fails >= deadOnce && b.now().Sub(k.Success) > deadAfter {
		delete(b.known, p)
	}
}

// list returns copies, best first. The caller holds mu.
func (b *book) list() []Known {
	all := make([]*Known, 0, len(b.known))
	for _, k := range b.known {
		all = append(all, k)
	}
	slices.SortFunc(all, b.rank)
	out := make([]Known, len(all))
	for i, k := range all {
		out[i] = *k
		out[i].Peer.Addrs = slices.Clone(k.Peer.Addrs)
	}
	return out
}

// candidates returns up to n servers to dial: mostly the best, of different networks,
// with some chance, so that a bad book does not stay so. Those of which not says yes
// are passed over, and so are, at first, those that failed lately.
func (b *book) candidates(n int, not func(peer.ID) bool) []peer.AddrInfo {
	all := b.snapshot()
	now := b.now()
	// Who answered the last time comes before those that nobody has tried, and last who
	// failed a moment ago.
	class := func(k Known) int {
		switch {
		case k.Fails == 0 && !k.Success.IsZero():
			return 0
		case k.Fails == 0 || now.Sub(k.Tried) >= time.Minute<<min(k.Fails, 8):
			return 1
		}
		return 2
	}
	slices.SortStableFunc(all, func(x, y Known) int { return cmp.Compare(class(x), class(y)) })
	for i := 0; i < len(all); {
		same := slices.IndexFunc(all[i:], func(k Known) bool { return class(k) != class(all[i]) })
		if same < 0 {
			same = len(all) - i
		}
		shuffle(all[i : i+min(same, 3*n)])
		i += same
	}
	groups := make(map[netip.Prefix]bool)
	var out []peer.AddrInfo
	for _, again := range []bool{false, true} {
		for _, k := range all {
			g := wideGroup(k.Peer.Addrs[0])
			if len(out) == n || not(k.Peer.ID) || slices.ContainsFunc(out, func(i peer.AddrInfo) bool { return i.ID == k.Peer.ID }) || g.IsValid() && groups[g] && !again {
				continue
			}
			groups[g] = true
			out = append(out, k.Peer)
		}
	}
	return out
}

// fresh returns how many servers answered lately.
func (b *book) fresh() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, k := range b.known {
		if k.Fails == 0 && b.now().Sub(k.Success) < freshFor {
			n++
		}
	}
	return n
}

// keep forgets those of a source that are not among some: who named them has taken them
// back.
func (b *book) keep(from Source, some []peer.AddrInfo) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.note()
	for id, k := range b.known {
		if k.Source == from && !slices.ContainsFunc(some, func(i peer.AddrInfo) bool { return i.ID == id }) {
			delete(b.known, id)
			b.dirty = true
		}
	}
}

// silent reports whether there is nobody in the book who did not fail the last time.
func (b *book) silent() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range b.known {
		if k.Fails == 0 {
			return false
		}
	}
	return true
}

// private reports whether the book has no public address: a network of its own, such
// as a laboratory, where the DHT speaks to private ones.
func (b *book) private() bool { return !b.public.Load() }

// Book returns the servers of the DHT that this node knows, best first.
func (n *Net) Book() []Known { return n.book.snapshot() }

// KeepBootstrap forgets the servers of a source that are not among some, wherever they
// had been known from before that source named them.
func (n *Net) KeepBootstrap(from Source, some ...peer.AddrInfo) { n.book.keep(from, some) }

// AddBootstrap names servers of the DHT. They are tried at once if the node knows
// few.
func (n *Net) AddBootstrap(from Source, servers ...peer.AddrInfo) {
	news := false
	for _, s := range servers {
		if s.ID != n.self() && n.book.add(s, from) {
			news = true
		}
	}
	if d := n.dht.Load(); d != nil && news {
		d.kick()
	}
}
