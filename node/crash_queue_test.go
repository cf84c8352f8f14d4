package node

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kinloom/kinloom/identity/keyfile"
	"github.com/kinloom/kinloom/node/store"
)

// openRows opens the store of a closed node for a look, or a change, behind its back.
func openRows(t *testing.T, dir string, f func(tx *store.Tx) error) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, keysFile))
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := keyfile.Open(b, keyfile.Lock{})
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), store.Options{Dir: dir, Key: secrets.SubKey, IDs: secrets.Files})
	if err != nil {
		t.Fatal(err)
	}
	err = st.Write(t.Context(), f)
	if closed := st.Close(); err != nil || closed != nil {
		t.Fatal(err, closed)
	}
}

// TestReceiptThatReachedTheSessionOnly: a crash may come when the session's row already tells of a receipt and the
// outbox does not. The message is delivered, then, and nothing waits for a receipt that will not come again.
func TestReceiptThatReachedTheSessionOnly(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	dirs := [2]string{t.TempDir(), t.TempDir()}
	open := func(i int) *Node {
		t.Helper()
		n, err := Open(ctx, Config{Dir: dirs[i], Name: []string{"Ada", "Bob"}[i], Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}, NoLAN: true})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	closed := func(n *Node) {
		t.Helper()
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	send := func(n *Node, added Added, text, until string) Message {
		t.Helper()
		m, err := n.Send(ctx, added.Contact.Conversation, Text(text))
		if err == nil {
			m, err = n.Wait(ctx, m.ID, until)
		}
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	ada, bob := open(0), open(1)
	link, err := ada.Invite(ctx)
	if err != nil {
		t.Fatal(err)
	}
	added, err := bob.AddContact(ctx, link, AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	send(ada, added, "first", "delivered")
	closed(bob)
	waits := send(ada, added, "waits for Bob", "queued")
	closed(ada)
	var rows []store.Outbox
	openRows(t, dirs[0], func(tx *store.Tx) error {
		devices, err := tx.Devices(bob.me)
		if err == nil {
			rows, err = tx.Outboxes(devices[0].Row, 0, 10)
		}
		return err
	})
	if len(rows) != 1 {
		t.Fatalf("%d rows in the outbox, want one", len(rows))
	}
	ada, bob = open(0), open(1)
	if m, err := ada.Wait(ctx, waits.ID, "delivered"); err != nil || m.State != "delivered" {
		t.Fatalf("state %s, %v", m.State, err)
	}
	closed(ada)
	openRows(t, dirs[0], func(tx *store.Tx) error { return tx.InsertOutbox(&rows[0]) }) // as if the crash had come before
	ada = open(0)
	for {
		s, err := ada.Status(ctx)
		if err != nil {
			t.Fatalf("%d messages still wait: %v", s.Queued, err)
		}
		if s.Queued == 0 {
			break
		}
	}
	closed(ada)
	closed(bob)
}
