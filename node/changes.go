package node

import (
	"context"
	"encoding/hex"
	"iter"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
)

// changePage is how many changes one read of the store gives.
const changePage = 256

// Change is one stored object in its newest state. Exactly one of the pointers
// is set. An object that changed twice before the reader came appears once.
type Change struct {
	Changed      uint64
	Kind         string // "message", "state", "contact", "conversation", "invite"
	Message      *Message
	State        *StateChange
	Contact      *Contact
	Conversation *Conversation
	Invite       *Invite
}

// StateChange says that own messages of a conversation have come further: those
// of this device with the numbers From to To.
type StateChange struct {
	Conversation event.ConversationID
	State        string // "delivered", "read"
	From, To     uint64
	Upto         event.ID // the message with number To
	Device       identity.DeviceID
	Person       identity.PersonID
	At           time.Time
}

func hexID(id event.ID) string { return hex.EncodeToString(id[:]) }

// Changes gives up to limit objects with changed > since, in that order.
func (n *Node) Changes(ctx context.Context, since uint64, limit int) ([]Change, error) {
	var out []Change
	err := n.read(ctx, func(v *view) error {
		changes, err := v.tx.Changes(since, limit)
		if err != nil {
			return err
		}
		for _, c := range changes {
			shown, ok, err := v.change(c)
			if err != nil {
				return err
			}
			if ok {
				shown.Changed = c.Changed
				out = append(out, shown)
			} else {
				out = append(out, Change{Changed: c.Changed})
			}
		}
		return nil
	})
	return out, err
}

// change renders one changed object. False: it is not shown to anybody.
func (v *view) change(c store.Change) (Change, bool, error) {
	switch c.Kind {
	case store.ChangedEvent:
		e, err := v.tx.EventByRow(c.Row)
		if err != nil {
			return Change{}, false, err
		}
		if e.Type.Class() != event.Content {
			return Change{}, false, nil
		}
		m, err := v.message(&e)
		return Change{Kind: "message", Message: &m}, true, err
	case store.ChangedContact:
		contact, err := v.tx.ContactByRow(c.Row)
		if err != nil {
			return Change{}, false, err
		}
		if contact.State == store.Self {
			return Change{}, false, nil
		}
		shown, err := v.contact(contact)
		return Change{Kind: "contact", Contact: &shown}, true, err
	case store.ChangedConversation:
		conv, err := v.conv(c.Row)
		if err != nil {
			return Change{}, false, err
		}
		shown, err := v.conversation(*conv)
		return Change{Kind: "conversation", Conversation: &shown}, true, err
	case store.ChangedDelivery:
		d, err := v.tx.DeliveryByRow(c.Row)
		if err != nil {
			return Change{}, false, err
		}
		dev, err := v.tx.DeviceByRow(d.Device)
		if err != nil {
			return Change{}, false, err
		}
		s := &StateChange{State: "delivered", From: d.From, To: d.To, Device: dev.ID, Person: dev.Person, At: d.At}
		return Change{Kind: "state", State: s}, true, v.upto(s, d.Conversation, d.To)
	case store.ChangedReadMark:
		r, err := v.tx.ReadMarkByRow(c.Row)
		if err != nil {
			return Change{}, false, err
		}
		// What was not confirmed was not read, whatever number the mark names.
		upto, err := v.tx.DeliveredUpto(r.Conversation, r.Upto)
		if err != nil || upto == 0 {
			return Change{}, false, err
		}
		s := &StateChange{State: "read", From: 1, To: upto, Person: r.Person, At: r.At}
		return Change{Kind: "state", State: s}, true, v.upto(s, r.Conversation, upto)
	case store.ChangedInvite:
		i, err := v.tx.InviteByRow(c.Row)
		if err != nil {
			return Change{}, false, err
		}
		shown := v.invite(i)
		return Change{Kind: "invite", Invite: &shown}, true, nil
	}
	return Change{}, false, nil
}

// upto names the last own message of a run.
func (v *view) upto(s *StateChange, conv store.Row, seq uint64) error {
	c, err := v.conv(conv)
	if err != nil {
		return err
	}
	s.Conversation = c.ID
	e, err := v.tx.EventByKey(conv, 0, seq)
	if isNotFound(err) {
		return nil
	}
	s.Upto = e.ID
	return err
}

// Events yields everything stored that changed after since, in order of its
// changed number, and then what changes from then on, until ctx ends or the
// node is closed. The reader keeps the last number it saw; nothing is lost while
// no reader is there.
func (n *Node) Events(ctx context.Context, since uint64) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		ctx, cancel := n.alive(ctx)
		defer cancel()
		for {
			_, seen := n.hub.after()
			page, err := n.Changes(ctx, since, changePage)
			if err != nil {
				yield(Change{}, n.ending(err))
				return
			}
			for _, c := range page {
				since = c.Changed
				if c.Kind != "" && !yield(c, nil) {
					return
				}
			}
			if len(page) > 0 {
				continue
			}
			if err := n.hub.next(ctx, seen); err != nil {
				yield(Change{}, n.ending(err))
				return
			}
		}
	}
}

// Notices yields lines about the moment until ctx ends or the node is closed.
func (n *Node) Notices(ctx context.Context) iter.Seq2[Notice, error] {
	return func(yield func(Notice, error) bool) {
		ctx, cancel := n.alive(ctx)
		defer cancel()
		notices, stop := n.hub.watch()
		defer stop()
		for {
			select {
			case notice := <-notices:
				if !yield(notice, nil) {
					return
				}
			case <-ctx.Done():
				yield(Notice{}, n.ending(ctx.Err()))
				return
			}
		}
	}
}

// alive gives a context that also ends when the node begins to close.
func (n *Node) alive(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-n.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel()
		<-watched
	}
}

// ending says why a stream ended: the caller's context or the node.
func (n *Node) ending(err error) error {
	select {
	case <-n.closing:
		return ErrClosed
	default:
		return err
	}
}
