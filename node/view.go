package node

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
)

// Grades of protection and routes, as they are stored and shown.
const (
	ProtectionDirect uint8 = 1 // end to end between devices, whatever carried it

	RouteNone   uint8 = 0
	RouteDirect uint8 = 1
	RouteLAN    uint8 = 2
	RouteRelay  uint8 = 3
)

func protectionName(p uint8) string {
	if p == ProtectionDirect {
		return "direct"
	}
	return "unknown"
}

func routeName(r uint8) string {
	switch r {
	case RouteDirect:
		return "direct"
	case RouteRelay:
		return "relay"
	case RouteLAN:
		return "lan"
	}
	return ""
}

// Network is the name of the network of kinloom persons.
const Network = "kinloom"

// Conversation is what is shown of a conversation.
type Conversation struct {
	ID        event.ConversationID
	Kind      string // "self", "pair"
	Name      string
	Person    identity.PersonID
	State     string // of the person: "contact", "request", "removed", "self"
	Muted     bool
	Archived  bool
	Retention time.Duration // 0: kept for ever
	Unread    int
	LastAt    time.Time
	Last      *Message
	ClearedTo uint64 // messages whose first Changed is at most this one were deleted here at once
	Changed   uint64
}

// Message is what is shown of an event.
type Message struct {
	ID           event.ID
	Conversation event.ConversationID
	From         identity.PersonID
	FromName     string
	Own          bool
	Type         string // "message", "edit", "reaction", "retract", "profile", …
	Text         string
	About        *event.ID // the message that this one answers, changes or reacts to
	At           time.Time // by the sender's clock, or when it came if that clock is wrong
	State        string    // "queued", "delivered", "read", "failed"; of another's: "received"
	Reason       string
	Next         string
	Network      string
	Protection   string
	Route        string
	ClockWrong   bool // the sender's clock is more than a day ahead
	Deleted      bool
	Gap          int // messages of the sender that should stand before this one and are missing
	Changed      uint64

	row store.Row
}

// view reads one snapshot of the account and caches what it resolves.
type view struct {
	n       *Node
	tx      *store.Tx
	me      identity.PersonID
	book    *book // nil: not asked for yet
	persons map[store.Row]person
	convs   map[store.Row]*store.Conversation
}

type person struct {
	id   identity.PersonID
	name string
}

// read runs f on one consistent snapshot, past the loop.
func (n *Node) read(ctx context.Context, f func(*view) error) error {
	err := n.store.Read(ctx, func(tx *store.Tx) error {
		return f(&view{n: n, tx: tx, me: n.me, persons: map[store.Row]person{}, convs: map[store.Row]*store.Conversation{}})
	})
	if _, ok := errors.AsType[*Error](err); err == nil || ok || ctx.Err() != nil {
		return err
	}
	if errors.Is(err, store.ErrDamaged) {
		return openError(n.cfg.Dir, err)
	}
	return &Error{Kind: KindError, Err: err, Text: "could not read the store", Next: "See: kinloom status."}
}

// readSettled is read for what may be behind: the rows of conversations, and which
// messages are delivered. The loop writes them first. Where it cannot, on a full
// disk, what is on it is read all the same.
func (n *Node) readSettled(ctx context.Context, f func(*view) error) error {
	if n.hub.lags.Load() {
		if err := n.ask(ctx, func(*loop) {}); err != nil && (errors.Is(err, ErrClosed) || ctx.Err() != nil) {
			return err
		}
	}
	return n.read(ctx, f)
}

func isNotFound(err error) bool { return errors.Is(err, store.ErrNotFound) }

// author gives the person behind a device row; row 0 is this device.
func (v *view) author(d store.Row) (person, error) {
	if p, ok := v.persons[d]; ok {
		return p, nil
	}
	id := v.me
	if d != 0 {
		dev, err := v.tx.DeviceByRow(d)
		if err != nil {
			return person{}, err
		}
		id = dev.Person
	}
	name, err := v.name(id)
	if err != nil {
		return person{}, err
	}
	p := person{id: id, name: name}
	v.persons[d] = p
	return p, nil
}

func (v *view) conv(row store.Row) (*store.Conversation, error) {
	if c, ok := v.convs[row]; ok {
		return c, nil
	}
	c, err := v.tx.ConversationByRow(row)
	if err != nil {
		return nil, err
	}
	v.convs[row] = &c
	return &c, nil
}

func (v *view) conversation(c store.Conversation) (Conversation, error) {
	out := Conversation{
		ID: c.ID, Kind: c.Kind.String(), Person: c.Person, Muted: c.Muted, Archived: c.Archived,
		Retention: c.Retention, Unread: c.Unread, LastAt: c.LastAt, Changed: c.Changed,
		ClearedTo: uint64(c.ClearedTo), // an event is told under the number of its row first
	}
	contact, err := v.tx.ContactByPerson(c.Person)
	if err != nil {
		return out, err
	}
	if out.Name, err = v.name(c.Person); err != nil {
		return out, err
	}
	out.State = contactState(contact.State)
	if contact.State == store.Self {
		out.Name = Me
	}
	last, err := v.tx.Timeline(store.TimelineQuery{Conversations: []store.Row{c.Row}, Limit: 1, Newest: true})
	if err != nil || len(last) == 0 {
		return out, err
	}
	m, err := v.message(&last[0])
	out.Last = &m
	return out, err
}

// message renders a stored event.
func (v *view) message(e *store.Event) (Message, error) {
	c, err := v.conv(e.Conversation)
	if err != nil {
		return Message{}, err
	}
	from, err := v.author(e.Device)
	if err != nil {
		return Message{}, err
	}
	m := Message{
		ID: e.ID, Conversation: c.ID, From: from.id, FromName: from.name, Own: from.id == v.me,
		Type: e.Type.String(), At: e.Clock.Time(), State: "received", Network: Network,
		Protection: protectionName(e.Protection), Route: routeName(e.Route),
		ClockWrong: e.ClockWrong, Deleted: e.Deleted, Changed: e.Changed, row: e.Row,
	}
	if e.ClockWrong {
		m.At = e.At
	}
	if m.Own {
		if err := v.state(&m, e); err != nil {
			return m, err
		}
	}
	if e.Deleted {
		return m, nil
	}
	ev, err := event.Parse(e.Raw)
	if err != nil {
		return m, err
	}
	m.Text, m.About = bodyText(ev)
	return m, nil
}

// state fills in how far an own event has come, and by which route.
func (v *view) state(m *Message, e *store.Event) error {
	s, first, err := v.tx.Standing(e)
	if err != nil {
		return err
	}
	m.State, m.Reason = s.String(), e.Failed
	if e.Failed != "" {
		m.Next = afterFailure(e.Failed)
	}
	if first != nil {
		m.Route = routeName(first.Route)
	}
	return nil
}

// bodyText gives the text of an event's body and the event that it is about.
func bodyText(ev event.Event) (string, *event.ID) {
	switch ev.Type {
	case event.Message:
		if t, err := event.ParseText(ev.Body); err == nil {
			return t.Text, t.ReplyTo
		}
	case event.Edit:
		if t, err := event.ParseRevision(ev.Body); err == nil {
			return t.Text, &t.Target
		}
	case event.Reaction:
		if t, err := event.ParseEmotion(ev.Body); err == nil {
			return t.Emoji, &t.Target
		}
	case event.Retract:
		if t, err := event.ParseRetraction(ev.Body); err == nil {
			return "", &t.Target
		}
	case event.Profile:
		if p, err := event.ParseName(ev.Body); err == nil {
			return p.Name, nil
		}
	}
	return "", nil
}

// Read gives a person's merged timeline, or one conversation's, oldest first.
// With a limit it is the newest that many. What is read is marked so, and the
// other side may learn it, unless q.Peek is set.
func (n *Node) Read(ctx context.Context, who string, q ReadQuery) ([]Message, error) {
	var out []Message
	var marks []readUpto
	var before store.Cursor
	if q.Before != "" {
		e, err := n.find(ctx, q.Before)
		if err != nil {
			return nil, err
		}
		before = store.Cursor{Clock: e.Clock} // with all of the instant before which the page of e ended
	}
	err := n.readSettled(ctx, func(v *view) error {
		c, err := v.conversationOf(who)
		if err != nil {
			return err
		}
		last, err := v.tx.LastEvent()
		if err != nil {
			return err
		}
		events, err := v.tx.Timeline(store.TimelineQuery{Conversations: []store.Row{c.Row}, Before: before, Limit: q.Limit, Newest: q.Limit > 0})
		if err != nil {
			return err
		}
		if q.Limit > 0 {
			reverse(events)
		}
		out = make([]Message, 0, len(events))
		high := map[store.Row]uint64{}
		for i := range events {
			e := &events[i]
			m, err := v.message(e)
			if err != nil {
				return err
			}
			if !m.Own {
				if high[e.Device]+1 != e.Seq {
					if m.Gap, err = v.gap(c.ID, e); err != nil {
						return err
					}
				}
				high[e.Device] = max(high[e.Device], e.Seq)
			}
			out = append(out, m)
		}
		if c.Unread > 0 && !q.Peek {
			for device, seq := range high {
				marks = append(marks, readUpto{conv: c.ID, device: device, seq: seq, last: last})
			}
		}
		return nil
	})
	if err == nil && len(marks) > 0 {
		err = n.markRead(ctx, marks)
	}
	return out, err
}

// ReadQuery bounds what Read gives.
type ReadQuery struct {
	Limit  int    // the newest that many, and those of the same instant as the oldest of them; 0: everything
	Before string // of what stands before the message with this id; empty: of all
	Peek   bool   // leave it unread
}

// gap gives how many events of its device are missing right before an event. Those
// that are not there any more because the device was set back are not missing.
func (v *view) gap(conv event.ConversationID, e *store.Event) (int, error) {
	held, err := v.tx.Before(e.Conversation, e.Device, e.Seq)
	if err != nil || held == 0 || held+1 == e.Seq {
		return 0, err
	}
	d, err := v.tx.DeviceByRow(e.Device)
	if err != nil {
		return 0, err
	}
	closed, err := v.tx.Setting(settingClosed + closedKey(conv, d.ID))
	if err != nil && !isNotFound(err) {
		return 0, err
	}
	if len(closed) == 8 {
		held = max(held, binary.BigEndian.Uint64(closed))
	}
	return int(max(held+1, e.Seq) - held - 1), nil
}

func reverse(events []store.Event) {
	for i, j := 0, len(events)-1; i < j; i, j = i+1, j-1 {
		events[i], events[j] = events[j], events[i]
	}
}

// Inbox gives the conversations with people, newest first, each with its last
// message. Requests and archived ones are left out.
func (n *Node) Inbox(ctx context.Context, unread bool) ([]Conversation, error) {
	all, err := n.Conversations(ctx)
	if err != nil {
		return nil, err
	}
	kept := all[:0]
	for _, c := range all {
		if c.State == "request" || c.Archived || (unread && c.Unread == 0) || (c.Last == nil && c.State == "self") {
			continue
		}
		kept = append(kept, c)
	}
	return kept, nil
}

// Conversations gives every conversation, the one with the newest message first.
func (n *Node) Conversations(ctx context.Context) ([]Conversation, error) {
	var out []Conversation
	err := n.readSettled(ctx, func(v *view) error {
		convs, err := v.tx.Conversations()
		if err != nil {
			return err
		}
		for _, c := range convs {
			shown, err := v.conversation(c)
			if err != nil {
				return err
			}
			out = append(out, shown)
		}
		return nil
	})
	sortNewest(out)
	return out, err
}

// Message gives the event of an id, or of a prefix of at least 8 hex digits.
func (n *Node) Message(ctx context.Context, id string) (Message, error) {
	var out Message
	e, err := n.find(ctx, id)
	if err != nil {
		return out, err
	}
	err = n.readSettled(ctx, func(v *view) error {
		out, err = v.message(&e)
		return err
	})
	return out, err
}

// find looks an event up by id or prefix.
func (n *Node) find(ctx context.Context, id string) (store.Event, error) {
	id = strings.ToLower(strings.TrimSpace(id))
	if len(id) < 8 || len(id) > 64 || strings.Trim(id, "0123456789abcdef") != "" {
		return store.Event{}, usage("Copy it from: kinloom read WHO --json.", "%q is not a message id", event.Clean(id, 70))
	}
	e, err := n.lookUp(ctx, id)
	switch {
	case errors.Is(err, store.ErrAmbiguous):
		return e, usage("Give more digits of it.", "more than one message begins with %s", id)
	case isNotFound(err):
		return e, notFound("Copy it from: kinloom read WHO --json.", "no message %s", id)
	}
	return e, err
}
