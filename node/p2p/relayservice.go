package p2p

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	pb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	relayv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/util"
	ma "github.com/multiformats/go-multiaddr"
)

// What contacts may use of this node's relay. Strangers have what libp2p gives: 128
// reservations, 8 of one address, and circuits for 2 minutes and 128 KiB in each
// direction; so have contacts once the bytes of the day are used up.
const (
	ContactCircuitTime = 30 * time.Minute
	ContactDayBytes    = 1 << 30 // both directions, all circuits of all devices of the contact
	// What others may use of a contact's bytes, who may only want them gone: one person or
	// one /24 or /48 a quarter, and those who are no contacts of ours half, all together.
	otherPart    = 4
	strangerPart = 2
	// contactReservations bounds those of contacts: devices of 256 contacts, and those
	// of a family behind one address.
	contactReservations = 256
	// hopWait is how long the first message of a relay stream may take, and then the
	// circuit until it stands.
	hopWait = 10 * time.Second
)

var (
	errDayBytes = errors.New("the contact's bytes of the day are used up")
	errBytes    = errors.New("the circuit's bytes are used up")
)

// relayService relays for others. libp2p's relay has one set of limits for everybody,
// so there are two of them behind one protocol: who holds a reservation decides which
// one it is, and a circuit has the limits of the one that it leads to. So strangers
// cannot take the slots of contacts either.
type relayService struct {
	net  *Net
	host *p2pHost

	mu        sync.Mutex // guards all below
	contacts  *relayv2.Relay
	strangers *relayv2.Relay
	serve     map[*relayHost]network.StreamHandler
	holders   map[peer.ID]*relayHost // by which relay a reservation was given last
	forC      *relayHost
	forS      *relayHost
	day       int64
	used      map[account]int64 // bytes of contacts on day
	asked     map[netip.Prefix]*bucket
	notify    network.Notifiee
}

// account is what the bytes of a circuit to a contact are counted by. Without from it
// is the sum: of all, or of strangers.
type account struct {
	to       string // whose device it leads to, by Net.owner
	from     string // who opened it: a contact, by Net.owner, or the subnet of a stranger
	stranger bool
}

func newRelayService(n *Net, h *p2pHost) *relayService { return &relayService{net: n, host: h} }

// relayHost is the host as one of the two relays sees it.
type relayHost struct {
	host.Host
	svc *relayService
}

// SetStreamHandler implements host.Host.
func (r *relayHost) SetStreamHandler(_ protocol.ID, f network.StreamHandler) {
	r.svc.mu.Lock()
	defer r.svc.mu.Unlock()
	r.svc.serve[r] = f
}

// RemoveStreamHandler implements host.Host.
func (r *relayHost) RemoveStreamHandler(protocol.ID) {
	r.svc.mu.Lock()
	defer r.svc.mu.Unlock()
	delete(r.svc.serve, r)
}

// run starts or stops the service.
func (s *relayService) run(on bool) error {
	s.mu.Lock()
	running := s.forS != nil
	s.mu.Unlock()
	if on == running {
		return nil
	}
	if !on {
		s.stop()
		return nil
	}
	c, st := &relayHost{s.host.Host, s}, &relayHost{s.host.Host, s}
	s.mu.Lock()
	s.serve, s.holders, s.used = make(map[*relayHost]network.StreamHandler), make(map[peer.ID]*relayHost), make(map[account]int64)
	s.asked = make(map[netip.Prefix]*bucket)
	s.forC, s.forS = c, st
	s.mu.Unlock()
	limits := relayv2.DefaultResources()
	limits.Limit = &relayv2.RelayLimit{Duration: ContactCircuitTime, Data: s.net.cfg.ContactBytes}
	limits.MaxCircuits = MaxCircuitsPeer
	limits.MaxReservations, limits.MaxReservationsPerIP, limits.MaxReservationsPerASN = contactReservations, contactReservations, contactReservations
	contacts, err := relayv2.New(c, relayv2.WithResources(limits), relayv2.WithACL(contactACL{s}))
	if err != nil {
		s.stop()
		return fmt.Errorf("relay service: %w", err)
	}
	s.mu.Lock()
	s.contacts = contacts
	s.mu.Unlock()
	limits = relayv2.DefaultResources()
	limits.MaxCircuits = MaxCircuitsPeer
	strangers, err := relayv2.New(st, relayv2.WithResources(limits))
	if err != nil {
		s.stop()
		return fmt.Errorf("relay service: %w", err)
	}
	s.mu.Lock()
	s.strangers = strangers
	s.notify = &network.NotifyBundle{DisconnectedF: func(nw network.Network, c network.Conn) {
		if nw.Connectedness(c.RemotePeer()) != network.Connected {
			s.mu.Lock()
			delete(s.holders, c.RemotePeer())
			s.mu.Unlock()
		}
	}}
	notify := s.notify
	s.mu.Unlock()
	s.host.Network().Notify(notify)
	s.host.SetStreamHandler(proto.ProtoIDv2Hop, s.handle)
	s.net.log.Info("relaying for others")
	return nil
}

// stop ends the service and every circuit.
func (s *relayService) stop() {
	s.mu.Lock()
	contacts, strangers, notify, was := s.contacts, s.strangers, s.notify, s.forS != nil
	s.contacts, s.strangers, s.notify, s.forC, s.forS = nil, nil, nil, nil, nil
	s.mu.Unlock()
	if !was {
		return
	}
	s.host.RemoveStreamHandler(proto.ProtoIDv2Hop)
	if notify != nil {
		s.host.Network().StopNotify(notify)
	}
	for _, r := range []*relayv2.Relay{contacts, strangers} {
		if r != nil {
			if err := r.Close(); err != nil {
				s.net.log.Debug("close relay", "err", err)
			}
		}
	}
}

// handle reads the first message, chooses the relay, and lets it read the same again.
// Until the circuit stands it is bounded in time: for who asked and does not take the
// answer the relay would wait for ever, and count the circuit.
func (s *relayService) handle(stream network.Stream) {
	if err := stream.SetDeadline(time.Now().Add(hopWait)); err != nil {
		stream.Reset()
		return
	}
	raw, msg, err := readHop(stream)
	if err != nil {
		stream.ResetWithError(network.StreamProtocolViolation)
		return
	}
	if err := stream.SetReadDeadline(time.Time{}); err != nil {
		stream.Reset()
		return
	}
	from, at := stream.Conn().RemotePeer(), hopFrom(stream.Conn().RemoteMultiaddr())
	if msg.GetType() == pb.HopMessage_CONNECT && !s.mayAsk(from, at, time.Now()) {
		stream.Reset()
		return
	}
	serve, to := s.choose(from, msg)
	if serve == nil {
		stream.Reset()
		return
	}
	out := &hopStream{Stream: stream, head: bytes.NewReader(raw)}
	if to != "" {
		a := account{to, s.net.owner(from), false}
		if !s.net.trusted(from) {
			a.from, a.stranger = at.String(), true
		}
		out.count = func(n int) error { return s.spend(a, int64(n), time.Now()) }
		if l := relayv2.DefaultLimit(); s.left(a, time.Now()) < 2*l.Data {
			out.count, out.time, out.in, out.out = nil, l.Duration, l.Data, l.Data
		}
	}
	serve(out)
}

// hopFrom returns the subnet that a peer comes from; the loopback is one.
func hopFrom(a ma.Multiaddr) netip.Prefix {
	if at, ok := subnetOf(a); ok {
		return at
	}
	return loopback
}

// mayAsk decides whether a peer may ask for one more circuit.
func (s *relayService) mayAsk(from peer.ID, at netip.Prefix, now time.Time) bool {
	if s.net.trusted(from) {
		return true
	}
	share := 1.0
	if at == loopback {
		share = loopbackStreams
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return takeFrom(s.asked, at, now, share*HopRateSubnet, share*HopBurstSubnet)
}

// choose returns the relay for a message of from, and the contact whose bytes are
// counted, empty for strangers.
func (s *relayService) choose(from peer.ID, msg *pb.HopMessage) (network.StreamHandler, string) {
	holder := from
	reserve := msg.GetType() == pb.HopMessage_RESERVE
	if !reserve {
		holder = peer.ID(msg.GetPeer().GetId())
	}
	contact, owner := s.net.trusted(holder), s.net.owner(holder)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forS == nil {
		return nil, ""
	}
	which := s.holders[holder]
	if reserve || which == nil {
		which = s.forS
		if contact {
			which = s.forC
		}
	}
	if reserve {
		s.holders[holder] = which
		return s.serve[which], ""
	}
	if which == s.forC {
		return s.serve[which], owner
	}
	return s.serve[which], ""
}

// spend counts bytes of a contact, unless they are more than are left to the account.
func (s *relayService) spend(a account, n int64, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	left, of := s.counted(a, now)
	if n > left {
		return errDayBytes
	}
	for _, c := range of {
		s.used[c] += n
	}
	return nil
}

// left returns how many bytes are left to the account.
func (s *relayService) left(a account, now time.Time) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	left, _ := s.counted(a, now)
	return left
}

// counted returns how many bytes are left to the account, and what they are counted by.
// The caller holds mu.
func (s *relayService) counted(a account, now time.Time) (left int64, of []account) {
	if day := now.Unix() / 86400; s.day != day {
		s.day = day
		clear(s.used)
	}
	most := s.net.cfg.ContactBytes
	sum, strangers := account{to: a.to}, account{to: a.to, stranger: true}
	of, left = []account{sum}, most-s.used[sum]
	if a.from == a.to { // the person's own devices have all of it
		return left, of
	}
	of, left = append(of, a), min(left, most/otherPart-s.used[a])
	if !a.stranger {
		return left, of
	}
	if _, ok := s.used[a]; !ok && len(s.used) >= maxBuckets {
		return 0, nil
	}
	return min(left, most/strangerPart-s.used[strangers]), append(of, strangers)
}

// contactACL is asked by the relay for contacts. A contact that was removed or blocked
// after it got its reservation is not relayed for any more.
type contactACL struct{ s *relayService }

// AllowReserve implements relay.ACLFilter.
func (a contactACL) AllowReserve(p peer.ID, _ ma.Multiaddr) bool { return a.s.net.trusted(p) }

// AllowConnect implements relay.ACLFilter.
func (a contactACL) AllowConnect(_ peer.ID, _ ma.Multiaddr, dest peer.ID) bool {
	return a.s.net.trusted(dest)
}

// readHop reads one message, and not a byte more.
func readHop(r io.Reader) ([]byte, *pb.HopMessage, error) {
	var raw []byte
	one := make([]byte, 1)
	for {
		if _, err := io.ReadFull(r, one); err != nil {
			return nil, nil, err
		}
		raw = append(raw, one[0])
		if one[0] < 0x80 {
			break
		}
		if len(raw) == 2 { // two bytes of length say up to 16383
			return nil, nil, errors.New("message too long")
		}
	}
	size, n := binary.Uvarint(raw)
	if n <= 0 || size > relayMessage {
		return nil, nil, errors.New("message too long")
	}
	raw = append(raw, make([]byte, size)...)
	if _, err := io.ReadFull(r, raw[n:]); err != nil {
		return nil, nil, err
	}
	rd := util.NewDelimitedReader(bytes.NewReader(raw), relayMessage)
	defer rd.Close()
	msg := new(pb.HopMessage)
	if err := rd.ReadMsg(msg); err != nil {
		return nil, nil, fmt.Errorf("relay message: %w", err)
	}
	return raw, msg, nil
}

// hopStream reads what was read before first, and counts what passes after it.
type hopStream struct {
	network.Stream
	head  *bytes.Reader
	count func(n int) error // nil: nobody counts
	// Where time is not 0 the circuit lasts no longer, and in and out are the bytes that
	// may still be read and written. The relay has one goroutine for each.
	time    time.Duration
	in, out int64
}

// SetDeadline implements network.Stream: the relay calls it when the circuit stands.
func (h *hopStream) SetDeadline(t time.Time) error {
	if most := time.Now().Add(h.time); h.time > 0 && t.After(most) {
		t = most
	}
	return h.Stream.SetDeadline(t)
}

// Read implements network.Stream.
func (h *hopStream) Read(b []byte) (int, error) {
	if h.head.Len() > 0 {
		return h.head.Read(b)
	}
	n, err := h.Stream.Read(b)
	if over := h.passes(n, &h.in); n > 0 && over != nil {
		return 0, over
	}
	return n, err
}

// Write implements network.Stream.
func (h *hopStream) Write(b []byte) (int, error) {
	if err := h.passes(len(b), &h.out); err != nil {
		return 0, err
	}
	return h.Stream.Write(b)
}

// passes counts n bytes of what is left in one direction, or of the contact's.
func (h *hopStream) passes(n int, left *int64) error {
	if h.count != nil && n > 0 {
		return h.count(n)
	}
	if h.time > 0 {
		if *left -= int64(n); *left < 0 {
			return errBytes
		}
	}
	return nil
}
