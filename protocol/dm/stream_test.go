package dm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/protocol/wire"
)

// pipe is one end of a stream in memory: a write waits until it is read. It
// counts the writes.
type pipe struct {
	net.Conn
	writes *[]int
}

func (p pipe) Reset() error { return p.Close() }

func (p pipe) Write(b []byte) (int, error) {
	if p.writes != nil {
		*p.writes = append(*p.writes, len(b))
	}
	return p.Conn.Write(b)
}

// node is a handler that remembers.
type node struct {
	mu      sync.Mutex // guards the fields below
	cells   [][]byte
	nacks   []Nack
	bundles []Bundle
	asked   int
	block   chan struct{} // if set, Cell waits for it
	fail    error         // of Cell
}

func (n *node) Cell(ctx context.Context, c []byte) error {
	if n.block != nil {
		select {
		case <-n.block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cells = append(n.cells, c)
	return n.fail
}

func (n *node) Nack(id wire.CellID, code wire.Code) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nacks = append(n.nacks, Nack{Cell: id, Code: code})
}

func (n *node) WantBundle(context.Context) (Bundle, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.asked++; n.asked > 1 {
		return Bundle{}, errors.New("no more")
	}
	return Bundle{Bundle: []byte("fresh bundle"), News: []byte("and its news")}, nil
}

func (n *node) Bundle(b Bundle) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.bundles = append(n.bundles, b)
}

func (n *node) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.cells)
}

// end is a running Conn.
type end struct {
	*Conn
	*node
	err  error
	done chan struct{}
}

func start(ctx context.Context, s Stream, n *node, c Config) *end {
	e := &end{Conn: New(s, n, c), node: n, done: make(chan struct{})}
	go func() {
		e.err = e.Run(ctx)
		close(e.done)
	}()
	return e
}

func (e *end) wait() error {
	<-e.done
	return e.err
}

// link runs both ends in memory.
func link(t *testing.T) (dialer, listener *end, writes *[]int) {
	t.Helper()
	a, b := net.Pipe()
	writes = new([]int)
	dialer = start(t.Context(), pipe{a, writes}, &node{}, Config{Dialer: true, Known: true})
	listener = start(t.Context(), pipe{b, nil}, &node{}, Config{Known: true})
	return dialer, listener, writes
}

func TestBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, l, _ := link(t)
		const many = 500
		var wg sync.WaitGroup
		for i, e := range []*end{d, l} {
			wg.Go(func() {
				for n := range many {
					c := cell(256+n, byte(n))
					c[0] = byte(i)
					if err := e.Send(t.Context(), [][]byte{c}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		d.Bye()
		if err := d.wait(); err != nil {
			t.Errorf("dialer: %v", err)
		}
		if err := l.wait(); err != nil {
			t.Errorf("listener: %v", err)
		}
		for i, e := range []*end{l, d} {
			if len(e.cells) != many {
				t.Fatalf("%d of %d cells came", len(e.cells), many)
			}
			for n, c := range e.cells {
				if c[0] != byte(i) || len(c) != 256+n || c[1] != byte(n) {
					t.Fatalf("cell %d is not what was sent there", n)
				}
			}
		}
		for _, err := range []error{d.Send(t.Context(), [][]byte{cell(256, 1)}), l.Conn.Nack(wire.CellID{1}, 1), d.Conn.WantBundle()} {
			if !errors.Is(err, ErrClosing) {
				t.Errorf("after the end: %v, want ErrClosing", err)
			}
		}
	})
}

// TestBatches: what queues up leaves in one write of at most a frame; a lone
// cell leaves at once with little around it.
func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, l, writes := link(t)
		if err := d.Send(t.Context(), [][]byte{cell(1152, 1)}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(*writes) != 1 || (*writes)[0] > 1152+10 {
			t.Errorf("one cell of 1,152 B leaves in writes of %v bytes, want one of 10 B more", *writes)
		}
		*writes = nil
		batch := make([][]byte, 50)
		for i := range batch {
			batch[i] = cell(1152, byte(i))
		}
		if err := d.Send(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		total := 0
		for _, n := range *writes {
			total += n
			if n > wire.MaxFrame+3 {
				t.Errorf("a write of %d bytes, want a frame at most", n)
			}
		}
		if over := total - 50*1152; over > 50*4 || len(*writes) > 4 {
			t.Errorf("50 cells leave in %d writes with %d B around them, want 4 and 200 at most", len(*writes), over)
		}
		if l.count() != 51 {
			t.Errorf("%d cells came, want 51", l.count())
		}
		d.Bye()
		if err := errors.Join(d.wait(), l.wait()); err != nil {
			t.Error(err)
		}
	})
}

func TestNackAndBundle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, l, _ := link(t)
		if err := d.Conn.WantBundle(); err != nil {
			t.Fatal(err)
		}
		if err := d.Conn.WantBundle(); !errors.Is(err, ErrOrder) {
			t.Errorf("second question: %v, want ErrOrder", err)
		}
		synctest.Wait()
		if err := d.Conn.WantBundle(); err != nil { // refused by the node
			t.Fatal(err)
		}
		synctest.Wait()
		if len(d.bundles) != 2 || string(d.bundles[0].Bundle) != "fresh bundle" || string(d.bundles[0].News) != "and its news" ||
			len(d.bundles[1].Bundle)+len(d.bundles[1].News) > 0 {
			t.Errorf("bundles %q, want one with news and a refusal", d.bundles)
		}
		if err := d.Send(t.Context(), someCells().Cells); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := l.Conn.Nack(wire.CellID{7}, wire.CodeUnopened); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(d.nacks) != 1 || d.nacks[0].Cell != (wire.CellID{7}) || d.nacks[0].Code != wire.CodeUnopened {
			t.Errorf("refusals %v", d.nacks)
		}
		l.Bye()
		if err := errors.Join(d.wait(), l.wait()); err != nil {
			t.Error(err)
		}
	})
}

// TestIdle: contacts are quiet for a day, without a byte and without an end.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, l, writes := link(t)
		if err := d.Send(t.Context(), someCells().Cells); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if len(*writes) != 1 {
			t.Errorf("%d writes in a quiet day, want the one before it", len(*writes))
		}
		if err := l.Send(t.Context(), someCells().Cells); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if d.count() != 2 {
			t.Errorf("%d cells after a quiet day, want 2", d.count())
		}
		d.Bye()
		if err := errors.Join(d.wait(), l.wait()); err != nil {
			t.Error(err)
		}
	})
}

// TestBackPressure: while the handler does not return, reading stops, the
// queue fills, and Send waits.
// silent is the end of a connection that died because nothing came any more: every
// read fails with an error that calls itself a timeout.
type silent struct{ pipe }

func (silent) Read([]byte) (int, error) { return 0, silence{} }

type silence struct{}

func (silence) Error() string { return "no recent network activity" }
func (silence) Timeout() bool { return true }

// TestDeadConnectionEnds: a connection that timed out is cut, not waited for.
func TestDeadConnectionEnds(t *testing.T) {
	for _, c := range []Config{{Dialer: true, Known: true}, {Known: true}, {}} {
		synctest.Test(t, func(t *testing.T) {
			mine, theirs := net.Pipe()
			if err := start(t.Context(), silent{pipe{mine, nil}}, &node{}, c).wait(); !errors.Is(err, ErrCut) || !errors.Is(err, silence{}) {
				t.Errorf("%+v: Run = %v, want ErrCut with its cause", c, err)
			}
			_ = theirs.Close()
		})
	}
}

func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		slow := &node{block: make(chan struct{})}
		d := start(t.Context(), pipe{a, nil}, &node{}, Config{Dialer: true, Known: true})
		l := start(t.Context(), pipe{b, nil}, slow, Config{Known: true})
		sent := 0
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var err error
		for err == nil {
			if err = d.Send(ctx, [][]byte{cell(wire.CellSize, 1)}); err == nil {
				sent++
			}
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Send to a slow node: %v, want the end of its context", err)
		}
		if held := sent * wire.CellSize; held > 2*Memory {
			t.Errorf("%d bytes were taken for a node that takes nothing, want %d at most", held, 2*Memory)
		}
		close(slow.block)
		synctest.Wait()
		if l.count() != sent {
			t.Errorf("%d of %d cells came after the wait", l.count(), sent)
		}
		d.Bye()
		if err := errors.Join(d.wait(), l.wait()); err != nil {
			t.Error(err)
		}
	})
}

func TestHandlerEndsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, l, _ := link(t)
		boom := errors.New("loop is gone")
		l.fail = boom
		// The end may be there before the last of the cells left.
		if err := d.Send(t.Context(), someCells().Cells); err != nil && !errors.Is(err, ErrCut) {
			t.Fatal(err)
		}
		if err := l.wait(); !errors.Is(err, boom) {
			t.Errorf("listener: %v, want the handler's error", err)
		}
		if err := d.wait(); !errors.Is(err, ErrCut) {
			t.Errorf("dialer: %v, want ErrCut", err)
		}
		if err := d.Send(t.Context(), someCells().Cells); !errors.Is(err, ErrCut) {
			t.Errorf("Send afterwards: %v, want what ended the stream", err)
		}
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		stop := errors.New("the node stops")
		ctx, cancel := context.WithCancelCause(t.Context())
		d := start(ctx, pipe{a, nil}, &node{}, Config{Dialer: true})
		time.Sleep(time.Second)
		cancel(stop)
		if err := d.wait(); !errors.Is(err, stop) {
			t.Errorf("Run = %v, want the cause", err)
		}
		if err := d.Send(t.Context(), [][]byte{cell(1, 1)}); !errors.Is(err, ErrCell) {
			t.Errorf("cell of one byte: %v, want ErrCell", err)
		}
	})
}

// TestRefusalsDoNotPileUp: answers to a peer that reads nothing are dropped
// above a bound.
func TestRefusalsDoNotPileUp(t *testing.T) {
	q := newQueue()
	var err error
	n := 0
	for ; err == nil; n++ {
		err = q.putFrame(Nack{Cell: wire.CellID{1}, Code: 1})
	}
	if !errors.Is(err, ErrFull) || n != maxControl+1 {
		t.Errorf("refusal %d: %v, want ErrFull after %d", n, err, maxControl)
	}
}

func TestQueueFillsFrames(t *testing.T) {
	q := newQueue()
	sizes := []int{wire.CellSize, wire.CellSize, 256, wire.CellSize, 300, 400}
	for _, n := range sizes {
		if err := q.put(t.Context(), cell(n, 1)); err != nil {
			t.Fatal(err)
		}
	}
	q.close()
	var got [][]int
	for {
		f, ok := q.take()
		if !ok {
			t.Fatal("nothing to write before Bye")
		}
		b, err := appendFramed(nil, f)
		if err != nil {
			t.Fatal(err)
		}
		body, err := wire.ReadFrame(bufio.NewReader(bytes.NewReader(b)), wire.MaxFrame)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := f.Append(nil)
		if err != nil || !bytes.Equal(plain, body) {
			t.Errorf("%T in a frame is not %T alone (%v)", f, f, err)
		}
		if _, ok := f.(Bye); ok {
			break
		}
		var sizes []int
		for _, c := range f.(Cells).Cells {
			sizes = append(sizes, len(c))
		}
		got = append(got, sizes)
	}
	if fmt.Sprint(got) != "[[16384] [16384 256] [16384 300 400]]" {
		t.Errorf("frames %v, want each as full as it gets", got)
	}
}
