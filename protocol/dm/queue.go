package dm

import (
	"context"
	"slices"
	"sync"

	"github.com/kinloom/kinloom/protocol/wire"
)

// Bounds of what waits to be written.
const (
	// MaxQueue is how many bytes of cells may wait. Who sends more waits too.
	MaxQueue = 64 << 10
	// maxControl is how many other frames may wait. Above it a refusal is
	// dropped, which costs the other side a wait and nothing else.
	maxControl = 256
)

// queue holds what waits for the writer. It has many senders and one writer.
type queue struct {
	mu      sync.Mutex // guards the fields below
	cells   [][]byte
	size    int // bytes in cells
	control []Frame
	bye     bool  // nothing may be added; Bye is to be sent when empty
	ended   error // the stream is over
	room    chan struct{}
	wake    chan struct{} // of capacity 1: something to write
}

func newQueue() *queue {
	return &queue{room: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// put adds one cell, waiting for room.
func (q *queue) put(ctx context.Context, cell []byte) error {
	for {
		q.mu.Lock()
		switch {
		case q.ended != nil:
			defer q.mu.Unlock()
			return q.ended
		case q.bye:
			defer q.mu.Unlock()
			return ErrClosing
		case q.size+len(cell) <= MaxQueue:
			q.cells = append(q.cells, cell)
			q.size += len(cell)
			q.mu.Unlock()
			q.signal()
			return nil
		}
		room := q.room
		q.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// putFrame adds another frame, or reports why not. It never waits.
func (q *queue) putFrame(f Frame) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.ended != nil:
		return q.ended
	case q.bye:
		return ErrClosing
	case len(q.control) >= maxControl:
		return ErrFull
	}
	q.control = append(q.control, f)
	q.signal()
	return nil
}

// answering tells whether a bundle waits: there is room for one.
func (q *queue) answering() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.ContainsFunc(q.control, func(f Frame) bool {
		b, ok := f.(Bundle)
		return ok && len(b.Bundle)+len(b.News) > 0
	})
}

// close lets nothing more in.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bye = true
	q.makeRoom()
	q.signal()
}

// end gives err to everybody who waits or comes later.
func (q *queue) end(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended == nil {
		q.ended = err
	}
	q.cells, q.control, q.size = nil, nil, 0
	q.makeRoom()
}

// why says what ended the stream, nil if nothing did.
func (q *queue) why() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ended
}

// take returns what to write next: other frames before cells, as they are few
// and short, then as many cells as fit into one frame, then Bye. ok is false
// if there is nothing.
func (q *queue) take() (f Frame, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case len(q.control) > 0:
		f = q.control[0]
		q.control = q.control[1:]
		return f, true
	case len(q.cells) > 0:
		n, sum := 0, 0
		for _, c := range q.cells {
			next := sum + headSize(len(c)) + len(c)
			if n == MaxCells || cellsSize(n+1, next) > wire.MaxFrame {
				break
			}
			n, sum = n+1, next
			q.size -= len(c)
		}
		f = Cells{q.cells[:n:n]}
		q.cells = q.cells[n:]
		q.makeRoom()
		return f, true
	case q.bye:
		return Bye{}, true
	}
	return nil, false
}

func (q *queue) makeRoom() {
	close(q.room)
	q.room = make(chan struct{})
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
