package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
)

// selfScenarios test the lab itself, with UDP sockets of its own: a figure is worth as much as the network it came from.
func selfScenarios() []scenario {
	return []scenario{
		{
			name: "lab-cone", what: "two NATs that keep the port", bar: "one mapping, hole punched, strangers kept out",
			run: func(_ context.Context, l *lab) (outcome, error) { return mappings(l, cone, true) },
		},
		{
			name: "lab-symmetric", what: "two NATs with a port for each destination", bar: "two mappings, no hole, strangers kept out",
			run: func(_ context.Context, l *lab) (outcome, error) { return mappings(l, symmetric, false) },
		},
		{name: "lab-wire", what: "the wire does what was set, while it runs", bar: "all within bounds", alone: true, run: labWire},
		{name: "lab-walls", what: "CGNAT, IPv6, UDP blocked, only 443 through a proxy", bar: "each lets through what it should", run: labWalls},
	}
}

const probePort = ":4000"

// mappings looks at two NATs from outside: whether a mapping depends on the destination, and whether two hosts can
// punch a hole with what they learned about themselves.
func mappings(l *lab, nat string, punches bool) (outcome, error) {
	s1, s2 := l.public("s1", "45.10.0.1"), l.public("s2", "45.20.0.1")
	strange := l.public("strange", "45.30.0.1")
	ra := l.router("ra", routing{nat: nat, inside: "192.168.1.0/24"}, "45.40.0.1")
	rb := l.router("rb", routing{nat: nat, inside: "192.168.1.0/24"}, "45.50.0.1")
	a, b := ra.host("a").agent(probePort), rb.host("b").agent(probePort)
	s1.agent(probePort)
	s2.agent(probePort)
	stranger := strange.agent(probePort)
	if err := l.ready(); err != nil {
		return outcome{}, err
	}
	var seen [2][2]probeResult
	for i, inner := range []*agent{a, b} {
		for j, server := range []string{"45.10.0.1", "45.20.0.1"} {
			var err error
			if seen[i][j], err = inner.do("ask", server+probePort); err != nil {
				return outcome{}, err
			}
			if seen[i][j].Mapped == "" {
				return outcome{}, fmt.Errorf("%s gets no answer from %s", inner.name, server)
			}
		}
	}
	same := seen[0][0] == seen[0][1] && seen[1][0] == seen[1][1]
	// A stranger knows the mapping, and is kept out nevertheless.
	if _, err := stranger.do("blast", seen[0][0].Mapped, 20); err != nil {
		return outcome{}, err
	}
	strangers, err := a.do("count")
	if err != nil {
		return outcome{}, err
	}
	var results [2]probeResult
	var errs [2]error
	var both sync.WaitGroup
	for i, inner := range []*agent{a, b} {
		both.Go(func() { results[i], errs[i] = inner.do("punch", seen[1-i][0].Mapped) })
	}
	both.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return outcome{}, err
	}
	punched := results[0].Punched && results[1].Punched
	kept := port4000(seen[0][0].Mapped) && port4000(seen[1][0].Mapped)
	return outcome{
		figure: fmt.Sprintf("same mapping %v, port kept %v, punched %v, strangers %d", same, kept, punched, strangers.Got),
		ok:     same == punches && kept == punches && punched == punches && strangers.Got == 0,
	}, nil
}

func port4000(mapped string) bool { return strings.HasSuffix(mapped, probePort) }

// labWire measures what the wire does.
func labWire(ctx context.Context, l *lab) (outcome, error) {
	const packets = 10000
	a, b := l.public("a", "45.10.0.1", "2a01:10::1").agent(probePort), l.public("b", "45.20.0.1", "2a01:20::1").agent(probePort)
	if err := l.ready(); err != nil {
		return outcome{}, err
	}
	// By the socket, as another terminal does.
	set := func(line string) error {
		_, err := askControl(ctx, filepath.Join(l.folder, "wire.sock"), line)
		return err
	}
	measure := func(line, to string) (probeResult, error) {
		if err := set(line); err != nil {
			return probeResult{}, err
		}
		if _, err := a.do("blast", to+probePort, packets); err != nil {
			return probeResult{}, err
		}
		return b.do("count")
	}
	bad, err := measure("a>b loss=10% dup=5% corrupt=4% jitter=5ms", "45.20.0.1")
	if err != nil {
		return outcome{}, err
	}
	good, err := measure("a>b clear", "[2a01:20::1]")
	if err != nil {
		return outcome{}, err
	}
	none, err := measure("a>b cut=yes", "45.20.0.1")
	if err != nil {
		return outcome{}, err
	}
	// Cut in one direction only: what b sends arrives.
	if _, err := b.do("blast", "45.10.0.1"+probePort, 100); err != nil {
		return outcome{}, err
	}
	back, err := a.do("count")
	if err != nil {
		return outcome{}, err
	}
	// Half of the damaged packets have a mended checksum and come through; the kernel drops the others. A copy of one
	// that was damaged arrives whole, so that the packet is not missing: what is missing is a little less than loss plus corrupt.
	missing := 1 - float64(bad.Got)/packets
	damaged, twice := float64(bad.Damaged)/packets, float64(bad.Twice)/packets
	within := func(got, want float64) bool { return math.Abs(got-want) <= 0.02 }
	return outcome{
		figure: fmt.Sprintf("missing %.1f %%, damaged %.1f %%, twice %.1f %%; clear %d; cut %d, back %d", missing*100, damaged*100, twice*100, packets-good.Got, none.Got, back.Got),
		ok: within(missing, 0.9*0.04*0.95+0.1) && within(damaged, 0.9*0.02) && within(twice, 0.9*0.05*0.96) &&
			good.Got == packets && good.Twice+good.Damaged == 0 && none == probeResult{} && back.Got == 100,
	}, nil
}

// labWalls checks the networks that let through only some things.
func labWalls(_ context.Context, l *lab) (outcome, error) {
	const server4, server6 = "45.10.0.1", "2a01:10::1"
	s := l.public("s", server4, server6)
	s.agent(probePort)
	web, ssh := s.proxy(server4+":443"), s.proxy(server4+":22") // something that takes TCP connections

	isp := l.router("isp", routing{nat: cone, inside: "100.64.1.0/24"}, "45.20.0.1")
	cgnat := isp.router("home", routing{nat: cone, inside: "192.168.1.0/24"}).host("cgnat").agent(probePort)
	six := l.router("six", routing{inside6: "2a01:30:0:1::/64"}, "2a01:30::1").host("v6only").agent(probePort)
	plain := l.router("plain", routing{inside: "45.60.0.0/24"}, "45.61.0.1").host("routed").agent(probePort)
	deaf := l.router("noudp", routing{nat: cone, inside: "192.168.1.0/24", refuses: "meta l4proto udp"}, "45.40.0.1").host("deaf").agent(probePort)
	office := l.router("office", routing{nat: cone, inside: "192.168.1.0/24", refuses: "all"}, "45.50.0.1")
	gate := office.switching.proxy("192.168.1.1:3128")
	clerk := office.host("clerk").agent(probePort)
	if err := errors.Join(l.ready(), web, ssh, gate); err != nil {
		return outcome{}, err
	}
	var wrong []string
	check := func(a *agent, want string, words ...any) {
		r, err := a.do(words...)
		got := r.Mapped + r.Dialled
		if err != nil {
			got = err.Error()
		}
		if got != want {
			wrong = append(wrong, fmt.Sprintf("%s: %v: %q, want %q", a.name, words, got, want))
		}
	}
	check(cgnat, netip.MustParseAddrPort("45.20.0.1"+probePort).String(), "ask", server4+probePort)
	check(six, "[2a01:30:0:1::2]"+probePort, "ask", "["+server6+"]"+probePort)
	check(plain, "45.60.0.2"+probePort, "ask", server4+probePort)
	check(deaf, "", "ask", server4+probePort)
	check(deaf, "yes", "dial", server4+":22")
	check(clerk, "no way", "dial", server4+":443")
	check(clerk, "yes", "dial", server4+":443", "192.168.1.1:3128")
	check(clerk, "403 Forbidden", "dial", server4+":22", "192.168.1.1:3128")
	if len(wrong) > 0 {
		return outcome{figure: fmt.Sprintf("%d wrong", len(wrong))}, errors.New(strings.Join(wrong, "; "))
	}
	return outcome{figure: "8 of 8 as they should", ok: true}, nil
}
