package node_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/kinloom/kinloom/node"
)

// loopback is a node on this machine only.
func loopback(t *testing.T, dir, name string) *node.Node {
	t.Helper()
	n, err := node.Open(t.Context(), node.Config{
		Dir: dir, Name: name, Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}, NoLAN: true,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name),
	})
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close %s: %v", name, err)
		}
	})
	return n
}

func befriend(ctx context.Context, t *testing.T, a, b *node.Node) node.Added {
	t.Helper()
	link, err := a.Invite(ctx)
	if err != nil {
		t.Fatalf("invite: %v", err)
	}
	added, err := b.AddContact(ctx, link, node.AddOptions{})
	if err != nil {
		t.Fatalf("add contact: %v: %v", err, errors.Unwrap(err))
	}
	return added
}

func TestTwoNodesTalk(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ada, bob := loopback(t, t.TempDir(), "Ada"), loopback(t, t.TempDir(), "Bob")
	added := befriend(ctx, t, ada, bob)
	if added.Contact.Name != "Ada" || len(added.Words) != 3 {
		t.Fatalf("added %+v", added)
	}
	seen, err := ada.Contact(ctx, "bob")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := seen.Words, added.Words; len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("check words: Ada sees %v, Bob sees %v", got, want)
	}
	sent, err := bob.Send(ctx, added.Contact.Conversation, node.Text("Hi!"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := bob.Wait(ctx, sent.ID, "delivered")
	if err != nil || m.Route != "lan" {
		t.Fatalf("wait: %v; state %s by %q", err, m.State, m.Route)
	}
	back, err := ada.Send(ctx, seen.Conversation, node.Text("Hello Bob"))
	if err != nil {
		t.Fatal(err)
	}
	if m, err := ada.Wait(ctx, back.ID, "delivered"); err != nil {
		t.Fatalf("wait: %v; state %s", err, m.State)
	}
	got, err := ada.Read(ctx, "bob", node.ReadQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Text != "Hi!" || got[0].FromName != "Bob" || got[1].Text != "Hello Bob" || !got[1].Own {
		t.Errorf("Ada reads %+v", got)
	}
	if m, err := bob.Wait(ctx, sent.ID, "read"); err != nil || m.State != "read" {
		t.Errorf("after Ada read: state %q, %v", m.State, err)
	}
}

// TestMessagesEnd: a stream of messages ends with its context or its node and then
// yields no error, whenever that comes.
func TestMessagesEnd(t *testing.T) {
	n := loopback(t, "", "Ada")
	ctx, cancel := context.WithCancel(t.Context())
	running := n.Messages(ctx)
	cancel()
	early := n.Messages(ctx) // it cannot even look where the store is
	for m, err := range early {
		t.Errorf("a context that had ended: %+v, %v", m, err)
	}
	for m, err := range running {
		t.Errorf("a context that ended: %+v, %v", m, err)
	}
	alive := n.Messages(t.Context())
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	for m, err := range alive {
		t.Errorf("a node that was closed: %+v, %v", m, err)
	}
	for m, err := range n.Messages(t.Context()) {
		t.Errorf("a node that had been closed: %+v, %v", m, err)
	}
}
