package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// wallScenarios are networks that let out little, or answer themselves, and what the doctor says of them.
func wallScenarios() []scenario {
	// Of all that leaves, one port of one protocol. What answers passes anyway.
	only := func(protocol string) routing {
		return routing{nat: cone, inside: homeNet, refuses: `iifname "lan0" meta l4proto . th dport != { ` + protocol + ` . 443 }`}
	}
	return []scenario{
		{
			name: "open-443", what: "a home that lets out UDP to 443 alone, and one that lets out TCP to 443 alone, without a proxy", bar: "up to delivered <= 30 s, 0 lost, twice, out of order",
			run: func(ctx context.Context, l *lab) (outcome, error) {
				return overRelay(ctx, l, only("udp"), only("tcp"), nil)
			},
		},
		{name: "proxy-idle", what: "a CONNECT proxy with a password that cuts tunnels after 3 s without a byte", bar: "delivered <= 10 s after each cut", run: proxyIdle},
		{name: "cgnat-hairpin", what: "two homes behind one provider's NAT, which leads nothing back inside", bar: "up to delivered <= 30 s, 0 lost, twice, out of order", run: hairpin},
		{name: "portal", what: "a router that answers every TCP connection with a login page", bar: "the doctor names it, and nothing is believed", run: portal},
		{name: "udp-doctor", what: "a home whose router refuses UDP", bar: "the doctor names it", run: udpDoctor},
		{name: "nat-doctor", what: "a symmetric NAT; the public nodes that are known are no relays", bar: "the doctor names it <= 60 s", run: natDoctor},
	}
}

// finding is a line of the doctor.
type finding struct{ Check, Verdict, Found string }

func (f finding) says(words string) bool {
	return f.Verdict == "WARN" && strings.Contains(f.Found, words)
}

// finding asks the doctor until the line of a check is a warning with these words.
func (n *node) finding(ctx context.Context, check, words string) (f finding, err error) {
	for !f.says(words) {
		lines, err := n.do(ctx, "doctor") // its exit code tells of warnings, too
		if len(lines) == 0 {
			return f, err
		}
		for _, line := range lines {
			var one finding
			if err := json.Unmarshal(line, &one); err == nil && one.Check == check {
				f = one
			}
		}
		if err := pause(ctx, 300*time.Millisecond); err != nil {
			return f, fmt.Errorf("the doctor of %s says %+v of %s, and not %q: %w", n.name, f, check, words, err)
		}
	}
	return f, nil
}

// proxyIdle leaves two homes, one of them behind such a proxy, alone for longer than its patience.
func proxyIdle(ctx context.Context, l *lab) (outcome, error) {
	const rounds, login = 1, "clerk:correct-horse"
	known, err := servers(ctx, l, 1)
	if err != nil {
		return outcome{}, err
	}
	ada := l.router("ra", routing{nat: cone, inside: homeNet}, "45.10.0.1").host("ada").node()
	office := l.router("rb", routing{nat: cone, inside: homeNet, refuses: "all"}, "45.20.0.1")
	bob := office.host("bob").node()
	if err := errors.Join(l.ready(), office.switching.proxy("192.168.1.1:3128", "--login", login, "--idle", "3s")); err != nil {
		return outcome{}, err
	}
	file := filepath.Join(l.folder, "login")
	if err := os.WriteFile(file, []byte(login+"\n"), 0o600); err != nil {
		return outcome{}, err
	}
	if err := errors.Join(ada.up(ctx), bob.up(ctx, "--proxy", "http://192.168.1.1:3128", "--proxy-login-file", file)); err != nil {
		return outcome{}, err
	}
	if err := together([]*node{ada, bob}, func(n *node) error { return n.knows(ctx, known...) }); err != nil {
		return outcome{}, err
	}
	if err := meet(ctx, ada, bob); err != nil {
		return outcome{}, err
	}
	worst := time.Duration(0)
	for i := range rounds {
		if err := pause(ctx, 5*time.Second); err != nil {
			return outcome{}, err
		}
		began := time.Now()
		if err := errors.Join(ada.say(ctx, bob, i, i+1), bob.say(ctx, ada, i, i+1)); err != nil {
			return outcome{}, err
		}
		if err := together([]*node{ada, bob}, func(n *node) error { return n.settled(ctx) }); err != nil {
			return outcome{}, err
		}
		worst = max(worst, time.Since(began))
	}
	t, err := compare(ctx, ada, bob, rounds, rounds)
	for _, path := range []string{bob.home + ".log", filepath.Join(bob.home, "logs", "kinloom.log"), filepath.Join(bob.home, "kinloom.log")} {
		if b, _ := os.ReadFile(path); bytes.Contains(b, []byte("correct-horse")) {
			err = errors.Join(err, fmt.Errorf("the password is in %s", path))
		}
	}
	return outcome{figure: fmt.Sprintf("worst %.1f s after a cut: %s", worst.Seconds(), t), ok: worst <= 10*time.Second && t == tally{}}, err
}

// hairpin has two meet that see the same address from outside, where neither is reached from inside.
func hairpin(ctx context.Context, l *lab) (outcome, error) {
	known, err := servers(ctx, l, 1)
	if err != nil {
		return outcome{}, err
	}
	isp := l.router("isp", routing{nat: cone, inside: "100.64.1.0/24"}, "45.30.0.1")
	ada := isp.router("ra", routing{nat: cone, inside: homeNet}).host("ada").node()
	bob := isp.router("rb", routing{nat: cone, inside: homeNet}).host("bob").node()
	if err := l.ready(); err != nil {
		return outcome{}, err
	}
	began := time.Now()
	if err := errors.Join(ada.up(ctx), bob.up(ctx)); err != nil {
		return outcome{}, err
	}
	return joined(ctx, ada, bob, known, began)
}

// portal reads what a home says whose router answers for everybody.
func portal(ctx context.Context, l *lab) (outcome, error) {
	known, err := servers(ctx, l, 1)
	if err != nil {
		return outcome{}, err
	}
	r := l.router("r", routing{nat: cone, inside: homeNet, portal: 8080, refuses: "meta l4proto udp"}, "45.10.0.1")
	ada := r.host("ada").node()
	if err := errors.Join(l.ready(), r.switching.proxy("192.168.1.1:8080", "--page")); err != nil {
		return outcome{}, err
	}
	if err := ada.up(ctx); err != nil {
		return outcome{}, err
	}
	if err := ada.knows(ctx, known...); err != nil {
		return outcome{}, err
	}
	f, err := ada.finding(ctx, "bootstrap", "login page")
	if err != nil {
		return outcome{}, err
	}
	lines, err := ada.do(ctx, "peers")
	connected := len(lines) > 0 && len(lines[0]) > 0
	return outcome{figure: fmt.Sprintf("after %.0f s: %.40s…; connected: %v", time.Since(ada.began).Seconds(), f.Found, connected), ok: !connected}, err
}

func udpDoctor(ctx context.Context, l *lab) (outcome, error) {
	known, err := servers(ctx, l, 1)
	if err != nil {
		return outcome{}, err
	}
	ada, err := newcomer(ctx, l, routing{nat: cone, inside: homeNet, refuses: "meta l4proto udp"}, known)
	if err != nil {
		return outcome{}, err
	}
	f, err := ada.finding(ctx, "udp", "UDP is blocked")
	return outcome{figure: fmt.Sprintf("after %.0f s: %.50s", time.Since(ada.began).Seconds(), f.Found), ok: err == nil}, err
}

// newcomer starts a home behind a router of its own, and tells it of some nodes.
func newcomer(ctx context.Context, l *lab, r routing, known []*node) (*node, error) {
	ada := l.router("r", r, "45.10.0.1").host("ada").node()
	if err := l.ready(); err != nil {
		return nil, err
	}
	if err := ada.up(ctx); err != nil {
		return nil, err
	}
	return ada, ada.knows(ctx, known...)
}

// bystanders starts public nodes that do nothing for others.
func bystanders(ctx context.Context, l *lab, n int) ([]*node, error) {
	var all []*node
	for i := range n {
		all = append(all, l.public(fmt.Sprintf("public%d", i+1), fmt.Sprintf("45.%d.0.1", 220+i), fmt.Sprintf("2a01:%d::1", 220+i)).node())
	}
	if err := l.ready(); err != nil {
		return nil, err
	}
	return all, together(all, func(n *node) error { return n.up(ctx, "--profile", "client") })
}

// natDoctor reads what a home says that is behind a symmetric NAT and finds no relay.
func natDoctor(ctx context.Context, l *lab) (outcome, error) {
	known, err := bystanders(ctx, l, 2)
	if err != nil {
		return outcome{}, err
	}
	ada, err := newcomer(ctx, l, routing{nat: symmetric, inside: homeNet}, known)
	if err != nil {
		return outcome{}, err
	}
	f, err := ada.finding(ctx, "reach", "symmetric NAT")
	took := time.Since(ada.began)
	return outcome{figure: fmt.Sprintf("after %.0f s: %.50s…", took.Seconds(), f.Found), ok: err == nil && took <= time.Minute}, err
}
