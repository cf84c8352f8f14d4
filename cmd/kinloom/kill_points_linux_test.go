package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kinloom/kinloom/identity/keyfile"
	"github.com/kinloom/kinloom/node/client"
	"github.com/kinloom/kinloom/node/store"
)

// pointCalls are the system calls with which a node changes its disk.
var pointCalls = []string{"fdatasync", "fsync", "pwrite64", "ftruncate", "unlinkat", "renameat"}

// pointFaults are what happens at the n-th of such calls, and how often in the gate.
var pointFaults = []struct {
	name   string
	calls  []string
	errno  syscall.Errno // 0: killed
	count  int
	weight int
}{
	{"killed at a sync", []string{"fdatasync", "fsync"}, 0, 1, 3},
	{"killed at a write", []string{"pwrite64"}, 0, 1, 3},
	{"killed at a file's change", []string{"ftruncate", "unlinkat", "renameat"}, 0, 1, 2},
	{"sync fails", []string{"fdatasync", "fsync"}, syscall.EIO, 1, 2},
	{"syncs fail for ever", []string{"fdatasync", "fsync"}, syscall.EIO, 1 << 30, 1},
	{"disk full once", []string{"pwrite64"}, syscall.ENOSPC, 1, 1},
	{"disk full for 100 writes", []string{"pwrite64"}, syscall.ENOSPC, 100, 1},
	{"write fails", []string{"pwrite64", "ftruncate"}, syscall.EIO, 1, 1},
}

const (
	pointMessages = 20
	pointRestart  = 2 * time.Second // to be ready again
)

// points is the state of the test: two homes that go through one fault after the other.
type points struct {
	t        *testing.T
	homes    [2]string // of ada, who suffers, and bob
	clients  [2]*client.Client
	persons  [2]string
	bob      *process
	acked    [2][]string       // ids of what each was told is safe, in order
	pending  map[string]string // by key: what ada was not told is safe
	order    []string          // keys of pending, in order
	round    int
	restarts []time.Duration
}

// TestCrashPoints: a real node talks to another one and is killed right before its n-th sync, write, truncation, removal or
// renaming, or has that call fail, for a spread of n that fits the time; for every n with KINLOOM_NIGHTLY=1. After each
// it is ready again within 2 s, nothing that it had acknowledged is lost or doubled, on either side, and both databases
// are whole. (H98, H100, H101)
func TestCrashPoints(t *testing.T) {
	budget := 75 * time.Second
	nightly := os.Getenv("KINLOOM_NIGHTLY") == "1"
	switch {
	case nightly:
		budget = 4 * time.Hour
	case testing.Short():
		budget = 5 * time.Second
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	ctx, cancel := context.WithTimeout(t.Context(), budget+2*time.Minute)
	defer cancel()

	p := newPoints(ctx, t)
	defer p.end(ctx)
	calls := p.count(ctx)
	t.Logf("a round without a fault makes %v", calls)
	until := time.Now().Add(budget)
	struck := make([]map[string]int, len(pointFaults))
	deepest := make([]int, len(pointFaults))
	rounds := 0
	for turn := 1; ; turn++ {
		struckAny := false
		for i, fault := range pointFaults {
			total := 0
			for _, call := range fault.calls {
				total += calls[call]
			}
			for range fault.weight {
				n := 1 + r.IntN(total)
				if nightly {
					n = turn
				}
				saw := p.suffer(ctx, trace{Calls: fault.calls, N: n, Count: fault.count, Errno: fault.errno}, fault.name)
				rounds++
				if struck[i] == nil {
					struck[i] = map[string]int{}
				}
				if saw.Struck != "" {
					struck[i][saw.Struck]++
					deepest[i] = max(deepest[i], n)
					struckAny = true
				}
				if t.Failed() {
					t.Fatalf("%s at call %d, a %s", fault.name, n, saw.Struck)
				}
				if nightly || time.Now().After(until) {
					break
				}
			}
		}
		if time.Now().After(until) || nightly && !struckAny {
			break
		}
	}
	for i, fault := range pointFaults {
		t.Logf("%s: %v, the deepest at call %d", fault.name, struck[i], deepest[i])
		if len(struck[i]) == 0 && !testing.Short() {
			t.Errorf("never %s", fault.name)
		}
	}
	slices.Sort(p.restarts)
	t.Logf("%d rounds, %d messages; ready again in %v (median), %v (worst)", rounds, len(p.acked[0])+len(p.acked[1]),
		p.restarts[len(p.restarts)/2].Round(time.Millisecond), p.restarts[len(p.restarts)-1].Round(time.Millisecond))
}

// newPoints makes two contacts; bob keeps running.
func newPoints(ctx context.Context, t *testing.T) *points {
	t.Helper()
	dir := shortFolder(t)
	p := &points{t: t, pending: map[string]string{}}
	for i, name := range []string{"ada", "bob"} {
		p.homes[i] = filepath.Join(dir, name)
		p.clients[i] = dialHome(p.homes[i])
	}
	ada, err := startProcess(t, p.homes[0])
	if err != nil {
		t.Fatal(err)
	}
	if p.bob, err = startProcess(t, p.homes[1]); err != nil {
		t.Fatal(err)
	}
	if p.persons[0], p.persons[1], err = meet(ctx, p.clients[0], p.clients[1]); err != nil {
		t.Fatal(err)
	}
	stopProcess(ctx, t, ada, p.homes[0])
	return p
}

func (p *points) end(ctx context.Context) {
	stopProcess(ctx, p.t, p.bob, p.homes[1])
	for _, home := range p.homes {
		lookForPanic(p.t, home)
	}
	p.whole(ctx, 1)
}

// count runs a round without a fault and gives the number of each call.
func (p *points) count(ctx context.Context) map[string]int {
	p.t.Helper()
	return p.disturb(ctx, trace{Calls: pointCalls}).ByCall
}

// disturb runs a round under the tracer.
func (p *points) disturb(ctx context.Context, order trace) (saw traced) {
	p.t.Helper()
	p.round++
	order.Report = filepath.Join(filepath.Dir(p.homes[0]), fmt.Sprint("trace", p.round))
	ada, err := p.trace(order)
	if err == nil {
		if err := p.talk(ctx); err != nil {
			p.t.Errorf("round %d: %v", p.round, err)
		}
		p.stop(ctx, ada)
	}
	b, err := os.ReadFile(order.Report)
	if err == nil {
		err = json.Unmarshal(b, &saw)
	}
	if err != nil || saw.Error != "" {
		p.t.Fatalf("the tracer: %s, %v", saw.Error, err)
	}
	return saw
}

// trace starts ada under the tracer. An error says that she ended before she was ready.
func (p *points) trace(order trace) (*process, error) {
	p.t.Helper()
	order.Command = upCommand(p.t, p.homes[0])
	told, err := json.Marshal(order)
	if err != nil {
		p.t.Fatal(err)
	}
	command := exec.Command(os.Args[0], "-test.run=^TestTracerProcess$")
	command.Env = append(os.Environ(), traceEnv+"="+string(told))
	return startCommand(p.t, p.homes[0], command)
}

// suffer runs a round with a fault and everything that has to hold after it.
func (p *points) suffer(ctx context.Context, order trace, name string) traced {
	p.t.Helper()
	saw := p.disturb(ctx, order)
	p.t.Logf("round %d: %s at call %d, a %s", p.round, name, order.N, saw.Struck)
	again, err := startProcess(p.t, p.homes[0])
	if err != nil {
		p.t.Fatal(err)
	}
	p.restarts = append(p.restarts, again.took)
	if again.took > pointRestart {
		p.t.Errorf("ready again after %v, want %v at most", again.took, pointRestart)
	}
	if err := p.retry(ctx); err != nil {
		p.t.Fatal(err)
	}
	p.compare(ctx)
	if p.round%10 == 0 { // seldom: he has to bear that she dies many times while he lives
		p.bob.kill()
		if p.bob, err = startProcess(p.t, p.homes[1]); err != nil {
			p.t.Fatal(err)
		}
	}
	if p.round%2 == 0 {
		again.kill() // so that the next round begins with a log to bring in
		return saw
	}
	stopProcess(ctx, p.t, again, p.homes[0])
	p.whole(ctx, 0)
	return saw
}

// talk says messages in turn while ada lives. What she did not acknowledge is noted.
func (p *points) talk(ctx context.Context) error {
	for i := range pointMessages {
		from := i % 2
		key := fmt.Sprintf("%d %d", p.round, i)
		text := fmt.Sprintf("message %s of %d%s", key, from, strings.Repeat(" and on", i*i))
		m, err := p.clients[from].SendOnce(ctx, client.Outgoing{To: p.persons[1-from], Text: text}, key)
		switch {
		case err == nil && (from == 1 || len(p.pending) == 0):
			p.acked[from] = append(p.acked[from], m.ID)
		case err == nil: // said behind one that may come later: its place among ada's own is not known
			return fmt.Errorf("ada took %q after she had refused one before it", key)
		case ctx.Err() != nil || from == 1:
			return fmt.Errorf("from %d: %w", from, err)
		default:
			p.pending[key] = text
			p.order = append(p.order, key)
			if gone(err) {
				return nil // bob's share of the round is said in the next ones
			}
			if err := p.retry(ctx); err != nil && !gone(err) {
				return err
			} else if err != nil {
				return nil
			}
		}
	}
	return nil
}

// retry has ada say again what she did not acknowledge, with the same keys.
func (p *points) retry(ctx context.Context) error {
	for len(p.order) > 0 {
		key := p.order[0]
		m, err := p.clients[0].SendOnce(ctx, client.Outgoing{To: p.persons[1], Text: p.pending[key]}, key)
		if problem, ok := errors.AsType[*client.Problem](err); ok && problem.Code == client.CodeError {
			if err := pause(ctx, 10*time.Millisecond); err != nil {
				return err
			}
			continue // the disk is full, or the store is being reopened
		}
		if err != nil {
			return err
		}
		p.acked[0] = append(p.acked[0], m.ID)
		delete(p.pending, key)
		p.order = p.order[1:]
	}
	return nil
}

// stop ends ada, who may be dead, under her tracer.
func (p *points) stop(ctx context.Context, ada *process) {
	p.t.Helper()
	_ = p.clients[0].Stop(ctx) // she may be gone, or go before she answers
	select {
	case <-ada.ended:
	case <-ctx.Done():
		p.t.Fatal("ada does not end")
	}
}

// compare waits until everything is delivered and holds both timelines to what was acknowledged.
func (p *points) compare(ctx context.Context) {
	p.t.Helper()
	waiting, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for i, c := range p.clients {
		for {
			status, err := c.Status(waiting)
			if err == nil && status.Queued == 0 {
				break
			}
			if err := pause(waiting, 5*time.Millisecond); err != nil {
				p.waiting(ctx, i)
				p.t.Fatalf("%s still has %d messages in the outbox", filepath.Base(p.homes[i]), status.Queued)
			}
		}
	}
	for i, c := range p.clients {
		timeline, err := c.Read(ctx, p.persons[1-i], client.Page{Peek: true})
		if err != nil {
			p.t.Fatal(err)
		}
		var ids [2][]string
		for _, m := range timeline {
			from := i
			if !m.Own {
				from = 1 - i
			}
			ids[from] = append(ids[from], m.ID)
		}
		for from := range ids {
			if !slices.Equal(ids[from], p.acked[from]) {
				p.t.Errorf("%s shows %d messages of %s, which do not equal the %d acknowledged ones",
					filepath.Base(p.homes[i]), len(ids[from]), filepath.Base(p.homes[from]), len(p.acked[from]))
			}
		}
	}
}

// waiting tells what is known of messages that were not delivered.
func (p *points) waiting(ctx context.Context, which int) {
	p.t.Helper()
	timeline, err := p.clients[which].Read(ctx, p.persons[1-which], client.Page{Peek: true, Limit: 100})
	if err != nil {
		p.t.Error(err)
	}
	for _, m := range timeline {
		if m.Own && m.State == "queued" {
			stages, err := p.clients[which].Why(ctx, m.ID)
			p.t.Logf("%.30q: %+v, %v", m.Text, stages, err)
		}
	}
	ways, err := p.clients[which].Routes(ctx, p.persons[1-which])
	p.t.Logf("routes: %+v, %v", ways, err)
	for _, path := range []string{p.homes[0] + ".stderr", p.homes[1] + ".stderr", filepath.Join(p.homes[0], "logs", "kinloom.log"), filepath.Join(p.homes[1], "logs", "kinloom.log")} {
		if b, err := os.ReadFile(path); err == nil {
			p.t.Logf("%s:\n%s", path, b[max(0, len(b)-3000):])
		}
	}
}

// whole checks every page of a home's databases.
func (p *points) whole(ctx context.Context, which int) {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.homes[which], "keys"))
	if err != nil {
		p.t.Fatal(err)
	}
	secrets, err := keyfile.Open(b, keyfile.Lock{})
	if err != nil {
		p.t.Fatal(err)
	}
	s, err := store.Open(ctx, store.Options{Dir: p.homes[which], Key: secrets.SubKey, IDs: secrets.Files})
	if err != nil {
		p.t.Fatalf("open the store of %s: %v", filepath.Base(p.homes[which]), err)
	}
	if err := errors.Join(s.Check(ctx), s.Close()); err != nil {
		p.t.Errorf("the store of %s: %v", filepath.Base(p.homes[which]), err)
	}
}

// TestCrashPointsOfTheFirstStart: a home is made by a process that is killed before its n-th change to the disk, for a
// spread of n, or every n with KINLOOM_NIGHTLY=1. The next start makes it whole, whatever was there, within 2 s, and from
// then on it is one person's home. (H98)
func TestCrashPointsOfTheFirstStart(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	dir := shortFolder(t)
	calls := append([]string{"write"}, pointCalls...)
	begin := func(name string, n int) (home string, saw traced) {
		t.Helper()
		home = filepath.Join(dir, name)
		p := &points{t: t, homes: [2]string{home}}
		p.clients[0] = dialHome(home)
		ada, err := p.trace(trace{Calls: calls, N: n, Report: home + ".trace"})
		if err == nil {
			p.stop(ctx, ada)
		}
		b, err := os.ReadFile(home + ".trace")
		if err == nil {
			err = json.Unmarshal(b, &saw)
		}
		if err != nil || saw.Error != "" {
			t.Fatalf("the tracer: %s, %v", saw.Error, err)
		}
		return home, saw
	}
	_, all := begin("whole", 0)
	step := 1
	switch {
	case os.Getenv("KINLOOM_NIGHTLY") == "1":
	case testing.Short():
		step = all.Total/2 + 1
	default:
		step = all.Total/25 + 1
	}
	killed, worst := 0, time.Duration(0)
	for n := 1 + int(time.Now().UnixNano())%step; n <= all.Total; n += step {
		home, saw := begin(fmt.Sprint("home", n), n)
		if saw.Struck != "" {
			killed++
		}
		var person string
		for range 2 {
			again, err := startProcess(t, home)
			if err != nil {
				t.Fatalf("killed at call %d, a %s: %v", n, saw.Struck, err)
			}
			if worst = max(worst, again.took); again.took > pointRestart {
				t.Errorf("killed at call %d, a %s: ready again after %v", n, saw.Struck, again.took)
			}
			if person != "" && person != again.ready.ID || again.ready.Name != filepath.Base(home) {
				t.Errorf("killed at call %d, a %s: the home is of %s, called %q, and was of %s", n, saw.Struck, again.ready.ID, again.ready.Name, person)
			}
			person = again.ready.ID
			if _, err := dialHome(home).Send(ctx, client.Outgoing{To: "me", Text: "a note"}); err != nil {
				t.Errorf("killed at call %d, a %s: %v", n, saw.Struck, err)
			}
			stopProcess(ctx, t, again, home)
		}
		lookForPanic(t, home)
	}
	t.Logf("killed %d times in a first start of %d calls %v; ready after %v at worst", killed, all.Total, all.ByCall, worst.Round(time.Millisecond))
}
