package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/event"
)

// wordsLive is how long the short check words may be compared after the
// exchange that made them; later only the long numbers are shown.
const wordsLive = 10 * time.Minute

// Contact is what is shown of a person.
type Contact struct {
	ID           identity.PersonID
	Name         string // what the person is called here
	Petname      string // the owner's name for them
	ProfileName  string // their own
	Trust        string // "unverified", "verified", "blocked"
	State        string // "contact", "request", "removed"
	Since        time.Time
	Devices      int
	LastSeen     time.Time
	Words        []string // live check words, less than ten minutes old
	Conversation event.ConversationID
	Ways         string // by which routes their devices are reached: "any", "relay", "lan"
	Unreached    string // why they cannot be reached by these now, and what to do; or nothing
	Changed      uint64
}

func contactState(s store.ContactState) string {
	switch s {
	case store.Self:
		return "self"
	case store.Request:
		return "request"
	case store.Removed:
		return "removed"
	}
	return "contact"
}

func trustName(t store.Trust) string {
	switch t {
	case store.Verified:
		return "verified"
	case store.Blocked:
		return "blocked"
	}
	return "unverified"
}

func (v *view) contact(c store.Contact) (Contact, error) {
	name, err := v.name(c.Person)
	if err != nil {
		return Contact{}, err
	}
	out := Contact{
		ID: c.Person, Name: name, Petname: c.Petname, ProfileName: c.Name, Trust: trustName(c.Trust),
		State: contactState(c.State), Since: c.Since, Conversation: event.PairID(v.me, c.Person), Changed: c.Changed,
		Ways: waysName(c.Ways),
	}
	devices, err := v.tx.Devices(c.Person)
	for _, d := range devices {
		out.Devices++
		if d.Seen.After(out.LastSeen) {
			out.LastSeen = d.Seen
		}
	}
	if c.Words != "" {
		out.Words = strings.Fields(c.Words)
	}
	return out, err
}

// Contacts gives every contact but requests, by name.
func (n *Node) Contacts(ctx context.Context) ([]Contact, error) {
	return n.contacts(ctx, func(c store.Contact) bool { return c.State == store.Accepted })
}

// Requests gives the people who wrote without a single-use invite and wait for
// the owner's answer.
func (n *Node) Requests(ctx context.Context) ([]Contact, error) {
	return n.contacts(ctx, func(c store.Contact) bool { return c.State == store.Request && c.Trust != store.Blocked })
}

func (n *Node) contacts(ctx context.Context, want func(store.Contact) bool) ([]Contact, error) {
	var out []Contact
	err := n.read(ctx, func(v *view) error {
		b, err := v.contactBook()
		if err != nil {
			return err
		}
		for _, c := range b.contacts {
			if !want(c) {
				continue
			}
			shown, err := v.contact(c)
			if err != nil {
				return err
			}
			out = append(out, n.fresh(shown, c))
		}
		return nil
	})
	slices.SortStableFunc(out, func(a, b Contact) int { return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) })
	return out, err
}

// fresh adds what is true at the moment: check words are taken away once they are too
// old to be compared live.
func (n *Node) fresh(shown Contact, c store.Contact) Contact {
	if n.cfg.Now().Sub(c.WordsAt) >= wordsLive {
		shown.Words = nil
	}
	if c.Ways == store.RelayOnly {
		shown.Unreached = n.veilTrouble()
	}
	return shown
}

// Contact gives the contact that WHO means.
func (n *Node) Contact(ctx context.Context, who string) (Contact, error) {
	var out Contact
	err := n.read(ctx, func(v *view) error {
		b, err := v.contactBook()
		if err != nil {
			return err
		}
		c, err := resolve(b, who)
		if err != nil {
			return err
		}
		shown, err := v.contact(c)
		out = n.fresh(shown, c)
		return err
	})
	return out, err
}

// amend changes the contact that WHO means on the loop and gives what it is then.
func (n *Node) amend(ctx context.Context, who string, f func(*loop, *store.Tx, *store.Contact) error) (Contact, error) {
	var person identity.PersonID
	err := n.change(ctx, func(l *loop, tx *store.Tx) error {
		b, err := newBook(tx)
		if err != nil {
			return err
		}
		found, err := resolve(b, who)
		if err != nil {
			return err
		}
		c, ok := l.acct.contacts[found.Person]
		if !ok || c.State == store.Self {
			return usage("Name a contact: kinloom contact list.", "that is you")
		}
		person = c.Person
		next := *c
		if err := f(l, tx, &next); err != nil {
			return err
		}
		if err := tx.PutContact(&next); err != nil {
			return err
		}
		l.acct.contacts[next.Person] = &next
		return nil
	})
	if err != nil {
		return Contact{}, err
	}
	return n.Contact(ctx, person.String())
}

// RenameContact gives a contact a petname; an empty one takes it away.
func (n *Node) RenameContact(ctx context.Context, who, name string) (Contact, error) {
	if name != "" {
		if err := checkName(name); err != nil {
			return Contact{}, err
		}
	}
	return n.amend(ctx, who, func(l *loop, _ *store.Tx, c *store.Contact) error {
		if err := l.nameFree(name, c.Person); err != nil {
			return err
		}
		c.Petname = name
		return nil
	})
}

// nameFree refuses a petname that looks like the name of another contact: what is
// written to one of them must not go to the other.
func (l *loop) nameFree(name string, but identity.PersonID) error {
	looks := skeleton(name)
	for p, c := range l.acct.contacts {
		switch {
		case name == "" || p == but || c.State == store.Removed || c.State == store.Self || skeleton(called(c)) != looks:
		case sameName(called(c), name):
			return refused("Choose another name.", "another contact is called %q already", name)
		default:
			return refused("Choose another name.", "%q looks like %q, the name of another contact", name, called(c))
		}
	}
	return nil
}

// VerifyContact notes the owner's answer to the check words: the same on both
// sides, or not. A "no" puts a verified contact back to unverified.
func (n *Node) VerifyContact(ctx context.Context, who string, same bool) (Contact, error) {
	return n.amend(ctx, who, func(l *loop, _ *store.Tx, c *store.Contact) error {
		if c.Trust == store.Blocked {
			return refused("Unblock first: kinloom contact unblock "+quoteName(l.acct.shown(c.Person))+".", "%s is blocked", l.acct.shown(c.Person))
		}
		c.Trust = store.Unverified
		if same {
			c.Trust = store.Verified
		}
		return nil
	})
}

// Fingerprint gives what two people compare when they did not compare the words
// at once: over 200 bits as digits, the same on both sides, and a QR payload.
func (n *Node) Fingerprint(ctx context.Context, who string) (digits, qr string, err error) {
	c, err := n.Contact(ctx, who)
	if err != nil {
		return "", "", err
	}
	if c.ID == n.me {
		return "", "", usage("Name a contact: kinloom contact list.", "that is you")
	}
	digits = contact.Fingerprint(n.me, c.ID)
	return digits, "KINLOOM-V:" + strings.ReplaceAll(digits, " ", ""), nil
}

// Block refuses everything from and to a person from now on. They are not told.
func (n *Node) Block(ctx context.Context, who string) (Contact, error) {
	return n.amend(ctx, who, func(l *loop, tx *store.Tx, c *store.Contact) error {
		was := c.State == store.Accepted && c.Trust != store.Blocked
		c.Trust = store.Blocked
		return l.shut(tx, c.Person, was)
	})
}

// Unblock takes a block back; the person is unverified then.
func (n *Node) Unblock(ctx context.Context, who string) (Contact, error) {
	return n.amend(ctx, who, func(l *loop, _ *store.Tx, c *store.Contact) error {
		if c.Trust != store.Blocked {
			return refused("", "%s is not blocked", l.acct.shown(c.Person))
		}
		c.Trust = store.Unverified
		return l.meetAgain(c.Person)
	})
}

// RemoveContact ends the exchange with a person; with history set, what was
// said is deleted here too.
func (n *Node) RemoveContact(ctx context.Context, who string, history bool) (Contact, error) {
	out, err := n.amend(ctx, who, func(l *loop, tx *store.Tx, c *store.Contact) error {
		was := c.State == store.Accepted && c.Trust != store.Blocked
		c.State, c.Petname = store.Removed, ""
		return l.shut(tx, c.Person, was)
	})
	if err == nil && history {
		_, err = n.ClearConversation(ctx, hex.EncodeToString(out.Conversation[:]))
	}
	return out, err
}

// shut ends the exchange with a person; who was a contact until now must not find
// this node again. Who knew of the veil alone loses that.
func (l *loop) shut(tx *store.Tx, p identity.PersonID, was bool) error {
	l.then(l.tellKnown) // before the next key is used
	if err := l.forget(tx, p); err != nil || !was {
		return err
	}
	if c, ok := l.acct.contacts[p]; ok && c.Ways == store.RelayOnly {
		return l.raiseVeil(tx)
	}
	if err := l.tellNamed(tx, p, false); err != nil {
		return err
	}
	return l.vanish(tx, p)
}

// forget drops what waits for a person and closes the ways to them.
func (l *loop) forget(tx *store.Tx, p identity.PersonID) error {
	for _, d := range l.acct.devices {
		if d.Person != p {
			continue
		}
		if err := l.forgetDevice(tx, d, noContact); err != nil {
			return err
		}
	}
	return nil
}

// forgetDevice drops what waits for one device and closes the way to it.
func (l *loop) forgetDevice(tx *store.Tx, d *device, reason string) error {
	if err := tx.DropOutbox(d.Row, reason); err != nil {
		return err
	}
	d.queue.items, d.queue.sent, d.queue.tail = nil, 0, false
	l.then(l.hub.gaveUp)
	if link := d.queue.link; link != nil {
		l.then(func() {
			link.close()
			link.net.Protect(link.peer, false)
		})
	}
	return nil
}

// meetAgain tries a person's devices at once, as they were shut out and try
// seldom, and lets them begin sessions where theirs were ended.
func (l *loop) meetAgain(p identity.PersonID) error {
	for id, d := range l.acct.devices {
		if d.Person != p {
			continue
		}
		d.queue.tryAt, d.queue.fails = time.Time{}, 0
		l.touch(d)
		if remote, ok := l.acct.remote(id); ok {
			if err := l.acct.sessions.SetRemote(remote); err != nil {
				return err
			}
		}
	}
	return nil
}

// AcceptRequest makes a contact of a request.
func (n *Node) AcceptRequest(ctx context.Context, who string) (Contact, error) {
	return n.answer(ctx, who, func(l *loop, tx *store.Tx, c *store.Contact) error {
		c.State = store.Accepted
		conv, ok := l.acct.pair(c.Person)
		if !ok {
			return fmt.Errorf("conversation of a request: %w", store.ErrNotFound)
		}
		if err := l.meetAgain(c.Person); err != nil {
			return err
		}
		if c.Ways == store.RelayOnly {
			if err := l.goUnderAgain(tx, c.Person); err != nil {
				return err
			}
		}
		return l.greet(tx, conv)
	})
}

// DeclineRequest removes a request and what it said; the person is not told.
func (n *Node) DeclineRequest(ctx context.Context, who string) (Contact, error) {
	out, err := n.answer(ctx, who, func(l *loop, tx *store.Tx, c *store.Contact) error {
		c.State = store.Removed
		return l.forget(tx, c.Person)
	})
	if err == nil {
		_, err = n.ClearConversation(ctx, hex.EncodeToString(out.Conversation[:]))
	}
	return out, err
}

func (n *Node) answer(ctx context.Context, who string, f func(*loop, *store.Tx, *store.Contact) error) (Contact, error) {
	known := false
	out, err := n.amend(ctx, who, func(l *loop, tx *store.Tx, c *store.Contact) error {
		known = true
		if c.State != store.Request {
			return notFound("List them: kinloom request list.", "%s is not among the requests", l.acct.shown(c.Person))
		}
		return f(l, tx, c)
	})
	if !known && KindOf(err) == KindNotFound { // to add a contact would not help
		return out, notFound("List them: kinloom request list.", "no request %q", event.Clean(who, maxName))
	}
	return out, err
}

// greet says the own profile name in a conversation: a control event, which
// also begins the session.
func (l *loop) greet(tx *store.Tx, c *conversation) error {
	body, err := event.Name{Name: l.acct.contacts[l.acct.me].Name}.Append()
	if err != nil {
		return err
	}
	_, err = l.speak(tx, c, event.Profile, "", body)
	return err
}

// SetName changes the owner's profile name and tells every contact.
func (n *Node) SetName(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return n.change(ctx, func(l *loop, tx *store.Tx) error {
		c := l.acct.contacts[l.acct.me]
		next := *c
		next.Name = name
		if err := tx.PutContact(&next); err != nil {
			return err
		}
		*c = next
		for _, conv := range l.acct.convs {
			if l.maySay(conv) == nil {
				if err := l.greet(tx, conv); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
