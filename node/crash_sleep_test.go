package node_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
)

// homes is two nodes with homes on disk and clocks that a test sets, in virtual time.
type homes struct {
	t      *testing.T
	net    *testnet.Net
	dirs   [2]string
	clocks [2]shifted
	nodes  [2]*node.Node
}

var homeNames = [2]string{"Ada", "Bob"}

// withHomes runs f with two contacts that can be closed and opened.
func withHomes(t *testing.T, f func(ctx context.Context, h *homes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &homes{t: t, net: testnet.New(t, 1, testnet.Options{Latency: 20 * time.Millisecond})}
		dir := t.TempDir()
		for i, name := range homeNames {
			h.dirs[i] = filepath.Join(dir, name)
			h.open(i)
		}
		defer func() { h.close(0, 1) }()
		ctx, cancel := context.WithTimeout(t.Context(), 1000*time.Hour) // virtual
		defer cancel()
		befriend(ctx, t, h.nodes[0], h.nodes[1])
		f(ctx, h)
	})
}

func (h *homes) open(i int) {
	h.t.Helper()
	n, err := node.Open(h.t.Context(), node.Config{
		Dir: h.dirs[i], Name: homeNames[i], NoLAN: true, NoDHT: true, Network: h.net.Host(i).Configure, Now: h.clocks[i].now,
	})
	if err != nil {
		h.t.Fatalf("open %s: %v", homeNames[i], err)
	}
	h.nodes[i] = n
}

// pass lets virtual time go by.
func (h *homes) pass(d time.Duration) { time.Sleep(d) }

func (h *homes) close(which ...int) {
	h.t.Helper()
	for _, i := range which {
		if h.nodes[i] != nil {
			closeAll(h.t, h.nodes[i])
		}
		h.nodes[i] = nil
	}
}

// TestRestartDeliversWhatWasQueued: what was said while the other was away waits on disk, over restarts of the sender,
// and comes in order when both are there.
func TestRestartDeliversWhatWasQueued(t *testing.T) {
	withHomes(t, func(ctx context.Context, h *homes) {
		h.close(1)
		var want strings.Builder
		var last node.Message
		for i := range 30 {
			if i%10 == 5 {
				h.close(0)
				h.open(0)
			}
			text := fmt.Sprint("message ", i)
			last = say(ctx, h.t, h.nodes[0], "bob", text)
			want.WriteString(text + "|")
		}
		h.close(0)
		h.open(1)
		h.open(0)
		delivered(ctx, h.t, h.nodes[0], last)
		if got := texts(ctx, h.t, h.nodes[1], "ada") + "|"; got != want.String() {
			h.t.Errorf("Bob reads %q, want %q", got, want.String())
		}
	})
}

// TestSleepTriesAtOnce: after hours without the network a device is tried every ten minutes; when the machine wakes up or
// its clock is set, it is tried at once. (H105)
func TestSleepTriesAtOnce(t *testing.T) {
	jumps := []time.Duration{0, 8 * time.Hour, time.Minute, -time.Hour}
	if testing.Short() { // beside the race detector
		jumps = jumps[1:2]
	}
	for _, jump := range jumps {
		withHomes(t, func(ctx context.Context, h *homes) {
			h.net.Cut([]int{0}, []int{1})
			time.Sleep(2 * time.Minute) // until both know that the line is dead
			m := say(ctx, h.t, h.nodes[0], "bob", "good morning")
			time.Sleep(3 * time.Hour)
			// Right after a try: one that is under way would reach him by itself.
			tried := func() time.Time {
				ways, err := h.nodes[0].Route(ctx, "bob")
				if err != nil || len(ways) == 0 {
					h.t.Fatalf("ways to Bob: %v, %v", ways, err)
				}
				return ways[0].LastTry
			}
			for last := tried(); tried().Equal(last); {
				time.Sleep(time.Second)
			}
			time.Sleep(30 * time.Second)
			h.net.Heal()
			h.clocks[0].set(jump)
			began := time.Now()
			short, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			got, err := h.nodes[0].Wait(short, m.ID, "delivered")
			switch {
			case jump == 0 && got.State == "delivered":
				h.t.Errorf("without a jump it was delivered in %v: the test proves nothing", time.Since(began))
			case jump == 0:
				delivered(ctx, h.t, h.nodes[0], m) // it comes all the same, later
				if took := time.Since(began); took > 11*time.Minute {
					h.t.Errorf("without a jump it was delivered after %v", took)
				}
			case err != nil || got.State != "delivered":
				h.t.Errorf("5 s after a jump of %v it is %s: %v", jump, got.State, err)
			}
		})
	}
}

// TestClockSeesSleep: a monotonic reading stands still while the machine sleeps, so a clock that gives one hides it. (H105)
func TestClockSeesSleep(t *testing.T) {
	now, err := node.DefaultNow()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(now.String(), " m=") {
		t.Errorf("the clock of a node gives %v", now)
	}
}

// TestBothAwayForMonths: two nodes whose certificates ran out while both were off, or asleep, renew them, tell each
// other, and go on.
func TestBothAwayForMonths(t *testing.T) {
	for _, off := range []bool{true, false} {
		withHomes(t, func(ctx context.Context, h *homes) {
			delivered(ctx, h.t, h.nodes[0], say(ctx, h.t, h.nodes[0], "bob", "see you next year"))
			if off {
				h.close(0, 1)
			}
			for i := range h.clocks {
				h.clocks[i].set(200 * 24 * time.Hour)
			}
			if off {
				h.open(0)
				h.open(1)
			}
			time.Sleep(10 * time.Second)
			delivered(ctx, h.t, h.nodes[0], say(ctx, h.t, h.nodes[0], "bob", "hello again"))
			delivered(ctx, h.t, h.nodes[1], say(ctx, h.t, h.nodes[1], "ada", "what a year"))
			if got := texts(ctx, h.t, h.nodes[1], "ada"); got != "see you next year|hello again|what a year" {
				h.t.Errorf("off %v: Bob reads %q", off, got)
			}
		})
	}
}

// TestRenewalBesideADeadConversation: a conversation in which this device has no number left keeps it neither from
// starting nor from renewing its certificate and telling everybody else.
func TestRenewalBesideADeadConversation(t *testing.T) {
	withHomes(t, func(ctx context.Context, h *homes) {
		s, err := h.nodes[0].Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		c, err := h.nodes[0].Conversation(ctx, "bob")
		if err != nil {
			t.Fatal(err)
		}
		h.close(0)
		h.rows(0, func(tx *store.Tx) error {
			return tx.PutSetting(fmt.Sprintf("closed numbers %x %x", c.ID[:], s.Device[:]), binary.BigEndian.AppendUint64(nil, event.MaxSeq), false)
		})
		h.clocks[0].set(70 * 24 * time.Hour)
		h.open(0)
		if _, err := h.nodes[0].Send(ctx, c.ID, node.Text("no number is left")); err == nil {
			t.Error("it was sent: the test proves nothing")
		}
		if s, err = h.nodes[0].Status(ctx); err != nil || len(s.Warnings) > 1 {
			t.Errorf("warned of %q, %v", s.Warnings, err)
		}
	})
}

// TestRetention: what is older than a conversation keeps is gone from the timeline and the search of that node, by
// itself, also when it was off in between, and stays with the other.
func TestRetention(t *testing.T) {
	withHomes(t, func(ctx context.Context, h *homes) {
		keep := 3 * time.Hour
		if _, err := h.nodes[1].UpdateConversation(ctx, "ada", node.ConversationUpdate{Retention: &keep}); err != nil {
			h.t.Fatal(err)
		}
		state := func(when, want string) {
			h.t.Helper()
			if got := texts(ctx, h.t, h.nodes[1], "ada"); got != want {
				h.t.Errorf("%s Bob reads %q, want %q", when, got, want)
			}
			found, err := h.nodes[1].Search(ctx, node.SearchQuery{Text: "yesterday"})
			if err != nil || len(found) != map[bool]int{true: 1, false: 0}[want == "yesterday's word"] {
				h.t.Errorf("%s Bob finds %d messages, %v", when, len(found), err)
			}
		}
		delivered(ctx, h.t, h.nodes[0], say(ctx, h.t, h.nodes[0], "bob", "yesterday's word"))
		time.Sleep(2 * time.Hour)
		state("after two hours", "yesterday's word")
		time.Sleep(2*time.Hour + time.Minute)
		state("after four hours", "")
		delivered(ctx, h.t, h.nodes[0], say(ctx, h.t, h.nodes[0], "bob", "yesterday's word"))
		h.close(1)
		time.Sleep(4 * time.Hour)
		h.open(1)
		time.Sleep(2 * time.Second)
		state("after a night", "")
		if got := texts(ctx, h.t, h.nodes[0], "bob"); got != "yesterday's word|yesterday's word" {
			h.t.Errorf("Ada, who keeps everything, reads %q", got)
		}
	})
}
