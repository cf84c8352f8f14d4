package p2p

import (
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/autonat"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
	relayproto "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/x/rate"
)

// Bounds on what others can use up. Both hosts together, if not said otherwise.
const (
	// MaxAddrs is how many addresses of one peer are looked at. A node has two
	// transports and a handful of interfaces; more is a way to make us dial victims.
	MaxAddrs = 16
	// MaxConns bounds open connections in total, MaxConnsIn those that others opened.
	// The connection manager trims to ConnHigh long before, but only every 10 s.
	MaxConns   = 320
	MaxConnsIn = 192
	// MaxHandshakes bounds connections whose peer is not known yet. A handshake takes
	// at most a few round trips, so this is thousands a minute.
	MaxHandshakes = 64
	// MaxConnsPeer bounds connections of one peer. The dialler tries up to 8 addresses
	// at once, which count until they fail.
	MaxConnsPeer = 8
	// MaxConnsIP, MaxConnsSubnet bound connections from one address (IPv6: /64) and
	// from one /24 (IPv6: /48). A home behind one address has a few devices, a
	// flooder has a subnet; the subnet's share is a sixth of MaxConnsIn.
	MaxConnsIP     = 8
	MaxConnsSubnet = 32
	// ConnRateIP, ConnRateSubnet are new connections per second, in either direction,
	// after a burst of ConnBurstIP, ConnBurstSubnet. A handshake costs about 1 ms of
	// CPU; a node that lost its network comes back with a few dials per contact, and
	// asks for some dial backs (AutoNAT), which count here too.
	ConnRateIP      = 0.5
	ConnBurstIP     = 24
	ConnRateSubnet  = 2
	ConnBurstSubnet = 64
	// MaxConnsLoopback, ConnRateLoopback and ConnBurstLoopback stand in for them where
	// the address is the loopback, as of all who come by a tunnel or proxy that ends on
	// this machine: half of all connections at most.
	MaxConnsLoopback  = MaxConnsIn / 2
	ConnRateLoopback  = 8
	ConnBurstLoopback = 96

	// MaxCircuitsRelay bounds connections that others open to us over one relay. Half of
	// them at most are strangers' before the handshake, half are strangers' after it, and
	// they give way to those who are known; MaxCircuitsPerson are of one person who is
	// known, and MaxCircuitsFrom before the handshake of one peer. A stranger has
	// CircuitStranger to become known. CircuitRate is strangers' new ones per second over
	// one relay after a burst of CircuitBurst: so even then each has a second for the
	// handshake.
	MaxCircuitsRelay  = 16
	MaxCircuitsPerson = MaxCircuitsRelay / 4
	MaxCircuitsFrom   = 2
	CircuitStranger   = 15 * time.Second
	CircuitRate       = 8
	CircuitBurst      = 32
	// MaxCircuitsPeer bounds the circuits of one peer over our relay, at either end. It is
	// twice what a node takes over one relay, so that the node chooses who goes and the
	// relay does not refuse while one more comes. HopRateSubnet is circuits per second that
	// strangers of one /24 or /48 may ask us for, after a burst of HopBurstSubnet; each costs
	// the other side one of the streams that it takes from us.
	MaxCircuitsPeer = 2 * MaxCircuitsRelay
	HopRateSubnet   = 1
	HopBurstSubnet  = 32

	// MaxStreamsPeer bounds open streams of one peer in one direction. kinloom needs
	// one per protocol, libp2p's identify two.
	MaxStreamsPeer = 48
	// MaxStreamsUnnamed bounds streams whose protocol is not negotiated yet; each
	// lives 10 s at most. All of MaxConnsIn peers at a third of their share.
	MaxStreamsUnnamed = 3072
	// MaxStreams bounds open streams in total.
	MaxStreams = 6144
	// StreamRatePeer, StreamRateSubnet are new streams per second that a peer, and all
	// peers of one /24 or /48, may open after a burst.
	StreamRatePeer    = 8
	StreamBurstPeer   = 64
	StreamRateSubnet  = 32
	StreamBurstSubnet = 256
	// loopbackStreams is by how much more may come over the loopback than of a subnet, and
	// relayStreams from a relay that we asked than of another peer: one for each who comes.
	loopbackStreams = 4
	relayStreams    = 4
	// StrikesToBan is how many streams beyond its bucket a peer may try before it is
	// disconnected, and refused for BanTime. A peer that ignores some dozens of
	// refusals does it on purpose, and each may carry some 100 KiB that we read before
	// the refusal gets there: with 256, garbage on streams made messages of others take
	// three times as long (TestUnderAttack).
	StrikesToBan = 32
	BanTime      = 5 * time.Minute
	// FoundRateIP is how many announcements of neighbours per second one address may
	// cause, after a burst of FoundBurstIP; FoundRate and FoundBurst are for all. Each
	// one may cost a dial. A node announces itself when it starts and when it is asked.
	FoundRateIP  = 0.5
	FoundBurstIP = 8
	FoundRate    = 16
	FoundBurst   = 128
	// maxBuckets bounds the tables of token buckets, and maxBans the table of bans.
	maxBuckets = 4096
	maxBans    = 1024

	// MemoryBase plus 1/8 of the machine's memory is what libp2p may reserve for
	// buffers; MemoryPeer is one peer's part.
	MemoryBase = 64 << 20
	MemoryPeer = 32 << 20
)

// Limits bound one protocol. A zero field means the default.
type Limits struct {
	Streams      int   // open streams in one direction; default 64
	PerPeer      int   // of them with one peer; default 4
	StreamMemory int   // bytes reserved for each stream while it is open; default 64 KiB, two frames
	Memory       int64 // bytes for all streams; default Streams x 2 x StreamMemory
	// PerSubnet bounds the streams that come from one /24 or /48, and has those end on
	// which no frame came within FirstFrame, or sooner where another one needs the place.
	// 0: none of that.
	PerSubnet int
}

func (l Limits) withDefaults() Limits {
	if l.Streams <= 0 {
		l.Streams = 64
	}
	if l.PerPeer <= 0 {
		l.PerPeer = 4
	}
	if l.StreamMemory <= 0 {
		l.StreamMemory = 64 << 10
	}
	if l.Memory <= 0 {
		l.Memory = 2 * int64(l.Streams) * int64(l.StreamMemory)
	}
	return l
}

// limiter answers the resource manager's questions: fixed limits for all that is
// libp2p's own, the registered ones for our protocols.
type limiter struct {
	rcmgr.Limiter
	mu    sync.RWMutex // guards proto
	proto map[protocol.ID]Limits
}

func newLimiter() *limiter {
	cfg := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&cfg)
	cfg.SystemBaseLimit = rcmgr.BaseLimit{
		Conns: MaxConns, ConnsInbound: MaxConnsIn, ConnsOutbound: MaxConns - MaxConnsIn,
		Streams: MaxStreams, StreamsInbound: MaxStreams, StreamsOutbound: MaxStreams,
		Memory: MemoryBase, FD: cfg.SystemBaseLimit.FD,
	}
	// 1 GiB for each GiB of the budget, which is 1/8 of the memory present.
	cfg.SystemLimitIncrease = rcmgr.BaseLimitIncrease{Memory: 1 << 30, FDFraction: 1}
	cfg.TransientBaseLimit = rcmgr.BaseLimit{
		Conns: 2 * MaxHandshakes, ConnsInbound: MaxHandshakes, ConnsOutbound: MaxHandshakes,
		Streams: MaxStreamsUnnamed, StreamsInbound: MaxStreamsUnnamed, StreamsOutbound: MaxStreamsUnnamed,
		Memory: MemoryBase / 2, FD: cfg.TransientBaseLimit.FD,
	}
	cfg.TransientLimitIncrease = rcmgr.BaseLimitIncrease{FDFraction: 0.25}
	cfg.PeerBaseLimit = rcmgr.BaseLimit{
		Conns: MaxConnsPeer, ConnsInbound: MaxConnsPeer, ConnsOutbound: MaxConnsPeer,
		Streams: 2 * MaxStreamsPeer, StreamsInbound: MaxStreamsPeer, StreamsOutbound: MaxStreamsPeer,
		Memory: MemoryPeer, FD: MaxConnsPeer,
	}
	cfg.PeerLimitIncrease = rcmgr.BaseLimitIncrease{}
	return &limiter{Limiter: rcmgr.NewFixedLimiter(cfg.AutoScale()), proto: libraryLimits()}
}

// libraryLimits are the limits of libp2p's own protocols. Those of libp2p grow with
// the machine's memory, which makes no peer more honest.
func libraryLimits() map[protocol.ID]Limits {
	return map[protocol.ID]Limits{
		// One a connection, and a push when something changed.
		identify.ID:     {Streams: MaxConnsIn, PerPeer: 4, StreamMemory: 16 << 10, Memory: 8 << 20},
		identify.IDPush: {Streams: MaxConnsIn, PerPeer: 4, StreamMemory: 16 << 10, Memory: 8 << 20},
		// A stream is a circuit on its way in or out: MaxCircuitsPeer of one peer, and some
		// more that are about to end.
		relayproto.ProtoIDv2Hop:  {Streams: 512, PerPeer: 40, StreamMemory: 8 << 10, Memory: 8 << 20},
		relayproto.ProtoIDv2Stop: {Streams: 512, PerPeer: 40, StreamMemory: 8 << 10, Memory: 8 << 20},
		// One attempt a connection.
		holepunch.Protocol: {Streams: 32, PerPeer: 2, StreamMemory: 8 << 10, Memory: 1 << 20},
		// libp2p answers 30 (v1) and 60 (v2) dials a minute; each takes 15 s at most.
		autonat.AutoNATProto:       {Streams: 32, PerPeer: 2, StreamMemory: 8 << 10, Memory: 1 << 20},
		autonatv2.DialProtocol:     {Streams: 32, PerPeer: 2, StreamMemory: 16 << 10, Memory: 2 << 20},
		autonatv2.DialBackProtocol: {Streams: 32, PerPeer: 2, StreamMemory: 8 << 10, Memory: 1 << 20},
	}
}

func (l *limiter) set(id protocol.ID, lim Limits) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.proto[id] = lim
}

func (l *limiter) get(id protocol.ID) (Limits, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	lim, ok := l.proto[id]
	return lim, ok
}

// GetProtocolLimits is asked when the first stream of a protocol opens.
func (l *limiter) GetProtocolLimits(id protocol.ID) rcmgr.Limit {
	lim, ok := l.get(id)
	if !ok {
		return l.Limiter.GetProtocolLimits(id)
	}
	in := lim.Streams
	if lim.PerSubnet > 0 {
		in += lim.Streams / 4 // of those who come the router chooses
	}
	return &rcmgr.BaseLimit{Streams: in + lim.Streams, StreamsInbound: in, StreamsOutbound: lim.Streams, Memory: lim.Memory}
}

// GetProtocolPeerLimits is asked when the first stream of a protocol opens with a peer.
func (l *limiter) GetProtocolPeerLimits(id protocol.ID) rcmgr.Limit {
	lim, ok := l.get(id)
	if !ok {
		return l.Limiter.GetProtocolPeerLimits(id)
	}
	return &rcmgr.BaseLimit{
		Streams: 2 * lim.PerPeer, StreamsInbound: lim.PerPeer, StreamsOutbound: lim.PerPeer,
		Memory: 2 * int64(lim.PerPeer) * int64(lim.StreamMemory),
	}
}

// newResourceManager counts for both hosts. libp2p would let in as many from the
// loopback as want to; here it has bounds of its own.
func newResourceManager(l *limiter) (network.ResourceManager, error) {
	loop4, loop6 := rcmgr.DefaultNetworkPrefixLimitV4[0].Network, rcmgr.DefaultNetworkPrefixLimitV6[0].Network
	rates := rate.Limiter{
		SubnetRateLimiter: rate.SubnetLimiter{
			IPv4SubnetLimits: []rate.SubnetLimit{
				{PrefixLength: 32, Limit: rate.Limit{RPS: ConnRateIP, Burst: ConnBurstIP}},
				{PrefixLength: 24, Limit: rate.Limit{RPS: ConnRateSubnet, Burst: ConnBurstSubnet}},
			},
			IPv6SubnetLimits: []rate.SubnetLimit{
				{PrefixLength: 64, Limit: rate.Limit{RPS: ConnRateIP, Burst: ConnBurstIP}},
				{PrefixLength: 48, Limit: rate.Limit{RPS: ConnRateSubnet, Burst: ConnBurstSubnet}},
			},
			GracePeriod: time.Minute,
		},
	}
	for _, l := range []netip.Prefix{loop4, loop6} {
		rates.NetworkPrefixLimits = append(rates.NetworkPrefixLimits, rate.PrefixLimit{
			Prefix: l, Limit: rate.Limit{RPS: ConnRateLoopback, Burst: ConnBurstLoopback},
		})
	}
	return rcmgr.NewResourceManager(l,
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithConnRateLimiters(&rates),
		rcmgr.WithNetworkPrefixLimit(
			[]rcmgr.NetworkPrefixLimit{{Network: loop4, ConnCount: MaxConnsLoopback}},
			[]rcmgr.NetworkPrefixLimit{{Network: loop6, ConnCount: MaxConnsLoopback}}),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: MaxConnsIP}, {PrefixLength: 24, ConnCount: MaxConnsSubnet}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 64, ConnCount: MaxConnsIP}, {PrefixLength: 48, ConnCount: MaxConnsSubnet}},
		))
}

// isEd25519 reports whether p is the inlined form of an Ed25519 key: the
// identity multihash of 36 bytes of protobuf. Other kinds are slow to check (RSA)
// or never used here.
func isEd25519(p peer.ID) bool {
	const prefix = "\x00\x24\x08\x01\x12\x20"
	return len(p) == len(prefix)+32 && string(p[:len(prefix)]) == prefix
}
