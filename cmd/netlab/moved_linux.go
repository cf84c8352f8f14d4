package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// movedScenarios are nodes that have lost each other, or never had a way to be found.
func movedScenarios() []scenario {
	return []scenario{
		{
			name: "moved", what: "two stop, move to other addresses and start; each knows a server, not of the other's knowing it", bar: "delivered <= 10 s from up, 0 lost, twice, disorder",
			run: func(ctx context.Context, l *lab) (outcome, error) { return moved(ctx, l, false, true, 10*time.Second) },
		},
		{
			name: "both-roam", what: "two change their addresses at the same moment, running; each knows a server", bar: "delivered <= 10 s after, 0 lost, twice, disorder",
			run: func(ctx context.Context, l *lab) (outcome, error) { return moved(ctx, l, false, false, 10*time.Second) },
		},
		{
			name: "no-dht", what: "two homes behind symmetric NATs get other addresses at the same moment; no DHT, but relays of contacts", bar: "delivered <= 30 s after, 0 lost, twice, disorder",
			run: func(ctx context.Context, l *lab) (outcome, error) {
				return moved(ctx, l, true, false, 30*time.Second, "--no-dht")
			},
		},
		{name: "nowhere", what: "a home behind a cone, and no public node: what up and doctor say", bar: "both name the way that is missing", run: nowhere},
	}
}

// published is the time in which a node has its record out for sure.
const published = 15 * time.Second

// moved gives two contacts other addresses, so that only a record in the DHT, or a relay that they hold, leads from one
// to the other. They are public, or with nat behind NATs; flags are those of both.
func moved(ctx context.Context, l *lab, nat, restart bool, bar time.Duration, flags ...string) (outcome, error) {
	const each = 5
	helpers, err := servers(ctx, l, 3) // two to ask, and one more
	if err != nil {
		return outcome{}, err
	}
	ada, moveAda := movable(l, "ada", adaAddr, "45.91.0.1", nat)
	bob, moveBob := movable(l, "bob", bobAddr, "45.92.0.1", nat)
	both := []*node{ada, bob}
	if err := l.ready(); err != nil {
		return outcome{}, err
	}
	err = together(both, func(n *node) error {
		if err := n.up(ctx, flags...); err != nil {
			return err
		}
		if nat { // without a DHT relays are those of contacts
			return n.befriends(ctx, helpers...)
		}
		return n.knows(ctx, helpers...)
	})
	if err != nil {
		return outcome{}, err
	}
	if err := meet(ctx, ada, bob); err != nil {
		return outcome{}, err
	}
	if _, err := ada.deliver(ctx, bob, text(ada.name, 0), 30*time.Second); err != nil {
		return outcome{}, err
	}
	if err := pause(ctx, published); err != nil {
		return outcome{}, err
	}
	if restart {
		if err := together(both, func(n *node) error { return n.stop(ctx) }); err != nil {
			return outcome{}, err
		}
	}
	moveAda()
	moveBob()
	began := time.Now()
	if err := l.ready(); err != nil {
		return outcome{}, err
	}
	if restart {
		if err := together(both, func(n *node) error { return n.up(ctx, flags...) }); err != nil {
			return outcome{}, err
		}
	}
	if err := errors.Join(ada.say(ctx, bob, 1, each), bob.say(ctx, ada, 0, each)); err != nil {
		return outcome{}, err
	}
	if err := together(both, func(n *node) error { return n.settled(ctx) }); err != nil {
		return outcome{}, err
	}
	took := time.Since(began)
	t, err := compare(ctx, ada, bob, each, each)
	return outcome{figure: fmt.Sprintf("%.1f s: %s", took.Seconds(), t), ok: took <= bar && t == tally{}}, err
}

// befriends makes servers contacts of a home.
func (n *node) befriends(ctx context.Context, servers ...*node) error {
	for _, s := range servers {
		var invite struct{ Link string }
		if err := s.ask(ctx, &invite, "invite"); err != nil {
			return err
		}
		if err := n.add(ctx, invite.Link); err != nil {
			return err
		}
	}
	return nil
}

// movable makes a node, and what gives it another address on the wire.
func movable(l *lab, name, first, later string, nat bool) (*node, func()) {
	if nat {
		r := l.router("r"+name, routing{nat: symmetric, inside: homeNet}, first, "via "+later+"/32")
		return r.host(name).node(), func() {
			r.switching.ip("addr flush dev wan0 scope global")
			r.switching.address("wan0", later)
		}
	}
	n := l.public(name, first).node()
	n.plug(name+"2", "wan1", "via "+later+"/32")
	return n, func() {
		n.ip("link set wan0 down")
		n.address("wan1", later)
	}
}

// nowhere reads what a node says that nobody can reach from outside.
func nowhere(ctx context.Context, l *lab) (outcome, error) {
	ada := l.router("r", routing{nat: cone, inside: homeNet}, "45.10.0.1").host("ada").node()
	if err := l.ready(); err != nil {
		return outcome{}, err
	}
	if err := ada.up(ctx); err != nil {
		return outcome{}, err
	}
	for !names(ada.notices()) {
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return outcome{}, fmt.Errorf("up said only %q: %w", ada.notices(), err)
		}
	}
	after := time.Since(ada.began)
	lines, err := ada.do(ctx, "doctor")
	var told []string
	for _, line := range lines {
		told = append(told, string(line))
	}
	if err != nil { // it may end with a code that says so
		told = append(told, err.Error())
	}
	return outcome{figure: fmt.Sprintf("up after %.0f s, doctor %v", after.Seconds(), names(told)), ok: names(told)}, nil
}

// names reports whether one of the lines tells what is missing: a server to be reached by.
func names(lines []string) bool {
	return slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, "bootstrap add") })
}
