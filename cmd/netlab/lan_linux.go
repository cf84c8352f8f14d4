package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// lanScenarios are networks without an Internet.
func lanScenarios() []scenario {
	return []scenario{{
		name: "lan", what: "one segment without internet, DNS or bootstrap; both come back with other addresses", bar: "found <= 2 s, delivered <= 3 s",
		alone: true, run: lanFound,
	}}
}

// together runs a step for several nodes at once.
func together(nodes []*node, step func(*node) error) error {
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() { errs[i] = step(n) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// befriend starts two nodes and makes them contacts.
func befriend(ctx context.Context, l *lab, a, b *node, flags ...string) error {
	if err := l.ready(); err != nil {
		return err
	}
	if err := together([]*node{a, b}, func(n *node) error { return n.up(ctx, flags...) }); err != nil {
		return err
	}
	return b.add(ctx, a.invite)
}

func lanFound(ctx context.Context, l *lab) (outcome, error) {
	home := l.lan("switch")
	ada, bob := home.host("ada", "192.168.7.2/24").node(), home.host("bob", "192.168.7.3/24").node()
	both := []*node{ada, bob}
	if err := befriend(ctx, l, ada, bob); err != nil {
		return outcome{}, err
	}
	if err := together(both, func(n *node) error { return n.stop(ctx) }); err != nil {
		return outcome{}, err
	}
	// Nothing that they know of each other is true any more: only multicast DNS is left.
	for i, n := range both {
		n.ip("addr flush dev eth0 scope global", fmt.Sprintf("addr add 192.168.7.%d/24 dev eth0", 102+i))
	}
	if err := l.ready(); err != nil {
		return outcome{}, err
	}
	if err := together(both, func(n *node) error { return n.up(ctx) }); err != nil {
		return outcome{}, err
	}
	began := ada.began
	if bob.began.After(began) {
		began = bob.began
	}
	if err := together(both, func(n *node) error { return n.found(ctx, 1) }); err != nil {
		return outcome{}, err
	}
	found := time.Since(began)
	s, err := ada.deliver(ctx, bob, "hello", 30*time.Second)
	if err != nil {
		return outcome{}, err
	}
	delivered := time.Since(began)
	return outcome{
		figure: fmt.Sprintf("found %.2f s, delivered %.2f s, by %s", found.Seconds(), delivered.Seconds(), s.Route),
		ok:     found <= 2*time.Second && delivered <= 3*time.Second && strings.EqualFold(s.Route, "lan"),
	}, nil
}
