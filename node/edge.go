package node

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/dm"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/session"
	"github.com/kinloom/kinloom/protocol/wire"
)

const (
	dialTimeout       = 20 * time.Second // for all addresses of one device
	dialsAtOnce       = 16
	dialsWaiting      = 1024
	neighboursWaiting = 64
	linksMax          = 512 // open dm streams of both directions
)

// edge is the network side of a node: it dials, serves streams and turns what
// happens there into inputs of the loop. It keeps no state of its own.
type edge struct {
	n     *Node
	dials chan dialRequest
	found chan peer.AddrInfo
	moved chan struct{} // another network
	keys  chan nextKey
	veils chan crypto.PrivKey
	hosts p2p.Config // of the main host
	// silent has a token when no server of the address book answers.
	silent chan struct{}

	publish chan struct{} // the look-up records may have changed
	known   atomic.Pointer[known]
	moves   atomic.Uint64 // of the network, as reported last

	under    atomic.Pointer[p2p.Net] // the veil, nil if there is none
	carriers atomic.Pointer[carriers]
	choosing sync.Mutex // of carriers
	called   sync.Map   // the peer.ID of whom the owner calls by an invite at the moment
}

// dialRequest asks for a route to a device.
type dialRequest struct {
	device identity.DeviceID
	ways   []dialWay
	rule   store.Ways // what its person may be reached by
	lookup *lookup    // how to find more ways; nil: not now
	moved  bool       // this node moved a moment ago, so the other one may have too
}

// hand gives an input to the loop and waits for a place in its queue, unless
// the node is closing.
func (e *edge) hand(in input) bool {
	select {
	case e.n.loop.in <- in:
		return true
	case <-e.n.closing:
		return false
	case <-e.n.ended:
		return false
	}
}

// connect starts the hosts and the protocols. It returns when the node can be
// reached and can send.
func (n *Node) connect(ctx, run context.Context) error {
	// Before anybody asks for this device's certificate.
	if err := n.change(ctx, func(l *loop, tx *store.Tx) error { return l.renew(tx, l.now()) }); err != nil {
		return err
	}
	key, prefer, err := n.transport(ctx)
	if err != nil {
		return err
	}
	listen, err := parseAddrs(n.cfg.Listen)
	if err != nil {
		return err
	}
	n.edge = &edge{
		n: n, dials: make(chan dialRequest, dialsWaiting), found: make(chan peer.AddrInfo, neighboursWaiting), moved: make(chan struct{}, 1),
		keys: make(chan nextKey, 1), veils: make(chan crypto.PrivKey, 1), publish: make(chan struct{}, 1), silent: make(chan struct{}, 1),
	}
	if err := n.ask(ctx, func(l *loop) { // before anybody is dialled; the rest once the network is there
		k := l.knownNow()
		n.edge.known.Store(&known{shunned: k.shunned, hidden: k.hidden, under: k.under})
	}); err != nil {
		return err
	}
	hosts, err := n.hosts(ctx)
	if err != nil {
		return err
	}
	hosts.Key, hosts.Listen, hosts.Prefer = key, listen, prefer
	if n.cfg.Network != nil {
		n.cfg.Network(&hosts)
	}
	n.edge.hosts = hosts
	if n.net, err = p2p.New(hosts); err != nil {
		return err
	}
	n.net.Handle(wire.Contact, p2p.Limits{Streams: 32, PerPeer: 2, PerSubnet: 8, StreamMemory: contact.Memory}, func(s network.Stream) {
		n.edge.serveContact(run, s)
	})
	n.net.Handle(wire.DM, p2p.Limits{Streams: linksMax, PerPeer: 4, StreamMemory: dm.Memory}, func(s network.Stream) {
		n.edge.run(run, n.edge.link(n.net, s, false))
	})
	n.net.Handle(wire.Hello, p2p.Limits{Streams: 32, PerPeer: 1, PerSubnet: 8, StreamMemory: contact.HelloMemory}, func(s network.Stream) {
		n.edge.serveHello(run, s)
	})
	if err := n.net.Open(ctx); err != nil {
		return listenError(err)
	}
	n.usual = prefer
	n.group.Go(func() error { return n.net.Run(run) })
	n.group.Go(func() error { return n.edge.dialer(run) })
	n.group.Go(func() error { return n.edge.neighbours(run) })
	n.group.Go(func() error { return n.edge.rotator(run) })
	n.group.Go(func() error { return n.edge.rekeyer(run) })
	n.group.Go(func() error { return n.edge.veiler(run) })
	n.group.Go(func() error { return n.edge.publisher(run) })
	n.group.Go(func() error { return n.edge.asker(run) })
	if err := n.startLists(ctx); err != nil {
		return err
	}
	return n.change(ctx, func(l *loop, tx *store.Tx) error {
		l.net = n.edge
		l.placed(n.edge.place())
		l.then(l.tellKnown)
		if err := l.openVeil(tx); err != nil {
			return err
		}
		l.tryAll()
		return errors.Join(n.keepPorts(l, tx), l.slip(tx))
	})
}

func (e *edge) listening() []string {
	var out []string
	for _, a := range e.n.net.Addrs() {
		out = append(out, a.String())
	}
	return out
}

func (e *edge) ids() (main, lan string) {
	m, l := e.n.net.PeerIDs()
	if l == "" {
		return m.String(), ""
	}
	return m.String(), l.String()
}

// dial implements jobs. It does not wait: a request that finds no place is
// answered as a failure and made again by the loop.
func (e *edge) dial(r dialRequest) bool {
	select {
	case e.dials <- r:
		return true
	default:
		return false
	}
}

// clean keeps of addresses that another told those that may be dialled.
func (e *edge) clean(addrs [][]byte) [][]byte {
	var told []multiaddr.Multiaddr
	for _, b := range addrs {
		if a, err := multiaddr.NewMultiaddrBytes(b); err == nil {
			told = append(told, a)
		}
	}
	var out [][]byte
	for _, a := range e.n.net.Clean(told) {
		out = append(out, a.Bytes())
	}
	return out
}

// dialer serves the loop's dial requests until ctx ends, a few at a time, and
// runs the links that come of them.
func (e *edge) dialer(ctx context.Context) error {
	var links errgroup.Group
	slots := make(chan struct{}, dialsAtOnce)
	for {
		select {
		case r := <-e.dials:
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return links.Wait()
			}
			links.Go(func() error {
				k, err := e.reach(ctx, r)
				<-slots
				if err == nil {
					e.run(ctx, k)
					return nil
				}
				e.hand(done{apply: func(l *loop, tx *store.Tx) error { return l.undialled(tx, r.device, err) }, reply: func(error) {}})
				return nil
			})
		case <-ctx.Done():
			return links.Wait()
		}
	}
}

// open connects with one transport and opens a dm stream there.
func (e *edge) open(ctx context.Context, n *p2p.Net, id peer.ID, addrs []multiaddr.Multiaddr) (*link, error) {
	if n == nil {
		return nil, errNoVeil
	}
	if _, err := n.Dial(ctx, id, addrs); err != nil {
		return nil, err
	}
	s, err := n.NewStream(ctx, id, wire.DM)
	if err != nil {
		return nil, err
	}
	return e.link(n, s, true), nil
}

// netOf is the network to reach somebody by, nil if there is none.
func (e *edge) netOf(rule store.Ways) *p2p.Net {
	if rule == store.RelayOnly {
		return e.under.Load()
	}
	return e.n.net
}

func (e *edge) link(n *p2p.Net, s network.Stream, dialled bool) *link {
	k := &link{
		net: n, veiled: n != e.n.net, stream: s, peer: s.Conn().RemotePeer(), route: RouteDirect, addr: s.Conn().RemoteMultiaddr().String(), since: e.n.cfg.Now(), edge: e,
		recent: map[wire.CellID]session.ID{}, out: make(chan []byte, linkCells), doubt: make(chan time.Duration, 1),
	}
	switch p2p.PathOf(s.Conn()).Route {
	case p2p.LAN:
		k.route = RouteLAN
	case p2p.Relayed:
		k.route = RouteRelay
	}
	k.dialled, k.quiet = dialled, dialled
	k.conn = dm.New(s, k, dm.Config{Dialer: dialled, Known: dialled})
	return k
}

// run is the life of a link: it is announced, carries until the stream ends, and
// is taken back.
func (e *edge) run(ctx context.Context, k *link) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k.end = cancel
	came := met{link: k, taken: make(chan struct{})}
	if e.hand(came) {
		select { // or the other side may ask for keys before it is known who asks, and is refused
		case <-came.taken:
		case <-e.n.ended:
		}
	} else {
		cancel() // Run below resets the stream
	}
	var g errgroup.Group
	g.Go(func() error {
		defer cancel()
		return k.conn.Run(ctx)
	})
	g.Go(func() error {
		defer cancel()
		return k.write(ctx)
	})
	g.Go(func() error { return k.probe(ctx) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		e.n.cfg.Log.Debug("a link ended", "peer", k.peer.ShortString(), "error", err)
	}
	if k.stale.Load() {
		_ = k.stream.Conn().Close() // nobody may be there any more to be told
	}
	e.hand(met{link: k, gone: true})
}

// serveContact answers somebody who shows an invite.
func (e *edge) serveContact(ctx context.Context, s network.Stream) {
	channel, err := contact.StreamChannel(s)
	if err != nil {
		_ = s.Reset()
		return
	}
	self := contact.Self{Key: identity.NewDeviceKey(e.n.home.secrets.Device), Person: e.n.me}
	if _, err := contact.Serve(ctx, s, contact.NewResponder(self, channel, e.n.cfg.Random), host{e}); err != nil {
		e.n.cfg.Log.Debug("a contact exchange ended early", "error", err) // any stranger can cause it, as often as it likes
	}
}

// host is the edge for one exchange.
type host struct{ *edge }

// Admit implements contact.Host: who shows a good token is no stranger any more.
func (h host) Admit(ctx context.Context, token contact.Token, from contact.Transport) (wire.Code, contact.Material, error) {
	code, material, err := h.edge.Admit(ctx, token, from)
	if err == nil && code == 0 {
		h.n.net.Recognise(peer.ID(from.PeerID()), "")
	}
	return code, material, err
}

// Found implements p2p.Handler: a neighbour on the LAN. Whether it is a contact,
// a hello tells; nobody else learns anything by it.
func (e *edge) Found(info peer.AddrInfo) {
	select {
	case e.found <- info:
	default: // there are more neighbours than time; mDNS tells of them again
	}
}

// serveHello answers a hello.
func (e *edge) serveHello(ctx context.Context, s network.Stream) {
	pairs, err := e.n.pairs(ctx)
	if err == nil {
		var channel contact.Channel
		if channel, err = contact.StreamChannel(s); err == nil {
			var g contact.Greeting
			if g, err = contact.ServeHello(ctx, s, contact.NewHelloListener(contact.About{}, channel, pairs, e.n.cfg.Random)); g.Known {
				e.recognise(g.Device, s.Conn().RemotePeer())
			}
		}
	}
	if err != nil {
		_ = s.Reset()
	}
}

// pairs are the devices that a hello may come from or go to, those heard of
// last first.
func (n *Node) pairs(ctx context.Context) ([]contact.Pair, error) {
	var out []contact.Pair
	err := n.ask(ctx, func(l *loop) { out = l.pairs() })
	return out, err
}

// Connected implements p2p.Handler. Routes are known by their streams; but where a
// connection without a relay has appeared beside one over a relay, the device is to
// be reached by that.
func (e *edge) Connected(id peer.ID, path p2p.Path) {
	if path.Route == p2p.Relayed {
		return
	}
	e.hand(change{apply: func(l *loop, _ *store.Tx) error {
		for _, d := range l.acct.devices {
			if k := d.queue.link; k != nil && k.peer == id {
				l.shorten(d, l.now())
			}
		}
		return nil
	}, reply: func(error) {}})
}

// straight implements jobs.
func (e *edge) straight(id peer.ID) bool {
	path, ok := e.n.net.Connected(id)
	return ok && path.Route != p2p.Relayed
}

// Disconnected implements p2p.Handler.
func (e *edge) Disconnected(peer.ID, p2p.Path) {}

// hosts is how the hosts are configured, but for their keys and addresses.
func (n *Node) hosts(ctx context.Context) (p2p.Config, error) {
	proxy, err := n.cfg.proxy()
	if err != nil {
		return p2p.Config{}, err
	}
	public, err := n.cfg.announce()
	if err != nil {
		return p2p.Config{}, err
	}
	named, err := parseBootstraps(n.cfg.Bootstrap)
	if err != nil {
		return p2p.Config{}, err
	}
	err = n.read(ctx, func(v *view) error {
		kept, err := bootstraps(v.tx)
		named = append(named, kept...)
		return err
	})
	return p2p.Config{
		Profile: p2p.Profile(n.cfg.Profile), LAN: !n.cfg.NoLAN, LANOnly: n.cfg.LANOnly, MDNS: !n.cfg.NoLAN, NoDHT: n.cfg.NoDHT, Proxy: proxy, Announce: public,
		Bootstrap: named, Data: n.store.Datastore(), Trusted: n.edge.trusted, Owner: n.edge.owner, Shunned: n.edge.shuns, Avoid: n.edge.avoid,
		Relays: n.edge.relays, Silent: n.edge.noServer, Handler: n.edge, Log: n.cfg.Log, Now: n.cfg.Now,
	}, err
}

// place is where this node is found now.
func (e *edge) place() place {
	var p place
	switch reach := e.n.net.Reachability(); {
	case p2p.Profile(e.n.cfg.Profile) == p2p.Client:
		p.offers = event.OffersDoze
	case p2p.Profile(e.n.cfg.Profile) == p2p.Server && !e.n.cfg.LANOnly:
		p.offers = event.OffersAlways | event.OffersRelay | event.OffersRecords
	case reach.Verdict == p2p.Public && !e.n.cfg.LANOnly:
		p.offers = event.OffersRelay | event.OffersRecords
	}
	p.veiled = e.veilPlaces()
	for _, a := range e.n.net.Addrs() {
		if len(p.addrs) < event.MaxPlaces && len(a.Bytes()) <= event.MaxPlace {
			p.addrs = append(p.addrs, a.Bytes())
		}
	}
	return p
}

// AddrsChanged implements p2p.Handler: another network means that every device
// is worth a try at once, and so does a way in that was found or lost.
func (e *edge) AddrsChanged() {
	moves := e.n.net.Moves()
	moved := e.moves.Swap(moves) != moves
	if moved {
		e.rotate()
	}
	e.chooseCarriers()
	if n := e.under.Load(); n != nil && (moved || len(n.Addrs()) == 0) { // what is a way in again may be one for it
		n.FindRelays()
	}
	place, reach := e.place(), e.n.Reach()
	e.hand(change{apply: func(l *loop, tx *store.Tx) error {
		if moved {
			l.movedAt = l.now()
			l.told.refill(l.now())
		}
		if moved || l.now().Sub(l.movedAt) < movedFor || l.far.Reach != reach.Reach {
			l.tryAll()
		}
		l.reached(reach)
		l.placed(place)
		l.then(e.wake)
		l.wrote = true
		return errors.Join(e.n.keepPorts(l, tx), l.slip(tx))
	}, reply: func(error) {}})
}

// rotate asks for another key of the LAN host.
func (e *edge) rotate() {
	select {
	case e.moved <- struct{}{}:
	default:
	}
}
