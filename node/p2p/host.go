package p2p

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/host/autonat"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
)

// The two hosts of a Net.
const (
	mainHost = iota
	lanHost
)

var defaultListen = []ma.Multiaddr{
	ma.StringCast("/ip4/0.0.0.0/udp/0/quic-v1"),
	ma.StringCast("/ip4/0.0.0.0/tcp/0"),
	ma.StringCast("/ip6/::/udp/0/quic-v1"),
	ma.StringCast("/ip6/::/tcp/0"),
}

// p2pHost is one libp2p host with what we need to know about it.
type p2pHost struct {
	host.Host
	local  bool     // speaks to non-public addresses only
	punch  *puncher // nil: no holes are punched
	sights *sights  // nil: of a host of the LAN

	dialling dials
}

// Close ends the host and what was added to it.
func (h *p2pHost) Close() error {
	if h.punch != nil {
		h.punch.Close()
	}
	err := h.Host.Close()
	if h.sights != nil {
		err = errors.Join(err, h.sights.close())
	}
	// What AutoNAT learned while it was closed may have started its service anew, which
	// then runs for ever; the prober itself has ended by now.
	if b, ok := h.Host.(interface{ GetAutoNat() autonat.AutoNAT }); ok && b.GetAutoNat() != nil {
		err = errors.Join(err, b.GetAutoNat().Close())
	}
	return err
}

// hostSpec says which host to make.
type hostSpec struct {
	key      crypto.PrivKey
	listen   []ma.Multiaddr // all of them must work
	fallback []ma.Multiaddr // where listen is empty: one of them must work
	prefer   []ma.Multiaddr // ports to try first where port 0 is asked for
	extra    []ma.Multiaddr // beside listen, where they can be had
	// transports are the whole of them.
	transports []libp2p.Option
	shareTCP   bool // wss on the ports of TCP
	punch      bool // holes are punched
	local      bool
	announce   []netip.Addr
	// veil is what may be dialled by a host that listens nowhere and names no address of
	// its own; nil: it is none.
	veil      func() map[peer.ID][]ma.Multiaddr
	low, high int
	reach     []libp2p.Option // what makes it reachable from the Internet; empty: nothing
}

// openHost starts a host and binds its sockets.
func openHost(s hostSpec, rm network.ResourceManager, g *guard, notify network.Notifiee) (*p2pHost, error) {
	hg := &hostGuard{ResourceManager: rm, guard: g, local: s.local, veil: s.veil}
	told := identifyAddrs(s.local, s.announce)
	if s.veil != nil {
		told = noAddrs
	}
	cm, err := connmgr.NewConnManager(s.low, s.high, connmgr.WithGracePeriod(20*time.Second))
	if err != nil {
		return nil, fmt.Errorf("connection manager: %w", err)
	}
	// What peers say about themselves is not used for dialling; see dial.go.
	ps, err := pstoremem.NewPeerstore(pstoremem.WithMaxAddresses(maxBuckets), pstoremem.WithMaxAddressesPerPeer(MaxAddrs))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("peer store: %w", err), cm.Close())
	}
	opts := []libp2p.Option{
		libp2p.Identity(s.key),
		libp2p.Peerstore(ps),
		libp2p.ResourceManager(hg),
		libp2p.ConnectionGater(hg),
		libp2p.ConnectionManager(cm),
		libp2p.NoListenAddrs, // one by one below: libp2p is content if one of them works
		libp2p.AddrsFactory(told),
		libp2p.DisableMetrics(),
		libp2p.Ping(false),
		// Noise before TLS, whose certificates fail where a clock is off by an hour.
		libp2p.Security(noise.ID, noise.New),
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.UserAgent("kinloom"),
		// Friends who are offline would look like a network that swallows UDP or IPv6.
		libp2p.UDPBlackHoleSuccessCounter(nil),
		libp2p.IPv6BlackHoleSuccessCounter(nil),
	}
	if len(s.reach) > 0 {
		opts = append(opts, s.reach...)
	} else {
		opts = append(opts,
			libp2p.DisableRelay(),
			libp2p.DisableIdentifyAddressDiscovery(),
			libp2p.ForceReachabilityPrivate(), // no prober in the background
		)
	}
	opts = append(opts, s.transports...)
	var punch *puncher
	if s.punch {
		punch = new(puncher)
		opts = append(opts, punch.observer())
	}
	lh, err := libp2p.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("start libp2p: %w", err)
	}
	h := &p2pHost{Host: lh, local: s.local}
	if punch != nil {
		if err := punch.start(h); err != nil {
			return nil, errors.Join(err, lh.Close())
		}
		h.punch = punch
	}
	if !s.local {
		if h.sights, err = watchSights(lh); err != nil {
			return nil, errors.Join(err, lh.Close())
		}
	}
	lh.Network().Notify(notify)
	if err := h.listen(s); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

func (h *p2pHost) listen(s hostSpec) error {
	// Listen of the interface drops the cause, which we need to tell a taken port.
	nw, ok := h.Network().(addressAdder)
	if !ok {
		return fmt.Errorf("bug: network %T cannot listen on one address", h.Network())
	}
	add := func(a ma.Multiaddr) error {
		if _, transport := direct(a); s.shareTCP && transport == "tcp" {
			return h.listenTCP(nw, a)
		}
		return nw.AddListenAddr(a)
	}
	// Any free port is that of the last run, as long as it is free: others know it.
	listenAt := func(a ma.Multiaddr) error {
		for _, p := range s.prefer {
			if anyPort(a) && sameKind(a, p) && add(p) == nil {
				return nil
			}
		}
		return add(a)
	}
	for _, a := range s.listen {
		if err := listenAt(a); err != nil {
			return listenError(a, err)
		}
	}
	for _, a := range s.extra {
		_ = listenAt(a) // a machine without IPv6
	}
	if len(s.listen) > 0 {
		return nil
	}
	var first error
	ok = false
	for _, a := range s.fallback {
		err := listenAt(a)
		ok = ok || err == nil
		if err != nil && first == nil {
			first = listenError(a, err)
		}
	}
	if !ok {
		return first // nil where it is to listen nowhere
	}
	return nil
}

// anyPort reports whether a leaves the port to the system.
func anyPort(a ma.Multiaddr) bool { return len(a) > 1 && a[1].Value() == "0" }

// sameKind reports whether two listen addresses differ in their port at most.
func sameKind(a, b ma.Multiaddr) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Code() != b[i].Code() || i != 1 && a[i].Value() != b[i].Value() {
			return false
		}
	}
	return true
}

// wsaeAddrInUse is what Windows calls EADDRINUSE.
const wsaeAddrInUse = syscall.Errno(10048)

func listenError(a ma.Multiaddr, err error) error {
	if no, ok := errors.AsType[syscall.Errno](err); ok && (no == syscall.EADDRINUSE || no == wsaeAddrInUse) {
		return &ErrPortTaken{Addr: a}
	}
	if errors.Is(err, transport.ErrListenerClosed) || errors.Is(err, swarm.ErrSwarmClosed) {
		return ErrClosed
	}
	return &ListenError{Addr: a, Err: err}
}

// allAddrs returns all direct addresses, those that identify leaves out included.
func (h *p2pHost) allAddrs() []ma.Multiaddr {
	if b, ok := h.Host.(interface{ AllAddrs() []ma.Multiaddr }); ok {
		return b.AllAddrs()
	}
	return h.Host.Addrs()
}

// conn returns the best open connection with p: one without a relay before one over
// a relay, the newest first.
func (h *p2pHost) conn(p peer.ID) network.Conn {
	conns := h.Network().ConnsToPeer(p)
	var relayed network.Conn
	for i := len(conns) - 1; i >= 0; i-- {
		switch {
		case conns[i].IsClosed():
		case !isCircuit(conns[i].RemoteMultiaddr()):
			return conns[i]
		case relayed == nil:
			relayed = conns[i]
		}
	}
	return relayed
}

// dial opens a connection with p at one of addrs, and only there.
func (h *p2pHost) dial(ctx context.Context, p peer.ID, addrs []ma.Multiaddr) error {
	_, err := h.connect(ctx, p, addrs)
	return err
}

// connect is dial, with the connection, which may have ended already.
func (h *p2pHost) connect(ctx context.Context, p peer.ID, addrs []ma.Multiaddr) (network.Conn, error) {
	ps := h.Peerstore()
	// What was known before counts no more, but for the addresses of another dial under
	// way: that one would find none.
	h.dialling.unless(p, func() { ps.ClearAddrs(p) })
	h.dialling.begin(p)
	// For good until the dials have ended: what has an end, libp2p replaces by what the
	// other side said, late, over an earlier connection.
	ps.AddAddrs(p, addrs, peerstore.PermanentAddrTTL)
	defer func() {
		h.dialling.end(p)
		h.dialling.unless(p, func() { ps.UpdateAddrs(p, peerstore.PermanentAddrTTL, peerstore.RecentlyConnectedAddrTTL) })
	}()
	// No back-off of libp2p, for p or a relay on the way to it: when to try again is
	// decided by the caller, who knows that the network has changed or somebody is
	// waiting. Forcing a direct dial would skip it too, but asks transports that a
	// closing host has no more, and panics.
	if nw, ok := h.Network().(interface{ Backoff() *swarm.DialBackoff }); ok {
		nw.Backoff().Clear(p)
		for _, a := range addrs {
			if _, relay, ok := splitCircuit(a); ok {
				nw.Backoff().Clear(relay)
			}
		}
	}
	return h.Network().DialPeer(network.WithAllowLimitedConn(ctx, "kinloom"), p)
}

// PathOf describes a connection of a Net.
func PathOf(c network.Conn) Path { return pathOf(c) }

// pathOf describes a connection.
func pathOf(c network.Conn) Path {
	addr := c.RemoteMultiaddr()
	_, transport := transportOf(addr)
	path := Path{Route: Direct, Transport: transport, Addr: addr, Local: c.LocalPeer(), Inbound: c.Stat().Direction == network.DirInbound}
	if _, relay, ok := splitCircuit(addr); ok {
		path.Route, path.Relay = Relayed, relay
	} else if isLocal(addr) {
		path.Route = LAN
	}
	return path
}
