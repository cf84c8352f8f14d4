package node_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/dm"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/wire"
)

// attacked runs f with an honest pair of nodes, Ada and Bob, and a mallory, in
// virtual time. After it Ada must still hear Bob and Bob Ada, at once.
func attacked(t *testing.T, f func(ctx context.Context, t *testing.T, ada, bob *node.Node, m *mallory)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{Latency: 5 * time.Millisecond, BitsPerSecond: 1 << 30})
		ada, bob := simulated(t, net, 0, "", "Ada"), simulated(t, net, 1, "", "Bob")
		defer closeAll(t, ada, bob)
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		befriend(ctx, t, ada, bob)
		m := newMallory(t, net, 2)
		f(ctx, t, ada, bob, m)
		served(ctx, t, ada, bob)
	})
}

// served checks that two honest nodes reach each other within two seconds.
func served(ctx context.Context, t *testing.T, ada, bob *node.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	text := fmt.Sprintf("still there? %x", sha256.Sum256([]byte(time.Now().String())))
	delivered(ctx, t, ada, say(ctx, t, ada, "Bob", text))
	delivered(ctx, t, bob, say(ctx, t, bob, "Ada", text))
}

// TestBundlesRunOut: who takes as many one-time keys as there are and uses none
// keeps nobody from becoming a contact, nor from one-time keys.
func TestBundlesRunOut(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, m *mallory) {
		var invite string
		for i := range 1100 {
			if i%200 == 0 { // one invite is not answered that often
				invite = link(ctx, t, ada, true)
			}
			time.Sleep(130 * time.Millisecond) // the rate of streams of one peer
			if err := m.half(ctx, invite); err != nil {
				t.Fatal(err)
			}
		}
		other := link(ctx, t, ada, false)
		m.meet(ctx, other)
		m.say(m.text("hello"))
		if upto, _ := m.receipts(); upto == 0 {
			t.Error("no session once the one-time keys were taken")
		}
		if !m.fresh(ctx, other) {
			t.Error("a contact gets no keys for a single start once a stranger took as many as there are")
		}
	})
}

// TestGuessesAtCheckWords: whoever stands in the middle of two persons and begins one
// exchange after the other with the inviter, to break each off whose check words
// would be other ones than those that the invited person sees, is soon not answered.
func TestGuessesAtCheckWords(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, _ *node.Node, m *mallory) {
		kinds := []bool{false, true}
		if testing.Short() { // beside the race detector
			kinds = kinds[1:]
		}
		for _, many := range kinds {
			invite, answered := link(ctx, t, ada, many), 0
			for range 400 { // 52 s, of the 10 minutes in which words are good
				time.Sleep(130 * time.Millisecond) // the rate of streams of one peer
				err := m.half(ctx, invite)
				if refused, ok := errors.AsType[contact.Refused](err); ok && refused.Code == wire.CodeBusy {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				answered++
			}
			if answered > 256 {
				t.Errorf("%d guesses at the words of one invite (for many: %v), want at most 256", answered, many)
			}
			time.Sleep(10 * time.Minute)
			m.become()
			if _, err := m.exchange(ctx, invite, nil); err != nil {
				t.Errorf("the invite is not good after a rest: %v", err)
			}
		}
	})
}

// TestBadTokens: 10,000 exchanges with tokens that nobody gave out.
func TestBadTokens(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, m *mallory) {
		invite := link(ctx, t, ada, true)
		codes, tries := map[string]int{}, 10_000
		if testing.Short() {
			tries = 1000
		}
		for i := range tries {
			_, err := m.exchange(ctx, invite, func(v *contact.Invite) { v.Token[i%16] ^= byte(1 + i%255) })
			if err == nil {
				t.Fatal("a bad token was taken")
			}
			codes[fmt.Sprintf("%.60s", err)]++
			if i%1000 == 999 {
				served(ctx, t, ada, bob)
			}
		}
		t.Log(codes)
	})
}

// TestStartWithAGap: a session whose first message never comes costs nobody
// else anything.
func TestStartWithAGap(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, m *mallory) {
		m.meet(ctx, link(ctx, t, ada, false))
		m.seal(m.conv, m.text("never sent"))
		second := m.seal(m.conv, m.text("second"))
		sent := say(ctx, t, ada, "Mallory", "hello")
		for range 3 {
			m.fatal("send", m.send(dm.Cells{Cells: [][]byte{m.pack(second)}}))
			served(ctx, t, ada, bob)
		}
		_, got := m.receipts()
		t.Log(got, sent.State)
		time.Sleep(time.Minute) // the wait for the first is over
		_, got = m.receipts()
		t.Logf("%v; Ada shows %q", got, texts(ctx, t, ada, "Mallory"))
	})
}

// TestBlockedNeverReadsDelivered: what a blocked person sends is not stored, so
// it must not be receipted, not even after the block is taken back.
func TestBlockedNeverReadsDelivered(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, _ *node.Node, m *mallory) {
		invite := link(ctx, t, ada, false)
		m.meet(ctx, invite)
		m.say(m.text("before"))
		upto, _ := m.receipts()
		if upto == 0 {
			t.Fatal("no receipt before the block")
		}
		if _, err := ada.Block(ctx, "Mallory"); err != nil {
			t.Fatal(err)
		}
		if !m.ended(5 * time.Second) {
			t.Error("the stream of a blocked person lives on")
		}
		m.move(ctx) // another transport key: who it is, only a cell can tell
		m.reopen(ctx, invite)
		m.say(m.text("while blocked"))
		if _, got := m.receipts(); len(got) > 1 {
			t.Errorf("a blocked person hears %v", got)
		}
		if _, err := ada.Unblock(ctx, "Mallory"); err != nil {
			t.Fatal(err)
		}
		m.reopen(ctx, invite)
		m.say(m.text("after"))
		after, got := m.receipts()
		shown := texts(ctx, t, ada, "Mallory")
		t.Logf("receipts up to %d before, %d after; then came %v; Ada shows %q", upto, after, got, shown)
		if after > upto && shown != "before|while blocked|after" {
			t.Errorf("receipted up to %d, which Ada never got: she shows %q", after, shown)
		}
	})
}

// TestUsedStartIsRefusedAloud: a session of which the first cells are still repeated was
// ended here. Its start is used up, and the other side is told so: else it would repeat
// it for ever, and nothing that it says would come again.
func TestUsedStartIsRefusedAloud(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, _ *node.Node, m *mallory) {
		invite := link(ctx, t, ada, false)
		m.meet(ctx, invite)
		first := m.pack(m.seal(m.conv, m.text("before")))
		m.fatal("send", m.send(dm.Cells{Cells: [][]byte{first}}))
		if _, err := m.next(5 * time.Second); err != nil { // not opened: the session stays unconfirmed
			t.Fatal(err)
		}
		if _, err := ada.Block(ctx, "Mallory"); err != nil {
			t.Fatal(err)
		}
		m.move(ctx) // another transport key: who it is, only a cell can tell, and that ends the session
		m.reopen(ctx, invite)
		m.say(m.text("while blocked"))
		m.ended(5 * time.Second)
		if _, err := ada.Unblock(ctx, "Mallory"); err != nil {
			t.Fatal(err)
		}
		m.reopen(ctx, invite)
		last := m.pack(m.seal(m.conv, m.text("after")))
		m.fatal("send", m.send(dm.Cells{Cells: [][]byte{last}}))
		id, _, err := wire.ParseCell(last)
		m.fatal("cell", err)
		for {
			f, err := m.next(10 * time.Second)
			if err != nil {
				t.Fatalf("no word about a cell of a session that is gone: %v", err)
			}
			if nack, ok := f.(dm.Nack); ok {
				if nack.Cell != id || nack.Code != wire.CodeUnopened {
					t.Errorf("refused %v with %v, want %v with %v", nack.Cell, nack.Code, id, wire.CodeUnopened)
				}
				return
			}
		}
	})
}

// TestRequestIsBounded: somebody who waits for an answer to a public invite gets
// a few messages stored, of whatever type, over whatever streams.
func TestRequestIsBounded(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, _ *node.Node, m *mallory) {
		invite := link(ctx, t, ada, true)
		m.meet(ctx, invite)
		time.Sleep(10 * time.Second) // virtual: Ada and Bob have told each other where they are
		name, err := event.Name{Name: "M"}.Append()
		if err != nil {
			t.Fatal(err)
		}
		before, err := ada.Changes(ctx, 0, 10_000)
		if err != nil {
			t.Fatal(err)
		}
		upto := uint64(0)
		for range 6 {
			for range 50 {
				if m.send(dm.Cells{Cells: [][]byte{m.pack(m.seal(m.conv, m.event(event.Profile, name)))}}) != nil {
					break
				}
			}
			more, _ := m.receipts()
			upto = max(upto, more)
			m.reopen(ctx, invite)
		}
		after, err := ada.Changes(ctx, 0, 10_000)
		if err != nil {
			t.Fatal(err)
		}
		if upto > 64 || len(after)-len(before) > 64 {
			t.Errorf("%d events of a request are stored, receipted up to %d", len(after)-len(before), upto)
		}
		if _, err := ada.AcceptRequest(ctx, m.root.Person().String()); err != nil {
			t.Fatal(err)
		}
		m.reopen(ctx, invite)
		m.say(m.text("back to reason"))
		if _, got := m.receipts(); !slices.Contains(got, "dm.WantBundle") {
			t.Errorf("after it was accepted Ada answers %v, and asks for no bundle to begin anew", got)
		}
	})
}

// TestReadMarkBeyondWhatWasSaid: a contact that claims to have read what was not
// said yet does not make it read.
func TestReadMarkBeyondWhatWasSaid(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, _ *node.Node, m *mallory) {
		m.meet(ctx, link(ctx, t, ada, false))
		m.say(m.text("hello"))
		marks, err := event.Marks{Marks: []event.Mark{{Device: m.victim.Device, Seq: event.MaxSeq}}}.Append()
		if err != nil {
			t.Fatal(err)
		}
		m.say(m.event(event.ReadMark, marks))
		m.receipts()
		_ = m.stream.Reset()
		_ = m.host.Close()
		sent := say(ctx, t, ada, "Mallory", "never read")
		wait, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if got, err := ada.Wait(wait, sent.ID, "delivered"); err == nil || got.State != "queued" {
			t.Errorf("a message that went nowhere is %q (%v)", got.State, err)
		}
		got, err := ada.Message(ctx, fmt.Sprintf("%x", sent.ID[:]))
		if err != nil || got.State != "queued" {
			t.Errorf("a message that went nowhere is %q (%v)", got.State, err)
		}
	})
}

// TestRequestThatWithholdsTheFirst: messages behind a gap are no way around that
// bound.
func TestRequestThatWithholdsTheFirst(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, _ *node.Node, m *mallory) {
		m.meet(ctx, link(ctx, t, ada, true))
		m.seal(m.conv, m.text("never sent"))
		big := strings.Repeat("x", 12_000)
		sent := 0
		for range 500 {
			if m.send(dm.Cells{Cells: [][]byte{m.pack(m.seal(m.conv, m.text(big)))}}) != nil {
				break
			}
			sent++
		}
		m.receipts()
		time.Sleep(time.Minute) // the wait for the first is over
		s, err := ada.Status(ctx)
		if err != nil || s.Unread > 64 {
			t.Errorf("%d of %d messages of a request are stored (%v)", s.Unread, sent, err)
		}
	})
}

// TestBundlesOfOneContact: a contact that opens one stream after the other gets no
// more bundles for a single start than one that keeps its stream. What it gets then
// is the static one, so nobody is kept from beginning a session.
func TestBundlesOfOneContact(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, _ *node.Node, m *mallory) {
		invite := link(ctx, t, ada, false)
		m.meet(ctx, invite)
		m.say(m.text("first"))
		m.receipts()
		const allowed = 8
		got := 0
		for n := range 30 {
			once := m.fresh(ctx, invite)
			if once {
				got++
			}
			if !once && n < allowed-1 {
				t.Errorf("reconnected %d times and got no fresh bundle", n)
			}
		}
		if got > allowed {
			t.Errorf("got %d fresh bundles by opening streams, want %d", got, allowed)
		}
		time.Sleep(30 * time.Minute)
		if !m.fresh(ctx, invite) || m.fresh(ctx, invite) {
			t.Error("want one more bundle each half an hour")
		}
		carol := newMallory(t, m.net, 3)
		carol.meet(ctx, link(ctx, t, ada, false))
		if !carol.fresh(ctx, invite) {
			t.Error("another contact gets none")
		}
	})
}

// TestContactThatClosesAllNumbers: a contact who claims to hold events under every number that there is takes none of
// them away: Ada goes on in that conversation, and in what she says in all.
func TestContactThatClosesAllNumbers(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, _ *node.Node, m *mallory) {
		m.meet(ctx, link(ctx, t, ada, false))
		m.say(m.text("first"))
		m.receipts()
		for held := uint64(1); held < event.MaxSeq; held *= 1 << 20 {
			body, err := event.Refused{Device: m.victim.Device, Upto: event.MaxSeq, Held: held, IDs: []event.ID{{1}}}.Append()
			m.fatal("refuse", err)
			m.say(m.event(event.Refusal, body))
			m.receipts()
		}
		say(ctx, t, ada, "Mallory", "still here")
		for _, name := range []string{"Augusta", "Ada"} {
			if err := ada.SetName(ctx, name); err != nil {
				t.Errorf("set the name: %v", err)
			}
		}
	})
}

// TestContactThatWantsEverything: a contact that asks for all it was ever told, again
// and again, is answered within a bound and keeps nobody else waiting.
func TestContactThatWantsEverything(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, _ *node.Node, m *mallory) {
		const said, limit = 1500, 4096
		m.meet(ctx, link(ctx, t, ada, false))
		m.say(m.text("first"))
		m.receipts()
		for i := range said {
			say(ctx, t, ada, "Mallory", fmt.Sprint(i))
		}
		if n := m.take(); n < said {
			t.Fatalf("heard %d events, want at least %d", n, said)
		}
		body, err := event.Wanted{Device: m.victim.Device, From: 1, To: event.MaxSeq}.Append()
		m.fatal("want", err)
		again := 0
		for range 5 {
			m.say(m.event(event.Want, body))
			again += m.take()
		}
		if again < said || again > limit {
			t.Errorf("five questions in a row brought %d events, want %d to %d", again, said, limit)
		}
		time.Sleep(time.Minute)
		m.say(m.event(event.Want, body))
		if n := m.take(); n < said {
			t.Errorf("a question a minute later brought %d events, want at least %d", n, said)
		}
	})
}

// TestDeclinedCountsAgain: who was declined once and asks again takes one of the places for requests, like anybody.
func TestDeclinedCountsAgain(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, _ *node.Node, m *mallory) {
		const places = 100
		invite := link(ctx, t, ada, true)
		declined := *m
		for i := range places + 1 {
			time.Sleep(time.Second)
			if _, err := m.exchange(ctx, invite, nil); err != nil {
				t.Fatalf("person %d: %v", i, err)
			}
			if i == 0 {
				if _, err := ada.DeclineRequest(ctx, m.root.Person().String()); err != nil {
					t.Fatal(err)
				}
			}
			m.become()
		}
		_, err := declined.exchange(ctx, invite, nil)
		if refused, ok := errors.AsType[contact.Refused](err); !ok || refused.Code != wire.CodeBusy {
			t.Errorf("one that was declined asks again where all places are taken: %v, want %v", err, wire.CodeBusy)
		}
		if all, err := ada.Requests(ctx); err != nil || len(all) != places {
			t.Errorf("%d requests wait (%v), want %d", len(all), err, places)
		}
	})
}
