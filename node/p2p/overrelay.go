package p2p

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/fx"
)

// errAbandoned is why a dial over a relay ends that nobody waits for any more.
var errAbandoned = errors.New("nobody waits for this connection")

// circuitTransport is libp2p's transport over relays, with a client for each relay.
// One client tries the relays to a peer one after the other, and waits up to a minute
// for each: a relay that has died, or lost the other side, would stand in the way of
// one that works.
type circuitTransport struct {
	*client.Client // hears who comes, and speaks for all
	host           host.Host
	upgrader       transport.Upgrader

	mu   sync.Mutex // guards over
	over map[peer.ID]*overRelay
}

// overRelay is the client of one relay, as long as something is dialled over it.
type overRelay struct {
	*client.Client
	dials int
}

// circuitOption gives a host connections over relays.
func circuitOption() libp2p.Option {
	return libp2p.ChainOptions(libp2p.DisableRelay(), libp2p.WithFxOption(fx.Invoke(addCircuits)))
}

// addCircuits does what the AddTransport of libp2p's client does.
func addCircuits(h host.Host, upgrader transport.Upgrader) error {
	nw, ok := h.Network().(transport.TransportNetwork)
	if !ok {
		return fmt.Errorf("bug: network %T takes no transport", h.Network())
	}
	c, err := client.New(h, upgrader)
	if err != nil {
		return fmt.Errorf("relay client: %w", err)
	}
	t := &circuitTransport{Client: c, host: h, upgrader: upgrader, over: make(map[peer.ID]*overRelay)}
	if err := nw.AddTransport(t); err != nil {
		return fmt.Errorf("relay client: %w", err)
	}
	if err := nw.Listen(circuit); err != nil {
		return fmt.Errorf("listen over relays: %w", err)
	}
	c.Start()
	return nil
}

// Listen implements transport.Transport.
func (t *circuitTransport) Listen(ma.Multiaddr) (transport.Listener, error) {
	g, ok := t.host.Network().ResourceManager().(*hostGuard)
	if !ok {
		return nil, errors.New("bug: a host without a guard")
	}
	return t.upgrader.UpgradeGatedMaListener(t, &circuitListener{t.Listener(), g}), nil
}

// Dial implements transport.Transport. A relay has 5 s to open the connection.
func (t *circuitTransport) Dial(ctx context.Context, a ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	_, relay, _ := splitCircuit(a)
	o, err := t.take(relay)
	if err != nil {
		return nil, err
	}
	defer t.give(relay, o)
	// With a cause that askingHost can tell from the end of what the client has done.
	dial, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(errAbandoned) })()
	return o.Dial(dial, a, p)
}

// askingHost ends the question to a relay with the dial that it is for. The client would
// wait for the answer for a minute, and count as a connection of the other side.
type askingHost struct{ host.Host }

// NewStream implements host.Host. ctx is cancelled without a cause when the relay has
// answered, and the stream then is the connection.
func (h askingHost) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := h.Host.NewStream(ctx, p, ids...)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() {
		if !errors.Is(context.Cause(ctx), context.Canceled) {
			_ = s.Reset()
		}
	})
	return s, nil
}

// take returns the client of a relay.
func (t *circuitTransport) take(relay peer.ID) (*overRelay, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.over[relay]
	if o == nil {
		c, err := client.New(askingHost{t.host}, t.upgrader)
		if err != nil {
			return nil, err
		}
		o = &overRelay{Client: c}
		t.over[relay] = o
	}
	o.dials++
	return o, nil
}

// give takes it back.
func (t *circuitTransport) give(relay peer.ID, o *overRelay) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o.dials--; o.dials == 0 && t.over[relay] == o {
		delete(t.over, relay)
	}
}
