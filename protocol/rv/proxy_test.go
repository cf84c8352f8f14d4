package rv

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/protocol/wire"
)

// pipe is one end of a stream in memory, which notes what its end writes.
type pipe struct {
	net.Conn
	sent *bytes.Buffer
}

func (p pipe) Reset() error { return p.Close() }

func (p pipe) Write(b []byte) (int, error) {
	p.sent.Write(b)
	return p.Conn.Write(b)
}

func newPipe() (dialer, listener pipe) {
	a, b := net.Pipe()
	return pipe{a, new(bytes.Buffer)}, pipe{b, new(bytes.Buffer)}
}

// table is a DHT in a map.
type table struct {
	mu      sync.Mutex // guards the fields below
	records map[Point][]byte
	calls   int
	err     error
	hang    bool
}

func (h *table) call(ctx context.Context) error {
	if h.calls++; h.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return h.err
}

func (h *table) PutRecord(ctx context.Context, p Point, b []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.call(ctx); err != nil {
		return err
	}
	if h.records == nil {
		h.records = map[Point][]byte{}
	}
	h.records[p] = b
	return nil
}

func (h *table) GetRecord(ctx context.Context, p Point) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.records[p], h.call(ctx)
}

// serve runs the proxy in the background over one end; wait gives its outcome.
func serveAt(ctx context.Context, s Stream, h ProxyHost, now time.Time) (wait func() error) {
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { err = ServeProxy(ctx, s, h, func() time.Time { return now }) })
	return func() error { wg.Wait(); return err }
}

// TestProxy: put and get, found and not found, refused and busy are all of one
// size each way.
func TestProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, p := newDevice(1), PeriodAt(epoch)
		record, point := d.seal(t, p, 720), d.point(t, p)
		h := &table{}
		broken := errors.New("no peers")
		for _, step := range []struct {
			name   string
			now    time.Time
			put    bool
			host   error
			code   wire.Code
			record []byte
			served error
			calls  int
		}{
			{name: "none yet", now: epoch, calls: 1},
			{name: "put, but its clock is 5 d fast", now: epoch.Add(5 * 24 * time.Hour), put: true, code: wire.CodeExpired},
			{name: "put, but its clock is 5 d slow", now: epoch.Add(-5 * 24 * time.Hour), put: true, code: wire.CodeExpired},
			{name: "put, busy", now: epoch, put: true, host: ErrBusy, code: wire.CodeBusy, calls: 1},
			{name: "put, broken", now: epoch, put: true, host: broken, code: wire.CodeStorage, served: broken, calls: 1},
			{name: "put", now: epoch, put: true, calls: 1},
			{name: "get", now: epoch, record: record, calls: 1},
			{name: "get, broken", now: epoch, host: broken, code: wire.CodeStorage, served: broken, calls: 1},
			{name: "get, ended by now", now: p.NotAfter(), calls: 1, served: ErrNotAfter},
		} {
			h.calls, h.err = 0, step.host
			there, here := newPipe()
			wait := serveAt(t.Context(), here, h, step.now)
			var got Reply
			var err error
			if step.put {
				got, err = Put(t.Context(), there, record, point)
			} else {
				got, err = Get(t.Context(), there, point)
			}
			if err != nil || got.Code != step.code || !bytes.Equal(got.Record, step.record) || !got.At.Equal(step.now) {
				t.Errorf("%s: code %v, record %v, at %v, %v", step.name, got.Code, got.Record != nil, got.At, err)
			}
			if err := wait(); !errors.Is(err, step.served) || (err == nil) != (step.served == nil) {
				t.Errorf("%s: the proxy ends with %v, want %v", step.name, err, step.served)
			}
			if h.calls != step.calls {
				t.Errorf("%s: the host was asked %d times, want %d", step.name, h.calls, step.calls)
			}
			if there.sent.Len() != 1202 || here.sent.Len() != 1202 {
				t.Errorf("%s: %d bytes there and %d back, want 1,202 each", step.name, there.sent.Len(), here.sent.Len())
			}
			if _, err := there.Read(make([]byte, 1)); err == nil {
				t.Errorf("%s: the stream is open afterwards", step.name)
			}
		}
	})
}

func framed(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }

// TestProxyRefuses: what is not valid is answered by a code, and the host is
// not asked.
func TestProxyRefuses(t *testing.T) {
	d, p := newDevice(1), PeriodAt(epoch)
	record, point := d.seal(t, p, 720), d.point(t, p)
	put := func(change func(b []byte), point Point) []byte {
		b := bytes.Clone(record)
		change(b)
		m, err := Request{Point: point, Record: b}.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	same := func([]byte) {}
	low, err := Request{Point: Point{1}}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		request []byte
		code    wire.Code
		served  error
	}{
		{"another version", put(func(b []byte) { b[0] = 2 }, point), wire.CodeVersion, nil},
		{"not on a day", put(func(b []byte) { b[4]++ }, point), wire.CodeExpired, nil},
		{"a seq too high", put(func(b []byte) { b[5] = 1 }, point), wire.CodeMalformed, ErrProxy},
		{"forged", put(func(b []byte) { b[100] ^= 1 }, point), wire.CodeProof, nil},
		{"at another point", put(same, newDevice(2).point(t, p)), wire.CodeProof, nil},
		{"at a point of low order", put(same, Point{1}), wire.CodeProof, nil},
		{"get at a point of low order", low, wire.CodeProof, nil},
		{"a short frame", []byte{1, 2, 3}, wire.CodeMalformed, ErrProxy},
		{"zeros", make([]byte, ProxySize), wire.CodeMalformed, ErrProxy},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := &table{}
			there, here := newPipe()
			wait := serveAt(t.Context(), here, h, epoch)
			if _, err := there.Write(framed(c.request)); err != nil {
				t.Fatal(err)
			}
			b, err := receive(there)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			m, err := ParseReply(b)
			if err != nil || m.Code != c.code || m.Record != nil || !m.At.Equal(epoch) {
				t.Errorf("%s: %+v, %v; want code %v", c.name, m, err, c.code)
			}
			if err := wait(); !errors.Is(err, c.served) || (err == nil) != (c.served == nil) {
				t.Errorf("%s: the proxy ends with %v, want %v", c.name, err, c.served)
			}
			if h.calls > 0 {
				t.Errorf("%s: the host was asked", c.name)
			}
		})
	}
}

// TestProxyLies: a proxy that answers with anything but the truth can withhold
// and nothing else.
func TestProxyLies(t *testing.T) {
	d, p := newDevice(1), PeriodAt(epoch)
	point := d.point(t, p)
	other := newDevice(2)
	forged := d.seal(t, p, 720)
	forged[100] ^= 1
	reply := func(m Reply) []byte {
		b, err := m.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		name string
		put  bool
		say  []byte
		want error
	}{
		{"a forged record", false, framed(reply(Reply{At: epoch, Record: forged})), ErrForged},
		{"the record of another device", false, framed(reply(Reply{At: epoch, Record: other.seal(t, p, 1)})), ErrForged},
		{"the record of another day", false, framed(reply(Reply{At: epoch, Record: d.seal(t, p-1, 1)})), ErrForged},
		{"a record for a put", true, framed(reply(Reply{At: epoch, Record: d.seal(t, p, 1)})), ErrProxy},
		{"a request", false, framed(reply(Reply{At: epoch})[:7]), ErrProxy},
		{"garbage", false, framed(bytes.Repeat([]byte{0xff}, ProxySize)), ErrProxy},
		{"an oversize frame", false, binary.AppendUvarint(nil, 4<<20), wire.ErrFrameSize},
		{"half a reply", false, framed(reply(Reply{At: epoch}))[:600], ErrCut},
		{"nothing", false, nil, ErrCut},
	} {
		synctest.Test(t, func(t *testing.T) {
			there, here := newPipe()
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := receive(here); err == nil {
					_, _ = here.Write(c.say)
				}
				_ = here.Close()
			})
			var got Reply
			var err error
			if c.put {
				got, err = Put(t.Context(), there, d.seal(t, p, 2), point)
			} else {
				got, err = Get(t.Context(), there, point)
			}
			wg.Wait()
			if !errors.Is(err, c.want) || got.Record != nil {
				t.Errorf("%s: record %v, %v; want %v", c.name, got.Record != nil, err, c.want)
			}
			if errors.Is(err, ErrForged) && !got.At.Equal(epoch) {
				t.Errorf("%s: its time is lost", c.name)
			}
		})
	}
}

// TestProxySlow: nobody holds a stream for longer than SPEC 8.3 says.
func TestProxySlow(t *testing.T) {
	d, p := newDevice(1), PeriodAt(epoch)
	point := d.point(t, p)
	get, err := Request{Point: point}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		peer func(s pipe)
		host *table
		want error
		most time.Duration
	}{
		{"says nothing", func(pipe) {}, &table{}, ErrSlow, RequestTimeout},
		{"drips", func(s pipe) {
			for _, b := range framed(get) {
				if _, err := s.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, &table{}, ErrSlow, RequestTimeout},
		{"never reads", func(s pipe) { _, _ = s.Write(framed(get)) }, &table{}, ErrSlow, ReplyTimeout},
		{"host hangs", func(s pipe) {
			_, _ = s.Write(framed(get))
			if b, err := receive(s); err == nil {
				m, err := ParseReply(b)
				if err != nil || m.Code != wire.CodeStorage {
					t.Errorf("host hangs: %+v, %v", m, err)
				}
			}
		}, &table{hang: true}, context.DeadlineExceeded, HostTimeout},
		{"announces 4 MiB", func(s pipe) { _, _ = s.Write(binary.AppendUvarint(nil, 4<<20)) }, &table{}, wire.ErrFrameSize, 0},
		{"hangs up", func(s pipe) { _, _ = s.Write(framed(get)[:9]); _ = s.Close() }, &table{}, ErrCut, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			there, here := newPipe()
			began := time.Now()
			wait := serveAt(t.Context(), here, c.host, epoch)
			var wg sync.WaitGroup
			wg.Go(func() { c.peer(there) })
			if err := wait(); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
			if took := time.Since(began); took != c.most {
				t.Errorf("%s: took %v, want %v", c.name, took, c.most)
			}
			_ = there.Close()
			wg.Wait()
		})
	}
	synctest.Test(t, func(t *testing.T) {
		there, here := newPipe()
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(io.Discard, here) })
		began := time.Now()
		if _, err := Get(t.Context(), there, point); !errors.Is(err, ErrSlow) || time.Since(began) != ProxyTimeout {
			t.Errorf("a silent proxy: %v after %v", err, time.Since(began))
		}
		wg.Wait()
		there, _ = newPipe()
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("another one answered")
		cancel(gone)
		if _, err := Get(ctx, there, point); !errors.Is(err, gone) {
			t.Errorf("called off: %v, want the cause", err)
		}
	})
}

// TestAsker: what is not valid does not leave, and one request is all.
func TestAsker(t *testing.T) {
	d, p := newDevice(1), PeriodAt(epoch)
	record, point := d.seal(t, p, 720), d.point(t, p)
	var a Asker
	if _, err := a.Handle(nil); !errors.Is(err, ErrOver) {
		t.Errorf("a reply to nothing: %v", err)
	}
	if _, err := a.Put(point, record[1:]); !errors.Is(err, ErrSize) {
		t.Errorf("a short record: %v", err)
	}
	if _, err := a.Put(newDevice(2).point(t, p), record); !errors.Is(err, ErrSignature) {
		t.Errorf("at another point: %v", err)
	}
	if _, err := a.Get(Point{}); !errors.Is(err, ErrPoint) {
		t.Errorf("point of low order: %v", err)
	}
	if _, err := a.Put(point, record); err != nil {
		t.Errorf("after what did not leave: %v", err)
	}
	if _, err := a.Get(point); !errors.Is(err, ErrOver) {
		t.Errorf("a second request: %v", err)
	}
	b, err := Reply{At: epoch}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := a.Handle(b); err != nil || !m.At.Equal(epoch) {
		t.Errorf("reply: %+v, %v", m, err)
	}
	if _, err := a.Handle(b); !errors.Is(err, ErrOver) {
		t.Errorf("a second reply: %v", err)
	}
}
