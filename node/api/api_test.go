package api

import (
	"context"
	"errors"
	"iter"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/client"
)

// alone opens a node in memory, without network.
func alone(t *testing.T) *node.Node {
	t.Helper()
	n, err := node.OpenOffline(t.Context(), node.Config{Name: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// serve serves a node on a socket until the test or stop ends it.
func serve(t *testing.T, n *node.Node, o Options) (path string, stop func()) {
	t.Helper()
	home := t.TempDir()
	path = filepath.Join(home, "s")
	listener, err := Listen(home, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, listener, New(n, o)) }()
	stop = func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		served <- nil
	}
	t.Cleanup(stop)
	return path, stop
}

// TestBothTransports asks the same over a socket and in-process: the answers are the same, failures too.
func TestBothTransports(t *testing.T) {
	n := alone(t)
	path, _ := serve(t, n, Options{})
	overSocket := client.Dial(path)
	defer overSocket.Close()
	inProcess := client.New(client.InProcess{Handler: New(n, Options{})})

	first, err := inProcess.Send(t.Context(), client.Outgoing{To: "me", Text: "a note\nof two lines"})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		call func(*client.Client) (any, error)
	}{
		{"status", func(c *client.Client) (any, error) { return c.Status(t.Context()) }},
		{"identity", func(c *client.Client) (any, error) { return c.Identity(t.Context()) }},
		{"health", func(c *client.Client) (any, error) { return c.Health(t.Context()) }},
		{"contacts", func(c *client.Client) (any, error) { return c.Contacts(t.Context()) }},
		{"requests", func(c *client.Client) (any, error) { return c.Requests(t.Context()) }},
		{"invites", func(c *client.Client) (any, error) { return c.Invites(t.Context()) }},
		{"conversations", func(c *client.Client) (any, error) { return c.Conversations(t.Context()) }},
		{"inbox", func(c *client.Client) (any, error) { return c.Inbox(t.Context(), false) }},
		{"conversation", func(c *client.Client) (any, error) { return c.Conversation(t.Context(), "me") }},
		{"read", func(c *client.Client) (any, error) { return c.Read(t.Context(), "me", client.Page{}) }},
		{"message", func(c *client.Client) (any, error) { return c.Message(t.Context(), first.ID) }},
		{"stages", func(c *client.Client) (any, error) { return c.Why(t.Context(), first.ID) }},
		{"wait", func(c *client.Client) (any, error) { return c.Wait(t.Context(), first.ID, "delivered", time.Second) }},
		{"changes", func(c *client.Client) (any, error) { return c.Changes(t.Context(), 0, 0) }},
		{"mute", func(c *client.Client) (any, error) {
			return c.UpdateConversation(t.Context(), "me", client.ConversationUpdate{Retention: new(int64(86400))})
		}},
		{"unknown contact", func(c *client.Client) (any, error) { return c.Contact(t.Context(), "bob") }},
		{"odd name", func(c *client.Client) (any, error) { return c.Contact(t.Context(), "a/b?c#d e%2F") }},
		{"dots", func(c *client.Client) (any, error) { return c.Contact(t.Context(), "..") }},
		{"empty text", func(c *client.Client) (any, error) { return c.Send(t.Context(), client.Outgoing{To: "me"}) }},
		{"broken text", func(c *client.Client) (any, error) {
			return c.Send(t.Context(), client.Outgoing{To: "me", Text: "\xff"})
		}},
		{"unknown state", func(c *client.Client) (any, error) { return c.Wait(t.Context(), first.ID, "lost", 0) }},
		{"negative limit", func(c *client.Client) (any, error) { return c.Read(t.Context(), "me", client.Page{Limit: -1}) }},
		{"broken invite", func(c *client.Client) (any, error) { return c.AddContact(t.Context(), client.AddContact{Link: "x"}) }},
		{"peers", func(c *client.Client) (any, error) { return c.Peers(t.Context()) }},
		{"ping", func(c *client.Client) (any, error) { return c.Ping(t.Context(), "me", time.Second) }},
		{"ping without end", func(c *client.Client) (any, error) { return c.Ping(t.Context(), "me", time.Hour) }},
		{"routes", func(c *client.Client) (any, error) { return c.Routes(t.Context(), "me") }},
		{"stop", func(c *client.Client) (any, error) { return nil, c.Stop(t.Context()) }},
	} {
		got, gotErr := test.call(overSocket)
		want, wantErr := test.call(inProcess)
		ignore := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Changed" }, cmp.Ignore())
		if diff := cmp.Diff(want, got, ignore); diff != "" {
			t.Errorf("%s: the answers differ (-in-process +socket):\n%s", test.name, diff)
		}
		problem, ok := errors.AsType[*client.Problem](gotErr)
		if gotErr != nil && !ok {
			t.Errorf("%s: %v is no problem", test.name, gotErr)
		}
		other, _ := errors.AsType[*client.Problem](wantErr)
		if diff := cmp.Diff(other, problem); diff != "" {
			t.Errorf("%s: the problems differ (-in-process +socket):\n%s", test.name, diff)
		}
	}
}

// TestSendOnce repeats a message's key after the answer is forgotten by the server: the store remembers.
func TestSendOnce(t *testing.T) {
	n := alone(t)
	body := `{"to":"me","text":"once"}`
	var ids []string
	for range 3 {
		status, answer := post(New(n, Options{}), "/v1/messages", "key", body) // a server of its own each time
		if status != 200 {
			t.Fatalf("status %d: %s", status, answer)
		}
		ids = append(ids, answer[:100])
	}
	all, err := n.Read(t.Context(), "me", node.ReadQuery{})
	if err != nil || len(all) != 1 || len(slices.Compact(ids)) != 1 {
		t.Errorf("%d messages, answers %v, %v; want one message", len(all), ids, err)
	}
}

// TestEventsResume reads a stream that is cut 50 times while messages are written: each comes exactly once, in order.
func TestEventsResume(t *testing.T) {
	n := alone(t)
	self, err := n.Conversation(t.Context(), "me")
	if err != nil {
		t.Fatal(err)
	}
	const cuts, each = 50, 3
	var want, got []string
	var since uint64
	var store string
	for range cuts {
		for range each {
			m, err := n.Send(t.Context(), self.ID, node.Text("one of many"))
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, Message(m).ID)
		}
		path, stop := serve(t, n, Options{})
		c := client.Dial(path)
		for change, err := range c.Events(t.Context(), since, store) {
			if err != nil {
				t.Fatal(err)
			}
			if change.Kind == client.KindStore {
				store = change.Store.ID
			}
			since = max(since, change.Changed)
			if change.Message != nil {
				got = append(got, change.Message.ID)
			}
			if len(got) == len(want) {
				break
			}
		}
		c.Close()
		stop()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages of the stream (-sent +read):\n%s", diff)
	}
}

// TestEventsLive reads on while messages are written, over a server that is replaced meanwhile, and ends with the node.
func TestEventsLive(t *testing.T) {
	n := alone(t)
	path, _ := serve(t, n, Options{})
	c := client.Dial(path)
	defer c.Close()
	seen := make(chan client.Change)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		defer close(seen)
		for change, err := range c.Events(ctx, 0, "") {
			if err != nil {
				ended <- err
				return
			}
			seen <- change
		}
		ended <- nil
	}()
	if first := <-seen; first.Kind != client.KindStore || first.Store.ID == "" {
		t.Fatalf("the first event is %+v", first)
	}
	self, err := n.Conversation(t.Context(), "me")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two"} {
		if _, err := n.Send(t.Context(), self.ID, node.Text(text)); err != nil {
			t.Fatal(err)
		}
		for change := range seen {
			if change.Message != nil {
				if change.Message.Text != text || change.Changed != change.Message.Changed || change.Changed == 0 {
					t.Errorf("got %+v, want %s", change.Message, text)
				}
				break
			}
		}
	}
	cancel()
	for range seen { // until the reader has ended
	}
	if err := <-ended; err != nil {
		t.Errorf("a reader that wants no more got %v", err)
	}
}

// TestEventsOtherStore resumes with a number of another store: it begins again, and says so.
func TestEventsOtherStore(t *testing.T) {
	n := alone(t)
	path, _ := serve(t, n, Options{})
	c := client.Dial(path)
	defer c.Close()
	var kinds []string
	for change, err := range c.Events(t.Context(), 1<<40, "another") {
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, change.Kind)
		if len(kinds) == 2 {
			break
		}
	}
	if kinds[0] != client.KindReset || kinds[1] == client.KindReset {
		t.Errorf("got %v, want a reset and then what is stored", kinds)
	}
}

// TestReadersAreBounded opens more streams than are served.
func TestReadersAreBounded(t *testing.T) {
	n := alone(t)
	path, _ := serve(t, n, Options{})
	var open []func()
	for i := range maxReaders + 1 {
		c := client.Dial(path)
		ctx, cancel := context.WithCancel(t.Context())
		reading := make(chan error, 1)
		done := make(chan struct{})
		go func() {
			defer close(done)
			told := false
			for _, err := range c.Events(ctx, 0, "") {
				if !told {
					reading <- err
					told = true
				}
			}
		}()
		open = append(open, func() { cancel(); <-done; c.Close() })
		err := <-reading
		problem, refused := errors.AsType[*client.Problem](err)
		switch {
		case i < maxReaders && err != nil:
			t.Errorf("reader %d: %v", i, err)
		case i == maxReaders && (!refused || problem.Code != client.CodeRefused):
			t.Errorf("reader %d: %v, want a refusal", i, err)
		}
	}
	for _, end := range open {
		end()
	}
}

// TestStop answers before the node ends.
func TestStop(t *testing.T) {
	n := alone(t)
	stopped := make(chan struct{})
	path, _ := serve(t, n, Options{Stop: After(func() { close(stopped) })})
	c := client.Dial(path)
	defer c.Close()
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-stopped
}

// TestNobodyThere says that no node runs, and how to start one.
func TestNobodyThere(t *testing.T) {
	_, err := client.Dial(filepath.Join(t.TempDir(), "none")).Status(t.Context())
	problem, ok := errors.AsType[*client.Problem](err)
	if !ok || problem.ExitCode() != 6 || problem.Next != "Start one: kinloom up" {
		t.Errorf("got %v", err)
	}
}

// TestStalledClient connects and says nothing: it is let go, and holds nobody up.
func TestStalledClient(t *testing.T) {
	n := alone(t)
	path, stop := serve(t, n, Options{})
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := client.Dial(path)
	defer c.Close()
	if _, err := c.Health(t.Context()); err != nil {
		t.Error(err)
	}
	stop() // returns although the other is still there
}

// TestEventsThatCannotBeRead: a stream that cannot go on says why, and is not taken up again.
func TestEventsThatCannotBeRead(t *testing.T) {
	home := t.TempDir()
	path := filepath.Join(home, "s")
	listener, err := Listen(home, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	var streams atomic.Int32
	failing := func(context.Context) iter.Seq2[node.Change, error] {
		return func(yield func(node.Change, error) bool) {
			yield(node.Change{}, &node.Error{Kind: node.KindError, Text: "account.db is damaged"})
		}
	}
	go func() {
		served <- Serve(ctx, listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if streams.Add(1) == 3 {
				cancel()
			}
			follow(r.Context(), w, client.Change{Kind: client.KindStore, Store: &client.Store{ID: "x"}}, failing)
		}))
	}()
	c := client.Dial(path)
	defer c.Close()
	var told error
	for _, err := range c.Events(ctx, 0, "") {
		told = err
	}
	if n := streams.Load(); n != 1 {
		t.Errorf("the stream was opened %d times, want once", n)
	}
	if problem, ok := errors.AsType[*client.Problem](told); !ok || problem.Detail != "account.db is damaged" || problem.ExitCode() != 1 {
		t.Errorf("the reader is told %v", told)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
