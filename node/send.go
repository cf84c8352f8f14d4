package node

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
)

// Content is something to say: Text.
type Content struct {
	typ  event.Type
	body []byte
	err  error
}

// Text is a message of 1 to 12,288 bytes of UTF-8, in which there is something to
// see.
func Text(s string) Content {
	if event.Blank(s) {
		return Content{typ: event.Message, err: event.ErrEmpty}
	}
	body, err := event.Text{Text: s}.Append()
	return Content{typ: event.Message, body: body, err: err}
}

func (c Content) check() error {
	switch {
	case c.err == nil && c.typ != 0:
		return nil
	case errors.Is(c.err, event.ErrEmpty) || c.typ == 0:
		return usage("Write something, or give - to read it from the input.", "the message is empty")
	case errors.Is(c.err, event.ErrTooLong):
		return usage("Send it in parts.", "the message is longer than 12 KiB")
	case errors.Is(c.err, event.ErrUTF8):
		return usage("Convert it to UTF-8 first.", "the message is not valid UTF-8 text")
	}
	return &Error{Kind: KindUsage, Err: c.err, Text: "this cannot be sent"}
}

// Send says c in a conversation. It returns when the message is durable in the
// outbox; what becomes of it is told by Events, Wait and Message.
func (n *Node) Send(ctx context.Context, conv event.ConversationID, c Content) (Message, error) {
	return n.SendOnce(ctx, conv, c, "")
}

// SendOnce is Send with an idempotency key: a second call with the same key
// within 24 hours says nothing new and gives the first message. Keys have at
// most 128 bytes; empty means none.
func (n *Node) SendOnce(ctx context.Context, conv event.ConversationID, c Content, key string) (Message, error) {
	if err := c.check(); err != nil {
		return Message{}, err
	}
	if len(key) > 128 {
		return Message{}, usage("Use a shorter one.", "the idempotency key is longer than 128 bytes")
	}
	e, err := n.say(ctx, say{conv: conv, typ: c.typ, body: c.body, once: key})
	if err != nil {
		return Message{}, err
	}
	return n.outgoing(conv, e)
}

// outgoing renders an own event that is queued, or needs nobody's receipt.
func (n *Node) outgoing(conv event.ConversationID, e store.Event) (Message, error) {
	ev, err := event.Parse(e.Raw)
	if err != nil {
		return Message{}, err
	}
	m := Message{
		ID: e.ID, Conversation: conv, From: n.me, Own: true, Type: e.Type.String(), At: e.Clock.Time(),
		State: "queued", Network: Network, Protection: protectionName(e.Protection), Changed: e.Changed, row: e.Row,
	}
	if e.Targets == 0 && conv == event.SelfID(n.me) {
		m.State = "delivered" // a note to self on the only device
	}
	m.Text, m.About = bodyText(ev)
	return m, nil
}

// say hands a Say to the loop and waits for its commit.
func (n *Node) say(ctx context.Context, in say) (store.Event, error) {
	type answer struct {
		e   store.Event
		err error
	}
	ch := make(chan answer, 1)
	in.reply = func(e store.Event, err error) { ch <- answer{e, err} }
	if err := n.post(ctx, in); err != nil {
		return store.Event{}, err
	}
	select {
	case a := <-ch:
		return a.e, a.err
	case <-n.ended:
	}
	select { // the last batch may have had it
	case a := <-ch:
		return a.e, a.err
	default:
		return store.Event{}, ErrClosed
	}
}

// change runs f on the loop inside a transaction and waits for its commit.
func (n *Node) change(ctx context.Context, f func(*loop, *store.Tx) error) error {
	ch := make(chan error, 1)
	err := n.post(ctx, change{apply: func(l *loop, tx *store.Tx) error {
		l.wrote = true
		return f(l, tx)
	}, reply: func(err error) { ch <- err }})
	if err != nil {
		return err
	}
	select {
	case err := <-ch:
		return err
	case <-n.ended:
	}
	select { // the last batch may have had it
	case err := <-ch:
		return err
	default:
		return ErrClosed
	}
}

func (n *Node) post(ctx context.Context, in input) error {
	select {
	case n.loop.in <- in:
		return nil
	case <-n.ended:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// progress orders the states of an own message.
var progress = []string{"queued", "carried", "delivered", "read"}

// Wait waits until an own message has come at least as far as state: "queued",
// "delivered" or "read". When ctx ends first the error is of KindTimeout and the
// message, in its present state, comes with it: it stays queued.
func (n *Node) Wait(ctx context.Context, id event.ID, state string) (Message, error) {
	want := slices.Index(progress, state)
	if want < 0 {
		return Message{}, usage("Wait for queued, delivered or read.", "%q is not a state to wait for", event.Clean(state, 20))
	}
	if want <= slices.Index(progress, "delivered") {
		if m, done, err := n.waitSaid(ctx, id, state); done {
			return m, err
		}
	}
	e, err := n.lookUp(context.WithoutCancel(ctx), hexID(id)) // how far it came is told even if no time is left
	if err != nil {
		return Message{}, notFoundOr(err, "", "no message %s", hexID(id)[:8])
	}
	for {
		commit, _ := n.hub.after()
		receipt, marks := n.hub.await(e.Row)
		m, err := n.shown(context.WithoutCancel(ctx), e.Row)
		if err != nil || m.State == "failed" || slices.Index(progress, m.State) >= want {
			n.hub.forget(e.Row, receipt)
			return m, err
		}
		select {
		case route := <-receipt:
			if want <= slices.Index(progress, "delivered") {
				m.State, m.Route = "delivered", routeName(route)
				return m, nil
			}
			select { // the receipt is not in the store yet, and until then no mark counts
			case <-commit:
			case <-marks:
			case <-ctx.Done():
				return m, tooLate(id, state)
			case <-n.ended:
				return m, ErrClosed
			}
		case <-marks:
		case <-ctx.Done():
			n.hub.forget(e.Row, receipt)
			return m, tooLate(id, state)
		case <-n.ended:
			return m, ErrClosed
		}
		n.hub.forget(e.Row, receipt)
	}
}

// waitSaid waits for the receipt of a message that was said a moment ago, without
// a look at the store. Not done: the message has to be looked up.
func (n *Node) waitSaid(ctx context.Context, id event.ID, state string) (m Message, done bool, err error) {
	s, receipt, marks, ok := n.hub.awaitSaid(id)
	if !ok {
		return m, false, nil
	}
	defer n.hub.forget(s.e.Row, receipt)
	if m, err = n.outgoing(s.conv, s.e); err != nil || state == "queued" {
		return m, true, err
	}
	select {
	case route := <-receipt:
		m.State, m.Route = "delivered", routeName(route)
		return m, true, nil
	case <-marks:
		return m, false, nil
	case <-ctx.Done():
		return m, true, tooLate(id, state)
	case <-n.ended:
		return m, true, ErrClosed
	}
}

func tooLate(id event.ID, state string) error {
	return &Error{Kind: KindTimeout, Text: "not " + state + " in time", Next: "It stays queued and goes out by itself; see: kinloom why " + hexID(id)[:16] + "."}
}

func (n *Node) shown(ctx context.Context, row store.Row) (Message, error) {
	var m Message
	err := n.read(ctx, func(v *view) error {
		e, err := v.tx.EventByRow(row)
		if err == nil {
			m, err = v.message(&e)
		}
		return err
	})
	return m, err
}

// readUpto is how far the owner has read what one device wrote.
type readUpto struct {
	conv   event.ConversationID
	device store.Row
	seq    uint64
	last   store.Row // newest event of all when they looked
}

// markRead notes that the owner has read, and tells the authors' devices.
// Requests and blocked persons are told nothing.
func (n *Node) markRead(ctx context.Context, marks []readUpto) error {
	return n.change(ctx, func(l *loop, tx *store.Tx) error {
		for _, m := range marks {
			c, ok := l.acct.convs[m.conv]
			if !ok {
				continue
			}
			unread, err := c.since(tx, m.last)
			if err != nil {
				return err
			}
			if c.Unread > unread {
				c.Unread = unread
				l.spoke(c)
			}
			d, ok := l.acct.byRow[m.device]
			if !ok || c.Kind != event.Pair || l.maySay(c) != nil {
				continue
			}
			body, err := event.Marks{Marks: []event.Mark{{Device: d.ID, Seq: m.seq}}}.Append()
			if err != nil {
				return err
			}
			if _, err := l.speak(tx, c, event.ReadMark, d.ID.String(), body); err != nil {
				return err
			}
		}
		return nil
	})
}

// since counts what others said in a conversation after an event.
func (c *conversation) since(tx *store.Tx, last store.Row) (n int, err error) {
	events, err := tx.EventsAfter(last)
	for _, e := range events {
		if e.Conversation == c.Row && e.Type.Class() == event.Content && !e.Own {
			n++
		}
	}
	return n, err
}

// Messages yields the content that others send from now on, each message once.
// It ends when ctx ends or the node is closed. A program that must miss nothing
// uses Events.
func (n *Node) Messages(ctx context.Context) iter.Seq2[Message, error] {
	var since uint64
	var last store.Row
	err := n.read(ctx, func(v *view) (err error) {
		if last, err = v.tx.LastEvent(); err == nil {
			since, err = v.tx.LastChanged()
		}
		return err
	})
	return func(yield func(Message, error) bool) {
		failed := func(err error) {
			if ctx.Err() == nil && !errors.Is(n.ending(err), ErrClosed) {
				yield(Message{}, err)
			}
		}
		if err != nil {
			failed(err)
			return
		}
		for c, err := range n.Events(ctx, since) {
			if err != nil {
				failed(err)
				return
			}
			m := c.Message
			if m == nil || m.row <= last {
				continue
			}
			last = m.row
			if !m.Own && !m.Deleted && m.Type == "message" && !yield(*m, nil) {
				return
			}
		}
	}
}

// sortNewest puts the conversation with the newest message first.
func sortNewest(convs []Conversation) {
	slices.SortStableFunc(convs, func(a, b Conversation) int { return b.LastAt.Compare(a.LastAt) })
}

// timeoutLeft is what is left of a caller's time.
func timeoutLeft(ctx context.Context, most time.Duration) time.Duration {
	if t, ok := ctx.Deadline(); ok {
		return min(most, time.Until(t))
	}
	return most
}
