package p2p

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
)

// Sizes of the messages of the DHT, in bytes. kad-dht itself would take 4 MiB.
const (
	// maxDHTRequest: a record with its key twice, and the frame around it.
	maxDHTRequest = 2 << 10
	// maxDHTReply: 20 peers with MaxAddrs addresses each, and a record.
	maxDHTReply = 32 << 10
)

var errDHTSize = errors.New("message of the DHT is too large")

// dhtHost is the main host as kad-dht sees it: its streams end at a message that
// is too large, it gives away nobody's addresses but those of servers, and it
// counts who is connected for the DHT's sake.
type dhtHost struct {
	host.Host
	d *dht

	mu   sync.Mutex            // guards used
	used map[peer.ID]time.Time // peers that the DHT spoke to, and when last
}

// Peerstore hides the addresses of those who are not servers of the DHT: kad-dht
// tells them to whoever asks for the peer id.
func (h *dhtHost) Peerstore() peerstore.Peerstore { return dhtPeers{h.Host.Peerstore(), h.d} }

// ConnManager protects the routing table's peers on servers alone: elsewhere an
// idle connection is closed, because it costs about 0.9 MB a day.
func (h *dhtHost) ConnManager() connmgr.ConnManager {
	if h.d.net.cfg.Profile == Server {
		return h.Host.ConnManager()
	}
	return &connmgr.NullConnMgr{}
}

// SetStreamHandler is how kad-dht becomes a server, RemoveStreamHandler how it
// ceases to be one.
func (h *dhtHost) SetStreamHandler(id protocol.ID, serve network.StreamHandler) {
	r := &route{id: id, limits: dhtLimits, handle: func(s network.Stream) {
		serve(&cappedStream{Stream: s, max: maxDHTRequest})
	}}
	h.Host.SetStreamHandler(id, h.d.net.serve(r))
	h.d.serving.Store(true)
}

// RemoveStreamHandler implements [host.Host].
func (h *dhtHost) RemoveStreamHandler(id protocol.ID) {
	h.d.serving.Store(false)
	h.Host.RemoveStreamHandler(id)
}

// NewStream implements [host.Host].
func (h *dhtHost) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	h.touch(p)
	s, err := h.Host.NewStream(ctx, p, ids...)
	if err != nil {
		return nil, err
	}
	return &cappedStream{Stream: s, max: maxDHTReply}, nil
}

// Connect implements [host.Host].
func (h *dhtHost) Connect(ctx context.Context, info peer.AddrInfo) error {
	h.touch(info.ID)
	return h.Host.Connect(ctx, info)
}

func (h *dhtHost) touch(p peer.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.used[p] = time.Now()
}

// Connections of the DHT that are kept where it is not served, and how long the
// others may be idle. Reachability is told by peers that we are connected with.
const (
	keepHome = 6
	dhtIdle  = time.Minute
)

// sweep closes what the DHT opened and has no use for now.
func (h *dhtHost) sweep(now time.Time) {
	if h.d.net.cfg.Profile == Server || h.d.serving.Load() {
		return
	}
	keep := keepHome
	if h.d.net.cfg.Profile == Client {
		keep = 0
	}
	var idle []peer.ID
	h.mu.Lock()
	for p, at := range h.used {
		switch {
		case h.Network().Connectedness(p) != network.Connected:
			delete(h.used, p)
		case now.Sub(at) >= dhtIdle && !h.Host.ConnManager().IsProtected(p, "") && onlyDHT(h.Network().ConnsToPeer(p)):
			idle = append(idle, p)
		}
	}
	h.mu.Unlock()
	for _, p := range idle[min(keep, len(idle)):] {
		if err := h.Network().ClosePeer(p); err != nil {
			h.d.net.log.Debug("close connection", "peer", short(p), "err", err)
		}
	}
}

// onlyDHT reports whether nothing but the DHT has a stream on these connections.
func onlyDHT(conns []network.Conn) bool {
	for _, c := range conns {
		for _, s := range c.GetStreams() {
			if s.Protocol() != dhtID {
				return false
			}
		}
	}
	return true
}

// dhtPeers is the peer store as kad-dht sees it.
type dhtPeers struct {
	peerstore.Peerstore
	d *dht
}

// Addrs implements [peerstore.AddrBook].
func (p dhtPeers) Addrs(id peer.ID) []ma.Multiaddr {
	if !p.d.knows(id) {
		return nil
	}
	return p.d.dialable(p.Peerstore.Addrs(id))
}

// PeerInfo implements [peerstore.Peerstore].
func (p dhtPeers) PeerInfo(id peer.ID) peer.AddrInfo {
	return peer.AddrInfo{ID: id, Addrs: p.Addrs(id)}
}

// cappedStream is a stream of messages, each behind its length as a varint, that
// ends at a length above max: before anybody makes room for it.
type cappedStream struct {
	network.Stream
	max  uint64
	left uint64 // bytes of the message under way
	size uint64 // of the next one, as far as it is read
	bits uint   // of size
}

// Read implements [io.Reader].
func (s *cappedStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	for rest := b[:n]; len(rest) > 0; {
		if s.left > 0 {
			skip := min(s.left, uint64(len(rest)))
			s.left -= skip
			rest = rest[skip:]
			continue
		}
		s.size |= uint64(rest[0]&0x7f) << s.bits
		s.bits += 7
		more := rest[0]&0x80 != 0
		rest = rest[1:]
		if s.size > s.max || s.bits > 28 {
			s.Stream.ResetWithError(network.StreamResourceLimitExceeded)
			return 0, errDHTSize
		}
		if !more {
			s.left, s.size, s.bits = s.size, 0, 0
		}
	}
	return n, err
}

var _ io.Reader = (*cappedStream)(nil)
