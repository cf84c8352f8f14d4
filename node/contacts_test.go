package node_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// pair runs f with two nodes that are each other's contacts, in virtual time.
func pair(t *testing.T, f func(ctx context.Context, t *testing.T, ada, bob *node.Node, conv node.Added)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{Latency: 20 * time.Millisecond})
		ada, bob := simulated(t, net, 0, "", "Ada"), simulated(t, net, 1, "", "Bob")
		defer closeAll(t, ada, bob)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		f(ctx, t, ada, bob, befriend(ctx, t, ada, bob))
	})
}

func say(ctx context.Context, t *testing.T, n *node.Node, who, text string) node.Message {
	t.Helper()
	c, err := n.Conversation(ctx, who)
	if err != nil {
		t.Fatalf("conversation with %s: %v", who, err)
	}
	m, err := n.Send(ctx, c.ID, node.Text(text))
	if err != nil {
		t.Fatalf("say %q to %s: %v", text, who, err)
	}
	return m
}

func delivered(ctx context.Context, t *testing.T, n *node.Node, m node.Message) {
	t.Helper()
	if got, err := n.Wait(ctx, m.ID, "delivered"); err != nil {
		t.Fatalf("%q: state %q: %v", m.Text, got.State, err)
	}
}

func texts(ctx context.Context, t *testing.T, n *node.Node, who string) string {
	t.Helper()
	messages, err := n.Read(ctx, who, node.ReadQuery{Peek: true})
	if err != nil {
		t.Fatalf("read %s: %v", who, err)
	}
	var out []string
	for _, m := range messages {
		out = append(out, m.Text)
	}
	return strings.Join(out, "|")
}

func wantKind(t *testing.T, what string, err error, kind node.Kind, text string) {
	t.Helper()
	e, ok := errors.AsType[*node.Error](err)
	if !ok || e.Kind != kind || !strings.Contains(e.Error(), text) {
		t.Errorf("%s: got %v, want kind %d with %q", what, err, kind, text)
	}
}

func TestInviteIsForOnePersonOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{})
		ada, bob, eve := simulated(t, net, 0, "", "Ada"), simulated(t, net, 1, "", "Bob"), simulated(t, net, 2, "", "Eve")
		defer closeAll(t, ada, bob, eve)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		single, err := ada.NewInvite(ctx, node.InviteRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ada.AddContact(ctx, single.Link, node.AddOptions{}); err != nil {
			wantKind(t, "own invite", err, node.KindRefused, "your own")
		} else {
			t.Error("own invite was accepted")
		}
		for range 2 { // the same person may come again: the first answer may have been lost
			if _, err := bob.AddContact(ctx, single.Link, node.AddOptions{}); err != nil {
				t.Fatalf("Bob adds Ada: %v", err)
			}
		}
		_, err = eve.AddContact(ctx, single.Link, node.AddOptions{})
		wantKind(t, "used invite", err, node.KindRefused, "used")
		for name, c := range map[string]struct {
			link string
			kind node.Kind
			text string
		}{
			"truncated":       {single.Link[:len(single.Link)-9], node.KindUsage, "end of this invite is missing"},
			"changed":         {strings.Replace(single.Link, single.Link[20:22], "__", 1), node.KindUsage, "damaged"},
			"not an invite":   {"https://example.org/", node.KindUsage, "not a kinloom invite"},
			"a person's name": {"ada", node.KindUsage, "not a kinloom invite"},
		} {
			_, err := eve.AddContact(ctx, c.link, node.AddOptions{})
			wantKind(t, name, err, c.kind, c.text)
		}
		short, err := ada.NewInvite(ctx, node.InviteRequest{Expires: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		revoked, err := ada.NewInvite(ctx, node.InviteRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if err := ada.RevokeInvite(ctx, revoked.ID); err != nil {
			t.Fatal(err)
		}
		_, err = eve.AddContact(ctx, revoked.Link, node.AddOptions{})
		wantKind(t, "revoked invite", err, node.KindRefused, "taken back")
		time.Sleep(2 * time.Hour)
		ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err = eve.AddContact(ctx, short.Link, node.AddOptions{})
		wantKind(t, "expired invite", err, node.KindRefused, "expired")
		contacts, err := eve.Contacts(ctx)
		if err != nil || len(contacts) != 0 {
			t.Errorf("Eve has contacts %v, %v after nothing but refusals", contacts, err)
		}
	})
}

func TestPublicInviteMakesRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{})
		ada, bob, eve := simulated(t, net, 0, "", "Ada"), simulated(t, net, 1, "", "Bob"), simulated(t, net, 2, "", "Eve")
		defer closeAll(t, ada, bob, eve)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		public, err := ada.NewInvite(ctx, node.InviteRequest{Many: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []*node.Node{bob, eve} {
			added, err := n.AddContact(ctx, public.Link, node.AddOptions{})
			if err != nil || !added.Request {
				t.Fatalf("answer a public invite: %+v, %v", added, err)
			}
			say(ctx, t, n, "ada", "let me in")
		}
		time.Sleep(5 * time.Second)
		requests, err := ada.Requests(ctx)
		if err != nil || len(requests) != 2 {
			t.Fatalf("requests: %v, %v; want Bob and Eve", requests, err)
		}
		if contacts, err := ada.Contacts(ctx); err != nil || len(contacts) != 0 {
			t.Errorf("contacts before any answer: %v, %v", contacts, err)
		}
		if inbox, err := ada.Inbox(ctx, false); err != nil || len(inbox) != 0 {
			t.Errorf("inbox before any answer: %v, %v", inbox, err)
		}
		conv, err := ada.Conversation(ctx, "bob")
		if err != nil {
			t.Fatal(err)
		}
		_, err = ada.Send(ctx, conv.ID, node.Text("no"))
		wantKind(t, "answer before accepting", err, node.KindRefused, "requests")
		if _, err := ada.AcceptRequest(ctx, "bob"); err != nil {
			t.Fatal(err)
		}
		if _, err := ada.DeclineRequest(ctx, "eve"); err != nil {
			t.Fatal(err)
		}
		delivered(ctx, t, ada, say(ctx, t, ada, "bob", "welcome"))
		if got := texts(ctx, t, ada, "bob"); got != "let me in|welcome" {
			t.Errorf("Ada reads %q", got)
		}
		_, err = ada.AcceptRequest(ctx, "bob")
		wantKind(t, "accept twice", err, node.KindNotFound, "not among the requests")
	})
}

func TestBlockIsImmediateAndSilent(t *testing.T) {
	pair(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, _ node.Added) {
		delivered(ctx, t, bob, say(ctx, t, bob, "ada", "before"))
		if _, err := ada.Block(ctx, "bob"); err != nil {
			t.Fatal(err)
		}
		m := say(ctx, t, bob, "ada", "blocked")
		short, cancel := context.WithTimeout(ctx, 5*time.Minute)
		defer cancel()
		got, err := bob.Wait(short, m.ID, "delivered")
		wantKind(t, "Bob waits", err, node.KindTimeout, "not delivered in time")
		if got.State != "queued" {
			t.Errorf("Bob sees %q, which tells him that he is blocked", got.State)
		}
		conv, err := ada.Conversation(ctx, "bob")
		if err != nil {
			t.Fatal(err)
		}
		_, err = ada.Send(ctx, conv.ID, node.Text("x"))
		wantKind(t, "Ada writes to whom she blocked", err, node.KindRefused, "blocked")
		if got := texts(ctx, t, ada, "bob"); got != "before" {
			t.Errorf("Ada reads %q", got)
		}
		if _, err := ada.Unblock(ctx, "bob"); err != nil {
			t.Fatal(err)
		}
		delivered(ctx, t, bob, m)
		if got := texts(ctx, t, ada, "bob"); got != "before|blocked" {
			t.Errorf("Ada reads %q after unblocking", got)
		}
	})
}

// TestRemovedComesBack: whoever was removed keeps trying in vain, but not so
// often that they are shut out when they are given a new invite.
func TestRemovedComesBack(t *testing.T) {
	pair(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, _ node.Added) {
		delivered(ctx, t, bob, say(ctx, t, bob, "ada", "before"))
		if _, err := ada.RemoveContact(ctx, "bob", false); err != nil {
			t.Fatal(err)
		}
		m := say(ctx, t, bob, "ada", "removed")
		time.Sleep(2 * time.Minute)
		if s, err := bob.Status(ctx); err != nil || s.Queued != 1 {
			t.Errorf("Bob has %d queued, %v; want the 1 that nobody took", s.Queued, err)
		}
		link, err := ada.Invite(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bob.AddContact(ctx, link, node.AddOptions{}); err != nil {
			t.Fatalf("answer a new invite after the removal: %v", err)
		}
		delivered(ctx, t, bob, m)
		delivered(ctx, t, bob, say(ctx, t, bob, "ada", "again"))
		if got := texts(ctx, t, ada, "bob"); got != "before|removed|again" {
			t.Errorf("Ada reads %q", got)
		}
	})
}

// TestRemovedStaysRemoved: whoever was removed does not come back by the invite of
// then, which the same person may otherwise answer twice.
func TestRemovedStaysRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{})
		ada, bob := simulated(t, net, 0, "", "Ada"), simulated(t, net, 1, "", "Bob")
		defer closeAll(t, ada, bob)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		link, err := ada.Invite(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bob.AddContact(ctx, link, node.AddOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := ada.RemoveContact(ctx, "bob", false); err != nil {
			t.Fatal(err)
		}
		_, err = bob.AddContact(ctx, link, node.AddOptions{})
		wantKind(t, "the invite of before the removal", err, node.KindRefused, "used")
		if contacts, err := ada.Contacts(ctx); err != nil || len(contacts) > 0 {
			t.Errorf("Ada has %d contacts (%v), want none", len(contacts), err)
		}
	})
}

// TestPetnameIsNobodysName: a petname that another contact is shown by would
// send to one what is meant for the other.
func TestPetnameIsNobodysName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{})
		ada, bob, eve := simulated(t, net, 0, "", "Ada"), simulated(t, net, 1, "", "Bob"), simulated(t, net, 2, "", "Eve")
		defer closeAll(t, ada, bob, eve)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		for _, n := range []*node.Node{bob, eve} {
			link, err := ada.Invite(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := n.AddContact(ctx, link, node.AddOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		_, err := ada.RenameContact(ctx, "eve", "bob")
		wantKind(t, "call Eve by Bob's name", err, node.KindRefused, "called \"bob\" already")
	})
}

func TestNamesAndResolution(t *testing.T) {
	pair(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, added node.Added) {
		if _, err := bob.RenameContact(ctx, "Ada", "Countess"); err != nil {
			t.Fatal(err)
		}
		for _, who := range []string{"Countess", "countess", added.Contact.ID.String(), "kinloom:" + added.Contact.ID.String()} {
			if c, err := bob.Contact(ctx, who); err != nil || c.ID != added.Contact.ID {
				t.Errorf("contact %q: %v, %v", who, c.ID, err)
			}
		}
		_, err := bob.Contact(ctx, "count")
		wantKind(t, "part of a name", err, node.KindNotFound, "Known: Countess")
		_, err = bob.RenameContact(ctx, "Countess", "did:key:x")
		wantKind(t, "a name like an address", err, node.KindUsage, "taken for an address")
		if err := ada.SetName(ctx, "Ada Lovelace"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		c, err := bob.Contact(ctx, "countess")
		if err != nil || c.ProfileName != "Ada Lovelace" || c.Name != "Countess" {
			t.Errorf("after Ada's new name Bob sees %q (%q), %v", c.Name, c.ProfileName, err)
		}
		for text, want := range map[string]string{"": "empty", strings.Repeat("x", 12289): "12 KiB", "a\xff": "UTF-8"} {
			_, err := bob.Send(ctx, added.Contact.Conversation, node.Text(text))
			wantKind(t, "a text of "+want, err, node.KindUsage, want)
		}
		delivered(ctx, t, bob, say(ctx, t, bob, "countess", strings.Repeat("x", 12288)))
		say(ctx, t, bob, node.Me, "note")
		if got := texts(ctx, t, bob, node.Me); got != "note" {
			t.Errorf("notes to self: %q", got)
		}
		once, err := bob.SendOnce(ctx, added.Contact.Conversation, node.Text("once"), "key")
		if err != nil {
			t.Fatal(err)
		}
		again, err := bob.SendOnce(ctx, added.Contact.Conversation, node.Text("twice"), "key")
		if err != nil || again.ID != once.ID || again.Text != "once" {
			t.Errorf("the same idempotency key gave %q, %v", again.Text, err)
		}
	})
}

// TestRequestCannotFillTheDisk: of somebody who waits for an answer, only so much
// is taken; the rest stays on their side until the answer.
func TestRequestCannotFillTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{})
		ada, eve := simulated(t, net, 0, "", "Ada"), simulated(t, net, 1, "", "Eve")
		defer closeAll(t, ada, eve)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		public, err := ada.NewInvite(ctx, node.InviteRequest{Many: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := eve.AddContact(ctx, public.Link, node.AddOptions{}); err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			say(ctx, t, eve, "ada", "spam "+string(rune('a'+i%26)))
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		held, err := ada.Read(ctx, "eve", node.ReadQuery{Peek: true})
		if err != nil || len(held) < 32 || len(held) > 64 {
			t.Errorf("Ada holds %d messages of a request, %v; want at least 32 and not many more", len(held), err)
		}
		s, err := eve.Status(ctx)
		if err != nil || s.Queued != 200-len(held) {
			t.Errorf("Eve has %d queued, %v; want the %d that Ada does not hold", s.Queued, err, 200-len(held))
		}
		if _, err := ada.AcceptRequest(ctx, "eve"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Minute)
		if held, err = ada.Read(ctx, "eve", node.ReadQuery{Peek: true}); err != nil || len(held) != 200 {
			t.Errorf("after accepting Ada holds %d messages, %v; want all 200", len(held), err)
		}
	})
}
