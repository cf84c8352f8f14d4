package node

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/keyfile"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/dm"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/session"
	"github.com/kinloom/kinloom/protocol/wire"
)

const (
	// inputQueue bounds what waits for the loop; edges wait when it is full.
	inputQueue = 1024
	// batchMax is how many inputs one commit takes: group commit without a timer.
	batchMax = 256
	// lazyAfter is how long what a crash may take is kept from the disk, so that
	// one commit has it for many messages: receipts, of which a lost one costs a
	// resend that the receiver recognises, and what messages changed in their
	// conversation, which is derived from them again (loadAccount).
	lazyAfter = 20 * time.Millisecond
	// tickEvery is how often the loop looks up what is due.
	tickEvery = time.Second
)

// input is what an edge hands to the loop: say, cellIn, met, carried, done,
// change or tick. fail is called instead of the answer when the batch was lost.
type input interface{ fail(err error) }

// say is something the owner says in a conversation.
type say struct {
	conv  event.ConversationID
	typ   event.Type
	key   string
	body  []byte
	once  string // idempotency key
	reply func(store.Event, error)
}

// cellIn is a cell that came in by a live link.
type cellIn struct {
	cell  []byte
	link  *link
	again bool // it waited for news, which are here now
}

// met says that a device is reachable by a link, or no longer.
type met struct {
	link  *link
	gone  bool
	taken chan struct{} // closed once the loop knows the link; nil: nobody waits
}

// carried says that a link has room again.
type carried struct{ link *link }

// nacked says that the other side refused a cell.
type nacked struct {
	link *link
	cell wire.CellID
	code wire.Code
}

// bundleIn is a fresh bundle that the other side of a link handed out, with the
// news of its devices.
type bundleIn struct {
	link *link
	dm.Bundle
}

// done is the end of a job: a dial that failed, an exchange that succeeded.
type done struct {
	apply func(*loop, *store.Tx) error
	reply func(error)
}

// change is the owner's or a job's act on the records: petname, trust, invite,
// conversation settings. It runs inside the batch's transaction.
type change struct {
	apply func(*loop, *store.Tx) error
	reply func(error)
}

func (i say) fail(err error)    { i.reply(store.Event{}, err) }
func (i cellIn) fail(error)     {}
func (i met) fail(error)        { i.tell() }
func (i carried) fail(error)    {}
func (i nacked) fail(error)     {}
func (i bundleIn) fail(error)   {}
func (i done) fail(err error)   { i.reply(err) }
func (i change) fail(err error) { i.reply(err) }

// tell says that the loop has taken note.
func (i met) tell() {
	if i.taken != nil {
		close(i.taken)
	}
}

// loop is the account loop: the one goroutine that owns the account and writes
// account.db.
type loop struct {
	st       *store.Store
	write    func(context.Context, func(*store.Tx) error) error // of st
	secrets  *keyfile.Secrets
	cfg      *Config
	log      *slog.Logger
	in       chan input
	net      jobs      // where dials and other slow work go
	place    place     // where this node is found
	told     telling   // how often that is told
	movedAt  time.Time // when that changed
	far      Reach     // how far it can be reached
	unveilAt time.Time // when the veil ends, as nobody needs it
	// parting are those who may reach this node by relays only since a moment, with the
	// number of the key that was drawn because of them, 0 until that is stored: the main
	// host has a key that they knew until part.
	parting       map[identity.PersonID]uint64
	keys, hasKeys uint64 // transport keys that the main host was to get since the start, and the last that it got
	ticks         int
	hub           *hub // who waits for changes

	acct                     *account
	after                    []func()               // effects, released once the batch is committed
	wrote                    bool                   // this batch has something to commit
	stored                   bool                   // and the disk has to take some of it
	flush                    bool                   // and what was kept from the disk goes with it
	touched                  map[*device]bool       // devices whose route has something to do
	lazy                     []ackRange             // receipts that are not on the disk
	spoken                   map[*conversation]bool // conversations whose row is behind their events
	lazyAt                   time.Time              // when the first of both came
	links                    map[*link]bool
	lastNow, lastTimer, kept time.Time // of the last tick; of the last housekeeping
	more                     bool      // messages are left that have to be deleted
	failures                 int       // commits that failed in a row
	resumeAt                 time.Time // until when the loop is paused after one
	warnings                 []string
	alarms                   []string // what was found wrong since the start
	scratch                  []session.Sealed

	given map[identity.DeviceID]time.Time // when a device may have all its fresh bundles again
}

// jobs is the slow work that the loop gives away; each comes back as an input.
type jobs interface {
	dial(r dialRequest) bool
	clean(addrs [][]byte) [][]byte // those that may be dialled
	straight(p peer.ID) bool       // there is a connection with it that needs no relay
	know(k *known)
	places(k *known) []netip.Prefix // the public places at which this machine knows to be
	rekey(k nextKey)                // gives the main host another transport key
	veil(key crypto.PrivKey)        // runs the veil with this key; nil: ends it
}

func (l *loop) now() time.Time { return l.cfg.Now() }

// post hands an input to the loop and waits for a place in its queue.
func (l *loop) post(ctx context.Context, in input) error {
	select {
	case l.in <- in:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run is the loop. It ends when ctx does, after what had been handed to it is
// committed.
func (l *loop) run(ctx context.Context) error {
	work := context.WithoutCancel(ctx) // a batch that began is committed
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	lazy := time.NewTimer(time.Hour)
	defer lazy.Stop()
	batch := make([]input, 0, batchMax)
	for {
		batch = batch[:0]
		if l.lags() && !l.paused() {
			lazy.Reset(time.Until(l.lazyAt.Add(lazyAfter)))
		}
		ticked := false
		select {
		case in := <-l.in:
			runtime.Gosched() // who was woken by the last batch hands in now, and not one input late
			batch = l.drain(append(batch, in))
		case <-tick.C:
			ticked = true
		case <-lazy.C:
		case <-ctx.Done():
			l.flush = true
			return l.step(work, l.drain(batch), false)
		}
		if err := l.step(work, batch, ticked); err != nil {
			return err
		}
	}
}

func (l *loop) drain(batch []input) []input {
	for len(batch) < batchMax {
		select {
		case in := <-l.in:
			batch = append(batch, in)
		default:
			return batch
		}
	}
	return batch
}

// step runs one batch: everything in memory and in one transaction, then the
// effects. If the commit fails, memory is thrown away and read anew from disk,
// every input of the batch is told, and no effect leaves.
//
// A batch of nothing but receipts commits nothing: the rows that it frees and the
// sessions that it moved wait for a commit, at most lazyAfter. Nothing is sent
// from a session state that is not on disk, so losing it only causes a resend.
func (l *loop) step(ctx context.Context, batch []input, ticked bool) error {
	l.wrote, l.stored = ticked, false
	failed := map[int]error{}
	err := l.write(ctx, func(tx *store.Tx) error {
		for n, in := range batch {
			if err := l.handle(tx, in); err != nil {
				if !inputError(err) {
					return err
				}
				failed[n] = err
			}
		}
		if ticked {
			if err := l.tick(tx); err != nil {
				return err
			}
		}
		if err := l.prepare(); err != nil {
			return err
		}
		if ticked || l.flush || l.lags() && !l.paused() && (time.Since(l.lazyAt) >= lazyAfter || l.starving()) {
			if err := l.flushLazy(tx); err != nil {
				return err
			}
			if err := l.flushSpoken(tx); err != nil {
				return err
			}
		}
		if !l.wrote {
			return nil
		}
		if err := tx.PutRecords(l.acct.sessions.Dirty()); err != nil {
			return err
		}
		l.stored = tx.Wrote()
		return nil
	})
	l.flush = false
	switch {
	case err == nil:
	case len(batch) > 0 && store.OfContent(err):
		return l.apart(ctx, batch, err)
	default:
		return l.lost(ctx, batch, err)
	}
	for n, err := range failed {
		batch[n].fail(err)
	}
	l.release()
	return nil
}

// lags says whether something is kept from the disk.
func (l *loop) lags() bool { return len(l.lazy) > 0 || len(l.spoken) > 0 }

// spoke notes that the row of a conversation is behind its events.
func (l *loop) spoke(c *conversation) {
	l.lagging()
	l.spoken[c] = true
}

// lagging notes that something is kept from the disk from now on.
func (l *loop) lagging() {
	if !l.lags() {
		l.lazyAt = time.Now() // a timer's, whatever the clock says
	}
}

// starving says whether an outbox needs its receipts on the disk, to read on
// there.
func (l *loop) starving() bool {
	for _, a := range l.lazy {
		if a.device.queue.hungry() {
			return true
		}
	}
	return false
}

// prepare has the sessions that are about to be used seal what they owe, so that
// it is on disk before it leaves.
func (l *loop) prepare() error {
	now := l.now()
	for _, o := range l.acct.sessions.Owing() {
		if d, ok := l.acct.devices[o.Device]; ok && d.queue.link != nil {
			l.touch(d)
		}
	}
	for d := range l.touched {
		if d.queue.link == nil {
			continue
		}
		sealed, err := l.acct.sessions.Prepare(now, d.ID)
		if err != nil && !noSession(err) {
			return err
		}
		l.wrote = l.wrote || sealed
	}
	return nil
}

// flushSpoken writes what saying and hearing changed in conversations: all that
// lag at once, so that events above the highest changed number of a conversation
// are those that no conversation has taken in.
func (l *loop) flushSpoken(tx *store.Tx) error {
	for c := range l.spoken {
		delete(l.spoken, c)
		l.wrote = true
		c.OwnSeq, c.Heads, c.Clock = c.graph.Seq(), c.graph.Heads(), c.graph.Clock()
		if err := tx.PutConversation(&c.Conversation); err != nil {
			return err
		}
	}
	return nil
}

// inputError says whether err concerns one input only: a person's mistake or a
// peer's. Everything else is the store's and ends the batch.
func inputError(err error) bool {
	_, ok := errors.AsType[*Error](err)
	return ok
}

// release lets the effects of a committed batch go, then hands the touched
// devices' cells to their routes.
func (l *loop) release() {
	l.hub.lags.Store(l.lags())
	for _, f := range l.after {
		f()
	}
	clear(l.after)
	l.after = l.after[:0]
	for d := range l.touched {
		delete(l.touched, d)
		l.pump(d)
	}
	if l.stored {
		l.failures = 0
	}
	if l.wrote {
		l.hub.tell()
	}
}

func (l *loop) then(f func())   { l.after = append(l.after, f) }
func (l *loop) touch(d *device) { l.touched[d] = true }

// handle runs one input inside the batch's transaction.
func (l *loop) handle(tx *store.Tx, in input) error {
	switch in := in.(type) {
	case cellIn:
		if l.paused() {
			if !in.link.known {
				l.then(in.link.close)
			}
			return nil
		}
		return l.cellIn(tx, in)
	case say:
		e, err := l.say(tx, in)
		if err == nil {
			l.then(func() { in.reply(e, nil) })
		}
		return err
	case change:
		l.flush = true
		err := in.apply(l, tx)
		if err == nil {
			l.then(func() { in.reply(nil) })
		}
		return err
	case done:
		l.flush = true
		err := in.apply(l, tx)
		if err == nil {
			l.then(func() { in.reply(nil) })
		}
		return err
	case met:
		l.then(in.tell)
		return l.met(tx, in)
	case carried:
		if d, ok := l.acct.devices[in.link.device]; ok {
			l.touch(d)
		}
	case nacked:
		return l.nacked(tx, in)
	case bundleIn:
		return l.bundleIn(tx, in)
	}
	return nil
}
