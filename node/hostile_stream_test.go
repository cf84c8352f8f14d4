package node_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/dm"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/session"
	"github.com/kinloom/kinloom/protocol/wire"
)

var allProtocols = []protocol.ID{wire.Contact, wire.Hello, wire.DM}

// TestStreamFloods covers threats.md H8 on a whole node: streams of each protocol
// opened as fast as they go and never used, then left by a reset.
func TestStreamFloods(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, m *mallory) {
		invite := link(ctx, t, ada, true)
		for _, id := range allProtocols {
			to, err := m.dial(ctx, invite)
			m.fatal("dial", err)
			var open []network.Stream
			for range 500 {
				if s, err := m.host.NewStream(ctx, to, id); err == nil {
					open = append(open, s)
					_, _ = s.Write([]byte{1}) // the protocol is negotiated with the first byte
				}
			}
			served(ctx, t, ada, bob)
			for _, s := range open {
				_ = s.Reset()
			}
			served(ctx, t, ada, bob)
			m.move(ctx)
		}
	})
}

// TestBrokenFrames covers H1, H2, H3 and H11 on a live node: bytes that are no
// frame, cut frames, and frames of another protocol or moment, on each protocol.
func TestBrokenFrames(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, m *mallory) {
		invite := link(ctx, t, ada, true)
		to, err := m.dial(ctx, invite)
		m.fatal("dial", err)
		frame := func(f dm.Frame) []byte {
			b, err := f.Append(nil)
			m.fatal("frame", err)
			return wire.AppendFrame(nil, b)
		}
		cells := frame(dm.Cells{Cells: [][]byte{make([]byte, wire.MinCell)}})
		inputs := [][]byte{
			{0},
			{0x80},
			{0x80, 0},
			{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
			binary.AppendUvarint(nil, 1<<63), binary.AppendUvarint(nil, wire.MaxFrame+1), wire.AppendFrame(nil, make([]byte, wire.MaxFrame)),
			cells, frame(dm.Nack{Code: wire.CodeUnopened}), frame(dm.Bundle{Bundle: make([]byte, dm.MaxBundle)}), frame(dm.WantBundle{}), frame(dm.Bye{}),
			append(frame(dm.Bye{}), cells...), append(frame(dm.WantBundle{}), frame(dm.Bundle{})...), []byte(strings.Repeat("GET / HTTP/1.1\r\n", 100)),
		}
		for n := 1; n < len(cells); n += 37 {
			inputs = append(inputs, cells[:n])
		}
		if ask, err := m.ask(to, invite); err == nil {
			for n := 1; n < len(ask); n += 61 {
				inputs = append(inputs, ask[:n])
			}
			inputs = append(inputs, ask, append(ask[:len(ask):len(ask)], ask...))
		}
		var opened []network.Stream
		for _, id := range allProtocols {
			for _, in := range inputs {
				time.Sleep(130 * time.Millisecond) // the rate of streams of one peer
				s := m.open(ctx, to, id)
				opened = append(opened, s)
				_, _ = s.Write(in)
				_ = s.CloseWrite()
			}
			served(ctx, t, ada, bob)
		}
		time.Sleep(2 * time.Minute)
		if n := alive(opened); n > 0 {
			t.Errorf("%d streams of broken frames still live after two minutes", n)
		}
	})
}

// TestOneByteASecond covers H7: a byte a second on as many streams as a node
// takes. Each protocol has its time, and others are served meanwhile.
func TestOneByteASecond(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, m *mallory) {
		to, err := m.dial(ctx, link(ctx, t, ada, true))
		m.fatal("dial", err)
		var opened []network.Stream
		for _, id := range allProtocols {
			for range 4 {
				s := m.open(ctx, to, id)
				opened = append(opened, s)
				go func() {
					// A frame of 300 bytes is announced, and a byte a second of it.
					out := append(binary.AppendUvarint(nil, 300), make([]byte, 300)...)
					for i := range out {
						if _, err := s.Write(out[i : i+1]); err != nil {
							return
						}
						time.Sleep(time.Second)
					}
				}()
			}
		}
		for range 6 {
			time.Sleep(15 * time.Second)
			served(ctx, t, ada, bob)
		}
		if n := alive(opened); n > 0 {
			t.Errorf("%d streams still live after 90 s", n)
		}
	})
}

// lines counts the lines of a log.
type lines struct{ n atomic.Int64 }

func (l *lines) Write(b []byte) (int, error) {
	l.n.Add(1)
	return len(b), nil
}

// TestLogBombs: what a contact or a stranger does wrong a thousand times is not a
// thousand lines in the log.
func TestLogBombs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{Latency: 5 * time.Millisecond, BitsPerSecond: 1 << 30})
		var log lines
		ada, err := node.Open(ctx, node.Config{Name: "Ada", NoLAN: true, Network: net.Host(0).Configure, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		defer closeAll(t, ada)
		m := newMallory(t, net, 1)
		m.meet(ctx, link(ctx, t, ada, false))
		bad := event.Entries{Entries: newMallory(t, net, 2).log.Entries()}
		entries, err := bad.Append()
		m.fatal("entries", err)
		for range 400 {
			for _, sealed := range []session.Sealed{
				m.seal(event.ConversationID{1}, m.text("elsewhere")), m.seal(m.conv, []byte("no event")), m.seal(m.conv, m.event(event.Log, entries)),
			} {
				m.fatal("send", m.send(dm.Cells{Cells: [][]byte{m.pack(sealed)}}))
			}
		}
		m.receipts()
		invite := link(ctx, t, ada, true)
		for range 60 {
			time.Sleep(130 * time.Millisecond)
			if _, err := m.exchange(ctx, invite, func(v *contact.Invite) { v.Token[0]++ }); err == nil {
				t.Fatal("a bad token was taken")
			}
		}
		if n := log.n.Load(); n > 20 {
			t.Errorf("%d lines in the log", n)
		}
	})
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestContactThatFloods: a contact sends sound messages as fast as it can, to a
// node that stores each. It gets its turn and no more.
func TestContactThatFloods(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, m *mallory) {
		m.meet(ctx, link(ctx, t, ada, false))
		big := strings.Repeat("flood ", 2000)
		var flood [][]byte
		size := 1500
		if testing.Short() {
			size = 300
		}
		for range size {
			flood = append(flood, m.pack(m.seal(m.conv, m.text(big))))
		}
		before := heap()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for _, cell := range flood {
				if m.send(dm.Cells{Cells: [][]byte{cell}}) != nil {
					return
				}
			}
		}()
		for range 5 {
			served(ctx, t, ada, bob)
		}
		<-done
		if grown := int64(heap()) - int64(before); grown > 64<<20 {
			t.Errorf("%d MiB more in memory", grown>>20)
		}
	})
}

// TestContactThatNeverReads: what is for it waits in the outbox, not in memory,
// and the stream ends.
func TestContactThatNeverReads(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, m *mallory) {
		m.meet(ctx, link(ctx, t, ada, false))
		m.say(m.text("hello"))
		big := strings.Repeat("x", 12_000)
		for range 200 {
			say(ctx, t, ada, "Mallory", big)
		}
		served(ctx, t, ada, bob)
		time.Sleep(2 * time.Minute)
		served(ctx, t, ada, bob)
		m.host.Close()
		if s, err := ada.Status(ctx); err != nil || s.Queued < 200 {
			t.Errorf("%d messages are queued, want 200: nobody got them (%v)", s.Queued, err)
		}
	})
}

// TestTransplants: cells for another device, and events in conversations that
// are not the sender's, change nothing there.
func TestTransplants(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, m *mallory) {
		status, err := ada.Status(ctx)
		m.fatal("status", err)
		other, err := bob.Status(ctx)
		m.fatal("status", err)
		sent := say(ctx, t, ada, "Bob", "between us")
		delivered(ctx, t, ada, sent)
		m.meet(ctx, link(ctx, t, ada, false))
		name, err := event.Name{Name: "Bob"}.Append()
		m.fatal("name", err)
		marks, err := event.Marks{Marks: []event.Mark{{Device: m.victim.Device, Seq: 1}}}.Append()
		m.fatal("marks", err)
		news := event.Entries{Entries: m.log.Entries(), Records: [][]byte{m.record}}
		entries, err := news.Append()
		m.fatal("entries", err)
		typing, err := event.Composing{Seconds: 60}.Append()
		m.fatal("typing", err)
		for _, conv := range []event.ConversationID{
			event.PairID(status.Person, other.Person), event.SelfID(status.Person), event.SelfID(m.root.Person()),
			event.PairID(other.Person, m.root.Person()),
			{},
			{1},
		} {
			for _, e := range [][]byte{
				m.text("transplanted"), m.event(event.Profile, name), m.event(event.ReadMark, marks), m.event(event.Log, entries), m.event(event.Typing, typing),
				[]byte("no event"),
			} {
				m.fatal("send", m.send(dm.Cells{Cells: [][]byte{m.pack(m.seal(conv, e))}}))
			}
		}
		// The log of another person, told in the right conversation.
		stolen := newMallory(t, m.net, 3)
		news = event.Entries{Entries: stolen.log.Entries(), Records: [][]byte{stolen.record}}
		entries, err = news.Append()
		m.fatal("entries", err)
		m.say(m.event(event.Log, entries), m.text("mine"))
		m.receipts()
		// A cell that mallory sealed for somebody else.
		m.victim.Device = stolen.key.ID()
		m.fatal("send", m.send(dm.Cells{Cells: [][]byte{m.foreignCell()}}))
		if _, got := m.receipts(); len(got) != 1 || got[0] != "dm.Nack" {
			t.Errorf("a cell for somebody else is answered with %v, want a refusal", got)
		}
		if got := texts(ctx, t, ada, "Bob"); got != "between us" {
			t.Errorf("the conversation with Bob shows %q", got)
		}
		if got := texts(ctx, t, ada, "Mallory"); got != "mine" {
			t.Errorf("the conversation with Mallory shows %q", got)
		}
		if got, err := ada.Message(ctx, fmt.Sprintf("%x", sent.ID[:])); err != nil || got.State != "delivered" {
			t.Errorf("the message to Bob is %q (%v)", got.State, err)
		}
		contacts, err := ada.Contacts(ctx)
		if err != nil || len(contacts) != 2 || contacts[0].Devices != 1 || contacts[1].Devices != 1 {
			t.Errorf("contacts: %+v, %v", contacts, err)
		}
	})
}

// TestReplaysAfterARestart covers H131: what was recorded, the start of the
// session too, is shown once, whenever it comes again.
func TestReplaysAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{Latency: 5 * time.Millisecond})
		dir := t.TempDir()
		ada := simulated(t, net, 0, dir, "Ada")
		m := newMallory(t, net, 1)
		invite := link(ctx, t, ada, false)
		m.meet(ctx, invite)
		var record [][]byte
		for _, text := range []string{"one", "two", "three"} {
			record = append(record, m.pack(m.seal(m.conv, m.text(text))))
		}
		replay := func() {
			for _, cell := range record {
				m.fatal("send", m.send(dm.Cells{Cells: [][]byte{cell}}))
			}
			m.receipts()
		}
		replay()
		for range 2 {
			closeAll(t, ada)
			ada = simulated(t, net, 0, dir, "Ada")
			m.reopen(ctx, invite)
			replay()
			if got := texts(ctx, t, ada, "Mallory"); got != "one|two|three" {
				t.Errorf("Ada shows %q", got)
			}
		}
		// Used a second time, the invite is refused to anybody else.
		if _, err := newMallory(t, net, 2).exchange(ctx, invite, nil); err == nil {
			t.Error("a used invite was taken from another person")
		}
		closeAll(t, ada)
	})
}

// TestCellOverAnothersLink: a contact that got hold of another one's cell can
// bring it, and does not thereby get what is for the other.
func TestCellOverAnothersLink(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, _ *node.Node, m *mallory) {
		carol := newMallory(t, m.net, 3)
		carol.name = "Carol"
		carol.meet(ctx, link(ctx, t, ada, false))
		m.meet(ctx, link(ctx, t, ada, false))
		carol.say(carol.text("mine"))
		m.say(m.text("also mine"))
		carol.receipts()
		m.receipts()
		stolen := carol.pack(carol.seal(carol.conv, carol.text("brought")))
		m.fatal("send", m.send(dm.Cells{Cells: [][]byte{stolen}}))
		m.receipts()
		time.Sleep(5 * time.Second) // virtual: both were told where Ada is
		m.receipts()
		say(ctx, t, ada, "Carol", "for Carol only")
		if _, got := m.receipts(); len(got) > 0 {
			t.Errorf("who brought a cell gets %v", got)
		}
		if _, got := carol.receipts(); !slices.Contains(got, "message") {
			t.Errorf("Carol gets %v, want her message among it", got)
		}
		if got := texts(ctx, t, ada, "Carol"); got != "mine|brought|for Carol only" {
			t.Errorf("Ada shows %q", got)
		}
	})
}
