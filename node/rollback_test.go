package node_test

import (
	"context"
	"encoding/hex"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/store"
)

// copyHome keeps what the folder of a stopped home holds now.
func copyHome(t *testing.T, h *home) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(h.dir)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// setBack puts an older copy of a stopped home in its place.
func setBack(t *testing.T, h *home, from string) {
	t.Helper()
	if err := os.RemoveAll(h.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(h.dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// listener collects the notices of one run of a node.
type listener struct {
	mu      sync.Mutex // guards notices
	notices []node.Notice
	stop    context.CancelFunc
	done    sync.WaitGroup
}

func hexOf(m node.Message) string { return hex.EncodeToString(m.ID[:]) }

func listen(ctx context.Context, h *home) *listener {
	ctx, stop := context.WithCancel(ctx)
	l := &listener{stop: stop}
	n := h.Node
	l.done.Go(func() {
		for notice, err := range n.Notices(ctx) {
			if err != nil {
				return
			}
			l.mu.Lock()
			l.notices = append(l.notices, notice)
			l.mu.Unlock()
		}
	})
	return l
}

// wants stops listening and wants exactly one notice with these words.
func (l *listener) wants(t *testing.T, who, words string) {
	t.Helper()
	l.stop()
	l.done.Wait()
	n := 0
	for _, notice := range l.notices {
		if strings.Contains(notice.Text, words) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%s was told %d times that %q, want once: %+v", who, n, words, l.notices)
	}
}

const (
	toldOther = "was set back to an older copy of its data, or a copy of it is running"
	toldOwn   = "This node was set back to an older copy of its data"
)

// TestSetBack: Bob's home is set back to an older copy. What both say afterwards
// arrives once and in order, nothing is "delivered" that the other does not have,
// both are told, and what Ada had said comes again.
func TestSetBack(t *testing.T) {
	type talk struct {
		from string // "a" or "b"
		text string
	}
	lines := func(from string, texts ...string) []talk {
		var out []talk
		for _, text := range texts {
			out = append(out, talk{from, text})
		}
		return out
	}
	for i, tc := range []struct {
		name    string
		between []talk // after the copy
		days    int    // that pass in it
		lost    bool   // all sessions are gone when the old copy is back
		quiet   bool   // nobody can find out
		offline int    // messages that Bob says before he meets Ada again
	}{
		{name: "Bob had said more", between: lines("b", "b1", "b2", "b3")},
		{name: "both had", between: []talk{{"b", "b1"}, {"a", "a1"}, {"b", "b2"}, {"a", "a2"}, {"a", "a3"}}},
		{name: "Ada had", between: lines("a", "a1", "a2", "a3"), quiet: true},
		{name: "both, in later sessions", between: []talk{{"b", "b1"}, {"a", "a1"}, {"b", "b2"}, {"a", "a2"}}, days: 3},
		{name: "no session is left", between: []talk{{"b", "b1"}, {"a", "a1"}, {"b", "b2"}, {"a", "a2"}}, lost: true},
		{name: "Bob says more than was", between: lines("b", "b1", "b2"), offline: 20},
		{name: "Bob says more, no session is left", between: lines("b", "b1", "b2"), offline: 20, lost: true},
		{name: "over a renewal", between: []talk{{"b", "b1"}, {"a", "a1"}}, days: 65},
		{name: "over three renewals", between: []talk{{"b", "b1"}, {"a", "a1"}}, days: 200, lost: true},
		{name: "nothing was said", quiet: true},
	} {
		if testing.Short() && i%3 > 0 { // beside the race detector
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			staged(t, func(ctx context.Context, t *testing.T, s *stage, ada, bob *home) {
				delivered(ctx, t, bob.Node, say(ctx, t, bob.Node, "ada", "one"))
				delivered(ctx, t, ada.Node, say(ctx, t, ada.Node, "bob", "two"))
				s.stop(t, bob)
				old := copyHome(t, bob)
				s.start(t, bob)
				wantAda, wantBob := "one|two", "one|two"
				for i, x := range tc.between {
					if tc.days > 0 {
						s.later(tc.days * (i + 1) / len(tc.between))
						s.pass(10 * time.Second)
					}
					from, to := bob, "ada"
					if x.from == "a" {
						from, to = ada, "bob"
						wantBob += "|" + x.text // it comes again
					}
					delivered(ctx, t, from.Node, say(ctx, t, from.Node, to, x.text))
					wantAda += "|" + x.text
				}
				if _, err := ada.Read(ctx, "bob", node.ReadQuery{}); err != nil { // marks as read what Bob is about to lose
					t.Fatal(err)
				}
				s.pass(5 * time.Second)
				both(ctx, t, ada, bob, wantAda)
				s.stop(t, bob)
				setBack(t, bob, old)
				if tc.lost {
					s.stop(t, ada)
					s.dropSessions(t, ada)
					s.dropSessions(t, bob)
				}
				var waiting []node.Message
				if tc.offline > 0 {
					if !tc.lost {
						s.stop(t, ada)
					}
					s.start(t, bob)
					for i := range tc.offline {
						text := "offline " + string(rune('a'+i))
						waiting = append(waiting, say(ctx, t, bob.Node, "ada", text))
						wantAda, wantBob = wantAda+"|"+text, wantBob+"|"+text
					}
					s.pass(time.Second) // they are in the search index under the ids that they have now
					s.stop(t, bob)
				}
				if ada.Node == nil {
					s.start(t, ada)
				}
				s.start(t, bob)
				adaHears, bobHears := listen(ctx, ada), listen(ctx, bob)
				if tc.days > 90 {
					s.pass(10 * time.Second) // each learns of the other's certificate
				}
				for _, m := range waiting {
					delivered(ctx, t, bob.Node, m)
					if got := texts(ctx, t, ada.Node, "bob"); !strings.Contains(got, m.Text) {
						t.Errorf("%q is delivered, Ada reads %q", m.Text, got)
					}
					byOld, err := bob.Message(ctx, hexOf(m)[:16])
					if err != nil || byOld.Text != m.Text {
						t.Errorf("%q by the beginning of the id that it had: %+v, %v", m.Text, byOld, err)
					}
					if byNew, err := bob.Message(ctx, hexOf(byOld)[:16]); err != nil || byNew.ID != byOld.ID {
						t.Errorf("%q by the beginning of the id that it has: %+v, %v", m.Text, byNew, err)
					}
				}
				for _, text := range []string{"new 1", "new 2", "new 3", "new 4"} {
					m := say(ctx, t, bob.Node, "ada", text)
					soon(ctx, t, bob.Node, m, time.Minute)
					wantAda, wantBob = wantAda+"|"+text, wantBob+"|"+text
					if got := texts(ctx, t, ada.Node, "bob"); got != wantAda {
						t.Errorf("%q is delivered, Ada reads\n%q, want\n%q", text, got, wantAda)
					}
					if again, err := bob.Message(ctx, hexOf(m)); err != nil || again.Text != text {
						t.Errorf("%q by the id that it had: %+v, %v", text, again, err)
					}
					soon(ctx, t, ada.Node, say(ctx, t, ada.Node, "bob", "re "+text), time.Minute)
					wantAda, wantBob = wantAda+"|re "+text, wantBob+"|re "+text
				}
				s.pass(time.Minute)
				if got := texts(ctx, t, ada.Node, "bob"); got != wantAda {
					t.Errorf("Ada reads\n%q, want\n%q", got, wantAda)
				}
				if got := texts(ctx, t, bob.Node, "ada"); got != wantBob {
					t.Errorf("Bob reads\n%q, want\n%q", got, wantBob)
				}
				for _, h := range s.homes {
					if st, err := h.Status(ctx); err != nil || st.Queued != 0 {
						t.Errorf("%s has %d queued, %v", h.name, st.Queued, err)
					}
				}
				if !tc.quiet {
					adaHears.wants(t, "Ada", toldOther)
					bobHears.wants(t, "Bob", toldOwn)
				}
				// It is over: the next days bring no more of it.
				both2 := listen(ctx, bob)
				s.stop(t, ada)
				s.start(t, ada)
				delivered(ctx, t, ada.Node, say(ctx, t, ada.Node, "bob", "next"))
				delivered(ctx, t, bob.Node, say(ctx, t, bob.Node, "ada", "day"))
				both2.stop()
				both2.done.Wait()
				for _, n := range both2.notices {
					if n.Kind == "session" {
						t.Errorf("told again: %+v", n)
					}
				}
			})
		})
	}
}

// TestSetBackAndAFullDisk: a home is set back to a copy that was made while it ran, and a commit fails before anything is
// said. The sessions of the copy stay in doubt when they are read again: what Ada receipted before is no receipt for
// what Bob says now.
func TestSetBackAndAFullDisk(t *testing.T) {
	staged(t, func(ctx context.Context, t *testing.T, s *stage, ada, bob *home) {
		delivered(ctx, t, bob.Node, say(ctx, t, bob.Node, "ada", "one"))
		delivered(ctx, t, ada.Node, say(ctx, t, ada.Node, "bob", "two"))
		delivered(ctx, t, bob.Node, say(ctx, t, bob.Node, "ada", "three"))
		s.pass(5 * time.Second)
		synctest.Wait()
		old := copyHome(t, bob)
		for _, text := range []string{"b1", "b2", "b3"} {
			delivered(ctx, t, bob.Node, say(ctx, t, bob.Node, "ada", text))
		}
		s.pass(5 * time.Second)
		s.stop(t, ada)
		s.stop(t, bob)
		setBack(t, bob, old)
		s.start(t, bob)
		if _, err := bob.FailCommits(ctx, node.Faults{Nth: 1, Cause: store.ErrDiskFull}); err != nil {
			t.Fatal(err)
		}
		if err := bob.SetName(ctx, "Robert"); err == nil {
			t.Fatal("no commit failed")
		}
		s.pass(5 * time.Second)
		var waiting []node.Message
		for _, text := range []string{"new 1", "new 2", "new 3", "new 4"} {
			waiting = append(waiting, say(ctx, t, bob.Node, "ada", text))
		}
		s.start(t, ada)
		for _, m := range waiting {
			delivered(ctx, t, bob.Node, m)
			if got := texts(ctx, t, ada.Node, "bob"); !strings.Contains(got, m.Text) {
				t.Errorf("%q is delivered, Ada reads %q", m.Text, got)
			}
		}
	})
}

// TestSetBackWithWhatWaited: a home is set back to a copy that was made while a message waited. Ada has it, and had
// more from the copy that went on: her receipt is above all that Bob knows of, and counts for what he does.
func TestSetBackWithWhatWaited(t *testing.T) {
	staged(t, func(ctx context.Context, t *testing.T, s *stage, ada, bob *home) {
		delivered(ctx, t, bob.Node, say(ctx, t, bob.Node, "ada", "one"))
		delivered(ctx, t, ada.Node, say(ctx, t, ada.Node, "bob", "two"))
		s.pass(5 * time.Second)
		s.stop(t, ada)
		waiting := say(ctx, t, bob.Node, "ada", "three")
		s.pass(5 * time.Second)
		synctest.Wait()
		old := copyHome(t, bob)
		s.start(t, ada)
		delivered(ctx, t, bob.Node, waiting)
		delivered(ctx, t, bob.Node, say(ctx, t, bob.Node, "ada", "four"))
		s.pass(5 * time.Second)
		s.stop(t, bob)
		setBack(t, bob, old)
		s.start(t, bob)
		soon(ctx, t, bob.Node, waiting, time.Minute)
		if got := texts(ctx, t, ada.Node, "bob"); got != "one|two|three|four" {
			t.Errorf("Ada reads %q", got)
		}
	})
}
