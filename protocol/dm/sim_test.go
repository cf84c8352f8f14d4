package dm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/kinloom/kinloom/protocol/wire"
)

// counted counts what is written to a stream.
type counted struct {
	network.Stream
	bytes, writes *atomic.Int64
}

func (c counted) Write(b []byte) (int, error) {
	c.bytes.Add(int64(len(b)))
	c.writes.Add(1)
	return c.Stream.Write(b)
}

// simLink connects two hosts and runs a Conn on each side.
type simLink struct {
	dialer, listener *end
	bytes, writes    atomic.Int64 // of the dialer
}

func newSimLink(t *testing.T, from, to host.Host, at *node) *simLink {
	t.Helper()
	l := &simLink{}
	arrived := make(chan *end, 1)
	to.SetStreamHandler(ID, func(s network.Stream) {
		e := start(t.Context(), s, at, Config{Known: true})
		arrived <- e
		_ = e.wait()
	})
	s, err := from.NewStream(t.Context(), to.ID(), ID)
	if err != nil {
		t.Fatal(err)
	}
	l.dialer = start(t.Context(), counted{s, &l.bytes, &l.writes}, &node{}, Config{Dialer: true, Known: true})
	// A first cell opens the stream: libp2p sends nothing before.
	if err := l.dialer.Send(t.Context(), [][]byte{cell(256, 0)}); err != nil {
		t.Fatal(err)
	}
	l.listener = <-arrived
	time.Sleep(time.Second)
	l.bytes.Store(0)
	l.writes.Store(0)
	return l
}

func (l *simLink) bye(t *testing.T) {
	t.Helper()
	l.dialer.Bye()
	if err := errors.Join(l.dialer.wait(), l.listener.wait()); err != nil {
		t.Errorf("end of the link: %v", err)
	}
}

// TestSimBytes: what stands around 1 KiB messages on the wire, alone and in a
// batch. A message of 1,024 B becomes a cell of 1,152 B.
func TestSimBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2)
		connect(t, hosts[0], hosts[1])
		l := newSimLink(t, hosts[0], hosts[1], &node{})
		const many = 200
		for range many {
			if err := l.dialer.Send(t.Context(), [][]byte{cell(1152, 1)}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(roundTrip)
		}
		alone := float64(l.bytes.Load()) / many / 1152
		if writes := l.writes.Load(); alone > 1.01 || writes != many {
			t.Errorf("one at a time: %.4f x the cell in %d writes, want 1.01 at most in %d", alone, writes, many)
		}
		l.bytes.Store(0)
		l.writes.Store(0)
		var batch [][]byte
		for range many {
			batch = append(batch, cell(1152, 2))
		}
		if err := l.dialer.Send(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if packed, writes := float64(l.bytes.Load())/many/1152, l.writes.Load(); packed > 1.004 || writes > many/20 {
			t.Errorf("in a batch: %.4f x the cell in %d writes, want 1.004 at most in %d", packed, writes, many/20)
		}
		if n := l.listener.count(); n != 2*many+1 {
			t.Errorf("%d of %d cells came", n, 2*many+1)
		}
		l.bye(t)
	})
}

// TestSimSpeed: a link of 20 Mbit/s and 100 ms is used to nine tenths, in
// order, while the other direction stays quick.
func TestSimSpeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2)
		connect(t, hosts[0], hosts[1])
		l := newSimLink(t, hosts[0], hosts[1], &node{})
		const many = 20_000
		begun := time.Now()
		go func() {
			for n := range many {
				c := cell(1152, 1)
				c[0], c[1] = byte(n>>8), byte(n)
				if err := l.dialer.Send(t.Context(), [][]byte{c}); err != nil {
					t.Error(err)
					return
				}
			}
			l.dialer.Bye()
		}()
		time.Sleep(2 * time.Second)
		back := time.Now()
		if err := l.listener.Send(t.Context(), [][]byte{cell(256, 9)}); err != nil {
			t.Fatal(err)
		}
		for l.dialer.count() == 0 {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(back); took > 2*roundTrip {
			t.Errorf("a cell against the stream took %v, want %v at most", took, 2*roundTrip)
		}
		if err := errors.Join(l.dialer.wait(), l.listener.wait()); err != nil {
			t.Fatal(err)
		}
		took := time.Since(begun)
		share := float64(many*1152*8) / took.Seconds() / 20_000_000
		t.Logf("%d cells in %v: %.2f of the link", many, took, share)
		if share < 0.8 {
			t.Errorf("%d cells took %v, %.2f of the link, want 0.8 at least", many, took, share)
		}
		if l.listener.count() != many+1 {
			t.Fatalf("%d of %d cells came", l.listener.count(), many+1)
		}
		for n, c := range l.listener.cells[1:] {
			if c[0] != byte(n>>8) || c[1] != byte(n) {
				t.Fatalf("cell %d is out of order", n)
			}
		}
	})
}

// TestSimNeverReads: a node that takes nothing holds a bounded number of bytes
// of the sender, which ends in time.
func TestSimNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2)
		hosts[1].SetStreamHandler(ID, func(network.Stream) {}) // opened, never read
		connect(t, hosts[0], hosts[1])
		s, err := hosts[0].NewStream(t.Context(), hosts[1].ID(), ID)
		if err != nil {
			t.Fatal(err)
		}
		d := start(t.Context(), s, &node{}, Config{Dialer: true, Known: true})
		begun, sent := time.Now(), 0
		for err == nil {
			if err = d.Send(t.Context(), [][]byte{cell(wire.CellSize, 1)}); err == nil {
				sent += wire.CellSize
			}
		}
		if !errors.Is(err, ErrStalled) {
			t.Errorf("Send = %v, want ErrStalled", err)
		}
		took := time.Since(begun)
		t.Logf("%d bytes taken, ended after %v: %v", sent, took, d.wait())
		if took > FrameTimeout+5*time.Second || sent > 16<<20 {
			t.Errorf("%d bytes in %v, want the end after %v and a bounded window", sent, took, FrameTimeout)
		}
	})
}

// TestSimHostilePeers: 30 streams that stay empty, drip or talk nonsense end in
// time; an honest link on the same node does not notice.
func TestSimHostilePeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 3)
		var ended atomic.Int64
		connect(t, hosts[0], hosts[1])
		connect(t, hosts[2], hosts[1])
		l := newSimLink(t, hosts[0], hosts[1], &node{})
		hosts[1].SetStreamHandler(ID, func(s network.Stream) {
			if New(s, &node{}, Config{}).Run(t.Context()) != nil {
				ended.Add(1)
			}
		})
		for n := range 30 {
			s, err := hosts[2].NewStream(t.Context(), hosts[1].ID(), ID)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				switch n % 3 {
				case 0: // begins a frame
					_, _ = s.Write([]byte{0x90, 0x03, 0xa2, 1})
				case 1: // a byte a second
					for {
						if _, err := s.Write([]byte{0x7f}); err != nil {
							return
						}
						time.Sleep(time.Second)
					}
				case 2: // another protocol
					_, _ = s.Write([]byte("\x13/multistream/1.0.0\n"))
				}
				_, _ = io.Copy(io.Discard, s)
			}()
		}
		worst := time.Duration(0)
		for n := range 100 {
			begun := time.Now()
			if err := l.dialer.Send(t.Context(), [][]byte{cell(1152, byte(n))}); err != nil {
				t.Fatal(err)
			}
			for l.listener.count() < n+2 {
				time.Sleep(time.Millisecond)
			}
			worst = max(worst, time.Since(begun))
		}
		if worst > roundTrip {
			t.Errorf("the honest link took %v for a cell, want half a round trip", worst)
		}
		time.Sleep(StrangerTimeout)
		if n := ended.Load(); n != 30 {
			t.Errorf("%d of 30 hostile streams were ended", n)
		}
		l.bye(t)
	})
}

// TestSimCut: a connection that breaks ends both sides with ErrCut; what was
// sent before it came or did not, but nothing else did.
func TestSimCut(t *testing.T) {
	for n := range 5 {
		synctest.Test(t, func(t *testing.T) {
			hosts := simHosts(t, 2)
			connect(t, hosts[0], hosts[1])
			l := newSimLink(t, hosts[0], hosts[1], &node{})
			go func() {
				for i := range 1000 {
					if l.dialer.Send(t.Context(), [][]byte{cell(1152, byte(i))}) != nil {
						return
					}
				}
			}()
			time.Sleep(time.Duration(n) * 70 * time.Millisecond)
			if err := hosts[0].Network().ClosePeer(hosts[1].ID()); err != nil {
				t.Fatal(err)
			}
			for _, e := range []*end{l.dialer, l.listener} {
				if err := e.wait(); !errors.Is(err, ErrCut) {
					t.Errorf("cut after %d ms: %v, want ErrCut", n*70, err)
				}
			}
			for i, c := range l.listener.cells[1:] {
				if len(c) != 1152 || c[0] != byte(i) {
					t.Errorf("cut after %d ms: cell %d is not what was sent", n*70, i)
				}
			}
			if err := l.dialer.Send(t.Context(), [][]byte{cell(256, 1)}); !errors.Is(err, ErrCut) {
				t.Errorf("Send after the cut: %v, want ErrCut", err)
			}
		})
	}
}

// TestSimManyEnds: links end in every way at once, and no goroutine is left,
// which synctest would report.
func TestSimManyEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2)
		connect(t, hosts[0], hosts[1])
		hosts[1].SetStreamHandler(ID, func(s network.Stream) {
			_ = New(s, &node{}, Config{Known: true}).Run(t.Context())
		})
		ctx, cancel := context.WithCancel(t.Context())
		var ends []*end
		for n := range 20 {
			s, err := hosts[0].NewStream(ctx, hosts[1].ID(), ID)
			if err != nil {
				t.Fatal(err)
			}
			e := start(ctx, s, &node{}, Config{Dialer: true, Known: true})
			ends = append(ends, e)
			if err := e.Send(ctx, [][]byte{cell(256+n, 1)}); err != nil {
				t.Fatal(err)
			}
			if n%2 == 0 {
				e.Bye()
			}
		}
		time.Sleep(time.Second)
		cancel()
		for n, e := range ends {
			if err := e.wait(); (err == nil) != (n%2 == 0) {
				t.Error(fmt.Errorf("link %d: %w", n, err))
			}
		}
	})
}
