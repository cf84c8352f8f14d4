package p2p

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/protocol/rv"
)

// ErrNoProxy says that no server of the DHT is known, so nothing can be looked up.
var ErrNoProxy = errors.New("no server of the look-up network is known")

// How records are asked for through others.
const (
	// findProxies is how many proxies are asked: one may withhold. One more is asked if
	// they do not agree on a record.
	findProxies = 2
	// proxyTries bounds those that are tried in their place when they fail.
	proxyTries = 6
	// proxyTimeout bounds one of them: a dial and what a server may take.
	proxyTimeout = 20 * time.Second
	// hedgeAfter is when one more is asked because those asked say nothing.
	hedgeAfter = 3 * time.Second
	// maxUsed is how many proxies are remembered as used lately.
	maxUsed = 64
)

// proxies remembers through whom this node looked up lately: the records of two days,
// and those of one contact, should not pass one server.
type proxies struct {
	asked, failed, forged atomic.Int64

	mu    sync.Mutex                // guards all below
	used  []peer.ID                 // oldest first
	byDay struct{ Puts, Gets days } // as it is stored
	// clocks are what servers said of the time, oldest first
	clocks []said
}

// days remember who was asked about the records of which day, so that a restart
// between two days does not send the records of both through one server.
type days map[rv.Period][]peer.ID

// Point is where a record is looked for.
type Point struct {
	ID     [32]byte
	Period rv.Period // that it is of
	// Not are servers that are not to be asked: they were asked for the point of the
	// same record on another day.
	Not []peer.ID
}

// LookupStats counts what came of asking servers of the DHT, since the start.
type LookupStats struct {
	Asked  int64 // requests to put or fetch a record
	Failed int64 // of them, without an answer or refused
	Forged int64 // of them, answered with a record that the point's key had not signed
}

// Lookups returns the counters. Forged ones say that somebody lies.
func (n *Net) Lookups() LookupStats {
	p := &n.proxies
	return LookupStats{Asked: p.asked.Load(), Failed: p.failed.Load(), Forged: p.forged.Load()}
}

// choose returns servers to ask in random order: those that are known or answered
// lately, used ones last. Who is avoided and was met among others is asked as they are.
func (n *Net) choose() []peer.AddrInfo {
	var out []peer.AddrInfo
	seen := map[peer.ID]bool{n.self(): true}
	add := func(i peer.AddrInfo) {
		if !seen[i.ID] && len(i.Addrs) > 0 && !n.shutOut(i.ID) && !n.theirs(i.ID) {
			seen[i.ID] = true
			out = append(out, i)
		}
	}
	if d := n.dht.Load(); d != nil {
		for _, p := range d.kad.Load().RoutingTable().ListPeers() {
			add(peer.AddrInfo{ID: p, Addrs: d.dialable(d.host.Host.Peerstore().Addrs(p))})
		}
	}
	for _, k := range n.Book() {
		if k.Fails == 0 && !k.Success.IsZero() {
			add(k.Peer)
		}
	}
	shuffle(out)
	// Those that nobody has tried yet, and at last those that failed.
	for _, k := range n.Book() {
		add(k.Peer)
	}
	n.proxies.mu.Lock()
	defer n.proxies.mu.Unlock()
	when := func(i peer.AddrInfo) int { return slices.Index(n.proxies.used, i.ID) } // -1: not lately
	slices.SortStableFunc(out, func(a, b peer.AddrInfo) int { return when(a) - when(b) })
	return out
}

// use notes that a proxy was used.
func (p *proxies) use(id peer.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used = append(slices.DeleteFunc(p.used, func(q peer.ID) bool { return q == id }), id)
	if len(p.used) > maxUsed {
		p.used = p.used[1:]
	}
}

// FindRecord looks for the record of a point through two random servers, and a third
// one if these do not agree on a record, each over a connection of its own that shows
// our address and no key. Servers that were asked about another day are taken last. It
// calls each at once for every answer, one call at a time: record is nil if that server
// found none, and else one that the point's key has signed; at is the server's time.
// Another server is asked where one fails, and if all do, a node that is a server itself
// walks on its own. It returns when they have answered, with those that were asked; the
// error says that nobody answered. Errors: ErrNoProxy, ErrClosed, ctx.Err(), or that of
// the last attempt.
func (n *Net) FindRecord(ctx context.Context, point Point, each func(record []byte, at time.Time)) ([]peer.ID, error) {
	return n.findBy(ctx, through{servers: n.choose(), self: n.serving()}, point, each)
}

// FindRecordBy is FindRecord through the servers given alone, and of these through none
// at the same place as this machine: it would ask others from there. Each has to say
// first where it sees this machine (sight.go). Errors: ErrRelayHere, too.
func (n *Net) FindRecordBy(ctx context.Context, servers []peer.AddrInfo, point Point, each func(record []byte, at time.Time)) ([]peer.ID, error) {
	servers = slices.Clone(servers)
	shuffle(servers)
	return n.findBy(ctx, through{servers: servers, apart: true}, point, each)
}

// through says by whom records are looked up and published.
type through struct {
	servers []peer.AddrInfo
	self    *dht // does it where no server does; nil: nobody
	apart   bool // none of the servers may be at this machine's place
}

func (n *Net) findBy(ctx context.Context, by through, point Point, each func(record []byte, at time.Time)) ([]peer.ID, error) {
	servers := slices.DeleteFunc(by.servers, func(s peer.AddrInfo) bool { return slices.Contains(point.Not, s.ID) })
	if len(servers) == 0 && len(point.Not) > 0 {
		return nil, ErrNoProxy
	}
	n.proxies.apart(servers, point.Period, &n.proxies.byDay.Gets)
	var mu sync.Mutex // one call of each at a time; guards all below
	var asked []peer.ID
	var said [][]byte
	try := func(ctx context.Context, s peer.AddrInfo) error {
		mu.Lock()
		asked = append(asked, s.ID)
		mu.Unlock()
		n.keepAsked(ctx, &n.proxies.byDay.Gets, point.Period, s.ID)
		reply, err := n.viaProxy(ctx, s, by.apart, func(ctx context.Context, st network.Stream) (rv.Reply, error) {
			return rv.Get(ctx, st, point.ID)
		})
		if forged := errors.Is(err, rv.ErrForged); err == nil || forged {
			n.tried.answered(!forged, time.Now())
		}
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() == nil {
			said = append(said, reply.Record)
			each(reply.Record, reply.At)
		}
		return nil
	}
	err := n.ask(ctx, servers[:min(len(servers), proxyTries)], try, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(said) > findProxies || len(said) == findProxies && said[0] != nil && bytes.Equal(said[0], said[1])
	})
	if by.self != nil && err != nil && ctx.Err() == nil {
		record := by.self.getRecord(ctx, point.ID)
		if ctx.Err() == nil {
			each(record, time.Now())
			return asked, nil
		}
	}
	return asked, err
}

// serving returns this node's part in the DHT if it is a server now. It looks up for
// itself where no other does: those who store records see its address then.
func (n *Net) serving() *dht {
	if d := n.dht.Load(); d != nil && d.serving.Load() {
		return d
	}
	return nil
}

// ask has try asked of servers, findProxies at a time, until enough says so or none is
// left. One more is asked whenever those that were asked say nothing for hedgeAfter.
func (n *Net) ask(ctx context.Context, servers []peer.AddrInfo, try func(context.Context, peer.AddrInfo) error, enough func() bool) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	results := make(chan error)
	busy, done := 0, 0
	start := func() {
		if len(servers) == 0 {
			return
		}
		s := servers[0]
		servers = servers[1:]
		busy++
		wg.Go(func() {
			err := try(ctx, s)
			select {
			case results <- err:
			case <-ctx.Done():
			}
		})
	}
	for range findProxies {
		start()
	}
	last := ErrNoProxy
	hedge := time.NewTimer(hedgeAfter)
	defer hedge.Stop()
	for busy > 0 {
		select {
		case err := <-results:
			busy--
			if err != nil {
				last = err
			} else if done++; enough() {
				return nil
			}
			if busy+done < findProxies || done >= findProxies && busy == 0 {
				start()
			}
		case <-hedge.C:
			start()
			hedge.Reset(hedgeAfter)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if done > 0 {
		return nil
	}
	return last
}

// viaProxy makes one request of one server, or none if it is to be apart and is not.
func (n *Net) viaProxy(ctx context.Context, s peer.AddrInfo, apart bool, request func(context.Context, network.Stream) (rv.Reply, error)) (rv.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, proxyTimeout)
	defer cancel()
	n.proxies.use(s.ID)
	var reply rv.Reply
	err := n.throwaway(ctx, s, apart, rv.ProxyID, func(st network.Stream) (err error) {
		if reply, err = request(ctx, st); !reply.At.IsZero() {
			n.proxies.saysTime(s.ID, reply.At, n.cfg.Now())
		}
		if err == nil && reply.Code != 0 {
			err = fmt.Errorf("look-up server: %v", reply.Code)
		}
		return err
	})
	if errors.Is(err, ErrRelayHere) {
		return reply, err // which says nothing against it
	}
	n.proxies.asked.Add(1)
	switch {
	case err == nil:
		n.book.worked(s.ID)
	case errors.Is(err, rv.ErrForged):
		n.proxies.forged.Add(1)
		fallthrough
	case ctx.Err() == nil:
		n.proxies.failed.Add(1)
		n.book.failed(s.ID)
	}
	return reply, err
}

// PublishRecord puts a record through one random server, and asks another one whether
// it is there: a server that lies says yes and stores nothing. It goes on with others
// until one has seen the record, and is content if one took it and none was left to
// ask. Servers that saw the record of another day are taken last. Errors: those of
// rv.Verify, ErrNoProxy, ErrClosed, ctx.Err(), or that of the last attempt.
func (n *Net) PublishRecord(ctx context.Context, point [32]byte, record []byte) error {
	return n.publishBy(ctx, through{servers: n.choose(), self: n.serving()}, point, record)
}

// PublishRecordBy is PublishRecord as FindRecordBy is FindRecord.
func (n *Net) PublishRecordBy(ctx context.Context, servers []peer.AddrInfo, point [32]byte, record []byte) error {
	servers = slices.Clone(servers)
	shuffle(servers)
	return n.publishBy(ctx, through{servers: servers, apart: true}, point, record)
}

func (n *Net) publishBy(ctx context.Context, by through, point [32]byte, record []byte) error {
	stamp, err := rv.Verify(point, record)
	if err != nil {
		return err
	}
	n.proxies.apart(by.servers, stamp.Period, &n.proxies.byDay.Puts)
	took, seen := false, false
	err = ErrNoProxy
	for _, s := range by.servers[:min(len(by.servers), proxyTries)] {
		if took {
			seen, err = n.isThere(ctx, s, by.apart, point, record)
		}
		if !seen && (!took || err == nil) {
			_, err = n.viaProxy(ctx, s, by.apart, func(ctx context.Context, st network.Stream) (rv.Reply, error) {
				return rv.Put(ctx, st, record, point)
			})
			took = took || err == nil
		}
		if err == nil {
			n.keepAsked(ctx, &n.proxies.byDay.Puts, stamp.Period, s.ID)
		}
		if seen {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if took {
		return nil
	}
	if by.self != nil {
		return by.self.putRecord(ctx, point, record, own)
	}
	return err
}

// isThere asks a server for a record that another one has taken.
func (n *Net) isThere(ctx context.Context, s peer.AddrInfo, apart bool, point rv.Point, record []byte) (bool, error) {
	reply, err := n.viaProxy(ctx, s, apart, func(ctx context.Context, st network.Stream) (rv.Reply, error) {
		return rv.Get(ctx, st, point)
	})
	if err != nil || reply.Record == nil {
		return false, err
	}
	return bytes.Equal(reply.Record, record) || rv.Select([][]byte{reply.Record, record}) == 0, nil
}

var askedKey = ds.NewKey("/peers/asked")

// keepAsked notes in d that a server was asked about a day, and stores it if it is news.
func (n *Net) keepAsked(ctx context.Context, d *days, period rv.Period, id peer.ID) {
	p := &n.proxies
	p.mu.Lock()
	defer p.mu.Unlock() // with the writing, so that the last one counts
	if !d.note(period, id) || n.cfg.Data == nil {
		return
	}
	raw, err := json.Marshal(p.byDay)
	if err == nil {
		err = n.cfg.Data.Put(context.WithoutCancel(ctx), askedKey, raw)
	}
	if err != nil {
		n.log.Warn("who was asked about which day is not stored", "err", err)
	}
}

// loadAsked goes on with what was stored.
func (n *Net) loadAsked(ctx context.Context) {
	if n.cfg.Data == nil {
		return
	}
	raw, err := n.cfg.Data.Get(ctx, askedKey)
	if errors.Is(err, ds.ErrNotFound) {
		return
	}
	n.proxies.mu.Lock()
	defer n.proxies.mu.Unlock()
	if err == nil {
		err = json.Unmarshal(raw, &n.proxies.byDay)
	}
	if err != nil {
		n.log.Warn("who was asked about which day is forgotten", "err", err)
	}
}

// note notes that a server was asked about a day, and forgets days of long ago. It says
// whether that is news.
func (d *days) note(period rv.Period, id peer.ID) bool {
	if *d == nil {
		*d = make(days)
	}
	at := (*d)[period]
	if slices.Contains(at, id) || len(at) >= maxUsed {
		return false
	}
	(*d)[period] = append(at, id)
	for old := range *d {
		if old+2 < period {
			delete(*d, old)
		}
	}
	return true
}

// apart puts those servers last that were asked, by d, about another day than period.
func (p *proxies) apart(servers []peer.AddrInfo, period rv.Period, d *days) {
	p.mu.Lock()
	defer p.mu.Unlock()
	other := make(map[peer.ID]int)
	for day, ids := range *d {
		for _, id := range ids {
			if day != period {
				other[id] = 1
			}
		}
	}
	slices.SortStableFunc(servers, func(a, b peer.AddrInfo) int { return other[a.ID] - other[b.ID] })
}

// serveProxy answers one request for a record, if this node is a server of the DHT.
func (n *Net) serveProxy(s network.Stream) {
	d := n.serving()
	if d == nil || s.Conn().LocalPeer() != n.self() {
		s.ResetWithError(network.StreamResourceLimitExceeded)
		return
	}
	ctx := d.kad.Load().Context() // ends with the DHT
	if err := rv.ServeProxy(ctx, s, &proxied{d: d, from: s.Conn()}, n.cfg.Now); err != nil {
		n.log.Debug("look-up not served", "err", err)
	}
}

// proxied looks up for one dialler. It implements [rv.ProxyHost].
type proxied struct {
	d    *dht
	from network.Conn
}

// PutRecord implements [rv.ProxyHost].
func (p *proxied) PutRecord(ctx context.Context, point rv.Point, record []byte) error {
	if !p.d.proxyRate(p.from.RemoteMultiaddr(), true, time.Now()) {
		return rv.ErrBusy
	}
	return p.d.putRecord(ctx, point, record, sourceOf(p.from.RemotePeer(), p.from.RemoteMultiaddr()))
}

// GetRecord implements [rv.ProxyHost].
func (p *proxied) GetRecord(ctx context.Context, point rv.Point) ([]byte, error) {
	if !p.d.proxyRate(p.from.RemoteMultiaddr(), false, time.Now()) {
		return nil, rv.ErrBusy
	}
	return p.d.getRecord(ctx, point), nil
}
