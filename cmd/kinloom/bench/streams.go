package bench

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"

	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/protocol/wire"
)

// meter counts what a host writes to message streams: the bytes that kinloom is
// to answer for, without those of the transport's encryption and packets. The
// rest of the interface is never called.
type meter struct {
	metrics.Reporter
	sent atomic.Int64
}

func (*meter) LogSentMessage(int64)                             {}
func (*meter) LogRecvMessage(int64)                             {}
func (*meter) LogRecvMessageStream(int64, protocol.ID, peer.ID) {}

func (m *meter) LogSentMessageStream(n int64, id protocol.ID, _ peer.ID) {
	if id == wire.DM {
		m.sent.Add(n)
	}
}

// streams measures the bytes of a message on its stream, in the sender's
// direction.
func (b *bench) streams(ctx context.Context) (_ []Figure, err error) {
	var meters []*meter
	c, err := b.newCouple(ctx, "streams", func(cfg *p2p.Config) {
		m := new(meter)
		meters = append(meters, m)
		cfg.Options = []libp2p.Option{libp2p.Transport(quic.NewTransport), libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()), libp2p.BandwidthReporter(m)}
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	sender := meters[0] // the nodes start one after the other
	measure := func(f func() error) (float64, error) {
		sent, said := sender.sent.Load(), c.said.Load()
		err := f()
		return float64(sender.sent.Load()-sent) / float64(max(1, c.said.Load()-said)), err
	}
	one, err := measure(func() error {
		_, err := timed(ctx, quickTime, func() error { return c.say(ctx) })
		return err
	})
	if err != nil {
		return nil, err
	}
	batch, err := measure(func() error {
		_, _, err := c.window(ctx, windows[1], b.runTime())
		return err
	})
	return []Figure{figure("stream-one", one, TextSize), figure("stream-batch", batch, TextSize)}, err
}
