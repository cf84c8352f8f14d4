package node

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/protocol/dm"
	"github.com/kinloom/kinloom/protocol/session"
	"github.com/kinloom/kinloom/protocol/wire"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// linkCells is how many cells a link takes ahead of its stream: 64 cells of
	// 16 KiB are 1 MiB, a full window at 100 ms and 80 Mbit/s.
	linkCells = 64
	// linkRecent is how many cells a link remembers, to know which session a
	// cell was of that the other side could not open.
	linkRecent = 256
)

// link is one live stream with another device: the edge between the loop and a
// dm connection. Its methods never wait, so the loop may call them.
type link struct {
	net     *p2p.Net
	veiled  bool // net is the veil
	conn    *dm.Conn
	stream  network.Stream // below conn
	peer    peer.ID
	route   uint8
	addr    string
	dialled bool // by this side
	since   time.Time
	edge    *edge

	// Of the loop: which device it is, and the last cells.
	device identity.DeviceID
	known  bool      // device is set
	quiet  bool      // this side dialled and has said nothing yet
	heard  bool      // a cell of the other side opened
	used   time.Time // when a cell last went or came
	recent map[wire.CellID]session.ID
	order  []wire.CellID
	claims identity.DeviceID // where device is not known: whose news were asked for
	held   [][]byte          // cells that open once these news are here

	out     chan []byte
	doubt   chan time.Duration // is anybody there? Who does not answer for so long is not
	starved atomic.Bool        // the loop has more and found no room
	stale   atomic.Bool        // a newer one took its place: its connection goes with it
	once    sync.Once
	end     context.CancelFunc
}

// room says whether the link takes another cell now. Only the loop sends, so
// what has room keeps it until the loop sends. After a no the loop is told when
// there is room again.
func (k *link) room() bool {
	if len(k.out) < cap(k.out) {
		return true
	}
	k.starved.Store(true)
	return len(k.out) < cap(k.out) // it may have been emptied just before the note
}

// send takes a cell for the stream. The caller has asked room.
func (k *link) send(cell []byte, s session.ID) {
	if id, _, err := wire.ParseCell(cell); err == nil {
		if len(k.order) == linkRecent {
			delete(k.recent, k.order[0])
			k.order = k.order[1:]
		}
		k.recent[id], k.order = s, append(k.order, id)
	}
	k.quiet, k.used = false, k.edge.n.cfg.Now()
	select {
	case k.out <- cell:
	default: // room was not asked: the resend timer brings it again
	}
}

// close ends the stream.
func (k *link) close() { k.once.Do(k.end) }

const (
	// How long a receipt may be missing before the other side is asked whether it is
	// there, and how long it has for its answer: a relay that died, or a network that was
	// left, shows only when QUIC gives up, after 30 s. Where receipts come fast, so does
	// the doubt.
	doubtSoon  = 2 * time.Second
	doubtAfter = 6 * time.Second
	// The least that it has, for one packet may be lost, and where the network has just
	// changed; and the most.
	doubtTime  = 3 * time.Second
	doubtMoved = 2 * time.Second
	doubtLong  = 5 * time.Second
)

// answered takes how long a receipt took.
func (q *queue) answered(took time.Duration) { q.slow = max(took, q.slow-q.slow/8) }

// patience is what an answer may take, of a least and a most, by what receipts took.
func (q *queue) patience(least, most time.Duration) time.Duration {
	if q.slow == 0 {
		return most
	}
	return min(max(least, 4*q.slow+time.Second), most)
}

// late says whether a receipt is missing for so long that there may be nobody.
func (q *queue) late(now time.Time) bool {
	return q.sent > 0 && now.Sub(q.items[0].sent) >= q.patience(doubtSoon, doubtAfter)
}

// doubted has the other side asked whether it is there. It has as long as it usually
// takes, and at least so long.
func (q *queue) doubted(least time.Duration) {
	select {
	case q.link.doubt <- q.patience(least, doubtLong):
	default:
	}
}

// probe ends the link, with its connection, once nobody answers, until ctx ends.
func (k *link) probe(ctx context.Context) error {
	for {
		var patience time.Duration
		select {
		case patience = <-k.doubt:
		case <-ctx.Done():
			return nil
		}
		asked, cancel := context.WithTimeout(ctx, patience)
		_, _, err := k.net.PingOn(asked, k.stream.Conn())
		cancel()
		if ctx.Err() == nil && k.unanswered(err) {
			if k.route == RouteRelay {
				k.net.DoubtRelay(p2p.PathOf(k.stream.Conn()).Relay) // it may be the relay that is gone, and others come over it
			}
			k.replaced()
		}
	}
}

// unanswered says whether a ping got no answer of any kind: who refuses it, or ends its
// stream, is there.
func (k *link) unanswered(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, p2p.ErrNotConnected) || err != nil && k.stream.Conn().IsClosed()
}

// replaced ends the stream and its connection.
func (k *link) replaced() {
	k.stale.Store(true)
	k.close()
}

// nack tells the other side that one of its cells did not open.
func (k *link) nack(id wire.CellID, code wire.Code) {
	if err := k.conn.Nack(id, code); err != nil && !errors.Is(err, dm.ErrFull) {
		k.close()
	}
}

// ask asks the other side for a fresh bundle and its news.
func (k *link) ask() {
	k.quiet = false
	if err := k.conn.WantBundle(); err != nil && !errors.Is(err, dm.ErrOrder) {
		k.close()
	}
}

// write carries cells from the loop to the stream until ctx ends. Where the loop
// found no room, it is told once there is some.
func (k *link) write(ctx context.Context) error {
	cells := make([][]byte, 0, linkCells)
	for {
		cells = cells[:0]
		select {
		case c := <-k.out:
			cells = append(cells, c)
		case <-ctx.Done():
			return ctx.Err()
		}
		for len(k.out) > 0 && len(cells) < cap(cells) {
			cells = append(cells, <-k.out)
		}
		if err := k.conn.Send(ctx, cells); err != nil {
			return err
		}
		if k.starved.Swap(false) {
			if err := k.edge.n.loop.post(ctx, carried{link: k}); err != nil {
				return err
			}
		}
	}
}

// Cell implements dm.Handler: the reader of the stream hands a cell to the loop
// and waits for a place, so that a fast sender is slowed down by the store.
func (k *link) Cell(ctx context.Context, cell []byte) error {
	return k.edge.n.loop.post(ctx, cellIn{cell: cell, link: k})
}

// Nack implements dm.Handler.
func (k *link) Nack(id wire.CellID, code wire.Code) {
	k.edge.hand(nacked{link: k, cell: id, code: code})
}

// WantBundle implements dm.Handler: a fresh bundle, its secrets on disk.
func (k *link) WantBundle(ctx context.Context) (dm.Bundle, error) {
	return k.edge.n.freshBundle(ctx, k)
}

// Bundle implements dm.Handler.
func (k *link) Bundle(b dm.Bundle) {
	if len(b.Bundle)+len(b.News) > 0 {
		k.edge.hand(bundleIn{link: k, Bundle: b})
	}
}
