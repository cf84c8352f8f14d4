package main

import (
	"fmt"
	"net/netip"
	"strings"
)

// The two translations of addresses. A cone keeps the source port as long as it is free: who asks from elsewhere comes
// through once the inside has sent there. A symmetric one draws a port for each destination, so nobody can foretell it.
const (
	cone      = "masquerade"
	symmetric = "masquerade fully-random"
)

// routing says what a router does.
type routing struct {
	nat     string // cone, symmetric, or none: then the networks inside are routed as they are
	refuses string // what is not forwarded at all, in words of nft: "meta l4proto udp", or "all"
	inside  string // the network inside, such as 192.168.1.0/24; the router has its first address
	portal  int    // the port of the router that every TCP connection is led to; 0: none
	inside6 string // likewise, of IPv6: never translated
}

// router is a host that forwards between one device outside, wan0, and a segment inside. From outside comes only what
// answers something, whatever the translation is.
type router struct {
	segment
	routing
}

// router makes a router on the wire. addrs are those of its outside.
func (l *lab) router(name string, r routing, addrs ...string) *router {
	h := l.namespace(name)
	for _, n := range []string{r.inside6, r.inside} {
		if n != "" && (n == r.inside6 || r.nat == "") {
			addrs = append(addrs, "via "+n)
		}
	}
	h.plug(name, "wan0", addrs...)
	return h.route(r)
}

// router makes a router inside of another one.
func (r *router) router(name string, inner routing) *router {
	h := r.switching.lab.namespace(name)
	r.connect(h, "wan0")
	return h.route(inner)
}

// host makes a host inside.
func (r *router) host(name string) *host {
	h := r.switching.lab.namespace(name)
	r.connect(h, "eth0")
	return h
}

// connect attaches a host to the inside, with the next free addresses and the router as its way out.
func (r *router) connect(h *host, device string) {
	var addrs, routes []string
	for _, n := range []string{r.inside, r.inside6} {
		if n == "" {
			continue
		}
		p, gateway := r.gateway(n)
		a := gateway
		for range r.next + 1 {
			a = a.Next()
		}
		addrs = append(addrs, fmt.Sprintf("%s/%d", a, p.Bits()))
		all := "0.0.0.0/0"
		if a.Is6() {
			all = "::/0"
		}
		routes = append(routes, "route add "+all+" via "+gateway.String())
	}
	r.attach(h, device, addrs...)
	h.ip(routes...)
}

// gateway returns a network and its first address, which is the router's.
func (r *router) gateway(network string) (netip.Prefix, netip.Addr) {
	p, err := netip.ParsePrefix(network)
	r.switching.lab.fail(err)
	return p, p.Addr().Next()
}

// route makes a router of a host that has its outside.
func (h *host) route(r routing) *router {
	out := &router{segment: segment{switching: h}, routing: r}
	h.sysctl("net/ipv4/ip_forward", "1")
	h.sysctl("net/ipv6/conf/all/forwarding", "1")
	h.ip("link add lan0 type bridge", "link set lan0 up")
	for _, n := range []string{r.inside, r.inside6} {
		if n != "" {
			p, gateway := out.gateway(n)
			h.ip(fmt.Sprintf("addr add %s/%d dev lan0 nodad", gateway, p.Bits()))
		}
	}
	h.lab.fail(command(rules(r), "ip", "netns", "exec", h.ns, "nft", "-f", "-"))
	return out
}

// rules writes the rules of a router for nft. Closing braces stand on lines of their own, and no chain is called fwd or
// dup: nft 1.0.6 takes neither. What comes to the router itself from outside is dropped without a trace: an answer or a
// remembered flow would take the port that the inside is about to send from, and a cone would not be one.
func rules(r routing) string {
	var b strings.Builder
	b.WriteString("table inet lab {\n")
	if r.nat != "" {
		fmt.Fprintf(&b, "chain outwards {\ntype nat hook postrouting priority 100;\noifname \"wan0\" meta nfproto ipv4 %s\n}\n", r.nat)
	}
	if r.portal != 0 {
		fmt.Fprintf(&b, "chain portal {\ntype nat hook prerouting priority -100;\niifname \"lan0\" meta l4proto tcp redirect to :%d\n}\n", r.portal)
	}
	b.WriteString("chain through {\ntype filter hook forward priority 0; policy drop;\n")
	switch r.refuses {
	case "":
	case "all":
		b.WriteString("drop\n")
	default:
		fmt.Fprintf(&b, "%s drop\n", r.refuses)
	}
	b.WriteString("ct state established,related accept\niifname \"lan0\" accept\n}\n")
	b.WriteString("chain here {\ntype filter hook input priority 0; policy drop;\n")
	b.WriteString("iifname { \"lo\", \"lan0\" } accept\nct state established,related accept\nmeta l4proto ipv6-icmp accept\n}\n")
	b.WriteString("}\n")
	return b.String()
}
