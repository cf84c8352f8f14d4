package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// natScenarios are two homes that cannot call each other, and public server-profile nodes.
func natScenarios() []scenario {
	four := routing{nat: cone, inside: homeNet}
	six := routing{inside6: "2a01:60:0:1::/64"}
	noUDP := routing{nat: cone, inside: homeNet, refuses: "meta l4proto udp"}
	office := routing{nat: cone, inside: homeNet, refuses: "all"}
	hard := routing{nat: symmetric, inside: homeNet}
	return []scenario{
		{name: "relay-cut", what: "the relay in use dies amid 400 KiB, more than a circuit may; there is another", bar: "resumed <= 30 s, 0 lost, twice, out of order", run: relayCut},
		{
			name: "cone-cone", what: "homes behind two cones, fresh ones each time: do they get a direct connection?", bar: ">= 95 % direct (2 of 3 in the short form), all delivered",
			run: func(ctx context.Context, l *lab) (outcome, error) {
				share := 0.6 // three tries cannot tell 95 % from less
				if l.long {
					share = 0.95
				}
				return punching(ctx, l, four, "direct", share)
			},
		},
		{
			name: "symmetric", what: "the same behind two symmetric NATs: what no hole can carry, a relay does", bar: "100 % delivered by the relay",
			run: func(ctx context.Context, l *lab) (outcome, error) { return punching(ctx, l, hard, "relay", 1) },
		},
		{
			name: "empty-homes", what: "empty homes behind two cones; one of them knows one public node", bar: "up to first delivered <= 30 s",
			alone: true, run: emptyHomes,
		},
		{
			name: "no-udp", what: "homes whose routers refuse UDP, over a relay", bar: "up to delivered <= 30 s, 0 lost, twice, out of order",
			run: func(ctx context.Context, l *lab) (outcome, error) { return overRelay(ctx, l, noUDP, noUDP, nil) },
		},
		{
			name: "only-443", what: "an office that lets out 443 through a CONNECT proxy alone, and a home", bar: "up to delivered <= 30 s, 0 lost, twice, out of order",
			run: func(ctx context.Context, l *lab) (outcome, error) {
				return overRelay(ctx, l, four, office, []string{"--proxy", "http://192.168.1.1:3128"})
			},
		},
		{
			name: "six-four", what: "IPv6 only to IPv4 only, over a relay that has both", bar: "up to delivered <= 30 s, 0 lost, twice, out of order",
			run: func(ctx context.Context, l *lab) (outcome, error) { return overRelay(ctx, l, four, six, nil) },
		},
	}
}

// servers starts public nodes.
func servers(ctx context.Context, l *lab, n int) ([]*node, error) {
	var all []*node
	for i := range n {
		all = append(all, l.public(fmt.Sprintf("server%d", i+1), fmt.Sprintf("45.%d.0.1", 200+i), fmt.Sprintf("2a01:%d::1", 200+i)).node())
	}
	if err := l.ready(); err != nil {
		return nil, err
	}
	return all, together(all, func(n *node) error { return n.up(ctx, "--profile", "server") })
}

// knows tells a home of the servers, with all the addresses that they listen on.
func (n *node) knows(ctx context.Context, servers ...*node) error {
	for _, s := range servers {
		for _, at := range s.listening {
			if _, err := n.do(ctx, "bootstrap", "add", at+"/p2p/"+s.peer); err != nil {
				return err
			}
		}
	}
	return nil
}

// reachable waits until invites of the node work anywhere, and makes one.
func (n *node) reachable(ctx context.Context) (string, error) {
	for {
		var status struct{ Reach string }
		if err := n.ask(ctx, &status, "status"); err != nil {
			return "", err
		}
		if status.Reach == "internet" {
			var invite struct{ Link string }
			return invite.Link, n.ask(ctx, &invite, "invite")
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return "", fmt.Errorf("%s cannot be reached from outside: %w", n.name, err)
		}
	}
}

// way is what kinloom route prints.
type way struct {
	Route, Address string
	Live           bool
}

// live returns the ways to another node that carry now.
func (n *node) live(ctx context.Context, to *node) ([]way, error) {
	lines, err := n.do(ctx, "route", to.id)
	var ways []way
	for _, line := range lines {
		var w way
		if len(line) == 0 {
			continue
		}
		if err := json.Unmarshal(line, &w); err != nil {
			return nil, err
		}
		if w.Live {
			ways = append(ways, w)
		}
		if w.Route == "direct" && strings.Contains(w.Address, "p2p-circuit") {
			return nil, fmt.Errorf("%s calls a relayed way direct: %s", n.name, line)
		}
	}
	return ways, err
}

// straight waits for a direct way, and reports whether one came in time.
func (n *node) straight(ctx context.Context, to *node, patience time.Duration) (bool, error) {
	for began := time.Now(); time.Since(began) < patience; {
		ways, err := n.live(ctx, to)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(ways, func(w way) bool { return w.Route == "direct" }) {
			return true, nil
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return false, err
		}
	}
	return false, nil
}

// meet has two running nodes become contacts by an invite that works anywhere.
func meet(ctx context.Context, a, b *node) error {
	link, err := a.reachable(ctx)
	if err != nil {
		return err
	}
	return b.add(ctx, link)
}

// punching has pairs of fresh homes meet behind NATs, and counts what routes they end with.
func punching(ctx context.Context, l *lab, r routing, want string, share float64) (outcome, error) {
	pairs, rounds := 3, 1
	if l.long {
		pairs, rounds = 4, 10
	}
	// As many observers as libp2p wants before it believes what they say of our address.
	helpers, err := servers(ctx, l, 4)
	if err != nil {
		return outcome{}, err
	}
	homes := make([][2]*node, pairs)
	for i := range homes {
		homes[i][0] = l.router(fmt.Sprintf("ra%d", i), r, fmt.Sprintf("46.%d.0.1", i+1)).host(fmt.Sprintf("ada%d", i)).node()
		homes[i][1] = l.router(fmt.Sprintf("rb%d", i), r, fmt.Sprintf("47.%d.0.1", i+1)).host(fmt.Sprintf("bob%d", i)).node()
	}
	if err := l.ready(); err != nil {
		return outcome{}, err
	}
	var mu sync.Mutex
	routes := map[string]int{}
	for round := range rounds {
		// Each home is a new node behind an old address, of which a server takes a new
		// connection every two seconds, after a few.
		if round > 0 {
			if err := pause(ctx, 10*time.Second); err != nil {
				return outcome{}, err
			}
		}
		errs := make([]error, pairs)
		var all sync.WaitGroup
		for i, pair := range homes {
			all.Go(func() {
				route, err := punch(ctx, pair[0], pair[1], helpers, want)
				errs[i] = err
				mu.Lock()
				defer mu.Unlock()
				routes[route]++
			})
		}
		all.Wait()
		if err := errors.Join(errs...); err != nil {
			return outcome{}, err
		}
	}
	n := pairs * rounds
	return outcome{figure: fmt.Sprintf("%d of %d %s: %v", routes[want], n, want, routes), ok: float64(routes[want]) >= share*float64(n)}, nil
}

// punch makes two homes anew, has them meet and talk, and returns the best route that they come to.
func punch(ctx context.Context, ada, bob *node, helpers []*node, want string) (string, error) {
	const each = 10
	both := []*node{ada, bob}
	err := together(both, func(n *node) error {
		n.kill()
		if err := os.RemoveAll(n.home); err != nil {
			return err
		}
		if err := n.up(ctx); err != nil {
			return err
		}
		return n.knows(ctx, helpers...)
	})
	if err != nil {
		return "", err
	}
	if err := meet(ctx, ada, bob); err != nil {
		return "", err
	}
	if err := errors.Join(ada.say(ctx, bob, 0, each), bob.say(ctx, ada, 0, each)); err != nil {
		return "", err
	}
	if err := together(both, func(n *node) error { return n.settled(ctx) }); err != nil {
		return "", err
	}
	if t, err := compare(ctx, ada, bob, each, each); err != nil || t != (tally{}) {
		return "", errors.Join(fmt.Errorf("%s", t), err)
	}
	patience := 30 * time.Second
	if want != "direct" {
		patience = 5 * time.Second // none is expected
	}
	if direct, err := ada.straight(ctx, bob, patience); direct || err != nil {
		return "direct", err
	}
	return "relay", nil
}

// emptyHomes measures what two people see who start kinloom for the first time.
func emptyHomes(ctx context.Context, l *lab) (outcome, error) {
	known, err := servers(ctx, l, 1)
	if err != nil {
		return outcome{}, err
	}
	ada := l.router("ra", routing{nat: cone, inside: homeNet}, "45.10.0.1").host("ada").node()
	bob := l.router("rb", routing{nat: cone, inside: homeNet}, "45.20.0.1").host("bob").node()
	if err := l.ready(); err != nil {
		return outcome{}, err
	}
	began := time.Now()
	if err := together([]*node{ada, bob}, func(n *node) error { return n.up(ctx) }); err != nil {
		return outcome{}, err
	}
	if err := ada.knows(ctx, known...); err != nil {
		return outcome{}, err
	}
	if err := meet(ctx, ada, bob); err != nil {
		return outcome{}, err
	}
	met := time.Since(began)
	s, err := bob.deliver(ctx, ada, "hello", time.Minute)
	if err != nil {
		return outcome{}, err
	}
	took := time.Since(began)
	return outcome{figure: fmt.Sprintf("contacts after %.1f s, delivered after %.1f s, %s", met.Seconds(), took.Seconds(), s.Route), ok: took <= 30*time.Second}, nil
}

// overRelay has two homes meet that only a relay can join. flags are those of bob, behind the second router, which runs a
// proxy that may go out where bob may not.
func overRelay(ctx context.Context, l *lab, ra, rb routing, flags []string) (outcome, error) {
	known, err := servers(ctx, l, 1)
	if err != nil {
		return outcome{}, err
	}
	ada := l.router("ra", ra, "45.10.0.1").host("ada").node()
	out := "45.20.0.1"
	if rb.inside == "" {
		out = "2a01:60::1"
	}
	r := l.router("rb", rb, out)
	bob := r.host("bob").node()
	if err := l.ready(); err != nil {
		return outcome{}, err
	}
	if flags != nil {
		if err := r.switching.proxy("192.168.1.1:3128"); err != nil {
			return outcome{}, err
		}
	}
	began := time.Now()
	if err := errors.Join(ada.up(ctx), bob.up(ctx, flags...)); err != nil {
		return outcome{}, err
	}
	return joined(ctx, ada, bob, known, began)
}

// joined has two running nodes that know servers become contacts and talk, within 30 s from began.
func joined(ctx context.Context, ada, bob *node, known []*node, began time.Time) (outcome, error) {
	const each = 20
	both := []*node{ada, bob}
	if err := together(both, func(n *node) error { return n.knows(ctx, known...) }); err != nil {
		return outcome{}, err
	}
	if err := meet(ctx, ada, bob); err != nil {
		return outcome{}, err
	}
	if err := errors.Join(ada.say(ctx, bob, 0, each), bob.say(ctx, ada, 0, each)); err != nil {
		return outcome{}, err
	}
	if err := together(both, func(n *node) error { return n.settled(ctx) }); err != nil {
		return outcome{}, err
	}
	took := time.Since(began)
	t, err := compare(ctx, ada, bob, each, each)
	return outcome{figure: fmt.Sprintf("%.1f s from up: %s", took.Seconds(), t), ok: took <= 30*time.Second && t == tally{}}, err
}

// relayCut kills the relay that carries a conversation of more than a circuit may, 128 KiB.
func relayCut(ctx context.Context, l *lab) (outcome, error) {
	const before, after = 10, 40 // of 10 KiB
	relays, err := servers(ctx, l, 2)
	if err != nil {
		return outcome{}, err
	}
	hard := routing{nat: symmetric, inside: homeNet}
	ada, bob := l.router("ra", hard, "45.10.0.1").host("ada").node(), l.router("rb", hard, "45.20.0.1").host("bob").node()
	ada.bulk, bob.bulk = 10<<10, 10<<10
	both := []*node{ada, bob}
	if err := l.ready(); err != nil {
		return outcome{}, err
	}
	err = together(both, func(n *node) error {
		if err := n.up(ctx); err != nil {
			return err
		}
		return n.knows(ctx, relays...)
	})
	if err != nil {
		return outcome{}, err
	}
	if err := meet(ctx, ada, bob); err != nil {
		return outcome{}, err
	}
	if err := errors.Join(ada.say(ctx, bob, 0, before), ada.settled(ctx)); err != nil {
		return outcome{}, err
	}
	used := -1
	for used < 0 { // none is, for a moment, where a circuit has carried what it may
		ways, err := ada.live(ctx, bob)
		if err != nil {
			return outcome{}, err
		}
		used = slices.IndexFunc(relays, func(r *node) bool {
			return slices.ContainsFunc(ways, func(w way) bool { return strings.Contains(w.Address, r.peer) })
		})
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return outcome{}, fmt.Errorf("no relay in %+v: %w", ways, err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- ada.say(ctx, bob, before, after) }()
	relays[used].kill()
	cut := time.Now()
	resumed := time.Duration(0)
	for resumed == 0 {
		heard, err := bob.heard(ctx, ada)
		if err != nil {
			return outcome{}, err
		}
		if len(heard) > before {
			resumed = time.Since(cut)
		} else if err := pause(ctx, 200*time.Millisecond); err != nil {
			return outcome{}, fmt.Errorf("nothing came after the cut: %w", err)
		}
	}
	if err := errors.Join(bob.say(ctx, ada, 0, before), <-done); err != nil {
		return outcome{}, err
	}
	if err := together(both, func(n *node) error { return n.settled(ctx) }); err != nil {
		return outcome{}, err
	}
	took := time.Since(cut)
	t, err := compare(ctx, ada, bob, after, before)
	return outcome{figure: fmt.Sprintf("%.1f s after the cut, all after %.1f s: %s", resumed.Seconds(), took.Seconds(), t), ok: resumed <= 30*time.Second && t == tally{}}, err
}
