package p2p

import (
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// serverListen is where a server listens: the ports that every network lets out to.
// TCP and wss share theirs. IPv6 is listened on if there is any.
var (
	serverListen = []ma.Multiaddr{
		ma.StringCast("/ip4/0.0.0.0/udp/443/quic-v1"),
		ma.StringCast("/ip4/0.0.0.0/tcp/443"),
	}
	serverListen6 = []ma.Multiaddr{
		ma.StringCast("/ip6/::/udp/443/quic-v1"),
		ma.StringCast("/ip6/::/tcp/443"),
	}
)

// plainTransports are QUIC and TCP.
func plainTransports() []libp2p.Option {
	return []libp2p.Option{
		libp2p.Transport(quic.NewTransport),
		// With SO_REUSEPORT two nodes would share a taken port and halve its connections.
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
	}
}

// dialers are the transports of a host that dials: QUIC, TCP and wss; with a proxy
// without QUIC, and both others through it.
func (n *Net) dialers() []libp2p.Option {
	switch {
	case n.cfg.LANOnly:
		return plainTransports()
	case n.proxy != nil:
		return []libp2p.Option{
			libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport(), tcp.WithDialerForAddr(n.proxy.forAddr)),
			libp2p.Transport(newWSS(nil, n.proxy.DialContext)),
		}
	}
	return append(plainTransports(), libp2p.Transport(newWSS(nil, (&net.Dialer{}).DialContext)))
}

// transports are those of the main host.
func (n *Net) transports() ([]libp2p.Option, error) {
	if len(n.cfg.Options) > 0 {
		return n.cfg.Options, nil
	}
	if n.cfg.Profile != Server {
		return n.dialers(), nil
	}
	cert, err := newCert(time.Now())
	if err != nil {
		return nil, err
	}
	wss := newWSS(cert, (&net.Dialer{}).DialContext)
	return append(plainTransports(), libp2p.ShareTCPListener(), libp2p.Transport(wss)), nil
}

// spec says where the main host listens.
func (n *Net) spec(prefer []ma.Multiaddr) (hostSpec, error) {
	s := hostSpec{
		announce: n.cfg.Announce,
		key:      n.mainKey(), listen: n.cfg.Listen, fallback: defaultListen, prefer: prefer,
		local: n.cfg.LANOnly, low: n.cfg.ConnLow, high: n.cfg.ConnHigh, reach: n.reachOptions(),
	}
	// Through a proxy the hole would be the proxy's.
	s.punch = !n.cfg.LANOnly && n.proxy == nil && !n.cfg.Veiled
	if n.cfg.Veiled {
		s.fallback, s.veil = nil, n.ownRelays
	}
	var err error
	if s.transports, err = n.transports(); err != nil {
		return s, err
	}
	if n.cfg.Profile == Server && len(n.cfg.Options) == 0 {
		s.shareTCP = true
		if len(s.listen) == 0 {
			s.listen, s.extra = serverListen, serverListen6
		}
	}
	if n.proxy != nil {
		s.listen = slices.DeleteFunc(slices.Clone(s.listen), func(a ma.Multiaddr) bool {
			_, transport := direct(a)
			return transport == "quic"
		})
	}
	return s, nil
}

// addressAdder is the part of libp2p's swarm that says why it cannot listen.
type addressAdder interface{ AddListenAddr(ma.Multiaddr) error }

// listenTCP listens on a TCP address and lets wss share its port. libp2p listens with
// SO_REUSEPORT there, by which two nodes would share a taken port, so it is tried
// without first.
func (h *p2pHost) listenTCP(nw addressAdder, a ma.Multiaddr) error {
	l, err := manet.Listen(a)
	if err != nil {
		return err
	}
	if err := l.Close(); err != nil {
		return fmt.Errorf("try the port: %w", err)
	}
	before := h.Network().ListenAddresses()
	if err := nw.AddListenAddr(a); err != nil {
		return err
	}
	for _, got := range h.Network().ListenAddresses() {
		if !ma.Contains(before, got) {
			return nw.AddListenAddr(ma.Join(got, tlsWS))
		}
	}
	return fmt.Errorf("bug: listening on %s and not named", a)
}
