package node_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/store"
)

// faults are the ways in which a commit fails in these tests.
var faults = []struct {
	name string
	node.Faults
}{
	{"the disk is full", node.Faults{Cause: fmt.Errorf("account.db: %w", store.ErrDiskFull)}},
	{"reported although it is on the disk", node.Faults{Cause: fmt.Errorf("account.db: %w", store.ErrNotSynced), Kept: true}},
	{"the disk is full for a while", node.Faults{Cause: fmt.Errorf("account.db: %w", store.ErrDiskFull), For: 9 * time.Second}},
}

// TestFailedCommit: each commit of a talk fails, on either side: once, before or
// after the disk has it, or with all others for a while. Whoever asked for it is
// told and asks again, the owner is told once, memory is what the disk is, and in
// the end both sides have everything once and in order.
func TestFailedCommit(t *testing.T) {
	const least = 25 // commits of a side, or the talk is too short
	step := 1
	if testing.Short() {
		step = 24
	}
	for side := range 2 {
		hits := 0
		for nth := 1; ; nth += step {
			f := faults[(nth+side)%len(faults)]
			f.Nth = nth
			hit := talkWithFaults(t, side, f.Faults)
			if t.Failed() {
				t.Fatalf("side %d, commit %d: %s", side, nth, f.name)
			}
			if !hit {
				break
			}
			hits++
		}
		if hits*step < least {
			t.Errorf("side %d: %d commits failed, every %d., want %d in the talk", side, hits, step, least)
		}
		t.Logf("side %d: %d commits failed, every %d.", side, hits, step)
	}
}

// again asks until it is done, as the user does who is told of a failure. Only the
// side whose commits fail may speak of its disk.
func (f *faulty) again(what string, side int, do func() error) {
	f.t.Helper()
	for range 12 {
		err := do()
		if err == nil {
			return
		}
		e, ok := errors.AsType[*node.Error](err)
		told := ok && strings.Contains(e.Error(), "disk")
		// The other side of an exchange learns that it did not come to its end.
		if !told && (side == f.side || !ok || e.Kind != node.KindTimeout && !strings.Contains(e.Error(), "try again later") && !strings.Contains(e.Error(), "not added")) {
			f.t.Errorf("%s: told %v", what, err)
			return
		}
		f.s.pass(2 * time.Second)
	}
	f.t.Errorf("%s: never done", what)
}

// faulty is a talk in which the commits of one side fail.
type faulty struct {
	t     *testing.T
	s     *stage
	side  int
	said  [2][]string
	last  [2]node.Message
	read  [2]node.Message // by the other side
	names [2]string
}

func (f *faulty) home(side int) *home { return f.s.homes[side] }

// say says something from one side to the other, once.
func (f *faulty) say(ctx context.Context, from int) {
	f.t.Helper()
	text := fmt.Sprintf("%d/%d", from, len(f.said[from]))
	f.said[from] = append(f.said[from], text)
	f.again(text, from, func() error {
		c, err := f.home(from).Conversation(ctx, f.names[1-from])
		if err == nil {
			f.last[from], err = f.home(from).SendOnce(ctx, c.ID, node.Text(text), text)
		}
		return err
	})
}

// talk is the script: a contact, messages both ways, read marks, another name, and
// the renewal of sessions and of certificates.
func (f *faulty) talk(ctx context.Context) {
	ada, bob := f.home(0), f.home(1)
	var link string
	f.again("invite", 0, func() (err error) { link, err = ada.Invite(ctx); return err })
	f.again("add a contact", 1, func() error {
		_, err := bob.AddContact(ctx, link, node.AddOptions{})
		return err
	})
	for i := range 4 {
		f.say(ctx, i%2)
		f.s.pass(time.Duration(i%3) * 100 * time.Millisecond)
	}
	f.read = f.last
	for side := range 2 {
		delivered(ctx, f.t, f.home(1-side).Node, f.read[1-side])
		f.again("read", side, func() error { _, err := f.home(side).Read(ctx, f.names[1-side], node.ReadQuery{}); return err })
	}
	f.again("rename", 1, func() error { return bob.SetName(ctx, "Robert") })
	f.again("petname", 0, func() error { _, err := ada.RenameContact(ctx, f.id(ctx, 1), "Bobby"); return err })
	f.names[1] = "Bobby"
	for _, day := range []int{2, 65} {
		f.s.later(day)
		f.s.pass(3 * time.Second)
		for i := range 4 {
			f.say(ctx, i%2)
		}
		f.s.pass(time.Second)
	}
}

func (f *faulty) id(ctx context.Context, side int) string {
	f.t.Helper()
	s, err := f.home(side).Status(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	return s.Person.String()
}

// talkWithFaults runs the talk and checks what is left of it. It reports whether it
// came to the commit that was to fail.
func talkWithFaults(t *testing.T, side int, faults node.Faults) (hit bool) {
	t.Helper()
	strangers(t, 20*time.Millisecond, func(ctx context.Context, t *testing.T, s *stage) {
		f := &faulty{t: t, s: s, side: side, names: [2]string{"Ada", "Bob"}}
		notices := f.home(side).Watch()
		stats, err := f.home(side).FailCommits(ctx, faults)
		if err != nil {
			t.Fatal(err)
		}
		f.talk(ctx)
		begin := time.Now()
		for i, h := range s.homes {
			delivered(ctx, t, h.Node, f.last[i])
		}
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("the last was delivered after %v", took)
		}
		s.pass(time.Minute)
		commits, failed := stats()
		if hit = failed > 0; hit != (commits >= faults.Nth) {
			t.Errorf("%d of %d commits failed", failed, commits)
		}
		if _, err := f.home(side).FailCommits(ctx, node.Faults{}); err != nil {
			t.Fatal(err)
		}
		f.settled(ctx)
		told := slices.DeleteFunc(notices(), func(n node.Notice) bool { return n.Kind != "store" })
		if hit && (len(told) != 1 || !strings.Contains(told[0].Text, "disk")) || !hit && len(told) > 0 {
			t.Errorf("%d commits failed, the owner was told %+v", failed, told)
		}
	})
	return hit
}

// settled wants on both sides what was said, once and in order, nothing that
// waits, the names, and memory as the disk.
func (f *faulty) settled(ctx context.Context) {
	f.t.Helper()
	for i, h := range f.s.homes {
		got := strings.Split(texts(ctx, f.t, h.Node, f.names[1-i]), "|")
		for from := range 2 {
			part := slices.DeleteFunc(slices.Clone(got), func(text string) bool { return text[0] != "01"[from] })
			if !slices.Equal(part, f.said[from]) {
				f.t.Errorf("%s reads %q of side %d, want %q", h.name, part, from, f.said[from])
			}
		}
		if st, err := h.Status(ctx); err != nil || st.Queued != 0 {
			f.t.Errorf("%s has %d queued, %v", h.name, st.Queued, err)
		}
		if d, err := h.Differences(ctx); err != nil || len(d) > 0 {
			f.t.Errorf("%s, %v:\n%s", h.name, err, strings.Join(d, "\n"))
		}
	}
	c, err := f.home(0).Contact(ctx, "Bobby")
	if err != nil || c.ProfileName != "Robert" {
		f.t.Errorf("Ada knows Bob as %q, %v", c.ProfileName, err)
	}
	for i, h := range f.s.homes {
		for want, said := range map[string]node.Message{"read": f.read[i], "delivered": f.last[i]} {
			if m, err := h.Message(ctx, hexOf(said)); err != nil || m.State != want {
				f.t.Errorf("%q of %s is %q, %v; want %s", said.Text, h.name, m.State, err, want)
			}
		}
	}
}

// TestLinksOverAFailedCommit: a link that goes or comes in a batch that fails has
// gone or come all the same.
func TestLinksOverAFailedCommit(t *testing.T) {
	staged(t, func(ctx context.Context, t *testing.T, s *stage, ada, bob *home) {
		delivered(ctx, t, bob.Node, say(ctx, t, bob.Node, "ada", "one"))
		conv, err := ada.Conversation(ctx, "bob")
		if err != nil {
			t.Fatal(err)
		}
		// fail has what happens meanwhile in one batch, which fails, and gives the
		// number of devices with a link after it.
		fail := func(meanwhile func()) int {
			s.pass(2 * time.Second)
			release, err := ada.Hold(ctx)
			if err != nil {
				t.Fatal(err)
			}
			meanwhile()
			s.pass(500 * time.Millisecond)
			said := make(chan error, 1)
			go func() {
				_, err := ada.Send(ctx, conv.ID, node.Text("not said"))
				said <- err
			}()
			s.pass(time.Millisecond)
			release(faults[0].Cause)
			if err := <-said; err == nil || !strings.Contains(err.Error(), "disk") {
				t.Errorf("who sends is told %v", err)
			}
			s.pass(2 * time.Second)
			st, err := ada.Status(ctx)
			if err != nil {
				t.Fatal(err)
			}
			return st.Online
		}
		if n := fail(func() { s.stop(t, bob) }); n != 0 {
			t.Errorf("%d devices have a link, but Bob has gone", n)
		}
		if n := fail(func() { s.start(t, bob) }); n != 1 {
			t.Errorf("%d devices have a link, but Bob has come", n)
		}
		soon(ctx, t, ada.Node, say(ctx, t, ada.Node, "bob", "two"), 3*time.Second)
		both(ctx, t, ada, bob, "one|two")
	})
}

// TestFullDiskIsLeftAlone: what is kept from a disk that has just failed is tried again with the tick, not all the time:
// each try reads the account anew.
func TestFullDiskIsLeftAlone(t *testing.T) {
	staged(t, func(ctx context.Context, t *testing.T, s *stage, ada, bob *home) {
		delivered(ctx, t, bob.Node, say(ctx, t, bob.Node, "ada", "one"))
		s.pass(time.Second)
		// The second commit is that of the conversation's row, behind the message.
		stats, err := ada.FailCommits(ctx, node.Faults{Nth: 2, For: time.Minute, Cause: faults[0].Cause})
		if err != nil {
			t.Fatal(err)
		}
		two := say(ctx, t, ada.Node, "bob", "two")
		s.pass(time.Minute)
		if _, failed := stats(); failed == 0 || failed > 100 { // one a tick, and what others ask for
			t.Errorf("%d commits failed in a minute", failed)
		}
		soon(ctx, t, ada.Node, two, 2*time.Second)
		both(ctx, t, ada, bob, "one|two")
	})
}
