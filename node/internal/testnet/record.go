package testnet

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
)

// Recording is all that a machine takes in and sends, after decryption: what somebody
// has who runs a program of their own there.
type Recording struct {
	mu    sync.Mutex // guards conns, and all of them
	conns []*HeardConn
}

// HeardConn is one connection of a recorded machine.
type HeardConn struct {
	Remote  peer.ID
	Addr    ma.Multiaddr // of the other side
	Inbound bool         // the other side dialled
	Streams []*HeardStream
}

// HeardStream is one stream of it, as it was when Conns was called.
type HeardStream struct {
	At       time.Time
	Inbound  bool   // the other side opened it
	In, Out  []byte // all of it, with the negotiation in front
	Protocol string // empty: none was agreed on
}

// Record records what this machine takes in and sends from the next start on.
func (h *Host) Record() *Recording {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.recording = new(Recording)
	return h.recording
}

// record puts the recording in front of a transport of this machine, if there is one.
func (h *Host) record(t transport.Transport) transport.Transport {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if h.recording == nil {
		return t
	}
	return &heardTransport{Transport: t, rec: h.recording}
}

// Conns returns a copy of what was recorded so far.
func (r *Recording) Conns() []HeardConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []HeardConn
	for _, c := range r.conns {
		copied := *c
		copied.Streams = nil
		for _, s := range c.Streams {
			s := &HeardStream{At: s.At, Inbound: s.Inbound, In: bytes.Clone(s.In), Out: bytes.Clone(s.Out)}
			s.Protocol, _, _ = s.negotiated()
			copied.Streams = append(copied.Streams, s)
		}
		out = append(out, copied)
	}
	return out
}

// Messages returns what was said in both directions after the negotiation, cut where
// each message says how long it is, as all protocols here do. What is left at the end
// is a message too.
func (s *HeardStream) Messages() (in, out [][]byte) {
	_, restIn, restOut := s.negotiated()
	return messages(restIn), messages(restOut)
}

func messages(b []byte) (out [][]byte) {
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if n <= 0 || uint64(len(b)-n) < size {
			return append(out, b)
		}
		out = append(out, b[n:n+int(size)])
		b = b[n+int(size):]
	}
	return out
}

// negotiated takes the lines of multistream-select off both directions.
func (s *HeardStream) negotiated() (protocol string, in, out []byte) {
	strip := func(b []byte) (last string, rest []byte) {
		for {
			size, n := binary.Uvarint(b)
			if n <= 0 || uint64(len(b)-n) < size || size < 2 {
				return last, b
			}
			line := string(b[n : n+int(size)])
			if line != "na\n" && (line[0] != '/' || !strings.HasSuffix(line, "\n")) {
				return last, b
			}
			last, b = strings.TrimSuffix(line, "\n"), b[n+int(size):]
		}
	}
	atIn, in := strip(s.In)
	atOut, out := strip(s.Out)
	if protocol = atIn; !s.Inbound {
		protocol = atOut
	}
	return protocol, in, out
}

// heardTransport is a transport that is recorded.
type heardTransport struct {
	transport.Transport
	rec *Recording
}

// Dial implements [transport.Transport].
func (t *heardTransport) Dial(ctx context.Context, a ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	c, err := t.Transport.Dial(ctx, a, p)
	if err != nil {
		return nil, err
	}
	return t.rec.conn(c, false), nil
}

// Listen implements [transport.Transport].
func (t *heardTransport) Listen(a ma.Multiaddr) (transport.Listener, error) {
	l, err := t.Transport.Listen(a)
	if err != nil {
		return nil, err
	}
	return &heardListener{l, t.rec}, nil
}

// Close ends the transport, as libp2p does with those that can.
func (t *heardTransport) Close() error {
	if c, ok := t.Transport.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

type heardListener struct {
	transport.Listener
	rec *Recording
}

// Accept implements [transport.Listener].
func (l *heardListener) Accept() (transport.CapableConn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.rec.conn(c, true), nil
}

func (r *Recording) conn(c transport.CapableConn, inbound bool) transport.CapableConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := &HeardConn{Remote: c.RemotePeer(), Addr: c.RemoteMultiaddr(), Inbound: inbound}
	r.conns = append(r.conns, h)
	return &heardCapable{CapableConn: c, rec: r, heard: h}
}

type heardCapable struct {
	transport.CapableConn
	rec   *Recording
	heard *HeardConn
}

// OpenStream implements [network.MuxedConn].
func (c *heardCapable) OpenStream(ctx context.Context) (network.MuxedStream, error) {
	s, err := c.CapableConn.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	return c.stream(s, false), nil
}

// AcceptStream implements [network.MuxedConn].
func (c *heardCapable) AcceptStream() (network.MuxedStream, error) {
	s, err := c.CapableConn.AcceptStream()
	if err != nil {
		return nil, err
	}
	return c.stream(s, true), nil
}

func (c *heardCapable) stream(s network.MuxedStream, inbound bool) network.MuxedStream {
	c.rec.mu.Lock()
	defer c.rec.mu.Unlock()
	h := &HeardStream{At: time.Now(), Inbound: inbound}
	c.heard.Streams = append(c.heard.Streams, h)
	return &heardMuxed{MuxedStream: s, rec: c.rec, heard: h}
}

type heardMuxed struct {
	network.MuxedStream
	rec   *Recording
	heard *HeardStream
}

// Read implements [network.MuxedStream].
func (s *heardMuxed) Read(b []byte) (int, error) {
	n, err := s.MuxedStream.Read(b)
	s.rec.mu.Lock()
	defer s.rec.mu.Unlock()
	s.heard.In = append(s.heard.In, b[:n]...)
	return n, err
}

// Write implements [network.MuxedStream].
func (s *heardMuxed) Write(b []byte) (int, error) {
	n, err := s.MuxedStream.Write(b)
	s.rec.mu.Lock()
	defer s.rec.mu.Unlock()
	s.heard.Out = append(s.heard.Out, b[:n]...)
	return n, err
}

// String says what the stream was, for a log.
func (s *HeardStream) String() string {
	way := "out"
	if s.Inbound {
		way = "in"
	}
	return fmt.Sprintf("%s %s, %d B in, %d B out", way, s.Protocol, len(s.In), len(s.Out))
}
