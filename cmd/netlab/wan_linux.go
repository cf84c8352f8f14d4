package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// wireScenarios are two hosts with public addresses and a wire that misbehaves.
func wireScenarios() []scenario {
	return []scenario{
		{name: "lossy", what: "10 % loss, 100±30 ms, duplicates, damage; 200 messages each way; long: 30 %, 500±200 ms, 300", bar: "0 lost, 0 twice, 0 out of order", run: lossy},
		{
			name: "partition", what: "the wire is cut, then mended", bar: "all delivered <= 60 s after",
			run: func(ctx context.Context, l *lab) (outcome, error) { return cutOff(ctx, l, "ada bob") },
		},
		{
			name: "one-way", what: "the wire is cut in one direction, then mended", bar: "all delivered <= 60 s after",
			run: func(ctx context.Context, l *lab) (outcome, error) { return cutOff(ctx, l, "ada>bob") },
		},
		{name: "roaming", what: "one side changes its address amid a stream of messages", bar: "resumed <= 30 s, 0 lost, twice, out of order", run: roaming},
		{name: "sleep", what: "one side is stopped, and goes on later", bar: "all delivered <= 30 s after", run: asleep},
	}
}

const (
	adaAddr, bobAddr = "45.10.0.1", "45.20.0.1"
	bobNewAddr       = "45.90.0.1"
)

// onTheWire makes two nodes with public addresses.
func onTheWire(l *lab) (ada, bob *node) {
	return l.public("ada", adaAddr).node(), l.public("bob", bobAddr).node()
}

// say sends texts number from+1 to upto, one after another.
func (n *node) say(ctx context.Context, to *node, from, upto int) error {
	for i := from; i < upto; i++ {
		words := text(n.name, i)
		if n.bulk > 0 {
			words += "\n" + strings.Repeat("x", n.bulk)
		}
		if _, err := n.do(ctx, "send", to.id, words); err != nil {
			return err
		}
	}
	return nil
}

// settled waits until all of a node's messages are delivered.
func (n *node) settled(ctx context.Context) error {
	for {
		var status struct{ Queued int }
		if err := n.ask(ctx, &status, "status"); err != nil {
			return err
		}
		if status.Queued == 0 {
			return nil
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("%s: %d messages are not delivered: %w", n.name, status.Queued, err)
		}
	}
}

// compare tallies what each of two nodes has heard of the other.
func compare(ctx context.Context, a, b *node, aSaid, bSaid int) (tally, error) {
	byB, errB := b.heard(ctx, a)
	byA, errA := a.heard(ctx, b)
	return count(byB, a.name, aSaid).add(count(byA, b.name, bSaid)), errors.Join(errA, errB)
}

func lossy(ctx context.Context, l *lab) (outcome, error) {
	n, wire := 200, "* * delay=100ms jitter=30ms loss=10% dup=5% corrupt=1%"
	if l.long {
		n, wire = 300, "* * delay=500ms jitter=200ms loss=30% dup=5% corrupt=0.1%"
	}
	ada, bob := onTheWire(l)
	if err := l.ready(); err != nil {
		return outcome{}, err
	}
	if err := l.wire.set(wire); err != nil {
		return outcome{}, err
	}
	if err := befriend(ctx, l, ada, bob); err != nil {
		return outcome{}, err
	}
	began := time.Now()
	other := map[*node]*node{ada: bob, bob: ada}
	err := together([]*node{ada, bob}, func(one *node) error {
		if err := one.say(ctx, other[one], 0, n); err != nil {
			return err
		}
		return one.settled(ctx)
	})
	took := time.Since(began)
	if err != nil {
		return outcome{}, err
	}
	t, err := compare(ctx, ada, bob, n, n)
	return outcome{figure: fmt.Sprintf("%d in %.1f s: %s", 2*n, took.Seconds(), t), ok: t == tally{}}, err
}

// cutTime is how long a cut or a sleep lasts: more than the 30 s after which QUIC gives a silent connection up.
func (l *lab) cutTime() time.Duration {
	if l.long {
		return time.Minute
	}
	return 35 * time.Second
}

// cutOff cuts the wire, has both sides write into it, mends it and waits until all is delivered.
func cutOff(ctx context.Context, l *lab, where string) (outcome, error) {
	const each = 5
	ada, bob := onTheWire(l)
	if err := befriend(ctx, l, ada, bob); err != nil {
		return outcome{}, err
	}
	if _, err := ada.deliver(ctx, bob, text(ada.name, 0), 30*time.Second); err != nil {
		return outcome{}, err
	}
	if err := l.wire.set(where + " cut=yes"); err != nil {
		return outcome{}, err
	}
	end := time.After(l.cutTime())
	if err := errors.Join(ada.say(ctx, bob, 1, each), bob.say(ctx, ada, 0, each)); err != nil {
		return outcome{}, err
	}
	select {
	case <-end:
	case <-ctx.Done():
		return outcome{}, ctx.Err()
	}
	if err := l.wire.set(where + " cut=no"); err != nil {
		return outcome{}, err
	}
	return healed(ctx, ada, bob, each, each, time.Minute)
}

// healed measures the time until all is delivered that was said, after what kept it back has ended.
func healed(ctx context.Context, ada, bob *node, adaSaid, bobSaid int, bar time.Duration) (outcome, error) {
	began := time.Now()
	if err := together([]*node{ada, bob}, func(n *node) error { return n.settled(ctx) }); err != nil {
		return outcome{}, err
	}
	took := time.Since(began)
	t, err := compare(ctx, ada, bob, adaSaid, bobSaid)
	return outcome{figure: fmt.Sprintf("%.1f s after: %s", took.Seconds(), t), ok: took <= bar && t == tally{}}, err
}

func roaming(ctx context.Context, l *lab) (outcome, error) {
	const before, after = 30, 60
	ada, bob := onTheWire(l)
	bob.plug("bob2", "wan1", "via "+bobNewAddr+"/32")
	if err := befriend(ctx, l, ada, bob); err != nil {
		return outcome{}, err
	}
	if err := ada.say(ctx, bob, 0, before); err != nil {
		return outcome{}, err
	}
	done := make(chan error, 1)
	go func() { done <- ada.say(ctx, bob, before, after) }()
	bob.ip("link set wan0 down")
	bob.address("wan1", bobNewAddr)
	changed := time.Now()
	if err := errors.Join(l.ready(), <-done); err != nil {
		return outcome{}, err
	}
	if _, err := ada.deliver(ctx, bob, text(ada.name, after), time.Minute); err != nil {
		return outcome{}, err
	}
	if _, err := bob.deliver(ctx, ada, text(bob.name, 0), time.Minute); err != nil {
		return outcome{}, err
	}
	took := time.Since(changed)
	t, err := compare(ctx, ada, bob, after+1, 1)
	return outcome{figure: fmt.Sprintf("resumed after %.1f s: %s", took.Seconds(), t), ok: took <= 30*time.Second && t == tally{}}, err
}

func asleep(ctx context.Context, l *lab) (outcome, error) {
	const each = 5
	ada, bob := onTheWire(l)
	if err := befriend(ctx, l, ada, bob); err != nil {
		return outcome{}, err
	}
	if err := bob.say(ctx, ada, 0, each); err != nil {
		return outcome{}, err
	}
	if err := bob.pause(); err != nil {
		return outcome{}, err
	}
	end := time.After(l.cutTime())
	if err := ada.say(ctx, bob, 0, each); err != nil {
		return outcome{}, err
	}
	select {
	case <-end:
	case <-ctx.Done():
		return outcome{}, ctx.Err()
	}
	if err := bob.resume(); err != nil {
		return outcome{}, err
	}
	return healed(ctx, ada, bob, each, each, 30*time.Second)
}
