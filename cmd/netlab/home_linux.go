package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// homeScenarios are homes behind routers, and a node with a public address.
func homeScenarios() []scenario {
	return []scenario{
		{
			name: "outbound", what: "homes behind a cone, a symmetric NAT, CGNAT, a router without UDP, and on IPv6 alone, with one public node",
			bar: "all delivered both ways <= 5 s", run: outbound,
		},
		{name: "far-invite", what: "an invite of an unreachable home, opened far away", bar: "it said LAN only, and the reason is told", run: farInvite},
		{name: "rebinding", what: "the router of a home gets another address, which the home is not told", bar: "resumed <= 30 s, 0 lost, twice, out of order", run: rebinding},
	}
}

const (
	publicAddr, publicAddr6 = "45.100.0.1", "2a01:100::1"
	homeNet                 = "192.168.1.0/24"
)

// homes makes one home behind each kind of router, in the order of their names.
func homes(l *lab) []*node {
	isp := l.router("isp", routing{nat: cone, inside: "100.64.1.0/24"}, "45.30.0.1")
	return []*node{
		l.router("r1", routing{nat: cone, inside: homeNet}, "45.10.0.1").host("cone").node(),
		l.router("r2", routing{nat: symmetric, inside: homeNet}, "45.20.0.1").host("symmetric").node(),
		isp.router("r3", routing{nat: cone, inside: homeNet}).host("cgnat").node(),
		l.router("r4", routing{nat: cone, inside: homeNet, refuses: "meta l4proto udp"}, "45.40.0.1").host("noudp").node(),
		l.router("r6", routing{inside6: "2a01:60:0:1::/64"}, "2a01:60::1").host("six").node(),
	}
}

// outbound has every home meet the public node and write, and the public node answer.
func outbound(ctx context.Context, l *lab) (outcome, error) {
	ada := l.public("ada", publicAddr, publicAddr6).node()
	all := homes(l)
	if err := l.ready(); err != nil {
		return outcome{}, err
	}
	if err := together(append(slices.Clone(all), ada), func(n *node) error { return n.up(ctx) }); err != nil {
		return outcome{}, err
	}
	worst := time.Duration(0)
	var routes []string
	for _, home := range all {
		var invite struct{ Link string }
		if err := ada.ask(ctx, &invite, "invite"); err != nil {
			return outcome{}, err
		}
		began := time.Now()
		if err := home.add(ctx, invite.Link); err != nil {
			return outcome{}, err
		}
		there, err := home.deliver(ctx, ada, "there", time.Minute)
		if err != nil {
			return outcome{}, err
		}
		if _, err := ada.deliver(ctx, home, "and back", time.Minute); err != nil {
			return outcome{}, err
		}
		worst = max(worst, time.Since(began))
		routes = append(routes, home.name+" "+there.Route)
	}
	return outcome{figure: fmt.Sprintf("worst %.1f s; %s", worst.Seconds(), strings.Join(routes, ", ")), ok: worst <= 5*time.Second}, nil
}

func rebinding(ctx context.Context, l *lab) (outcome, error) {
	const before, after = 20, 40
	ada := l.public("ada", publicAddr).node()
	r := l.router("r", routing{nat: symmetric, inside: homeNet}, "45.10.0.1", "via "+bobNewAddr+"/32")
	bob := r.host("bob").node()
	if err := befriend(ctx, l, ada, bob); err != nil {
		return outcome{}, err
	}
	if err := bob.say(ctx, ada, 0, before); err != nil {
		return outcome{}, err
	}
	// The mappings go with the address.
	r.switching.ip("addr flush dev wan0 scope global")
	r.switching.address("wan0", bobNewAddr)
	changed := time.Now()
	if err := errors.Join(l.ready(), bob.say(ctx, ada, before, after)); err != nil {
		return outcome{}, err
	}
	if _, err := bob.deliver(ctx, ada, text(bob.name, after), time.Minute); err != nil {
		return outcome{}, err
	}
	if _, err := ada.deliver(ctx, bob, text(ada.name, 0), time.Minute); err != nil {
		return outcome{}, err
	}
	took := time.Since(changed)
	t, err := compare(ctx, ada, bob, 1, after+1)
	return outcome{figure: fmt.Sprintf("resumed after %.1f s: %s", took.Seconds(), t), ok: took <= 30*time.Second && t == tally{}}, err
}

// farInvite opens an invite where it cannot work. It has to say so before and after.
func farInvite(ctx context.Context, l *lab) (outcome, error) {
	ada := l.router("r", routing{nat: cone, inside: homeNet}, "45.10.0.1").host("ada").node()
	bob := l.public("bob", "45.20.0.1").node()
	if err := l.ready(); err != nil {
		return outcome{}, err
	}
	if err := together([]*node{ada, bob}, func(n *node) error { return n.up(ctx) }); err != nil {
		return outcome{}, err
	}
	var invite struct{ Link, Reach string }
	if err := ada.ask(ctx, &invite, "invite"); err != nil {
		return outcome{}, err
	}
	began := time.Now()
	err := bob.add(ctx, invite.Link)
	if err == nil {
		return outcome{}, errors.New("it worked")
	}
	told := strings.Contains(err.Error(), "LAN only so far")
	return outcome{
		figure: fmt.Sprintf("reach %s, refused after %.1f s, reason told: %v", invite.Reach, time.Since(began).Seconds(), told),
		ok:     invite.Reach == "lan" && told,
	}, nil
}
