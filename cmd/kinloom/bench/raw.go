package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"

	"github.com/kinloom/kinloom/node/store"
)

const (
	rawProtocol = "/bench/raw/1"
	rawAck      = 32 // bytes of an acknowledgement
)

// rawNet is a stream between two bare hosts on this machine: what a message
// costs before anybody encrypts or stores it.
type rawNet struct {
	hosts  [2]host.Host
	stream network.Stream
	served chan struct{}
	text   [TextSize]byte
}

func newRawNet(ctx context.Context) (_ *rawNet, err error) {
	n := &rawNet{served: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	for i := range n.hosts {
		n.hosts[i], err = libp2p.New(
			libp2p.Transport(tcp.NewTCPTransport), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics(),
		)
		if err != nil {
			return n, err
		}
	}
	n.hosts[1].SetStreamHandler(rawProtocol, func(s network.Stream) {
		defer close(n.served)
		acknowledge(s)
	})
	if err := n.hosts[0].Connect(ctx, peer.AddrInfo{ID: n.hosts[1].ID(), Addrs: n.hosts[1].Addrs()}); err != nil {
		return n, err
	}
	n.stream, err = n.hosts[0].NewStream(ctx, n.hosts[1].ID(), rawProtocol)
	return n, err
}

// acknowledge answers each message until the stream ends.
func acknowledge(s network.Stream) {
	b := make([]byte, TextSize)
	for {
		if _, err := io.ReadFull(s, b); err != nil {
			break
		}
		if _, err := s.Write(b[:rawAck]); err != nil {
			break
		}
	}
	_ = s.Reset()
}

// request sends a message and waits for its acknowledgement.
func (n *rawNet) request() error {
	if _, err := n.stream.Write(n.text[:]); err != nil {
		return err
	}
	var ack [rawAck]byte
	_, err := io.ReadFull(n.stream, ack[:])
	return err
}

func (n *rawNet) close() error {
	if n.stream != nil {
		_ = n.stream.Reset()
		<-n.served
	}
	var err error
	for _, h := range n.hosts {
		if h != nil {
			err = errors.Join(err, h.Close())
		}
	}
	return err
}

// timed calls f until d has passed and gives how long each call took, in us.
func timed(ctx context.Context, d time.Duration, f func() error) ([]float64, error) {
	var all []float64
	for end := time.Now().Add(d); time.Now().Before(end); {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		begin := time.Now()
		if err := f(); err != nil {
			return nil, err
		}
		all = append(all, microseconds(time.Since(begin)))
	}
	return all, nil
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// rawStore is the store of a home where nobody else is: the same rows as a node
// commits, and nothing around them.
type rawStore struct {
	*archive
	bench *bench
}

func (b *bench) newRawStore(ctx context.Context, name string) (*rawStore, error) {
	a, err := newArchive(ctx, b.home("raw-"+name), 1)
	return &rawStore{a, b}, err
}

// group makes the next messages.
func (s *rawStore) group(n int) ([]store.Event, error) {
	events := make([]store.Event, n)
	for i := range events {
		var err error
		if events[i], err = s.message(&s.pairs[0], true, time.Now(), s.bench.text()); err != nil {
			return nil, err
		}
	}
	return events, nil
}

// turns stores a message and sends a message over the net, in turn, for d: each
// finds processors and disk as the steps of a real message do. It gives in us how
// long the events took, the events with their index rows, and the requests.
func (s *rawStore) turns(ctx context.Context, d time.Duration, net *rawNet) (events, commits, requests []float64, err error) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		group, err := s.group(1)
		if err != nil {
			return nil, nil, nil, err
		}
		begin := time.Now()
		if err := s.put(ctx, group); err != nil {
			return nil, nil, nil, err
		}
		events = append(events, microseconds(time.Since(begin)))
		if err := s.store.IndexDrain(ctx); err != nil {
			return nil, nil, nil, err
		}
		commits = append(commits, microseconds(time.Since(begin)))
		begin = time.Now()
		if err := net.request(); err != nil {
			return nil, nil, nil, err
		}
		requests = append(requests, microseconds(time.Since(begin)))
	}
	return events, commits, requests, s.store.IndexMerge(ctx)
}

// groups stores groups of size messages for d, one after the other and then their
// index rows, in batches as a node's. It gives the rows of a second, and the
// processor time of each in us. Merges that the index is left with are made after
// that, as they would be in the way of what is measured next.
func (s *rawStore) groups(ctx context.Context, size int, d time.Duration) (rate, cpu float64, err error) {
	rows := 0
	begin := readClock()
	for time.Since(begin.at) < d {
		for range archiveDrain / size {
			events, err := s.group(size)
			if err != nil {
				return 0, 0, err
			}
			if err := s.put(ctx, events); err != nil {
				return 0, 0, err
			}
			rows += len(events)
		}
		if err := s.store.IndexDrain(ctx); err != nil {
			return 0, 0, err
		}
	}
	end := readClock()
	return float64(rows) / end.at.Sub(begin.at).Seconds(), microseconds(end.own-begin.own) / float64(rows), s.store.IndexMerge(ctx)
}

// Host runs a bare libp2p host with the transports and addresses of a node until
// ctx ends: what the memory of a node is compared with.
func Host(ctx context.Context, ready io.Writer) error {
	h, err := libp2p.New(
		libp2p.Transport(quic.NewTransport), libp2p.Transport(tcp.NewTCPTransport), libp2p.DisableRelay(),
		libp2p.ListenAddrStrings("/ip4/0.0.0.0/udp/0/quic-v1", "/ip4/0.0.0.0/tcp/0", "/ip6/::/udp/0/quic-v1", "/ip6/::/tcp/0"),
	)
	if err != nil {
		return fmt.Errorf("start a bare host: %w", err)
	}
	if _, err := fmt.Fprintln(ready, h.ID()); err != nil && !errors.Is(err, os.ErrClosed) {
		return errors.Join(err, h.Close())
	}
	<-ctx.Done()
	return h.Close()
}
