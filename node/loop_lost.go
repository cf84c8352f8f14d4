package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/store"
)

// lost recovers from a failed commit. The owner is told of the first in a row.
func (l *loop) lost(ctx context.Context, batch []input, cause error) error {
	told := storeError(cause)
	if l.failures == 0 {
		l.log.Error("commit failed; memory is read anew from disk", "error", cause)
		l.hub.notice(Notice{At: l.now(), Kind: "store", Text: told.Error()})
	}
	l.resumeAt = time.Now().Add(min(time.Second<<min(l.failures, 6), time.Minute))
	l.failures++
	l.refuseAll(batch, told)
	if errors.Is(cause, store.ErrFatal) || errors.Is(cause, store.ErrMoved) {
		return cause
	}
	return l.discard(ctx, cause)
}

// apart recovers from a failure that is not the disk's: one of the inputs is to
// blame. Each runs again by itself, and who fails then is refused alone, so that
// what one contact sends never keeps others, or the owner, from being served.
func (l *loop) apart(ctx context.Context, batch []input, cause error) error {
	if len(batch) == 1 {
		l.log.Error("something cannot be stored", "input", fmt.Sprintf("%T", batch[0]), "error", cause)
		l.refuseAll(batch, storeError(cause))
		return l.discard(ctx, cause)
	}
	if err := l.discard(ctx, cause); err != nil {
		return err
	}
	for _, in := range batch {
		if err := l.step(ctx, []input{in}, false); err != nil {
			return err
		}
	}
	return nil
}

// refuseAll tells the inputs of a batch that was lost.
func (l *loop) refuseAll(batch []input, told error) {
	for _, in := range batch {
		if met, ok := in.(met); ok { // a link is there or gone, whatever the disk says
			l.links[met.link] = true
			if met.gone {
				delete(l.links, met.link)
			}
		}
		in.fail(told)
	}
}

// discard drops what is in memory only, and reads the account from disk.
func (l *loop) discard(ctx context.Context, cause error) error {
	l.after, l.lazy, l.flush = nil, nil, false
	clear(l.touched)
	clear(l.spoken)
	maps.DeleteFunc(l.parting, func(_ identity.PersonID, key uint64) bool { return key == 0 })
	if err := l.reload(ctx); err != nil {
		return fmt.Errorf("reload after a failed commit: %w", errors.Join(err, cause))
	}
	return nil
}

// reload reads the account from disk and ties the live links to it again.
func (l *loop) reload(ctx context.Context) error {
	err := l.st.Read(ctx, func(tx *store.Tx) error {
		acct, err := loadAccount(tx, l.secrets, l.cfg.Random, l.now())
		if err == nil {
			if l.acct != nil {
				acct.sessions.DoubtAs(l.acct.sessions)
			}
			l.acct = acct
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, c := range l.acct.recalled {
		l.spoke(c)
	}
	// The sessions may know of receipts that had not reached the outbox yet.
	for _, d := range l.acct.devices {
		for _, r := range l.acct.sessions.Receipts(d.ID) {
			l.acked(d, r.Session, r.Mark, nil)
		}
	}
	l.hub.lags.Store(l.lags())
	for link := range l.links {
		if d, ok := l.deviceOf(link); ok && !l.shutOut(d) {
			link.device, link.known = d.ID, true
			link.conn.Recognised()
			d.queue.link = link
			l.touch(d)
		}
	}
	return nil
}

// storeError puts a failure of the store into words.
func storeError(err error) error {
	e := &Error{Kind: KindError, Err: err, Text: "could not save", Next: "Nothing was lost; run kinloom status to see more."}
	switch {
	case errors.Is(err, store.ErrDiskFull):
		e.Err, e.Text, e.Next = nil, "the disk is full", "Free some space and try again; reading still works."
	case errors.Is(err, store.ErrReadOnly):
		e.Text, e.Next = "the home is read-only", "Make it writable and try again; reading still works."
	case errors.Is(err, store.ErrMoved):
		e.Err, e.Text, e.Next = nil, "the home was removed or moved while the node ran, so the node stops", "Put it back and start the node again: what nobody has confirmed is sent once more."
	case errors.Is(err, context.Canceled):
		return ErrClosed
	}
	return e
}

// paused says that the store failed a moment ago: until it is worth another try,
// nothing is sent whose receipt could not be kept, and nothing is opened that
// could not be stored. What others send is not acknowledged and comes again.
func (l *loop) paused() bool { return l.failures > 0 && time.Now().Before(l.resumeAt) }
