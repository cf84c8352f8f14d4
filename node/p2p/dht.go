package p2p

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	kad "github.com/libp2p/go-libp2p-kad-dht"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p-kbucket/peerdiversity"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/kinloom/kinloom/protocol/rv"
	"github.com/kinloom/kinloom/protocol/wire"
)

// The DHT's protocol: kad-dht appends what follows the prefix.
const (
	dhtPrefix protocol.ID = wire.DHTPrefix
	dhtID     protocol.ID = dhtPrefix + "/kad/1.0.0"
)

// dhtLimits: one stream in each direction with each connection there may be; one
// request is in memory at a time.
var dhtLimits = Limits{Streams: MaxConns, PerPeer: 4, StreamMemory: 4 * maxDHTRequest}

// Bounds on what others may ask of the DHT.
const (
	// DHTRatePeer is how many requests per second one peer may send after a burst.
	// A server that looks up for others asks each peer once a look-up.
	DHTRatePeer  = 20
	DHTBurstPeer = 400
	// PutRatePeer and PutRateSubnet are records per second from one peer, and from
	// one /24 or /48. A device publishes twice each 10 h; a server passes on those
	// of a few hundred.
	PutRatePeer    = 0.5
	PutBurstPeer   = 128
	PutRateSubnet  = 2
	PutBurstSubnet = 512
	// maxDHTGroup and maxDHTBucket bound peers of one /24 or /48 in the routing
	// table and in one of its buckets.
	maxDHTGroup  = 3
	maxDHTBucket = 2
)

// recordAge is how long a record can be of use: rv.Ahead before its end.
const recordAge = rv.Ahead

// dht is this node's part in the DHT.
type dht struct {
	net     *Net
	kad     atomic.Pointer[kad.IpfsDHT]
	host    *dhtHost
	store   *records
	msg     *pb.ProtocolMessenger
	serving atomic.Bool   // a server now
	wake    chan struct{} // one slot: look for servers at once

	mu      sync.Mutex // guards the buckets
	asks    map[peer.ID]*bucket
	puts    map[peer.ID]*bucket
	subnets map[netip.Prefix]*bucket // of puts
	// of requests to look up for others
	proxyPuts, proxyGets map[netip.Prefix]*bucket
}

// openDHT starts the DHT on the main host.
func (n *Net) openDHT(ctx context.Context, h *p2pHost) (*dht, error) {
	d := &dht{
		net: n, wake: make(chan struct{}, 1),
		asks: make(map[peer.ID]*bucket), puts: make(map[peer.ID]*bucket), subnets: make(map[netip.Prefix]*bucket),
		proxyPuts: make(map[netip.Prefix]*bucket), proxyGets: make(map[netip.Prefix]*bucket),
	}
	d.host = &dhtHost{Host: h.Host, d: d, used: make(map[peer.ID]time.Time)}
	var err error
	if d.store, err = newRecords(ctx, n.cfg.Data, h.ID(), n.cfg.Now); err != nil {
		return nil, err
	}
	n.limits.set(dhtID, dhtLimits.withDefaults())
	opts := []kad.Option{
		kad.ProtocolPrefix(dhtPrefix),
		kad.Validator(rv.Validator{Now: n.cfg.Now}), // knows the one name space that there is
		kad.Datastore(d.store),
		kad.MaxRecordAge(recordAge),
		kad.DisableProviders(), kad.ProviderStore(noProviders{}),
		kad.AddressFilter(d.dialable),
		kad.QueryFilter(func(_ any, i peer.AddrInfo) bool { return isEd25519(i.ID) && len(d.dialable(i.Addrs)) > 0 }),
		kad.RoutingTableFilter(func(_ any, p peer.ID) bool { return isEd25519(p) && h.conn(p) != nil }),
		kad.RoutingTablePeerDiversityFilter(&diversity{host: h, groups: make(map[peer.ID]netip.Prefix)}),
		kad.OnRequestHook(d.onRequest),
		// 10 minutes is kad-dht's own; a home that is asked nothing need not look that often.
		kad.RoutingTableRefreshPeriod(10 * time.Minute),
		kad.Mode(kad.ModeServer),
	}
	switch n.cfg.Profile {
	case Server:
	case Client:
		opts = append(opts, kad.Mode(kad.ModeClient), kad.DisableAutoRefresh())
	default:
		opts = append(opts, kad.Mode(kad.ModeAuto), kad.RoutingTableRefreshPeriod(time.Hour))
	}
	k, err := kad.New(context.WithoutCancel(ctx), d.host, opts...)
	if err != nil {
		return nil, fmt.Errorf("DHT: %w", err)
	}
	if d.msg, err = pb.NewProtocolMessenger(k.MessageSender()); err != nil {
		return nil, fmt.Errorf("DHT: %w", err)
	}
	d.kad.Store(k)
	return d, nil
}

// startDHT puts the DHT on the main host, unless this node has none.
func (n *Net) startDHT(ctx context.Context, h *p2pHost) error {
	if n.cfg.NoDHT || n.cfg.LANOnly {
		return nil
	}
	d, err := n.openDHT(ctx, h)
	if err != nil {
		return err
	}
	n.dht.Store(d)
	n.Handle(rv.ProxyID, Limits{Streams: rv.ProxyStreams, PerPeer: rv.ProxyPerPeer, StreamMemory: rv.ProxyMemory}, n.serveProxy)
	return nil
}

// close ends the DHT and saves the book.
func (d *dht) close() error {
	k := d.kad.Load()
	d.learn()
	d.net.book.save(context.WithoutCancel(k.Context()), time.Now(), true)
	return k.Close()
}

// knows reports whether p is in the routing table.
func (d *dht) knows(p peer.ID) bool {
	k := d.kad.Load()
	return k != nil && k.RoutingTable().Find(p) != ""
}

// size is how many servers the routing table has.
func (d *dht) size() int { return d.kad.Load().RoutingTable().Size() }

// dialable returns those addresses of a server that a stranger may make us dial, and
// that we tell strangers: direct ones, and public ones unless all the servers that
// the owner named are in private networks too.
func (d *dht) dialable(addrs []ma.Multiaddr) []ma.Multiaddr {
	private := d.net.book.private()
	out := make([]ma.Multiaddr, 0, min(len(addrs), MaxAddrs))
	for _, a := range addrs {
		if a, ok := directAddr(a); ok && (private || manet.IsPublicAddr(a)) && len(out) < MaxAddrs {
			out = append(out, a)
		}
	}
	return out
}

// directAddr is usable without relays.
func directAddr(a ma.Multiaddr) (ma.Multiaddr, bool) {
	for _, c := range a {
		if c.Code() == ma.P_CIRCUIT {
			return nil, false
		}
	}
	return usable(a)
}

// refused is a type of message that kad-dht has no handler for: it ends the stream.
const refused pb.Message_MessageType = -1

// onRequest is asked before kad-dht looks at a request.
func (d *dht) onRequest(_ context.Context, s network.Stream, m *pb.Message) {
	if !d.admit(s.Conn().RemotePeer(), s.Conn().RemoteMultiaddr(), m, time.Now()) {
		m.Type = refused
	}
}

// admit decides about a request. Sizes are bounded by the stream.
func (d *dht) admit(p peer.ID, from ma.Multiaddr, m *pb.Message, now time.Time) bool {
	switch m.GetType() {
	case pb.Message_PUT_VALUE:
		if len(m.GetRecord().GetValue()) != rv.RecordSize {
			return false
		}
		fallthrough
	case pb.Message_GET_VALUE:
		if _, err := rv.ParseDHTKey(string(m.GetKey())); err != nil {
			return false
		}
	case pb.Message_FIND_NODE, pb.Message_PING:
	default:
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	b := bucketOf(d.asks, p, now, DHTRatePeer, DHTBurstPeer)
	if b == nil || !b.take(now, DHTRatePeer, DHTBurstPeer) {
		return false
	}
	if m.GetType() != pb.Message_PUT_VALUE {
		return true
	}
	if b := bucketOf(d.puts, p, now, PutRatePeer, PutBurstPeer); b == nil || !b.take(now, PutRatePeer, PutBurstPeer) {
		return false
	}
	prefix, ok := subnetOf(from)
	if !ok {
		return true
	}
	b = bucketOf(d.subnets, prefix, now, PutRateSubnet, PutBurstSubnet)
	return b != nil && b.take(now, PutRateSubnet, PutBurstSubnet)
}

// proxyRate decides about a request to look up, or to put, for somebody at an
// address: whoever asks is a host of the moment, so its key says nothing.
func (d *dht) proxyRate(from ma.Multiaddr, put bool, now time.Time) bool {
	prefix, ok := subnetOf(from)
	if !ok {
		return true // this machine
	}
	table, every, burst := d.proxyGets, rv.ProxyGetEvery, rv.ProxyGets
	if put {
		table, every, burst = d.proxyPuts, rv.ProxyPutEvery, rv.ProxyPuts
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	b := bucketOf(table, prefix, now, 1/every.Seconds(), float64(burst))
	return b != nil && b.take(now, 1/every.Seconds(), float64(burst))
}

// diversity keeps the routing table from being filled out of one subnet. It goes by
// the address of the connection, not by what a peer says, and by /24 and /48:
// kad-dht's own groups are far larger, and one for most of IPv6.
type diversity struct {
	host   *p2pHost
	mu     sync.Mutex // guards groups
	groups map[peer.ID]netip.Prefix
	cpls   map[peer.ID]int
}

// PeerAddresses implements [peerdiversity.PeerIPGroupFilter]. One address is enough:
// a peer counts once.
func (f *diversity) PeerAddresses(p peer.ID) []ma.Multiaddr {
	if c := f.host.conn(p); c != nil {
		return []ma.Multiaddr{c.RemoteMultiaddr()}
	}
	return nil
}

func (f *diversity) group(p peer.ID) (netip.Prefix, bool) {
	c := f.host.conn(p)
	if c == nil {
		return netip.Prefix{}, false
	}
	return subnetOf(c.RemoteMultiaddr()) // loopback has none
}

// Allow implements [peerdiversity.PeerIPGroupFilter].
func (f *diversity) Allow(g peerdiversity.PeerGroupInfo) bool {
	prefix, ok := f.group(g.Id)
	if !ok {
		return f.host.conn(g.Id) != nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	table, bucket := 0, 0
	for p, other := range f.groups {
		if other == prefix {
			table++
			if f.cpls[p] == g.Cpl {
				bucket++
			}
		}
	}
	return table < maxDHTGroup && bucket < maxDHTBucket
}

// Increment implements [peerdiversity.PeerIPGroupFilter].
func (f *diversity) Increment(g peerdiversity.PeerGroupInfo) {
	if prefix, ok := f.group(g.Id); ok {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.cpls == nil {
			f.cpls = make(map[peer.ID]int)
		}
		f.groups[g.Id], f.cpls[g.Id] = prefix, g.Cpl
	}
}

// Decrement implements [peerdiversity.PeerIPGroupFilter].
func (f *diversity) Decrement(g peerdiversity.PeerGroupInfo) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.groups, g.Id)
	delete(f.cpls, g.Id)
}

// noProviders stands where kad-dht would keep who has which file.
type noProviders struct{}

// AddProvider keeps nothing.
func (noProviders) AddProvider(context.Context, []byte, peer.AddrInfo) error { return nil }

// GetProviders returns nobody.
func (noProviders) GetProviders(context.Context, []byte) ([]peer.AddrInfo, error) { return nil, nil }

// Close does nothing.
func (noProviders) Close() error { return nil }

// DHTPeers returns how many servers of the DHT the routing table has.
func (n *Net) DHTPeers() int {
	if d := n.dht.Load(); d != nil {
		return d.size()
	}
	return 0
}

// DHTServer reports whether this node serves the DHT now, as it does with the
// profile server, and at home while others can reach it.
func (n *Net) DHTServer() bool {
	d := n.dht.Load()
	return d != nil && d.serving.Load()
}

// How the routing table is kept filled.
const (
	// thinTable: with fewer servers than this, those of the book are dialled.
	thinTable = 8
	// joinAtOnce is how many of them at a time.
	joinAtOnce  = 3
	joinTimeout = 10 * time.Second
	// joinRetry is the first pause after an attempt that helped nothing; it doubles
	// up to joinRetryMax, with a quarter of chance. A new network ends it.
	joinRetry    = 2 * time.Second
	joinRetryMax = 10 * time.Minute
	// clientRefresh is how often a client looks for servers it does not know, if it
	// knows enough.
	clientRefresh = 24 * time.Hour
	sweepEvery    = time.Minute
	storeSweep    = time.Hour
)

// kick has the DHT look for servers at once: the network has changed, or somebody
// was named.
func (d *dht) kick() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// run keeps the routing table filled and the book and the store tidy until ctx ends.
func (d *dht) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { d.tidy(ctx) })
	defer wg.Wait()
	pause := joinRetry
	var looked time.Time
	for ctx.Err() == nil {
		wait := sweepEvery
		thin := d.size() < thinTable
		if d.net.cfg.Profile == Client {
			thin = d.net.book.fresh() < thinTable
			thin = thin || time.Since(looked) >= clientRefresh
		}
		if thin {
			before := d.size()
			if d.join(ctx) {
				looked = time.Now()
			}
			d.learn()
			if d.size() > before {
				pause = joinRetry
			}
			wait = pause + chance(pause/4)
			pause = min(2*pause, joinRetryMax)
		} else {
			pause = joinRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		case <-d.wake:
			pause = joinRetry
		}
	}
}

// join dials some servers of the book, asks those that answer for others, and
// reports whether anybody answered.
func (d *dht) join(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*joinTimeout)
	defer cancel()
	var up atomic.Int32
	var wg sync.WaitGroup
	for _, info := range d.net.book.candidates(joinAtOnce, func(p peer.ID) bool { return p == d.net.self() || d.knows(p) }) {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, joinTimeout)
			defer cancel()
			d.host.touch(info.ID)
			if err := d.dial(ctx, info); err != nil {
				d.net.book.failed(info.ID)
				return
			}
			// Who does not serve the DHT helps nobody; identify tells.
			if _, err := d.msg.GetClosestPeers(ctx, info.ID, d.net.self()); err != nil {
				d.net.book.failed(info.ID)
				return
			}
			d.net.book.worked(info.ID)
			up.Add(1)
		})
	}
	wg.Wait()
	if up.Load() == 0 {
		return false
	}
	select {
	case <-d.kad.Load().RefreshRoutingTable():
	case <-ctx.Done():
	}
	return true
}

// dial connects the main host with a server.
func (d *dht) dial(ctx context.Context, info peer.AddrInfo) error {
	h := d.net.host(mainHost)
	if h == nil {
		return ErrClosed
	}
	if h.conn(info.ID) != nil {
		return nil
	}
	d.net.dials.begin(info.ID)
	defer d.net.dials.end(info.ID)
	return h.dial(ctx, info.ID, info.Addrs)
}

// learn writes the routing table into the book.
func (d *dht) learn() {
	ps := d.host.Host.Peerstore()
	for _, p := range d.kad.Load().RoutingTable().ListPeers() {
		if addrs := d.dialable(ps.Addrs(p)); len(addrs) > 0 {
			d.net.book.add(peer.AddrInfo{ID: p, Addrs: addrs}, FromDHT)
			if d.host.Network().Connectedness(p) == network.Connected {
				d.net.book.worked(p)
			}
		}
	}
}

// tidy closes idle connections and forgets what is old.
func (d *dht) tidy(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	swept := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			d.learn()
			d.host.sweep(now)
			d.net.book.save(ctx, now, false)
			if now.Sub(swept) >= storeSweep {
				swept = now
				if err := d.store.expire(ctx); err != nil {
					d.net.log.Warn("old records stay", "err", err)
				}
			}
		}
	}
}
