package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
)

// Me is the WHO that means the owner: notes to self.
const Me = "me"

// resolve finds the contact that WHO means: "me", a did:key, the account kinloom: of
// one, the name that they are shown by, or a petname or profile name that no other looks like, in any
// case of letters.
func resolve(b *book, who string) (store.Contact, error) {
	if account, ok := strings.CutPrefix(who, "kinloom:"); ok && strings.HasPrefix(account, "did:key:") {
		who = account
	}
	if strings.HasPrefix(who, "did:key:") {
		p, err := identity.ParsePersonID(who)
		if err != nil {
			return store.Contact{}, &Error{Kind: KindUsage, Err: err, Quiet: true, Text: "not a person's identity", Next: "Copy it whole from: kinloom contact list."}
		}
		for _, c := range b.contacts {
			if c.Person == p {
				return c, nil
			}
		}
		return store.Contact{}, notFound("Add them: kinloom contact add LINK.", "no contact %s", shortPerson(p))
	}
	var found, alike, known []store.Contact
	looks := skeleton(who)
	for _, c := range b.contacts {
		switch {
		case c.State == store.Self && who == Me:
			return c, nil
		case c.State == store.Self || c.State == store.Removed:
			continue
		case sameName(b.names[c.Person], who):
			return c, nil // no two are shown alike
		}
		known = append(known, c)
		same := sameName(called(&c), who)
		if same {
			found = append(found, c)
		}
		if same || b.looks[c.Person] == looks {
			alike = append(alike, c)
		}
	}
	switch {
	case len(found) == 0:
		e := notFound("Add one: kinloom contact add LINK.", "no contact %q", event.Clean(who, maxName))
		e.Candidates = near(known, b.names, who)
		return store.Contact{}, e
	case len(alike) == 1:
		return found[0], nil
	}
	e := usage("Say which by identity, as kinloom contact list shows it, or name one: kinloom contact rename DID NAME.",
		"%q could be %d contacts", event.Clean(who, maxName), len(alike))
	for _, c := range alike {
		e.Candidates = append(e.Candidates, c.Person.String())
	}
	return store.Contact{}, e
}

// sameName compares names as people type them: in any case of letters, and
// however accents are put together.
func sameName(a, b string) bool { return strings.EqualFold(norm.NFC.String(a), norm.NFC.String(b)) }

// near names the contacts to choose from, those alike first, at most eight.
func near(known []store.Contact, shown map[identity.PersonID]string, who string) []string {
	var names []string
	for _, c := range known {
		names = append(names, shown[c.Person])
	}
	like := func(s string) bool {
		return strings.Contains(strings.ToLower(s), strings.ToLower(who)) || strings.Contains(strings.ToLower(who), strings.ToLower(s))
	}
	slices.SortStableFunc(names, func(a, b string) int {
		switch {
		case like(a) && !like(b):
			return -1
		case like(b) && !like(a):
			return 1
		}
		return strings.Compare(a, b)
	})
	return names[:min(len(names), 8)]
}

// conversationOf finds the conversation that a conversation id or a WHO means.
func (v *view) conversationOf(who string) (store.Conversation, error) {
	b, err := v.contactBook()
	if err != nil {
		return store.Conversation{}, err
	}
	return recallConversation(v.tx, b, who)
}

// conversationIn is conversationOf inside a transaction of the loop.
func conversationIn(tx *store.Tx, who string) (store.Conversation, error) {
	b, err := newBook(tx)
	if err != nil {
		return store.Conversation{}, err
	}
	return recallConversation(tx, b, who)
}

// recallConversation is resolveConversation for what was said: it stays, under the
// same name, when a person is removed.
func recallConversation(tx *store.Tx, b *book, who string) (store.Conversation, error) {
	c, err := resolveConversation(tx, b, who)
	if gone, ok := removed(b, who); ok && KindOf(err) == KindNotFound {
		return resolveConversation(tx, b, gone.Person.String())
	}
	return c, err
}

func resolveConversation(tx *store.Tx, b *book, who string) (store.Conversation, error) {
	if b, err := hex.DecodeString(who); err == nil && len(b) == 32 {
		c, err := tx.ConversationByID(event.ConversationID(b))
		if err != nil {
			return c, notFoundOr(err, "List them: kinloom conversation list.", "no conversation %s", who[:8])
		}
		return c, nil
	}
	contact, err := resolve(b, who)
	if err != nil {
		return store.Conversation{}, err
	}
	id := event.PairID(b.self.Person, contact.Person)
	if contact.State == store.Self {
		id = event.SelfID(b.self.Person)
	}
	c, err := tx.ConversationByID(id)
	return c, notFoundOr(err, "Add them again: kinloom contact add LINK.", "there is no conversation with %s", called(&contact))
}

// removed finds the one person of a name who is no contact any more.
func removed(b *book, who string) (found store.Contact, ok bool) {
	n := 0
	for _, c := range b.contacts {
		if c.State == store.Removed && (sameName(b.names[c.Person], who) || sameName(called(&c), who)) {
			found = c
			n++
		}
	}
	return found, n == 1
}

func notFoundOr(err error, next, format string, args ...any) error {
	if isNotFound(err) {
		return notFound(next, format, args...)
	}
	return err
}

func selfContact(tx *store.Tx) (store.Contact, error) {
	contacts, err := tx.Contacts()
	if err != nil {
		return store.Contact{}, err
	}
	for _, c := range contacts {
		if c.State == store.Self {
			return c, nil
		}
	}
	return store.Contact{}, fmt.Errorf("own contact: %w", store.ErrNotFound)
}

// ConversationID gives the id of the conversation that a conversation id or a WHO
// means, to send there: the name of a person who was removed means nobody.
func (n *Node) ConversationID(ctx context.Context, who string) (event.ConversationID, error) {
	var id event.ConversationID
	err := n.read(ctx, func(v *view) error {
		b, err := v.contactBook()
		if err != nil {
			return err
		}
		c, err := resolveConversation(v.tx, b, who)
		id = c.ID
		return err
	})
	return id, err
}

// Conversation gives the conversation that a conversation id or a WHO means.
func (n *Node) Conversation(ctx context.Context, who string) (Conversation, error) {
	var out Conversation
	err := n.readSettled(ctx, func(v *view) error {
		c, err := v.conversationOf(who)
		if err == nil {
			out, err = v.conversation(c)
		}
		return err
	})
	return out, err
}
