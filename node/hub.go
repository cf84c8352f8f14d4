package node

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
)

// noticeQueue is how many notices wait for a reader that does not read; older
// ones are dropped then, as they are about the moment.
const noticeQueue = 64

// Notice is a line about the moment for whoever watches the node run. It is not
// stored.
type Notice struct {
	At    time.Time
	Kind  string // "contact", "request", "words", "route", "reach", "clock", "store", "session"
	Text  string
	Who   identity.PersonID
	Words []string
}

// hub tells waiting callers what the loop did. Its lock guards the fields below it;
// no call of it waits.
type hub struct {
	lags atomic.Bool // rows of conversations are behind their events, or receipts behind what waiters were told

	sent, received atomic.Uint64 // messages since the start

	mu      sync.Mutex
	commits uint64        // how many commits there were
	wake    chan struct{} // closed and replaced at every commit
	marks   chan struct{} // closed and replaced when something was read, or given up
	turned  chan struct{} // closed and replaced when a device has become reachable, or could not be reached
	waits   map[store.Row][]chan uint8
	acked   map[store.Row]uint8 // by which route: events with a receipt that is not yet in the store
	said    map[event.ID]said   // own messages that nobody has received yet, and the last that somebody has
	saidIDs map[store.Row]event.ID
	saidLen int         // bytes in said
	past    []store.Row // those of said whose receipt is in the store, oldest first
	notices map[chan Notice]bool
}

// saidMemory bounds the messages that are waited for from memory: 4 MiB are
// 4,096 of 1 KiB. Others are looked up, which takes longer.
const saidMemory = 4 << 20

// saidPast is how many messages are kept whose receipt is in the store: who sent
// one may wait for it a little later.
const saidPast = 256

// said is an own message that was said a moment ago.
type said struct {
	conv     event.ConversationID
	e        store.Event
	received bool // a receipt is in the store, which came by this route
	route    uint8
}

func newHub() *hub {
	return &hub{
		wake: make(chan struct{}), marks: make(chan struct{}), turned: make(chan struct{}), waits: map[store.Row][]chan uint8{}, acked: map[store.Row]uint8{},
		said: map[event.ID]said{}, saidIDs: map[store.Row]event.ID{}, notices: map[chan Notice]bool{},
	}
}

// tell wakes everybody who waits for a commit.
func (h *hub) tell() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.commits++
	close(h.wake)
	h.wake = make(chan struct{})
}

// turn wakes everybody who waits for a route.
func (h *hub) turn() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.turned)
	h.turned = make(chan struct{})
}

// turns gives a channel that is closed when the next try to reach a device has ended.
func (h *hub) turns() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.turned
}

// after gives a channel that is closed at the next commit, and the number of
// those that were.
func (h *hub) after() (<-chan struct{}, uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.wake, h.commits
}

// await registers for the first receipt of an own event: the channel gives the
// route that it came by. The second channel is
// closed when any message was read by the other side, or given up: then the event
// is worth another look.
func (h *hub) await(row store.Row) (receipt chan uint8, marks <-chan struct{}) {
	receipt = make(chan uint8, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.register(row, receipt)
	return receipt, h.marks
}

// awaitSaid is await for a message that was said a moment ago. False: there is
// none of that id in memory.
func (h *hub) awaitSaid(id event.ID) (s said, receipt chan uint8, marks <-chan struct{}, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok = h.said[id]
	receipt = make(chan uint8, 1)
	switch {
	case s.received:
		receipt <- s.route
	case ok:
		h.register(s.e.Row, receipt)
	}
	return s, receipt, h.marks, ok
}

// register has a receipt reported, now if it is there. The lock is held.
func (h *hub) register(row store.Row, receipt chan uint8) {
	if route, ok := h.acked[row]; ok {
		receipt <- route
		return
	}
	h.waits[row] = append(h.waits[row], receipt)
}

// remember keeps an own message that was just stored for those who will wait
// for its receipt.
func (h *hub) remember(conv event.ConversationID, e store.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.saidLen+len(e.Raw) > saidMemory {
		return
	}
	h.said[e.ID], h.saidIDs[e.Row] = said{conv: conv, e: e}, e.ID
	h.saidLen += len(e.Raw)
}

// marked tells that something was read by the other side, or given up.
func (h *hub) marked() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.marks)
	h.marks = make(chan struct{})
}

// gaveUp tells that messages will not be delivered any more: everybody looks again.
func (h *hub) gaveUp() {
	h.mu.Lock()
	clear(h.said)
	clear(h.saidIDs)
	h.saidLen, h.past = 0, nil
	h.mu.Unlock()
	h.marked()
}

func (h *hub) forget(row store.Row, ch chan uint8) {
	h.mu.Lock()
	defer h.mu.Unlock()
	kept := h.waits[row][:0]
	for _, w := range h.waits[row] {
		if w != ch {
			kept = append(kept, w)
		}
	}
	if len(kept) == 0 {
		delete(h.waits, row)
		return
	}
	h.waits[row] = kept
}

// delivered tells who waits for these events.
func (h *hub) delivered(items []item, route uint8) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, i := range items {
		h.acked[i.event] = route
		for _, ch := range h.waits[i.event] {
			ch <- route
		}
		delete(h.waits, i.event)
	}
}

// stored tells that the receipts of these events are in the store now.
func (h *hub) stored(items []item) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, i := range items {
		route := h.acked[i.event]
		delete(h.acked, i.event)
		id, ok := h.saidIDs[i.event]
		if !ok {
			continue
		}
		s := h.said[id]
		s.received, s.route = true, route
		h.said[id] = s
		if h.past = append(h.past, i.event); len(h.past) > saidPast {
			h.pass(h.past[0])
			h.past = h.past[1:]
		}
	}
}

// pass forgets a message that was received. The lock is held.
func (h *hub) pass(row store.Row) {
	id, ok := h.saidIDs[row]
	if !ok {
		return
	}
	h.saidLen -= len(h.said[id].e.Raw)
	delete(h.said, id)
	delete(h.saidIDs, row)
}

// notice hands n to every watcher that has room.
func (h *hub) notice(n Notice) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ch := range h.notices {
		select {
		case ch <- n:
		default:
		}
	}
}

// watch gives a channel of notices until stop is called.
func (h *hub) watch() (notices <-chan Notice, stop func()) {
	ch := make(chan Notice, noticeQueue)
	h.mu.Lock()
	h.notices[ch] = true
	h.mu.Unlock()
	return ch, func() {
		h.mu.Lock()
		delete(h.notices, ch)
		h.mu.Unlock()
	}
}

// next waits for a commit after the one of number seen, or for the end of ctx.
func (h *hub) next(ctx context.Context, seen uint64) error {
	for {
		wake, commits := h.after()
		if commits > seen {
			return nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
