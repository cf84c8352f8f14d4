package p2p

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	kad "github.com/libp2p/go-libp2p-kad-dht"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
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
		kad.QueryFilter(func(_ any, i peer.AddrInfo) bool {
			return isEd25519(i.ID) && !n.shutOut(i.ID) && len(d.dialable(i.Addrs)) > 0
		}),
		kad.RoutingTableFilter(func(_ any, p peer.ID) bool { return isEd25519(p) && !n.shutOut(p) && h.conn(p) != nil }),
		kad.RoutingTablePeerDiversityFilter(newDiversity(h)),
		kad.OnRequestHook(d.onRequest),
		// run does it: by itself kad-dht would look around every 2 minutes for as long as
		// the network has fewer than 11 servers.
		kad.DisableAutoRefresh(), kad.RoutingTableRefreshPeriod(d.refreshEvery() / 2),
	}
	switch n.cfg.Profile {
	case Server:
		opts = append(opts, kad.Mode(kad.ModeServer))
	case Client:
		opts = append(opts, kad.Mode(kad.ModeClient))
	default:
		opts = append(opts, kad.Mode(kad.ModeAuto))
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
	n.Handle(rv.ProxyID, Limits{Streams: rv.ProxyStreams, PerPeer: rv.ProxyPerPeer, PerSubnet: rv.ProxyStreams / 4, StreamMemory: rv.ProxyMemory}, n.serveProxy)
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
// that we tell strangers: direct and public ones; private ones, or those of this
// machine, only where the network is one of its own.
func (d *dht) dialable(addrs []ma.Multiaddr) []ma.Multiaddr {
	private := sync.OnceValue(func() bool { return d.net.ownNetwork(isLocal) })
	loopback := sync.OnceValue(func() bool { return d.net.ownNetwork(isLoopback) })
	out := make([]ma.Multiaddr, 0, min(len(addrs), MaxAddrs))
	for _, a := range addrs {
		a, ok := directAddr(a)
		if ok && len(out) < MaxAddrs && (manet.IsPublicAddr(a) || isLoopback(a) && loopback() || !isLoopback(a) && private()) {
			out = append(out, a)
		}
	}
	return out
}

// ownNetwork reports whether this node's network has addresses of one kind only, such
// as a laboratory: those of all servers that somebody named, whose word nobody on the
// way could change; of a server that knows none, its own. A home that knows nobody is on the Internet: its first server may lie.
func (n *Net) ownNetwork(kind func(ma.Multiaddr) bool) bool {
	var addrs []ma.Multiaddr
	n.book.mu.Lock()
	for _, k := range n.book.known {
		if k.Source != FromDHT && k.Source != FromDNS {
			addrs = append(addrs, k.Peer.Addrs...)
		}
	}
	n.book.mu.Unlock()
	if h := n.host(mainHost); len(addrs) == 0 && h != nil && (n.cfg.Profile == Server || n.loopbackOnly()) {
		addrs = n.directAddrs(h)
	}
	return len(addrs) > 0 && !slices.ContainsFunc(addrs, func(a ma.Multiaddr) bool { return !kind(a) })
}

// directAddr is usable without relays.
func directAddr(a ma.Multiaddr) (ma.Multiaddr, bool) {
	if isCircuit(a) {
		return nil, false
	}
	return usable(a)
}

// refused is a type of message that kad-dht has no handler for: it ends the stream.
const refused pb.Message_MessageType = -1

// onRequest is asked before kad-dht looks at a request.
func (d *dht) onRequest(_ context.Context, s network.Stream, m *pb.Message) {
	p, from := s.Conn().RemotePeer(), s.Conn().RemoteMultiaddr()
	switch {
	case !d.admit(p, from, m, time.Now()):
		m.Type = refused
	case m.GetType() == pb.Message_PUT_VALUE:
		sourceOf(p, from).mark(m.GetRecord())
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
	if !takeFrom(d.asks, p, now, DHTRatePeer, DHTBurstPeer) {
		return false
	}
	if m.GetType() != pb.Message_PUT_VALUE {
		return true
	}
	if !takeFrom(d.puts, p, now, PutRatePeer, PutBurstPeer) {
		return false
	}
	prefix, ok := subnetOf(from)
	if !ok {
		return true
	}
	return takeFrom(d.subnets, prefix, now, PutRateSubnet, PutBurstSubnet)
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
	return takeFrom(table, prefix, now, 1/every.Seconds(), float64(burst))
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
