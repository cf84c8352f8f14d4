package p2p

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	lpevent "github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
)

// ErrRelayHere is the cause of a RelayTry of a veiled Net where the relay is at this
// machine's own place: whoever learns the relay's address learns this one's.
var ErrRelayHere = errors.New("the relay is at the same address or in the same network as this node")

// sights are where others see a host: what each said of its connection.
type sights struct {
	sub  lpevent.Subscription
	done chan struct{}

	mu   sync.Mutex // guards all below
	of   map[network.Conn]ma.Multiaddr
	news chan struct{} // closed when there is more
}

// watchSights begins before h is connected with anybody, so that it misses nothing.
func watchSights(h host.Host) (*sights, error) {
	sub, err := h.EventBus().Subscribe(new(lpevent.EvtPeerIdentificationCompleted), eventbus.Name("kinloom-sights"), eventbus.BufSize(64))
	if err != nil {
		return nil, fmt.Errorf("where others see this host: %w", err)
	}
	s := &sights{sub: sub, done: make(chan struct{}), of: map[network.Conn]ma.Multiaddr{}, news: make(chan struct{})}
	go func() {
		defer close(s.done)
		for e := range sub.Out() {
			if e, ok := e.(lpevent.EvtPeerIdentificationCompleted); ok {
				s.note(e.Conn, e.ObservedAddr)
			}
		}
	}()
	return s, nil
}

func (s *sights) close() error {
	err := s.sub.Close()
	<-s.done
	return err
}

func (s *sights) note(c network.Conn, at ma.Multiaddr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.of {
		if c.IsClosed() {
			delete(s.of, c)
		}
	}
	s.of[c] = at
	close(s.news)
	s.news = make(chan struct{})
}

// by returns where the other side of a connection sees this one, nil if it has not said.
func (s *sights) by(c network.Conn) ma.Multiaddr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[c]
}

// wait returns where the other side of a connection sees this one, when it has said so.
func (s *sights) wait(ctx context.Context, c network.Conn) (ma.Multiaddr, error) {
	for {
		s.mu.Lock()
		at, ok := s.of[c]
		news := s.news
		s.mu.Unlock()
		if ok {
			return at, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// apart says that a relay that a veiled host is connected with is at another place than
// this machine, by the relay's own word: the owner trusts it, and nobody else sees what
// a router at home does to the address. A private one is that of a machine in the same
// network. Errors: ErrRelayHere, ErrNotConnected, ctx.Err().
func (h *p2pHost) apart(ctx context.Context, relay peer.ID, addrs []ma.Multiaddr) error {
	c := h.conn(relay)
	if c == nil {
		return ErrNotConnected
	}
	seen, err := h.sights.wait(ctx, c)
	if err != nil {
		return err
	}
	own, ok := siteOf(seen)
	near := func(a ma.Multiaddr) bool {
		site, ok := siteOf(a)
		return ok && site == own
	}
	if !ok || near(c.RemoteMultiaddr()) || slices.ContainsFunc(addrs, near) {
		return ErrRelayHere
	}
	return nil
}
