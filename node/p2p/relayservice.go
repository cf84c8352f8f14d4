package p2p

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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
// reservations, 8 of one address, 16 circuits of a peer, each for 2 minutes and 128
// KiB in each direction.
const (
	ContactCircuitTime = 30 * time.Minute
	ContactDayBytes    = 1 << 30 // both directions, all circuits of all devices of the contact
	// contactReservations bounds those of contacts: devices of 256 contacts, and those
	// of a family behind one address.
	contactReservations = 256
	// hopWait is how long the first message of a relay stream may take.
	hopWait = 10 * time.Second
)

var errDayBytes = errors.New("the contact's bytes of the day are used up")

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
	used      map[string]int64 // bytes of contacts on day, by Net.owner
	notify    network.Notifiee
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
	s.serve, s.holders, s.used = make(map[*relayHost]network.StreamHandler), make(map[peer.ID]*relayHost), make(map[string]int64)
	s.forC, s.forS = c, st
	s.mu.Unlock()
	limits := relayv2.DefaultResources()
	limits.Limit = &relayv2.RelayLimit{Duration: ContactCircuitTime, Data: ContactDayBytes}
	limits.MaxReservations, limits.MaxReservationsPerIP, limits.MaxReservationsPerASN = contactReservations, contactReservations, contactReservations
	contacts, err := relayv2.New(c, relayv2.WithResources(limits), relayv2.WithACL(contactACL{s}))
	if err != nil {
		s.stop()
		return fmt.Errorf("relay service: %w", err)
	}
	s.mu.Lock()
	s.contacts = contacts
	s.mu.Unlock()
	strangers, err := relayv2.New(st)
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
func (s *relayService) handle(stream network.Stream) {
	if err := stream.SetReadDeadline(time.Now().Add(hopWait)); err != nil {
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
	serve, contact := s.choose(stream.Conn().RemotePeer(), msg)
	if serve == nil {
		stream.Reset()
		return
	}
	out := &hopStream{Stream: stream, head: bytes.NewReader(raw)}
	if contact != "" {
		out.count = func(n int) error { return s.spend(contact, int64(n), time.Now()) }
	}
	serve(out)
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
	}
	if which == s.forC {
		return s.serve[which], owner
	}
	return s.serve[which], ""
}

// spend counts bytes of a contact.
func (s *relayService) spend(contact string, n int64, now time.Time) error {
	day := now.Unix() / 86400
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.day != day {
		s.day = day
		clear(s.used)
	}
	if s.used[contact]+n > ContactDayBytes {
		return errDayBytes
	}
	if n > 0 {
		s.used[contact] += n
	}
	return nil
}

// contactACL is asked by the relay for contacts. A contact that was removed or blocked
// after it got its reservation is not relayed for any more.
type contactACL struct{ s *relayService }

// AllowReserve implements relay.ACLFilter.
func (a contactACL) AllowReserve(p peer.ID, _ ma.Multiaddr) bool { return a.s.net.trusted(p) }

// AllowConnect implements relay.ACLFilter.
func (a contactACL) AllowConnect(_ peer.ID, _ ma.Multiaddr, dest peer.ID) bool {
	return a.s.net.trusted(dest) && a.s.spend(a.s.net.owner(dest), 1, time.Now()) == nil
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
}

// Read implements network.Stream.
func (h *hopStream) Read(b []byte) (int, error) {
	if h.head.Len() > 0 {
		return h.head.Read(b)
	}
	n, err := h.Stream.Read(b)
	if h.count != nil && n > 0 {
		if over := h.count(n); over != nil {
			return 0, over
		}
	}
	return n, err
}

// Write implements network.Stream.
func (h *hopStream) Write(b []byte) (int, error) {
	if h.count != nil {
		if err := h.count(len(b)); err != nil {
			return 0, err
		}
	}
	return h.Stream.Write(b)
}
