package p2p

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

var (
	errGuardPublic = errors.New("public address refused: only the local network is spoken to")
	errGuardRate   = errors.New("too many streams")
)

// guard is what both hosts ask before they let a connection or stream in. It
// holds the token buckets for streams and the bans.
type guard struct {
	mu      sync.Mutex // guards all below
	peers   map[peer.ID]*bucket
	subnets map[netip.Prefix]*bucket
	from    map[peer.ID]netip.Prefix // of connected peers, by their first connection
	bans    map[peer.ID]time.Time    // until
	relays  map[peer.ID]*circuits    // over which others may reach us
	via     map[peer.ID]peer.ID      // the relay of peers connected over one
	found   map[netip.Addr]*bucket
	lan     bucket        // of all found together
	kick    func(peer.ID) // called without mu; must not block
	trusted func(peer.ID) bool
	owner   func(peer.ID) string // whose it is: names persons apart
}

func newGuard(kick func(peer.ID)) *guard {
	return &guard{
		peers:   make(map[peer.ID]*bucket),
		subnets: make(map[netip.Prefix]*bucket),
		from:    make(map[peer.ID]netip.Prefix),
		bans:    make(map[peer.ID]time.Time),
		found:   make(map[netip.Addr]*bucket),
		relays:  make(map[peer.ID]*circuits),
		via:     make(map[peer.ID]peer.ID),
		lan:     bucket{tokens: FoundBurst},
		kick:    kick,
		trusted: func(peer.ID) bool { return true },
		owner:   func(p peer.ID) string { return string(p) },
	}
}

// bucket is a token bucket: tokens as of at. It starts full.
type bucket struct {
	tokens  float64
	at      time.Time
	strikes int // refusals since it was last full
}

func (b *bucket) take(now time.Time, rate, burst float64) bool {
	b.tokens = min(burst, b.tokens+rate*max(0, now.Sub(b.at).Seconds()))
	b.at = now
	if b.tokens == burst {
		b.strikes = 0
	}
	if b.tokens < 1 {
		b.strikes++
		return false
	}
	b.tokens--
	return true
}

func (b *bucket) full(now time.Time, rate, burst float64) bool {
	return b.tokens+rate*now.Sub(b.at).Seconds() >= burst
}

// takeFrom takes one from the bucket of key, if there is a place for that and one in it.
func takeFrom[K comparable](table map[K]*bucket, key K, now time.Time, rate, burst float64) bool {
	b := bucketOf(table, key, now, rate, burst)
	return b != nil && b.take(now, rate, burst)
}

// bucketOf returns the bucket of key. A full table first forgets the full
// buckets, which are as good as new ones; if none is full the newcomer is refused
// with nil.
func bucketOf[K comparable](table map[K]*bucket, key K, now time.Time, rate, burst float64) *bucket {
	if b, ok := table[key]; ok {
		return b
	}
	if len(table) >= maxBuckets {
		for k, b := range table {
			if b.full(now, rate, burst) {
				delete(table, k)
			}
		}
		if len(table) >= maxBuckets {
			return nil
		}
	}
	b := &bucket{tokens: burst, at: now}
	table[key] = b
	return b
}

// stream decides about a stream that p opens.
func (g *guard) stream(p peer.ID, now time.Time) error {
	kick := false
	defer func() {
		if kick {
			g.kick(p)
		}
	}()
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Before(g.bans[p]) {
		kick = true
		return errGuardRate
	}
	share := 1.0
	if g.relays[p] != nil {
		share = relayStreams
	}
	b := bucketOf(g.peers, p, now, share*StreamRatePeer, share*StreamBurstPeer)
	if b == nil {
		return errGuardRate
	}
	if !b.take(now, share*StreamRatePeer, share*StreamBurstPeer) {
		// A relay opens streams because strangers ask it to: it is refused and not banned.
		if b.strikes >= StrikesToBan && g.relays[p] == nil {
			g.ban(p, now)
			kick = true
		}
		return errGuardRate
	}
	if prefix, ok := g.from[p]; ok {
		share = 1
		if prefix == loopback {
			share = loopbackStreams
		}
		if !takeFrom(g.subnets, prefix, now, share*StreamRateSubnet, share*StreamBurstSubnet) {
			return errGuardRate
		}
	} else if c := g.relays[g.via[p]]; c != nil && !c.streams.take(now, StreamRateSubnet, StreamBurstSubnet) {
		return errGuardRate
	}
	return nil
}

// neighbour decides whether an announcement from ip is passed on.
func (g *guard) neighbour(ip netip.Addr, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return takeFrom(g.found, ip, now, FoundRateIP, FoundBurstIP) && g.lan.take(now, FoundRate, FoundBurst)
}

// ban refuses p for BanTime. If the table is full of live bans, p gets none: its
// bucket still refuses it.
func (g *guard) ban(p peer.ID, now time.Time) {
	if len(g.bans) >= maxBans {
		for q, until := range g.bans {
			if !now.Before(until) {
				delete(g.bans, q)
			}
		}
		if len(g.bans) >= maxBans {
			return
		}
	}
	g.bans[p] = now.Add(BanTime)
}

func (g *guard) banned(p peer.ID, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return now.Before(g.bans[p])
}

// connected notes where p connects from; the loopback is one subnet. Over a relay the
// address is the relay's: its subnet does not pay for what others do.
func (g *guard) connected(p peer.ID, remote ma.Multiaddr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, relay, ok := splitCircuit(remote); ok {
		g.via[p] = relay
		return
	}
	prefix, ok := subnetOf(remote)
	if !ok {
		prefix = loopback
	}
	if _, ok := g.from[p]; !ok {
		g.from[p] = prefix
	}
}

// gone forgets where p came from. Its bucket stays until it is full again, so
// that reconnecting earns no new burst.
func (g *guard) gone(p peer.ID, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.from, p)
	delete(g.via, p)
	if b, ok := g.peers[p]; ok && b.full(now, StreamRatePeer, StreamBurstPeer) {
		delete(g.peers, p)
	}
}

// loopback stands for all addresses of this machine.
var loopback = netip.MustParsePrefix("127.0.0.0/8")

// subnetOf returns the /24 or /48 of an address.
func subnetOf(a ma.Multiaddr) (netip.Prefix, bool) {
	ip, err := manet.ToIP(a)
	if err != nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Prefix{}, false
	}
	addr = addr.Unmap()
	if addr.IsLoopback() {
		return netip.Prefix{}, false
	}
	bits := 48
	if addr.Is4() {
		bits = 24
	}
	prefix, err := addr.Prefix(bits)
	return prefix, err == nil
}

// hostGuard is the guard as one host sees it: its resource manager and its
// connection gater. Refusing in OpenConnection is before the handshake, so a
// scanner on the other side of the line does not even see a key.
type hostGuard struct {
	network.ResourceManager
	*guard
	local bool // public addresses are refused
	// veil is what alone may be dialled, and nobody comes but over a relay; nil: it is none.
	veil func() map[peer.ID][]ma.Multiaddr
}

// Close does nothing: the manager belongs to the Net, not to the host.
func (h *hostGuard) Close() error { return nil }

func (h *hostGuard) OpenConnection(dir network.Direction, usefd bool, endpoint ma.Multiaddr) (network.ConnManagementScope, error) {
	if isCircuit(endpoint) {
		return h.openCircuit() // who comes is let in by letIn
	}
	if h.local && !isLocal(endpoint) {
		return nil, errGuardPublic
	}
	if h.veil != nil && dir == network.DirInbound {
		return nil, errGuardRelay
	}
	return h.ResourceManager.OpenConnection(dir, usefd, endpoint)
}

func (h *hostGuard) OpenStream(p peer.ID, dir network.Direction) (network.StreamManagementScope, error) {
	if dir == network.DirInbound {
		if err := h.stream(p, time.Now()); err != nil {
			return nil, err
		}
	}
	return h.ResourceManager.OpenStream(p, dir)
}

func (h *hostGuard) VerifySourceAddress(addr net.Addr) bool {
	return h.ResourceManager.VerifySourceAddress(addr)
}

// InterceptPeerDial is asked before anything is done to dial p. It does not ask
// Config.Avoid: libp2p dials back whoever comes and asks for it, and who is not dialled
// where everybody else is knows whose host it found.
func (h *hostGuard) InterceptPeerDial(p peer.ID) bool {
	return isEd25519(p) && !h.banned(p, time.Now())
}

// InterceptAddrDial is asked before each address.
func (h *hostGuard) InterceptAddrDial(p peer.ID, a ma.Multiaddr) bool {
	if h.veil != nil {
		return h.mayDial(p, a)
	}
	return !h.local || isLocal(a) && !isCircuit(a)
}

// InterceptAccept is asked before the TCP handshake of libp2p and after that of
// QUIC, which OpenConnection has seen before.
func (h *hostGuard) InterceptAccept(c network.ConnMultiaddrs) bool {
	a := c.RemoteMultiaddr()
	return !h.local || isLocal(a) && !isCircuit(a)
}

// InterceptSecured is asked when the key of the other side is known.
func (h *hostGuard) InterceptSecured(_ network.Direction, p peer.ID, _ network.ConnMultiaddrs) bool {
	return isEd25519(p) && !h.banned(p, time.Now())
}

// InterceptUpgraded is asked last; it notes the subnet before the first stream.
func (h *hostGuard) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	h.connected(c.RemotePeer(), c.RemoteMultiaddr())
	return true, 0
}
