package rv

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/kinloom/kinloom/protocol/wire"
)

// endings are how the streams of a server ended.
type endings struct {
	mu  sync.Mutex // guards all
	all []error
}

func (e *endings) add(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, err)
}

func open(t *testing.T, from, to host.Host) network.Stream {
	t.Helper()
	s, err := from.NewStream(t.Context(), to.ID(), ProxyID)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestProxyOverQUIC: one host puts a record through a proxy and another one
// fetches it there, over real libp2p streams with 100 ms there and back. Each
// takes one round trip on a connection that stands; a proxy that hangs up is
// told from one that says no.
func TestProxyOverQUIC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 4)
		publisher, proxy, reader, broken := hosts[0], hosts[1], hosts[2], hosts[3]
		d, p := newDevice(1), PeriodAt(epoch)
		record, point := d.seal(t, p, 720), d.point(t, p)
		h, ended := &table{}, &endings{}
		proxy.SetStreamHandler(ProxyID, func(s network.Stream) {
			ended.add(ServeProxy(t.Context(), s, h, func() time.Time { return epoch }))
		})
		broken.SetStreamHandler(ProxyID, func(s network.Stream) { _ = s.Reset() })
		for _, from := range []host.Host{publisher, reader} {
			connect(t, from, proxy)
			connect(t, from, broken)
		}
		synctest.Wait() // identify has run

		begun := time.Now()
		if m, err := Put(t.Context(), open(t, publisher, proxy), record, point); err != nil || m.Code != 0 {
			t.Fatalf("put: %+v, %v", m, err)
		}
		put := time.Since(begun)
		begun = time.Now()
		m, err := Get(t.Context(), open(t, reader, proxy), point)
		if err != nil || !bytes.Equal(m.Record, record) || !m.At.Equal(epoch) {
			t.Fatalf("get: code %v, %d bytes, %v", m.Code, len(m.Record), err)
		}
		if get := time.Since(begun); put > roundTrip+20*time.Millisecond || get > roundTrip+20*time.Millisecond {
			t.Errorf("put took %v, get %v; want one round trip of %v", put, get, roundTrip)
		}
		if m, err := Get(t.Context(), open(t, reader, proxy), newDevice(2).point(t, p)); err != nil || m.Record != nil || m.Code != 0 {
			t.Errorf("nobody's point: %+v, %v", m, err)
		}
		if m, err := Put(t.Context(), open(t, publisher, proxy), d.seal(t, p+9, 0), d.point(t, p+9)); err != nil || m.Code != wire.CodeExpired {
			t.Errorf("not for now: %+v, %v", m, err)
		}
		if _, err := Get(t.Context(), open(t, reader, broken), point); !errors.Is(err, ErrCut) {
			t.Errorf("a proxy that hangs up: %v, want %v", err, ErrCut)
		}
		synctest.Wait()
		ended.mu.Lock()
		defer ended.mu.Unlock()
		for i, err := range ended.all {
			if err != nil {
				t.Errorf("stream %d of the proxy: %v", i, err)
			}
		}
		if len(ended.all) != 4 {
			t.Errorf("%d streams of the proxy ended, want 4", len(ended.all))
		}
	})
}
