package p2p

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
)

// maxThrowaway bounds the throwaway hosts that exist at a time. Each has a socket.
const maxThrowaway = 8

// throwaway talks over one stream with a peer, from a host with a fresh key and port
// that listens nowhere and ends with it: the peer sees our IP address and nothing
// else that it could meet again, and no two conversations share a connection. What
// may be dialled is what the main host may dial, and it counts with it. If the peer is to
// be apart, it has to say first that this machine is at another place than its own, or
// the error is ErrRelayHere. A second try is made where the first one ended because of a
// certificate; talk may run twice then.
func (n *Net) throwaway(ctx context.Context, to peer.AddrInfo, apart bool, id protocol.ID, talk func(network.Stream) error) error {
	select {
	case n.throwaways <- struct{}{}:
		defer func() { <-n.throwaways }()
	case <-ctx.Done():
		return ctx.Err()
	}
	n.mu.RLock()
	rm, closed := n.rm, n.closed
	if rm != nil && !closed {
		n.served.Add(1)
	}
	n.mu.RUnlock()
	if rm == nil || closed {
		return ErrClosed
	}
	defer n.served.Done()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return fmt.Errorf("throwaway key: %w", err)
	}
	g := &throwawayGuard{&hostGuard{ResourceManager: rm, guard: n.guard, local: n.cfg.LANOnly}}
	opts := []libp2p.Option{
		libp2p.Identity(key),
		libp2p.ResourceManager(g),
		libp2p.ConnectionGater(g),
		libp2p.ConnectionManager(&connmgr.NullConnMgr{}),
		libp2p.NoListenAddrs,
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.ForceReachabilityPrivate(),
		libp2p.Ping(false),
		// As on the main host: a clock that is wrong must not keep us from being told so.
		libp2p.Security(noise.ID, noise.New),
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.UserAgent("kinloom"),
		libp2p.UDPBlackHoleSuccessCounter(nil),
		libp2p.IPv6BlackHoleSuccessCounter(nil),
	}
	if n.cfg.Throwaway != nil {
		opts = append(opts, n.cfg.Throwaway()...)
	} else {
		opts = append(opts, n.dialers()...)
	}
	lh, err := libp2p.New(opts...)
	if err != nil {
		return fmt.Errorf("throwaway host: %w", err)
	}
	defer lh.Close()
	var addrs []ma.Multiaddr
	for _, a := range to.Addrs[:min(len(to.Addrs), MaxAddrs)] {
		if a, ok := directAddr(a); ok && (!n.cfg.LANOnly || isLocal(a)) {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) == 0 {
		return ErrNoAddress
	}
	h := &p2pHost{Host: lh, local: n.cfg.LANOnly}
	if apart {
		if h.sights, err = watchSights(lh); err != nil {
			return err
		}
		defer h.sights.close()
	}
	for again := false; ; again = true {
		c, err := n.talkOnce(ctx, h, to.ID, n.turned.sift(to.ID, addrs), id, talk)
		if err == nil || c == nil || again || !n.turned.note(c) {
			return err
		}
	}
}

// talkOnce is one try of a throwaway host, with the connection that was tried.
func (n *Net) talkOnce(ctx context.Context, h *p2pHost, to peer.ID, addrs []ma.Multiaddr, id protocol.ID, talk func(network.Stream) error) (network.Conn, error) {
	c, err := h.connect(ctx, to, addrs)
	if err != nil {
		return nil, dialError(to, addrs, err)
	}
	if h.sights != nil {
		seen, cancel := context.WithTimeout(ctx, veilRelayTime)
		defer cancel()
		if err := h.apart(seen, to, addrs); err != nil {
			return c, err
		}
	}
	s, err := n.streamOn(ctx, c, id)
	if err != nil {
		return c, err
	}
	if err := talk(s); err != nil {
		s.Reset()
		return c, err
	}
	return c, nil
}

// chance returns a number from 0 to below n that nobody can foresee.
func chance[N ~int | ~int64](n N) N {
	if n <= 0 {
		return 0
	}
	var b [8]byte
	rand.Read(b[:]) // never fails
	return N(binary.BigEndian.Uint64(b[:]) % uint64(n))
}

// shuffle puts a into an order that nobody can foresee.
func shuffle[T any](a []T) {
	for i := len(a) - 1; i > 0; i-- {
		j := chance(i + 1)
		a[i], a[j] = a[j], a[i]
	}
}

// throwawayGuard is the guard of a host that nobody can open a stream with.
type throwawayGuard struct{ *hostGuard }

// InterceptUpgraded notes nothing: where a peer comes from is the main host's to say.
func (*throwawayGuard) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) {
	return true, 0
}
