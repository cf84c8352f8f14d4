package node

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
)

// Stage is one step on a message's way.
type Stage struct {
	At     time.Time // zero: not known
	Stage  string    // "queued", "sealed", "sent", "delivered", "read", "failed"
	Route  string
	By     string // whose device
	Reason string
	Next   string
}

// Why tells every step of an own message that this node knows of, device by
// device, and for what is missing the reason and what to do. Of a message from
// another person it tells when and how it came.
func (n *Node) Why(ctx context.Context, id string) ([]Stage, error) {
	e, err := n.find(ctx, id)
	if err != nil {
		return nil, err
	}
	var waits []Stage // first, as it has the receipts that were taken written
	if err := n.pending(ctx, e, &waits); err != nil {
		return nil, err
	}
	var out []Stage
	err = n.read(ctx, func(v *view) error {
		if e, err = v.tx.EventByRow(e.Row); err != nil {
			return err
		}
		if e.Device != 0 {
			p, err := v.author(e.Device)
			out = []Stage{{At: e.At, Stage: "delivered", Route: routeName(e.Route), By: "this device", Reason: "from " + p.name}}
			return err
		}
		out = []Stage{{At: e.At, Stage: "queued", By: "this device"}}
		if err := v.stages(&out, e); err != nil {
			return err
		}
		state, err := v.tx.StateOf(e)
		if err != nil || state != store.Read { // a mark names a number, which may have been another message's
			return err
		}
		marks, err := v.tx.ReadMarks(e.Conversation)
		for _, r := range marks {
			if r.Upto < e.Seq {
				continue
			}
			name, err := v.name(r.Person)
			if err != nil {
				return err
			}
			out = append(out, Stage{At: r.At, Stage: "read", By: name})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return append(out, waits...), nil
}

// stages adds what was delivered.
func (v *view) stages(out *[]Stage, e store.Event) error {
	deliveries, err := v.tx.DeliveryOf(e.Conversation, e.Seq)
	if err != nil {
		return err
	}
	for _, d := range deliveries {
		p, err := v.author(d.Device)
		if err != nil {
			return err
		}
		if !d.Sent.IsZero() {
			*out = append(*out, Stage{At: latest(e.At, d.Sent), Stage: "sent", Route: routeName(d.Route), By: p.name})
		}
		*out = append(*out, Stage{At: latest(e.At, d.At), Stage: "delivered", Route: routeName(d.Route), By: p.name})
	}
	if e.Failed != "" {
		*out = append(*out, Stage{Stage: "failed", Reason: e.Failed, Next: afterFailure(e.Failed)})
	}
	return nil
}

// latest gives the later of two times. Events of one second share a delivery, with the times of its first: what came
// after that was not confirmed before it was said.
func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// noContact is why what waited for a person failed when they were removed.
const noContact = "no longer a contact"

// afterFailure says what helps when a message has failed.
func afterFailure(reason string) string {
	if reason == noContact {
		return "Add them again, then send it again: kinloom contact add LINK."
	}
	return "Send it again: kinloom send."
}

// pending adds what still waits, from the loop's own knowledge.
func (n *Node) pending(ctx context.Context, e store.Event, out *[]Stage) error {
	known := len(*out)
	return n.ask(ctx, func(l *loop) {
		*out = (*out)[:known] // it may run again, where another input of its batch failed
		for _, d := range l.acct.devices {
			for at, i := range d.queue.items {
				if i.event != e.Row {
					continue
				}
				name := l.acct.shown(d.Person)
				if i.sealed() {
					*out = append(*out, Stage{At: i.at, Stage: "sealed", By: name})
				}
				*out = append(*out, d.waiting(i, at < d.queue.sent, name))
			}
		}
	})
}

// waiting says where one queued item stands.
func (d *device) waiting(i item, sent bool, name string) Stage {
	q := &d.queue
	switch {
	case sent && q.link != nil:
		return Stage{At: i.sent, Stage: "sent", Route: routeName(q.link.route), By: name, Reason: "no receipt yet", Next: "It is sent again by itself."}
	case q.link != nil && !i.sealed():
		return Stage{Stage: "queued", By: name, Reason: "a fresh key was asked of the other device", Next: "It goes out as soon as the key comes."}
	case q.link != nil:
		return Stage{Stage: "queued", By: name, Route: routeName(q.link.route), Reason: "others go first", Next: "It goes out by itself."}
	}
	s := Stage{At: q.tryAt, Stage: "queued", By: name, Reason: name + "'s device is not reachable now"}
	s.Next = "It goes out by itself when the device is reachable; see: kinloom route " + quoteName(name) + "."
	if len(d.Addrs) == 0 {
		s.Reason = "no address of " + name + "'s device is known"
		s.Next = "It goes out when that device comes to this one, or on the local network."
	}
	return s
}

// ClearConversation deletes what was said in a conversation, on this node only.
func (n *Node) ClearConversation(ctx context.Context, who string) (removed int, err error) {
	err = n.change(ctx, func(l *loop, tx *store.Tx) error {
		c, err := conversationIn(tx, who)
		if err != nil {
			return err
		}
		removed, err = tx.ClearConversation(c.Row)
		if known, ok := l.acct.convRows[c.Row]; ok && err == nil {
			known.Unread = 0
			l.spoke(known)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return removed, n.emptied(ctx)
}

// emptyTime is how long the owner waits for the bytes of what was deleted, which is
// not shown any more, to be gone from the disk. What is left by then goes with the ticks.
const emptyTime = 30 * time.Second

// emptied deletes what was cleared or is too old: a step a commit, so that others are
// served in between.
func (n *Node) emptied(ctx context.Context) error {
	end := time.Now().Add(emptyTime)
	for more := true; more && time.Now().Before(end); {
		err := n.change(ctx, func(l *loop, tx *store.Tx) (err error) {
			more, err = l.expire(tx)
			return err
		})
		if err != nil {
			return err
		}
	}
	return n.store.Checkpoint(ctx)
}

// ConversationUpdate says what to change; nil leaves a field as it is.
type ConversationUpdate struct {
	Muted     *bool
	Archived  *bool
	Retention *time.Duration // 0: keep for ever; else at least an hour
}

// UpdateConversation changes the owner's settings of a conversation.
func (n *Node) UpdateConversation(ctx context.Context, who string, u ConversationUpdate) (Conversation, error) {
	if u.Retention != nil && *u.Retention != 0 && *u.Retention < time.Hour {
		return Conversation{}, usage("Give a longer one, or 0 to keep everything.", "a retention below one hour")
	}
	var id event.ConversationID
	err := n.change(ctx, func(l *loop, tx *store.Tx) error {
		found, err := conversationIn(tx, who)
		if err != nil {
			return err
		}
		c := l.acct.convs[found.ID]
		id = c.ID
		if u.Muted != nil {
			c.Muted = *u.Muted
		}
		if u.Archived != nil {
			c.Archived = *u.Archived
		}
		if u.Retention != nil {
			c.Retention = *u.Retention
		}
		l.spoke(c)
		return nil
	})
	if err != nil {
		return Conversation{}, err
	}
	if u.Retention != nil {
		if err := n.emptied(ctx); err != nil {
			return Conversation{}, err
		}
	}
	return n.Conversation(ctx, hex.EncodeToString(id[:]))
}

// SearchQuery says what to look for.
type SearchQuery struct {
	Text       string // words, "a phrase", a prefix*; all of them must be there
	Network    string
	Person     string // WHO
	Protection string
	Since      time.Time
	Limit      int // default 50
}

// Search gives the messages that match, newest first.
func (n *Node) Search(ctx context.Context, q SearchQuery) ([]Message, error) {
	if q.Limit <= 0 {
		q.Limit = 50
	}
	query := store.Query{Text: q.Text, Network: q.Network, Protection: q.Protection, Since: q.Since, Limit: q.Limit}
	if q.Person != "" {
		err := n.read(ctx, func(v *view) error {
			b, err := v.contactBook()
			if err != nil {
				return err
			}
			c, err := resolve(b, q.Person)
			query.Persons = append(query.Persons, c.Person.String())
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	hits, err := n.store.Search(ctx, query)
	if err != nil {
		return nil, searchError(err)
	}
	var out []Message
	err = n.read(ctx, func(v *view) error {
		for _, h := range hits {
			m, err := v.message(&h.Event)
			if err != nil {
				return err
			}
			out = append(out, m)
		}
		return nil
	})
	return out, err
}
