package p2p

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
)

// FirstFrame is how long the first frame of a stream may take where the other side
// has to say something first: the header of the protocol comes with it. A link with a
// round trip of a second needs two of them for the longest frame.
const FirstFrame = 3 * time.Second

// asking are the open streams of one protocol in which strangers speak first.
type asking struct {
	mu     sync.Mutex // guards all below
	open   []*askingStream
	subnet map[netip.Prefix]int
}

// admit takes a stream in, in place of the one silent for longest where there is no
// room; nil: it is refused.
func (a *asking) admit(s network.Stream, l Limits) *askingStream {
	out := &askingStream{Stream: s, of: a}
	out.prefix, out.counted = groupOf(s.Conn().RemoteMultiaddr())
	a.mu.Lock()
	if a.subnet == nil {
		a.subnet = make(map[netip.Prefix]int)
	}
	if out.counted && a.subnet[out.prefix] >= l.PerSubnet {
		a.mu.Unlock()
		return nil
	}
	var goes *askingStream
	if len(a.open) >= l.Streams {
		i := slices.IndexFunc(a.open, func(o *askingStream) bool { return !o.spoke })
		if i < 0 {
			a.mu.Unlock()
			return nil
		}
		goes = a.open[i]
		a.drop(goes)
	}
	a.open = append(a.open, out)
	if out.counted {
		a.subnet[out.prefix]++
	}
	out.timer = time.AfterFunc(FirstFrame, out.silent)
	a.mu.Unlock()
	if goes != nil {
		goes.ResetWithError(network.StreamResourceLimitExceeded)
	}
	return out
}

// drop takes a stream off the list. The caller holds mu.
func (a *asking) drop(s *askingStream) {
	i := slices.Index(a.open, s)
	if i < 0 {
		return
	}
	a.open = slices.Delete(a.open, i, i+1)
	if s.counted {
		if a.subnet[s.prefix]--; a.subnet[s.prefix] == 0 {
			delete(a.subnet, s.prefix)
		}
	}
}

// groupOf returns whose streams are counted together: those of a subnet, on the local
// network those of one address. Over a relay the address is the relay's, and its
// circuits are bounded; on this machine nobody is counted.
func groupOf(a ma.Multiaddr) (netip.Prefix, bool) {
	ip, ok := ipOf(a)
	if !ok || isCircuit(a) || ip.IsLoopback() {
		return netip.Prefix{}, false
	}
	if isLocal(a) {
		return netip.PrefixFrom(ip, ip.BitLen()), true
	}
	return subnetOf(a)
}

// askingStream watches for the first frame.
type askingStream struct {
	network.Stream
	of      *asking
	prefix  netip.Prefix
	counted bool
	timer   *time.Timer
	head    []byte // of the length, until it is whole
	missing uint64 // bytes of the frame
	whole   bool   // the length
	spoke   bool   // guarded by of.mu
}

var errFrameLength = errors.New("no length of a frame")

// Read implements network.Stream.
func (s *askingStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	if s.timer == nil {
		return n, err
	}
	got := b[:n]
	for !s.whole && len(got) > 0 {
		s.head, got = append(s.head, got[0]), got[1:]
		if size, k := binary.Uvarint(s.head); k > 0 {
			s.missing, s.whole = size, true
		} else if k < 0 {
			return 0, errFrameLength
		}
	}
	s.missing -= min(s.missing, uint64(len(got)))
	if s.whole && s.missing == 0 {
		s.timer.Stop()
		s.timer = nil
		s.of.mu.Lock()
		s.spoke = true
		s.of.mu.Unlock()
	}
	return n, err
}

// silent ends a stream on which nobody has spoken in time.
func (s *askingStream) silent() {
	s.of.mu.Lock()
	spoke := s.spoke
	s.of.mu.Unlock()
	if !spoke {
		s.ResetWithError(network.StreamResourceLimitExceeded)
	}
}

// end gives the place back.
func (s *askingStream) end(timer *time.Timer) {
	timer.Stop()
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.of.drop(s)
}
