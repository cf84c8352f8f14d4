package p2p

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// PingID is libp2p's ping: the dialer writes 32 bytes, the listener gives them
// back, as often as the dialer likes. libp2p's own service is not used: nothing
// takes its handler away, and it counts for nothing in our limits.
const PingID protocol.ID = "/ipfs/ping/1.0.0"

const (
	pingSize = 32
	// pingEchoes is how many echoes one stream gives: a minute of other programs that
	// ping each second.
	pingEchoes = 64
	// pingTime is how long the listener waits for the next 32 bytes, and the dialer
	// for their echo.
	pingTime = 10 * time.Second
)

// pingStrangers is how many streams those may hold together who are no contacts. The
// places beyond it are for contacts, who ask whether anybody is there.
const pingStrangers = 32

// pingLimits: a stream holds one buffer. Of one peer some that it has ended may be
// counted a moment longer.
var pingLimits = Limits{Streams: pingStrangers + 16, PerPeer: 6, StreamMemory: 1 << 10}

var errEcho = errors.New("the echo is not what was sent")

// servePing answers a ping stream where there is room.
func (n *Net) servePing(s network.Stream) {
	if !n.guard.trusted(s.Conn().RemotePeer()) {
		defer n.pingers.Add(-1)
		if n.pingers.Add(1) > pingStrangers {
			s.ResetWithError(network.StreamResourceLimitExceeded)
			return
		}
	}
	echoPings(s)
}

// echoPings gives its echoes. Whoever wants more of them than it gives begins a new
// stream.
func echoPings(s network.Stream) {
	buf := make([]byte, pingSize)
	for range pingEchoes {
		if err := s.SetDeadline(time.Now().Add(pingTime)); err != nil {
			return
		}
		if _, err := io.ReadFull(s, buf); err != nil {
			return
		}
		if _, err := s.Write(buf); err != nil {
			return
		}
	}
}

// Ping measures a round trip on the connection with p that is used for streams,
// and tells which one that is. Errors: ErrNotConnected, ErrNotSupported, ctx.Err(),
// or what the stream said.
func (n *Net) Ping(ctx context.Context, p peer.ID) (time.Duration, Path, error) {
	c := n.conn(p)
	if c == nil {
		return 0, Path{}, ErrNotConnected
	}
	return n.PingOn(ctx, c)
}

// PingOn is Ping for one connection: beside a relayed one there may be a direct one.
func (n *Net) PingOn(ctx context.Context, c network.Conn) (time.Duration, Path, error) {
	ctx, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	if c.IsClosed() {
		return 0, Path{}, ErrNotConnected
	}
	s, err := n.streamOn(ctx, c, PingID)
	if err != nil {
		return 0, Path{}, err
	}
	defer s.Reset()
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	path := pathOf(s.Conn())
	sent, back := make([]byte, pingSize), make([]byte, pingSize)
	rand.Read(sent)
	begin := time.Now()
	if _, err = s.Write(sent); err == nil {
		_, err = io.ReadFull(s, back)
	}
	took := time.Since(begin)
	if reset, ok := errors.AsType[*network.StreamError](err); ok && reset.ErrorCode == network.StreamProtocolNegotiationFailed {
		err = ErrNotSupported // its no was overtaken by the end of the stream
	}
	switch {
	case ctx.Err() != nil:
		return 0, path, ctx.Err()
	case err != nil:
		return 0, path, fmt.Errorf("ping: %w", err)
	case !bytes.Equal(sent, back):
		return 0, path, errEcho
	}
	return took, path, nil
}
