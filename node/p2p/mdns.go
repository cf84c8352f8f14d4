package p2p

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/net/ipv4"
)

// mdns is the Discovery of the real network: multicast DNS over IPv4, as far as a
// service of ours needs it. IPv6 is left out: what it can reach on a link has a
// link-local address, and libp2p does not dial those. It is our own because what
// libp2p uses announces loopback, starts a goroutine for each packet and keeps
// what strangers say without a bound.
type mdns struct {
	log  *slog.Logger
	open func(ips []netip.Addr) (mdnsConn, error) // nil: openMDNS
}

// mdnsConn is a socket on the mDNS group. Close ends a Read.
type mdnsConn interface {
	// Read returns the next packet and who sent it.
	Read(b []byte) (int, netip.AddrPort, error)
	// Send sends on the interface that has the IP.
	Send(b []byte, ip netip.Addr) error
	io.Closer
}

const (
	mdnsPort = 5353
	// mdnsEvery is the interval between questions once the first ones are out. A
	// neighbour that comes later announces itself, so this is for lost packets.
	mdnsEvery = time.Minute
	// mdnsAnswerGap is the least time between two announcements (RFC 6762, 6).
	mdnsAnswerGap = time.Second
	// mdnsRate and mdnsBurst bound the packets of one sender that are read.
	mdnsRate  = 5
	mdnsBurst = 20
)

var mdnsGroup = netip.AddrFrom4([4]byte{224, 0, 0, 251})

// Run implements Discovery.
func (m *mdns) Run(ctx context.Context, self peer.AddrInfo, found func(peer.AddrInfo)) error {
	ips := ip4sOf(self.Addrs)
	if len(ips) == 0 {
		return errors.New("no IPv4 address on the local network")
	}
	open := m.open
	if open == nil {
		open = openMDNS
	}
	conn, err := open(ips)
	if err != nil {
		return fmt.Errorf("multicast DNS: %w", err)
	}
	name := make([]byte, 16)
	if _, err := rand.Read(name); err != nil {
		return errors.Join(fmt.Errorf("instance name: %w", err), conn.Close())
	}
	r := &mdnsRun{conn: conn, self: self, ips: ips, instance: hex.EncodeToString(name), found: found, log: m.log, asked: make(chan struct{}, 1)}
	var wg sync.WaitGroup
	var readErr error
	stopped := make(chan struct{})
	wg.Go(func() {
		defer close(stopped)
		readErr = r.read(ctx)
	})
	r.speak(ctx, stopped)
	closeErr := conn.Close()
	wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(readErr, closeErr)
}

// mdnsRun is one Run.
type mdnsRun struct {
	conn     mdnsConn
	self     peer.AddrInfo
	ips      []netip.Addr
	instance string
	found    func(peer.AddrInfo)
	log      *slog.Logger
	asked    chan struct{} // one slot: somebody asked
}

// speak asks and announces until ctx ends, then takes the announcement back.
func (r *mdnsRun) speak(ctx context.Context, stopped <-chan struct{}) {
	defer r.announce(0)
	// A packet may get lost, and a switch that just came up loses the first ones.
	start := []time.Duration{0, time.Second, 3 * time.Second}
	next := time.NewTimer(0)
	defer next.Stop()
	answer := time.NewTimer(time.Hour)
	answer.Stop()
	defer answer.Stop()
	var last time.Time
	pending := false
	for i := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-stopped:
			return
		case <-next.C:
			r.ask()
			if i < len(start) {
				r.announce(mdnsTTL)
				last = time.Now()
			}
			if i++; i < len(start) {
				next.Reset(start[i] - start[i-1])
			} else {
				next.Reset(mdnsEvery + jitter(mdnsEvery/4))
			}
		case <-r.asked:
			if pending {
				continue
			}
			// The delay spreads the answers of many (RFC 6762, 6).
			wait := 20*time.Millisecond + jitter(100*time.Millisecond)
			pending = true
			answer.Reset(max(wait, time.Until(last.Add(mdnsAnswerGap))))
		case <-answer.C:
			pending = false
			r.announce(mdnsTTL)
			last = time.Now()
		}
	}
}

func (r *mdnsRun) ask() {
	b, err := appendQuery(nil)
	if err != nil {
		r.log.Error("bug: mDNS question", "err", err)
		return
	}
	r.send(b)
}

func (r *mdnsRun) send(b []byte) {
	for _, ip := range r.ips {
		if err := r.conn.Send(b, ip); err != nil {
			r.log.Debug("mDNS send", "err", err)
		}
	}
}

// announce tells each network the addresses that belong to it, and no other.
func (r *mdnsRun) announce(ttl uint32) {
	for _, ip := range r.ips {
		b, err := appendAnnounce(nil, r.instance, r.self, ip, ttl)
		if err != nil {
			r.log.Error("bug: mDNS announcement", "err", err)
			continue
		}
		if err := r.conn.Send(b, ip); err != nil {
			r.log.Debug("mDNS send", "err", err)
		}
	}
}

// read takes packets in until the socket is closed.
func (r *mdnsRun) read(ctx context.Context) error {
	senders := make(map[netip.Addr]*bucket)
	buf := make([]byte, mdnsPacket+1)
	for {
		n, src, err := r.conn.Read(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("multicast DNS: %w", err)
		}
		ip := src.Addr().Unmap()
		now := time.Now()
		if !takeFrom(senders, ip, now, mdnsRate, mdnsBurst) {
			continue
		}
		h, err := parseMDNS(buf[:n], ip)
		if err != nil {
			continue
		}
		if h.asks {
			select {
			case r.asked <- struct{}{}:
			default:
			}
		}
		if src.Port() != mdnsPort {
			continue // not an answer that RFC 6762 lets us believe
		}
		for _, p := range h.peers {
			if p.ID != r.self.ID {
				r.found(p)
			}
		}
	}
}

// ip4sOf returns the distinct IPv4 addresses that are not loopback.
func ip4sOf(addrs []ma.Multiaddr) []netip.Addr {
	seen := make(map[netip.Addr]bool)
	var out []netip.Addr
	for _, a := range addrs {
		if ip, ok := ipOf(a); ok && ip.Is4() && !ip.IsLoopback() && !seen[ip] {
			seen[ip] = true
			out = append(out, ip)
		}
	}
	return out
}

func jitter(most time.Duration) time.Duration {
	n, err := rand.Int(rand.Reader, big.NewInt(int64(most)))
	if err != nil {
		return most / 2
	}
	return time.Duration(n.Int64())
}

// mdnsSocket is the real mdnsConn. Send is called from one goroutine.
type mdnsSocket struct {
	udp *net.UDPConn
	pc  *ipv4.PacketConn
	ifi map[netip.Addr]*net.Interface
}

// openMDNS joins the group on every interface that has one of ips.
func openMDNS(ips []netip.Addr) (mdnsConn, error) {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	s := &mdnsSocket{ifi: make(map[netip.Addr]*net.Interface)}
	for i := range ifaces {
		ifi := &ifaces[i]
		if ifi.Flags&net.FlagUp == 0 || ifi.Flags&net.FlagMulticast == 0 {
			continue
		}
		addrs, err := ifi.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			ipn, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, ok := netip.AddrFromSlice(ipn.IP)
			if !ok {
				continue
			}
			for _, want := range ips {
				if want == ip.Unmap() {
					s.ifi[want] = ifi
				}
			}
		}
	}
	group := net.UDPAddrFromAddrPort(netip.AddrPortFrom(mdnsGroup, mdnsPort))
	for _, ifi := range s.ifi {
		if s.udp == nil {
			// Shares the port with the system's own responder.
			if s.udp, err = net.ListenMulticastUDP("udp4", ifi, group); err != nil {
				return nil, err
			}
			s.pc = ipv4.NewPacketConn(s.udp)
			continue
		}
		_ = s.pc.JoinGroup(ifi, group) // two addresses on one interface: joined already
	}
	if s.udp == nil {
		return nil, errors.New("no interface with multicast")
	}
	// Loop back, for other nodes on this machine; 255 proves to them that it came from
	// the link.
	if err := errors.Join(s.pc.SetMulticastLoopback(true), s.pc.SetMulticastTTL(255)); err != nil {
		return nil, errors.Join(err, s.udp.Close())
	}
	return s, nil
}

func (s *mdnsSocket) Read(b []byte) (int, netip.AddrPort, error) { return s.udp.ReadFromUDPAddrPort(b) }

func (s *mdnsSocket) Send(b []byte, ip netip.Addr) error {
	ifi := s.ifi[ip]
	if ifi == nil {
		return fmt.Errorf("no multicast at this address")
	}
	if err := s.pc.SetMulticastInterface(ifi); err != nil {
		return err
	}
	_, err := s.udp.WriteToUDPAddrPort(b, netip.AddrPortFrom(mdnsGroup, mdnsPort))
	return err
}

func (s *mdnsSocket) Close() error { return s.udp.Close() }
