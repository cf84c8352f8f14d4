package p2p

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// lanHeadStart is how long the LAN host dials alone when a peer has addresses on
// the LAN and elsewhere: longer than any round trip on a LAN.
const lanHeadStart = 200 * time.Millisecond

// Dial connects with p at one of addrs, unless a connection exists. The LAN host
// dials the addresses of the LAN, so that a neighbour sees its key of today and
// not the main one; the main host dials public ones and loopback, and those of
// the LAN too where there is no LAN host. It returns as soon as the handshake is
// done, after one round trip over QUIC. libp2p tries QUIC first and several
// addresses at once, each for at most 15 s (LAN: 5 s); the deadline of all is
// ctx's. Errors: ErrPeerID, ErrNoAddress, ErrClosed, DialError, ctx.Err().
func (n *Net) Dial(ctx context.Context, p peer.ID, addrs []ma.Multiaddr) (Path, error) {
	if !isEd25519(p) {
		return Path{}, ErrPeerID
	}
	if path, ok := n.Connected(p); ok {
		return path, nil
	}
	main, lan := n.host(mainHost), n.host(lanHost)
	if main == nil {
		return Path{}, ErrClosed
	}
	var viaMain, viaLAN []ma.Multiaddr
	for _, a := range addrs[:min(len(addrs), MaxAddrs)] {
		a, ok := usable(a)
		switch {
		case !ok || n.cfg.LANOnly && !isLocal(a):
		case lan != nil && isLocal(a) && !isLoopback(a):
			viaLAN = append(viaLAN, a)
		default:
			viaMain = append(viaMain, a)
		}
	}
	var err error
	switch {
	case len(viaMain)+len(viaLAN) == 0:
		return Path{}, ErrNoAddress
	case len(viaLAN) == 0:
		err = main.dial(ctx, p, viaMain)
	case len(viaMain) == 0:
		err = lan.dial(ctx, p, viaLAN)
	default:
		err = race(ctx,
			func(ctx context.Context) error { return lan.dial(ctx, p, viaLAN) },
			func(ctx context.Context) error { return main.dial(ctx, p, viaMain) })
	}
	if path, ok := n.Connected(p); ok {
		return path, nil
	}
	switch {
	case ctx.Err() != nil:
		return Path{}, ctx.Err()
	case err == nil:
		err = errors.New("connection closed at once")
	case errors.Is(err, swarm.ErrSwarmClosed) || n.isClosed():
		return Path{}, ErrClosed
	}
	return Path{}, dialError(p, append(viaLAN, viaMain...), err)
}

// race runs first, and second too after lanHeadStart or when first has failed. It
// returns nil as soon as one of them succeeds; the other is cancelled and waited
// for, so at most one of them leaves a connection, or both if they tie.
func race(ctx context.Context, first, second func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	res := make(chan error, 1)
	go func() { res <- first(ctx) }()
	head := time.NewTimer(lanHeadStart)
	defer head.Stop()
	select {
	case err := <-res:
		if err == nil || ctx.Err() != nil {
			return err
		}
		return errors.Join(err, second(ctx))
	case <-head.C:
	}
	res2 := make(chan error, 1)
	go func() { res2 <- second(ctx) }()
	var errs []error
	for range 2 {
		select {
		case err := <-res:
			errs = append(errs, err)
		case err := <-res2:
			errs = append(errs, err)
		}
		if errs[len(errs)-1] == nil {
			cancel()
			if len(errs) == 1 {
				select {
				case <-res:
				case <-res2:
				}
			}
			return nil
		}
	}
	return errors.Join(errs...)
}

// dialError sorts what libp2p says about each address.
func dialError(p peer.ID, tried []ma.Multiaddr, err error) error {
	causes := make(map[string]error)
	collect := func(e *swarm.DialError) {
		for _, t := range e.DialErrors {
			causes[string(t.Address.Bytes())] = t.Cause
		}
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if de, ok := errors.AsType[*swarm.DialError](e); ok {
				collect(de)
			}
		}
	}
	if de, ok := errors.AsType[*swarm.DialError](err); ok {
		collect(de)
	}
	out := &DialError{Peer: p}
	for _, a := range tried {
		cause := causes[string(a.Bytes())]
		if cause == nil {
			cause = err
		}
		out.Attempts = append(out.Attempts, Attempt{Addr: a, Err: cause})
	}
	return out
}

// NewStream opens a stream for a protocol on the existing connection with p, over
// the LAN if there is the choice. It does not wait for anything of the other side:
// the protocol header leaves with the first Write. The other side's limits show
// as a failing Read; a protocol that it does not speak as ErrNotSupported. Other
// errors: ErrNotConnected, or our own limits.
func (n *Net) NewStream(ctx context.Context, p peer.ID, id protocol.ID) (network.Stream, error) {
	c := n.conn(p)
	if c == nil {
		return nil, ErrNotConnected
	}
	s, err := c.NewStream(ctx)
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	if err := s.SetProtocol(id); err != nil {
		s.ResetWithError(network.StreamResourceLimitExceeded)
		return nil, fmt.Errorf("open stream: %w", err)
	}
	if l, ok := n.limits.get(id); ok {
		if err := s.Scope().ReserveMemory(l.StreamMemory, network.ReservationPriorityAlways); err != nil {
			s.ResetWithError(network.StreamResourceLimitExceeded)
			return nil, fmt.Errorf("open stream: %w", err)
		}
	}
	return newLazyStream(s, id), nil
}

// conn returns the connection to use for p: that of the LAN host if there is one.
func (n *Net) conn(p peer.ID) network.Conn {
	for _, which := range []int{lanHost, mainHost} {
		if h := n.host(which); h != nil {
			if c := h.conn(p); c != nil {
				return c
			}
		}
	}
	return nil
}

// Connected returns the path of the connection with p, and false if there is none.
func (n *Net) Connected(p peer.ID) (Path, bool) {
	c := n.conn(p)
	if c == nil {
		return Path{}, false
	}
	return pathOf(c), true
}

// ClosePeer closes all connections with p.
func (n *Net) ClosePeer(p peer.ID) {
	for which := range n.hosts {
		if h := n.host(which); h != nil {
			if err := h.Network().ClosePeer(p); err != nil {
				n.log.Debug("close connection", "peer", short(p), "err", err)
			}
		}
	}
}

// Protect keeps the connections with p when there are too many: for contacts.
func (n *Net) Protect(p peer.ID, on bool) {
	const tag = "kinloom"
	for which := range n.hosts {
		if h := n.host(which); h == nil {
			continue
		} else if on {
			h.ConnManager().Protect(p, tag)
		} else {
			h.ConnManager().Unprotect(p, tag)
		}
	}
}

// short is enough of an id to tell peers apart in a log.
func short(p peer.ID) string {
	s := p.String()
	return s[max(0, len(s)-8):]
}
