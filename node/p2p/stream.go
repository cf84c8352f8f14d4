package p2p

import (
	"errors"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	msmux "github.com/multiformats/go-multistream"
)

// closeWait bounds how long Close of a stream waits for the other side to have
// confirmed the protocol. Without waiting, it could take the closed stream for one
// that it need not look at.
const closeWait = 5 * time.Second

// lazyStream is a stream whose protocol header leaves with the first Write.
type lazyStream struct {
	network.Stream
	rw msmux.LazyConn
}

func newLazyStream(s network.Stream, id protocol.ID) network.Stream {
	return &lazyStream{Stream: s, rw: msmux.NewMSSelect(io.ReadWriteCloser(s), id)}
}

func (s *lazyStream) Read(b []byte) (int, error) {
	n, err := s.rw.Read(b)
	if _, ok := errors.AsType[msmux.ErrNotSupported[protocol.ID]](err); ok {
		return n, ErrNotSupported
	}
	// Taking our data for another protocol's name, libp2p resets the stream, and the
	// reset may overtake its answer.
	if se, ok := errors.AsType[*network.StreamError](err); ok && se.Remote && se.ErrorCode == network.StreamProtocolNegotiationFailed {
		return n, ErrNotSupported
	}
	return n, err
}

func (s *lazyStream) Write(b []byte) (int, error) { return s.rw.Write(b) }

// Close waits at most closeWait for the confirmation of the protocol, if it has
// not come yet. Reset does not wait.
func (s *lazyStream) Close() error {
	_ = s.Stream.SetReadDeadline(time.Now().Add(closeWait))
	return s.rw.Close()
}

// CloseWrite sends the header if nothing was written before. What went wrong with
// it shows at the next Read.
func (s *lazyStream) CloseWrite() error {
	_ = s.rw.Flush()
	return s.Stream.CloseWrite()
}
