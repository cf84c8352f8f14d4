package dm

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"golang.org/x/sync/errgroup"

	"github.com/kinloom/kinloom/protocol/wire"
)

const (
	// FrameTimeout is how long a frame may take from its first byte to its
	// last, and how long a write may wait for the other side to read.
	FrameTimeout = 30 * time.Second
	// StrangerTimeout is how long a stranger may keep a stream open without
	// anything on it. A contact may for ever.
	StrangerTimeout = time.Minute
	// ByeTimeout is how long the other side may take to answer a Bye.
	ByeTimeout = 10 * time.Second

	// Memory is what a stream holds at most, in bytes: what was read, a frame
	// on its way to the handler, one on its way out, a bundle with its news,
	// and the queue. The router reserves it before the stream is served.
	Memory = 3*wire.MaxFrame + MaxBundle + MaxNews + MaxQueue
)

var (
	// ErrClosing: this side has said Bye, or is about to.
	ErrClosing = errors.New("message stream is closing")
	// ErrFull: too many answers wait to be written.
	ErrFull = errors.New("message stream has too much to write")
	// ErrStalled: the other side does not read.
	ErrStalled = errors.New("other side of a message stream does not read")
	// ErrSlow: the other side began a frame and did not finish it in time.
	ErrSlow = errors.New("other side of a message stream is too slow")
	// ErrCut: the stream ended without a Bye.
	ErrCut = errors.New("message stream was cut")
)

// Stream is what cells travel on; network.Stream satisfies it.
type Stream interface {
	io.Reader
	io.Writer
	Close() error
	Reset() error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Handler takes what comes in. Its methods are called by Run, one at a time;
// while one has not returned, nothing more is read and the other side, in the
// end, has to wait.
type Handler interface {
	// Cell takes one sealed cell, of sizes from wire.MinCell to
	// wire.CellSize; nothing else about it was checked. The bytes are the
	// handler's to keep, together with the frame they came in. An error ends
	// the stream. Sooner or later Conn.Opened or Conn.Nack follows for it.
	Cell(ctx context.Context, cell []byte) error
	// Nack tells that the other side refused a cell of ours.
	Nack(id wire.CellID, code wire.Code)
	// WantBundle makes a fresh bundle for the other side, which is a
	// contact, and says what certifies it. An error means no and does not end
	// the stream.
	WantBundle(ctx context.Context) (Bundle, error)
	// Bundle brings the answer to Conn.WantBundle, unread; an empty one if
	// the other side gives none.
	Bundle(b Bundle)
}

// Conn is one stream with a device. All methods may be called at the same
// time; Run runs once.
type Conn struct {
	s  Stream
	h  Handler
	r  *bufio.Reader
	q  *queue
	mu sync.Mutex // guards m, end, waiting and change
	m  *Machine
	// end ends Run. Nack calls it rather than Reset, which may wait for a
	// connection that takes nothing.
	end func()
	// change is closed and made anew when m has changed while the reader or
	// the writer waits for that.
	change  chan struct{}
	waiting int
}

// New wraps a stream. Nothing happens before Run.
func New(s Stream, h Handler, c Config) *Conn {
	return &Conn{
		s: s, h: h, r: bufio.NewReaderSize(s, wire.MaxFrame), q: newQueue(),
		m: NewMachine(c), end: func() {}, change: make(chan struct{}),
	}
}

// Send queues cells in order and waits while the queue is full. That it
// returns says nothing about delivery. Errors: ErrCell, ErrClosing, what ended
// the stream, the cause of ctx.
func (c *Conn) Send(ctx context.Context, cells [][]byte) error {
	for _, cell := range cells {
		if len(cell) < wire.MinCell || len(cell) > wire.CellSize {
			return fmt.Errorf("send cell: %w: %d bytes", ErrCell, len(cell))
		}
	}
	for _, cell := range cells {
		if err := c.q.put(ctx, cell); err != nil {
			return fmt.Errorf("send cell: %w", err)
		}
	}
	return nil
}

// Opened tells that a cell of this stream opened, so the other side is a
// contact.
func (c *Conn) Opened() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m.Opened()
	c.changed()
}

// Recognised tells that the other side is a contact: by its transport key, by
// hello, or by what it said elsewhere.
func (c *Conn) Recognised() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m.Recognised()
	c.changed()
}

// Nack refuses a cell of this stream and tells the other side. An error that
// is not ErrFull means that the stream is to end; Run ends it. It never waits.
func (c *Conn) Nack(id wire.CellID, code wire.Code) error {
	c.mu.Lock()
	err := c.m.Refused(time.Now(), code)
	c.changed()
	end := c.end
	c.mu.Unlock()
	if err != nil {
		c.q.end(err)
		end()
		return err
	}
	return c.q.putFrame(Nack{Cell: id, Code: code})
}

// WantBundle asks for a fresh bundle. Errors: ErrOrder if one was asked for
// and has not come, ErrFull, ErrClosing, what ended the stream.
func (c *Conn) WantBundle() error {
	c.mu.Lock()
	err := c.m.Want()
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.q.putFrame(WantBundle{})
}

// Bye lets nothing more in, has everything that waits written, and ends the
// stream with Run returning nil once the other side has said the same.
func (c *Conn) Bye() { c.q.close() }

// Known tells whether the other side is a contact.
func (c *Conn) Known() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m.Known()
}

// Run moves cells until the stream ends, and returns after its goroutines
// have. It returns nil after a Bye from both sides, else what ended the
// stream: an error of Machine, ErrStalled, ErrSlow, ErrCut, what the handler
// returned, or the cause of ctx.
func (c *Conn) Run(ctx context.Context) error {
	alive, end := context.WithCancel(ctx)
	defer end()
	c.mu.Lock()
	c.end = end
	c.mu.Unlock()
	stop := context.AfterFunc(alive, func() { _ = c.s.Reset() })
	g, inner := errgroup.WithContext(alive)
	for _, loop := range []func(context.Context) error{c.read, c.write} {
		g.Go(func() error {
			err := loop(inner)
			if err != nil {
				_ = c.s.Reset() // the other loop may be waiting in it
			}
			return err
		})
	}
	err := g.Wait()
	stop()
	switch ended := c.q.why(); {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case ended != nil:
		err = ended
	case err == nil:
		_ = c.s.Close() // both sides have said that nothing follows
	}
	if err != nil {
		_ = c.s.Reset()
		c.q.end(err)
		return fmt.Errorf("message stream: %w", err)
	}
	c.q.end(ErrClosing)
	return nil
}

// read takes frames until the other side's Bye.
func (c *Conn) read(ctx context.Context) error {
	for {
		b, err := c.next()
		if err != nil {
			return err
		}
		c.mu.Lock()
		event, err := c.m.Handle(time.Now(), b)
		c.changed()
		c.mu.Unlock()
		if err != nil {
			return err
		}
		if event.Bye {
			c.q.close()
			return nil
		}
		if err := c.handle(ctx, event); err != nil {
			return err
		}
	}
}

func (c *Conn) handle(ctx context.Context, event Event) error {
	for _, cell := range event.Cells {
		if err := c.await(ctx, func() bool { return !c.m.Paused() }); err != nil {
			return err
		}
		c.mu.Lock()
		c.m.Give()
		c.mu.Unlock()
		if err := c.h.Cell(ctx, cell); err != nil {
			return err
		}
	}
	switch {
	case event.Nack != nil:
		c.h.Nack(event.Nack.Cell, event.Nack.Code)
	case event.Bundle != nil:
		c.h.Bundle(*event.Bundle)
	case event.Want:
		var answer Bundle
		if !event.Deny && !c.q.answering() {
			if b, err := c.h.WantBundle(ctx); err == nil && b.check() == nil {
				answer = b
			}
		}
		if err := c.q.putFrame(answer); err != nil && !errors.Is(err, ErrClosing) {
			return err
		}
	}
	return nil
}

// next reads one frame. Between frames a contact has all the time it wants; a
// frame that has begun has to end.
func (c *Conn) next() ([]byte, error) {
	for c.r.Buffered() == 0 {
		until, err := c.idle()
		if err != nil {
			return nil, cut(err)
		}
		_, err = c.r.Peek(1)
		if err == nil {
			break
		}
		if !isTimeout(err) {
			return nil, cut(err)
		}
		if err := c.idled(until, err); err != nil {
			return nil, err
		}
	}
	if !c.whole() {
		if err := c.s.SetReadDeadline(time.Now().Add(FrameTimeout)); err != nil {
			return nil, cut(err)
		}
	}
	b, err := wire.ReadFrame(c.r, wire.MaxFrame)
	if isTimeout(err) {
		return nil, fmt.Errorf("%w: %w", ErrSlow, err)
	}
	return b, cut(err)
}

// idle sets how long the next frame may be waited for; zero is for ever. The
// deadline is set under the lock, so that the one after our Bye is never undone.
func (c *Conn) idle() (until time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.m.SaidBye():
		until = time.Now().Add(ByeTimeout)
	case !c.m.Known():
		until = time.Now().Add(StrangerTimeout)
	}
	return until, c.s.SetReadDeadline(until)
}

// idled decides whether the end of a wait until then ends the stream: not if the
// other side turned out to be a contact meanwhile. A connection that died of
// silence fails with a timeout too, which no deadline of ours explains.
func (c *Conn) idled(until time.Time, cause error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.m.SaidBye():
		return fmt.Errorf("%w: no answer to Bye", ErrSlow)
	case until.IsZero() || time.Now().Before(until):
		return fmt.Errorf("%w: %w", ErrCut, cause)
	case !c.m.Known():
		return ErrStranger
	}
	return nil
}

// whole tells whether the next frame lies in the buffer to its end.
func (c *Conn) whole() bool {
	b, _ := c.r.Peek(min(c.r.Buffered(), binary.MaxVarintLen32))
	n, size := binary.Uvarint(b)
	return size > 0 && n <= uint64(c.r.Buffered()-size)
}

// write writes what waits, one frame a write, until Bye.
func (c *Conn) write(ctx context.Context) error {
	// The listener is quiet until it was spoken to.
	if err := c.await(ctx, c.m.MaySend); err != nil {
		return err
	}
	var out []byte
	for {
		f, ok := c.q.take()
		if !ok {
			select {
			case <-c.q.wake:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		var err error
		if out, err = appendFramed(out[:0], f); err != nil {
			return err
		}
		if err := c.put(f, out); err != nil {
			return err
		}
		switch f := f.(type) {
		case Cells:
			clear(f.Cells) // the queue's array outlives them
		case Bye:
			c.mu.Lock()
			defer c.mu.Unlock()
			// If it fails, the other side has gone, which the reader sees.
			_ = c.s.SetReadDeadline(time.Now().Add(ByeTimeout))
			return nil
		}
	}
}

// put writes one frame. The machine notes it first: an answer may come before
// Write returns.
func (c *Conn) put(f Frame, out []byte) error {
	c.mu.Lock()
	err := c.m.Send(f)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if err := c.s.SetWriteDeadline(time.Now().Add(FrameTimeout)); err != nil {
		return cut(err)
	}
	_, err = c.s.Write(out)
	if isTimeout(err) {
		return fmt.Errorf("%w: %w", ErrStalled, err)
	}
	return cut(err)
}

// await waits until ok, which is asked under the lock.
func (c *Conn) await(ctx context.Context, ok func() bool) error {
	for {
		c.mu.Lock()
		if ok() {
			c.mu.Unlock()
			return nil
		}
		c.waiting++
		change := c.change
		c.mu.Unlock()
		select {
		case <-change:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// changed wakes who waits in await. The lock is held.
func (c *Conn) changed() {
	if c.waiting > 0 {
		close(c.change)
		c.change, c.waiting = make(chan struct{}), 0
	}
}

// isTimeout tells whether a deadline passed.
func isTimeout(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && t.Timeout()
}

// cut names the ends of a stream that nobody announced.
func cut(err error) error {
	for _, end := range []error{io.EOF, io.ErrClosedPipe, wire.ErrFrameCut, network.ErrReset} {
		if errors.Is(err, end) {
			return fmt.Errorf("%w: %w", ErrCut, err)
		}
	}
	return err
}
