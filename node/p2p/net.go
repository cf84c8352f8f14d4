package p2p

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
)

// Net is the node's network: the main host, the LAN host and the router above
// them. All methods may be called from any goroutine.
type Net struct {
	cfg    Config
	log    *slog.Logger
	limits *limiter
	guard  *guard
	events *events
	reach  reach
	relays relays
	proxy  *proxy // nil: none
	// circuits has a token when somebody has come over a relay.
	circuits chan struct{}
	// neighbours are whom the LAN host dials.
	neighbours neighbours
	tried      tried
	pingers    atomic.Int64 // strangers whose ping streams are open
	ifaces     ifaces
	turned     turned
	served     sync.WaitGroup // stream handlers at work, and throwaway hosts
	book       *book
	dht        atomic.Pointer[dht] // nil: not opened, or none
	proxies    proxies
	throwaways chan struct{} // as many as there are hosts
	moves      atomic.Uint64

	lifecycle sync.Mutex // held by Open, RotateLAN, Rekey and shutdown
	mu        sync.RWMutex
	// mu guards the fields below.
	key    crypto.PrivKey // of the main host
	id     peer.ID        // of key
	rm     network.ResourceManager
	hosts  [2]*p2pHost // main, LAN; nil if not there
	routes map[protocol.ID]*route
	closed bool
	// changed are closed and replaced when the host is.
	changed [2]chan struct{}
}

// New assembles a Net. It starts nothing and binds nothing.
func New(cfg Config) (*Net, error) {
	cfg.setProfile()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("transport key: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.ContactBytes = cmp.Or(cfg.ContactBytes, ContactDayBytes)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Discovery == nil && cfg.MDNS {
		cfg.Discovery = &mdns{log: cfg.Log}
	}
	n := &Net{
		cfg: cfg, log: cfg.Log, key: cfg.Key, id: id, limits: newLimiter(),
		routes: make(map[protocol.ID]*route), changed: [2]chan struct{}{make(chan struct{}), make(chan struct{})},
		relays: newRelays(), circuits: make(chan struct{}, 1),
	}
	n.throwaways = make(chan struct{}, maxThrowaway)
	n.book = newBook(cfg.Data, cfg.Log, time.Now)
	n.book.shunned = cfg.Shunned
	if cfg.Proxy != nil {
		n.proxy = newProxy(cfg.Proxy)
	}
	n.events = newEvents()
	n.guard = newGuard(n.events.kick)
	if cfg.Trusted != nil { // else nobody says who is known
		n.guard.trusted = cfg.Trusted
	}
	n.guard.owner = n.owner
	n.Handle(PingID, pingLimits, n.servePing)
	return n, nil
}

// Open binds the sockets and starts the hosts. Stream handlers may be called
// before it returns. Errors: ErrPortTaken, ErrClosed, or what the system said.
func (n *Net) Open(ctx context.Context) error {
	n.lifecycle.Lock()
	defer n.lifecycle.Unlock()
	if n.isClosed() {
		return ErrClosed
	}
	if n.host(mainHost) != nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	rm, err := newResourceManager(n.limits)
	if err != nil {
		return fmt.Errorf("resource manager: %w", err)
	}
	n.mu.Lock()
	n.rm = rm
	n.mu.Unlock()
	n.book.load(ctx)
	n.KeepBootstrap(FromUser, n.cfg.Bootstrap...)
	n.loadAsked(ctx)
	n.AddBootstrap(FromUser, n.cfg.Bootstrap...)
	if err := n.openMain(ctx, n.cfg.Prefer); err != nil {
		n.mu.Lock()
		n.rm = nil
		n.mu.Unlock()
		if h := n.adopt(mainHost, nil); h != nil { // it was the DHT that did not start
			err = errors.Join(err, h.Close())
		}
		return errors.Join(err, rm.Close())
	}
	if n.cfg.LAN {
		if err := n.openLAN(n.cfg.LANKey); err != nil {
			// The main host is worth having without it: say so and go on.
			n.log.Warn("no LAN host", "err", err)
		}
	}
	return nil
}

// openMain starts the main host, at the ports of prefer where they are free. The
// caller holds lifecycle.
func (n *Net) openMain(ctx context.Context, prefer []ma.Multiaddr) error {
	spec, err := n.spec(prefer)
	if err != nil {
		return err
	}
	n.mu.RLock()
	rm := n.rm
	n.mu.RUnlock()
	h, err := openHost(spec, rm, n.guard, n.notifiee())
	if err != nil {
		return err
	}
	n.adopt(mainHost, h)
	return n.startDHT(ctx, h)
}

// openLAN starts the LAN host and closes the one before. The caller holds
// lifecycle.
func (n *Net) openLAN(key crypto.PrivKey) error {
	if key == nil {
		var err error
		if key, _, err = crypto.GenerateEd25519Key(rand.Reader); err != nil {
			return fmt.Errorf("LAN key: %w", err)
		}
	}
	n.mu.RLock()
	rm := n.rm
	n.mu.RUnlock()
	transports := n.cfg.LANOptions
	if len(transports) == 0 {
		transports = plainTransports()
	}
	h, err := openHost(hostSpec{
		key: key, listen: n.cfg.LANListen, fallback: defaultListen, transports: transports,
		local: true, low: max(1, n.cfg.ConnLow/2), high: max(1, n.cfg.ConnHigh/2),
	}, rm, n.guard, n.notifiee())
	if err != nil {
		return fmt.Errorf("LAN host: %w", err)
	}
	if old := n.adopt(lanHost, h); old != nil {
		return old.Close()
	}
	return nil
}

// RotateLAN replaces the LAN host by one with another key and other ports. The
// node does it every day, and on a change of network. Connections of the old
// host end with Disconnected. It does nothing where there is no LAN host.
func (n *Net) RotateLAN(key crypto.PrivKey) error {
	if key != nil && (key.Type() != crypto.Ed25519 || key.Equals(n.mainKey())) {
		return fmt.Errorf("LAN key: %w, or equals the main key", ErrPeerID)
	}
	n.lifecycle.Lock()
	defer n.lifecycle.Unlock()
	if n.isClosed() {
		return ErrClosed
	}
	if !n.cfg.LAN || n.host(mainHost) == nil {
		return nil
	}
	// The next announcement has them again.
	n.neighbours.forget()
	if len(n.cfg.LANListen) > 0 { // the simulated address can be bound once only
		if old := n.adopt(lanHost, nil); old != nil {
			if err := old.Close(); err != nil {
				return fmt.Errorf("close LAN host: %w", err)
			}
		}
	}
	return n.openLAN(key)
}

// adopt puts h (or nil) into its place, with the handlers of all routes, and
// returns what was there.
func (n *Net) adopt(which int, h *p2pHost) *p2pHost {
	n.mu.Lock()
	defer n.mu.Unlock()
	old := n.hosts[which]
	n.hosts[which] = h
	if h != nil {
		for _, r := range n.routes {
			h.SetStreamHandler(r.id, n.serve(r))
		}
	}
	close(n.changed[which])
	n.changed[which] = make(chan struct{})
	return old
}

// host returns the main or LAN host, or nil.
func (n *Net) host(which int) *p2pHost {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.hosts[which]
}

// self is the main transport id.
func (n *Net) self() peer.ID {
	id, _ := n.PeerIDs()
	return id
}

func (n *Net) mainKey() crypto.PrivKey {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.key
}

func (n *Net) isClosed() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.closed
}

// PeerIDs returns the main transport id, and that of the LAN host, empty if
// there is none at the moment.
func (n *Net) PeerIDs() (main, lan peer.ID) {
	if h := n.host(lanHost); h != nil {
		lan = h.ID()
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.id, lan
}

// outIP returns the source addresses of the default routes, none in a simulation.
func (n *Net) outIP() []netip.Addr {
	if len(n.cfg.Options) > 0 {
		return nil
	}
	return defaultRouteIPs()
}

// Moves counts the networks that this node has been in: it grows when the addresses
// of the machine change, and not by what others find out about them.
func (n *Net) Moves() uint64 { return n.moves.Load() }

// addrsPoll is how often Run looks for addresses that others found out; see ifaces for
// those of this computer.
const addrsPoll = 5 * time.Second

// Run delivers events and searches the LAN until ctx ends, then closes
// everything and waits for it. It opens the Net if Open was not called. It
// returns nil when it was ctx that ended it.
func (n *Net) Run(ctx context.Context) error {
	if err := n.Open(ctx); err != nil {
		return err
	}
	var wg sync.WaitGroup
	if n.cfg.Discovery != nil && n.cfg.LAN {
		wg.Go(func() { n.discover(ctx) })
	}
	if !n.cfg.LANOnly {
		wg.Go(func() { n.each(ctx, mainHost, n.watch) })
		wg.Go(func() { n.each(ctx, mainHost, n.keepRelays) })
		wg.Go(func() { n.each(ctx, mainHost, n.keepPunching) })
		wg.Go(func() {
			n.each(ctx, mainHost, func(ctx context.Context, _ *p2pHost) {
				if d := n.dht.Load(); d != nil {
					d.run(ctx)
				}
			})
		})
	}
	n.deliver(ctx)
	wg.Wait()
	return n.shutdown()
}

// each runs f for each host of a kind in turn, until ctx ends. The context of f ends
// with its host.
func (n *Net) each(ctx context.Context, which int, f func(context.Context, *p2pHost)) {
	for ctx.Err() == nil {
		n.mu.RLock()
		h, changed := n.hosts[which], n.changed[which]
		n.mu.RUnlock()
		var ended <-chan struct{}
		of, cancel := context.WithCancel(ctx)
		if h != nil {
			done := make(chan struct{})
			go func() {
				defer close(done)
				f(of, h)
			}()
			ended = done
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
		cancel()
		if ended != nil {
			<-ended
		}
	}
}

// deliver is the one goroutine that calls the Handler.
func (n *Net) deliver(ctx context.Context) {
	tick := time.NewTicker(addrsPoll)
	defer tick.Stop()
	var look <-chan time.Time
	if len(n.cfg.Options) == 0 { // a simulation has interfaces of its own
		ticker := time.NewTicker(ifacePoll)
		defer ticker.Stop()
		look = ticker.C
		n.ifaces.look(time.Now())
	}
	var told pacer
	for {
		ips := n.ifaces.ips()
		here := told.network
		if n.host(mainHost) != nil { // else it gets a new key
			here = fmt.Sprint(n.interfaceAddrs(), ips)
		}
		if here != told.network {
			if told.network != "" {
				n.neighbours.forget()
				n.tried.forget(time.Now())
				n.FindRelays()
			}
			n.moves.Add(1)
		}
		if told.due(here, fmt.Sprint(n.Addrs(), n.Reachability().key()), time.Now()) {
			if d := n.dht.Load(); d != nil {
				d.kick()
			}
			if n.cfg.Handler != nil {
				n.cfg.Handler.AddrsChanged()
			}
		}
		n.guard.strangers(time.Now())
		for more := true; more && ctx.Err() == nil; {
			more = n.events.next(n)
		}
		for same := true; same; {
			same = false
			select {
			case <-ctx.Done():
				return
			case <-n.events.wake:
			case <-tick.C:
			case now := <-look:
				same = slices.Equal(n.ifaces.look(now), ips)
			}
		}
	}
}

// Close ends a Net that is opened and not run. After Run it does nothing.
func (n *Net) Close() error { return n.shutdown() }

// shutdown removes the handlers, closes the hosts, waits for stream handlers, and
// closes the resource manager.
func (n *Net) shutdown() error {
	n.lifecycle.Lock()
	defer n.lifecycle.Unlock()
	n.mu.Lock()
	hosts, rm := n.hosts, n.rm
	n.hosts, n.rm, n.closed = [2]*p2pHost{}, nil, true
	routes := n.routes
	n.routes = make(map[protocol.ID]*route)
	n.mu.Unlock()
	var errs []error
	if d := n.dht.Load(); d != nil {
		errs = append(errs, d.close())
	}
	for _, h := range hosts {
		if h == nil {
			continue
		}
		for id := range routes {
			h.RemoveStreamHandler(id)
		}
		if err := h.Close(); err != nil && !errors.Is(err, transport.ErrListenerClosed) {
			errs = append(errs, fmt.Errorf("close host: %w", err))
		}
	}
	n.served.Wait()
	if rm != nil {
		errs = append(errs, rm.Close())
	}
	return errors.Join(errs...)
}
