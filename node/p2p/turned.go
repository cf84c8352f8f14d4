package p2p

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"
)

// A certificate of QUIC begins an hour before the start of its host. So where two
// clocks are further apart, one of the two takes the other's for one of tomorrow. If it
// is the dialler, it sees that while it dials, and TCP, whose Noise knows no time, is
// tried by its side. If it is the listener, the dialler's handshake is over by then:
// QUIC looks as if it worked, wins over TCP, and ends a round trip later.
const (
	// turnedFor is how long somebody is not dialled over QUIC who ended a connection
	// like that, and turnedMax how many of them are remembered.
	turnedFor = time.Hour
	turnedMax = 256
	// turnedAll of them are enough to believe that it is this node's clock.
	turnedAll = 3
	// turnedSoon is within what time after its beginning such a connection ends.
	turnedSoon = 20 * time.Second
	// turnedWait is how long the end of a connection may take to be known whole.
	turnedWait = 100 * time.Millisecond
)

// turned remembers who ended connections over QUIC because of this node's certificate.
type turned struct {
	mu sync.Mutex // guards at
	at map[peer.ID]time.Time
}

// note looks at a connection that has ended, and reports whether it was ended like
// that.
func (t *turned) note(c network.Conn) bool {
	if c.Stat().Direction != network.DirOutbound || time.Since(c.Stat().Opened) > turnedSoon || !turnedDown(c) {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at == nil {
		t.at = make(map[peer.ID]time.Time)
	}
	t.forget()
	if len(t.at) < turnedMax {
		t.at[c.RemotePeer()] = time.Now()
	}
	return true
}

// forget drops those of long ago. The caller holds mu.
func (t *turned) forget() {
	for p, at := range t.at {
		if time.Since(at) > turnedFor {
			delete(t.at, p)
		}
	}
}

// sift returns where to dial p: not over QUIC, if p or several others ended that, and
// if there is another way.
func (t *turned) sift(p peer.ID, addrs []ma.Multiaddr) []ma.Multiaddr {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget()
	if _, ok := t.at[p]; !ok && len(t.at) < turnedAll {
		return addrs
	}
	rest := slices.DeleteFunc(slices.Clone(addrs), func(a ma.Multiaddr) bool {
		_, transport := transportOf(a)
		return transport == "quic" && !isCircuit(a)
	})
	if len(rest) == 0 {
		return addrs
	}
	return rest
}

// turnedDown reports whether the other side ended a connection over QUIC by an alert of
// TLS.
func turnedDown(c network.Conn) bool {
	var q *quic.Conn
	if !c.As(&q) {
		return false
	}
	ended := q.Context()
	select {
	case <-ended.Done():
	case <-time.After(turnedWait):
		return false
	}
	e, ok := errors.AsType[*quic.TransportError](context.Cause(ended))
	return ok && e.Remote && e.ErrorCode.IsCryptoError()
}
