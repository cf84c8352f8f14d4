package p2p

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	pb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/util"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Bounds on reservations.
const (
	// maxRelayAddrs is how many addresses of one relay are passed on: QUIC, TCP and wss
	// over IPv4, one over IPv6. A relay says itself what they are, so more of them is a
	// way to make our contacts dial victims.
	maxRelayAddrs = 4
	// maxCircuits is how many addresses over relays of one peer are looked at.
	maxCircuits = 12
	// relayMessage bounds a message of the relay protocol, as in libp2p.
	relayMessage = 4096
	// reserveTime is how long a relay has for a reservation, dialling included.
	reserveTime = 10 * time.Second
	// confirmTime is how long one that is held already has, where it may be gone, and
	// doubtEvery how often that is asked of it at most because of who comes over it.
	confirmTime = 4 * time.Second
	doubtEvery  = time.Minute
	// maxTerm is the longest term believed, and what is taken for the term where the
	// relay's clock and ours differ by more.
	maxTerm = 2 * time.Hour
	// waitRelay is the time before asking a relay again that said no or nothing; it
	// doubles up to waitRelayMax.
	waitRelay    = 15 * time.Second
	waitRelayMax = 15 * time.Minute
	// keepRelaysEvery is how often the round is made without being woken.
	keepRelaysEvery = time.Minute
	// maxTried bounds what is remembered of relays that were asked.
	maxTried = 128
)

// ErrRelayRefused is the cause of a RelayTry when the relay answered, and said no.
var ErrRelayRefused = errors.New("the relay refuses a reservation")

// RelayTry is the last attempt to get a reservation that one relay did not give.
type RelayTry struct {
	Peer  peer.ID
	At    time.Time
	Again time.Time // not before
	Err   error     // ErrRelayRefused, ErrRelayLeft, ErrRelayHere, ErrNotSupported, or what went wrong on the way
}

// relays is the client side of the relay protocol. libp2p's AutoRelay is not used: it
// picks relays at random and not contacts first, waits for an hour after a refusal,
// does not tell when a reservation ends, and fails where clocks differ by more than
// the term of a reservation.
type relays struct {
	wake chan struct{} // one slot

	mu    sync.Mutex // guards all below
	have  map[peer.ID]*reservation
	tried map[peer.ID]*RelayTry
	short map[peer.ID]int // how often in a row one ended what it had given
	doubt bool            // the network has changed: what is held may be gone
	began time.Time       // when it changed last
}

type reservation struct {
	Relay
	renew   time.Time
	since   time.Time // the first term
	doubt   bool      // it may be gone
	doubted time.Time // last, by DoubtRelay
}

// follows notes that a reservation is the next term of another one.
func (v *reservation) follows(before *reservation) {
	v.since, v.doubted = before.since, before.doubted
}

func newRelays() relays {
	return relays{
		wake: make(chan struct{}, 1), have: make(map[peer.ID]*reservation),
		tried: make(map[peer.ID]*RelayTry), short: make(map[peer.ID]int),
	}
}

func (r *relays) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// held returns the reservations in a stable order.
func (r *relays) held() []Relay {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Relay
	for _, v := range r.have {
		out = append(out, Relay{Peer: v.Peer, Addrs: slices.Clone(v.Addrs), Until: v.Until})
	}
	slices.SortFunc(out, func(a, b Relay) int { return cmp.Compare(a.Peer, b.Peer) })
	return out
}

// addrs returns the addresses over all relays held: the best of each first.
func (r *relays) addrs() []ma.Multiaddr {
	held := r.held()
	var out []ma.Multiaddr
	for i := range maxRelayAddrs {
		for _, v := range held {
			if i < len(v.Addrs) {
				out = append(out, v.Addrs[i])
			}
		}
	}
	return out[:min(len(out), maxCircuits)]
}

// offers notes that p relays, which it may not have done when it was last asked.
func (r *relays) offers(p peer.ID) {
	r.mu.Lock()
	if t := r.tried[p]; t != nil && errors.Is(t.Err, ErrNotSupported) {
		delete(r.tried, p)
	}
	r.mu.Unlock()
	r.signal()
}

// lost ends the reservation with p, and reports whether there was one.
func (r *relays) lost(n *Net, p peer.ID) bool {
	r.mu.Lock()
	_, ok := r.have[p]
	delete(r.have, p)
	r.mu.Unlock()
	if !ok {
		return false
	}
	n.guard.relay(p, false)
	if h := n.host(mainHost); h != nil {
		h.ConnManager().Unprotect(p, relayTag)
	}
	r.signal()
	return true
}

const relayTag = "kinloom-relay"

// RelayTries returns the relays that gave no reservation when last asked, newest
// first: for whoever explains why there is none.
func (n *Net) RelayTries() []RelayTry {
	n.relays.mu.Lock()
	defer n.relays.mu.Unlock()
	var out []RelayTry
	for _, t := range n.relays.tried {
		out = append(out, *t)
	}
	slices.SortFunc(out, func(a, b RelayTry) int { return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.Peer, b.Peer)) })
	return out
}

// keepRelays holds as many reservations as the profile wants, until ctx ends.
func (n *Net) keepRelays(ctx context.Context, h *p2pHost) {
	if n.cfg.Profile.relays() == 0 {
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.relays.wake:
		case <-timer.C:
		}
		now := time.Now()
		if n.cfg.Veiled {
			n.dropRelays(h)
		}
		n.renewRelays(ctx, h, now)
		if !n.proven() {
			n.moreRelays(ctx, h, now)
		}
		timer.Reset(min(keepRelaysEvery, n.relays.next(time.Now())))
	}
}

// next is the time until something is due.
func (r *relays) next(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := now.Add(keepRelaysEvery)
	for _, v := range r.have {
		next = earlier(next, v.renew)
	}
	for _, t := range r.tried {
		if t.Again.After(now) {
			next = earlier(next, t.Again)
		}
	}
	return max(time.Second, next.Sub(now))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// moreRelays asks candidates, as many at a time as are wanted, until there are enough.
func (n *Net) moreRelays(ctx context.Context, h *p2pHost, now time.Time) {
	queue := n.relayCandidates(h, now)
	for ctx.Err() == nil && len(queue) > 0 {
		n.relays.mu.Lock()
		missing := n.cfg.Profile.relays() - len(n.relays.have)
		n.relays.mu.Unlock()
		if missing <= 0 {
			return
		}
		batch := queue[:min(missing, len(queue))]
		queue = queue[len(batch):]
		var wg sync.WaitGroup
		for _, c := range batch {
			wg.Go(func() { n.askRelay(ctx, h, c) })
		}
		wg.Wait()
	}
}

// relayCandidates returns whom to ask, best first: those of Config.Relays, then
// connected peers that relay, contacts first.
func (n *Net) relayCandidates(h *p2pHost, now time.Time) []peer.AddrInfo {
	var all []peer.AddrInfo
	if n.cfg.Relays != nil {
		all = n.cfg.Relays()
	}
	var peers []peer.ID
	if !n.cfg.Veiled {
		peers = h.Network().Peers()
	}
	slices.SortStableFunc(peers, func(a, b peer.ID) int { return cmp.Compare(b2i(n.trusted(b)), b2i(n.trusted(a))) })
	for _, p := range peers {
		if protos, err := h.Peerstore().SupportsProtocols(p, proto.ProtoIDv2Hop); err == nil && len(protos) > 0 {
			all = append(all, peer.AddrInfo{ID: p})
		}
	}
	n.relays.mu.Lock()
	defer n.relays.mu.Unlock()
	seen := map[peer.ID]bool{h.ID(): true}
	return slices.DeleteFunc(all, func(c peer.AddrInfo) bool {
		t, held := n.relays.tried[c.ID], n.relays.have[c.ID]
		skip := seen[c.ID] || n.shunned(c.ID) || held != nil || !isEd25519(c.ID) || t != nil && now.Before(t.Again)
		seen[c.ID] = true
		return skip
	})
}

func (n *Net) trusted(p peer.ID) bool { return n.cfg.Trusted != nil && n.cfg.Trusted(p) }

// shunned says whether a peer is not to be chosen, as its person is shut out, or is not
// to learn where this machine is.
func (n *Net) shunned(p peer.ID) bool { return n.avoids(p) || n.shutOut(p) }

func (n *Net) shutOut(p peer.ID) bool {
	return n.cfg.Shunned != nil && n.cfg.Shunned(p) && !n.book.named(p)
}

func (n *Net) avoids(p peer.ID) bool { return n.cfg.Avoid != nil && n.cfg.Avoid(p) }

// theirs says whether a peer is a server of somebody who is avoided by the word of the
// owner or of a contact. One that was met among others it treats as these, or who runs
// many servers, and says that they are theirs, sees which address asks all but them.
func (n *Net) theirs(p peer.ID) bool { return n.avoids(p) && n.book.told(p) }

// LeaveShunned ends what ties this node to those whom Config.Shunned and Config.Avoid
// name since lately: their places in the address book, but for what strangers said of
// who is avoided, and reservations with them.
func (n *Net) LeaveShunned() {
	n.book.leave(func(k Known) bool {
		return n.shutOut(k.Peer.ID) || n.avoids(k.Peer.ID) && k.Source.known() && k.Source != FromUser
	})
	for _, r := range n.relays.held() {
		if n.shunned(r.Peer) && n.relays.lost(n, r.Peer) {
			n.ClosePeer(r.Peer)
			n.events.signal()
		}
	}
}

// owner names whose a transport id is, for counting.
func (n *Net) owner(p peer.ID) string {
	if n.cfg.Owner != nil {
		if name := n.cfg.Owner(p); name != "" {
			return name
		}
	}
	return string(p)
}

// askRelay asks for a reservation, or for a new term of the one held.
func (n *Net) askRelay(ctx context.Context, h *p2pHost, relay peer.AddrInfo) {
	ctx, cancel := context.WithTimeout(ctx, reserveTime)
	defer cancel()
	got, err := n.reserve(ctx, relay)
	now := time.Now()
	r := &n.relays
	if err == nil {
		n.guard.relay(relay.ID, true)
		h.ConnManager().Protect(relay.ID, relayTag)
		r.mu.Lock()
		delete(r.tried, relay.ID)
		before := r.have[relay.ID]
		if before != nil {
			got.follows(before)
		}
		r.have[relay.ID] = got
		r.mu.Unlock()
		if n.host(mainHost) == nil || h.Network().Connectedness(relay.ID) != network.Connected {
			r.left(n, relay.ID) // it went while we noted it down
		} else if before == nil {
			n.log.Info("relay found", "peer", short(relay.ID))
		}
		n.events.signal()
		return
	}
	r.mu.Lock()
	before, held := r.tried[relay.ID], r.have[relay.ID]
	wait := waitRelay
	if before != nil {
		wait = min(2*before.Again.Sub(before.At), waitRelayMax)
	}
	if errors.Is(err, ErrNotSupported) || errors.Is(err, ErrRelayHere) {
		wait = waitRelayMax
	}
	r.note(&RelayTry{Peer: relay.ID, At: now, Again: now.Add(wait), Err: err}, now)
	over := held != nil && (errors.Is(err, ErrRelayRefused) || errors.Is(err, ErrRelayHere) || errors.Is(err, ErrNotSupported) || !now.Before(held.Until))
	if held != nil && !over {
		held.renew = now.Add(wait)
	}
	r.mu.Unlock()
	if over {
		n.log.Info("relay lost", "peer", short(relay.ID), "err", err)
		r.lost(n, relay.ID)
		n.events.signal()
	}
}

// reserve is one reservation, asked for over a direct connection.
func (n *Net) reserve(ctx context.Context, relay peer.AddrInfo) (*reservation, error) {
	path, err := n.Dial(ctx, relay.ID, slices.DeleteFunc(slices.Clone(relay.Addrs), isCircuit))
	if err != nil {
		return nil, err
	}
	if path.Route == Relayed || n.cfg.Veiled && path.Route != Direct {
		return nil, fmt.Errorf("relay: %w without another relay", ErrNoAddress)
	}
	if h := n.host(mainHost); n.cfg.Veiled && h != nil {
		if err := h.apart(ctx, relay.ID, n.ownRelays()[relay.ID]); err != nil {
			n.ClosePeer(relay.ID)
			return nil, err
		}
	}
	s, err := n.NewStream(ctx, relay.ID, proto.ProtoIDv2Hop)
	if err != nil {
		return nil, err
	}
	defer s.Reset()
	if d, ok := ctx.Deadline(); ok {
		if err := s.SetDeadline(d); err != nil {
			return nil, fmt.Errorf("reservation: %w", err)
		}
	}
	if err := util.NewDelimitedWriter(s).WriteMsg(&pb.HopMessage{Type: pb.HopMessage_RESERVE.Enum()}); err != nil {
		return nil, fmt.Errorf("ask for a reservation: %w", err)
	}
	rd := util.NewDelimitedReader(s, relayMessage)
	defer rd.Close()
	var msg pb.HopMessage
	if err := rd.ReadMsg(&msg); err != nil {
		return nil, fmt.Errorf("answer of the relay: %w", err)
	}
	if msg.GetType() != pb.HopMessage_STATUS || msg.GetStatus() != pb.Status_OK || msg.GetReservation() == nil {
		return nil, fmt.Errorf("%w: %s", ErrRelayRefused, msg.GetStatus())
	}
	now := time.Now()
	term := time.Unix(int64(msg.GetReservation().GetExpire()), 0).Sub(now)
	if term <= 0 || term > maxTerm {
		term = maxTerm / 4 // whose clock is wrong, is not for here to say
	}
	out := &reservation{Relay: Relay{Peer: relay.ID, Until: now.Add(term)}, since: now}
	id, _ := n.PeerIDs()
	// From the middle of the term to two thirds: a third is left for a relay that does
	// not answer at once, and its clients, having different ids, do not come together.
	out.renew = now.Add(term/2 + term/6*time.Duration(id[len(id)-1])/256)
	if out.Addrs = circuitAddrs(relay.ID, path, msg.GetReservation().GetAddrs()); len(out.Addrs) == 0 {
		return nil, errors.New("the relay has no public address")
	}
	return out, nil
}

// circuitAddrs returns the addresses at which we are found over a relay: of those that
// it names, and the one at which we reach it, the best of each transport and kind of
// IP, public ones only.
func circuitAddrs(relay peer.ID, path Path, named [][]byte) []ma.Multiaddr {
	var all []ma.Multiaddr
	if !path.Inbound { // else its port is not one that it listens on
		all = append(all, path.Addr)
	}
	for _, b := range named[:min(len(named), MaxAddrs)] {
		if a, err := ma.NewMultiaddrBytes(b); err == nil {
			all = append(all, a)
		}
	}
	type kind struct {
		transport string
		ip6       bool
	}
	seen := make(map[kind]bool)
	var out []ma.Multiaddr
	for _, a := range all {
		a, ok := usable(a)
		if !ok || isCircuit(a) || !manet.IsPublicAddr(a) {
			continue
		}
		ip, _ := ipOf(a)
		_, transport := transportOf(a)
		if k := (kind{transport, ip.Is6()}); !seen[k] {
			seen[k] = true
			out = append(out, a)
		}
	}
	sortAddrs(out, nil)
	out = out[:min(len(out), maxRelayAddrs)]
	for i, a := range out {
		out[i] = a.Encapsulate(ma.StringCast("/p2p/" + relay.String())).Encapsulate(circuit)
	}
	return out
}
