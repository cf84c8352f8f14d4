package node

import (
	"fmt"
	"strings"
)

// MachineFacts are what the computer shows of its network.
type MachineFacts struct {
	Interfaces int  // that are up and have an address, loopback left out
	Route4     bool // there is a way to the internet, by its routes
	Route6     bool
}

// PortFacts are how the addresses can be listened on that were asked for.
type PortFacts struct {
	Asked  []string
	Taken  []string // by another program
	Denied []string // ports below 1024 are not for everybody
	Absent []string // this computer does not have that address
	Moved  []string // usual ones that another program had at the start
}

// NetFacts are how the network of a running node stands. Zero values are what a
// node sees that has just started.
type NetFacts struct {
	LANOnly bool
	Profile string

	QUIC    bool // listens on QUIC
	UDP     int  // connections over QUIC with others outside
	TCP     int  // connections over TCP with others outside,
	Skipped int  // and those of them to whom QUIC was tried too
	Strange int  // dials at which something else than a node answered

	LANOff     bool
	LANProblem string
	Neighbours int

	Verdict   string // of others: "public", "private", or "" before anybody has tried
	Direct    int    // own addresses at which somebody dialled back
	Claimed   bool   // it is a server, and none of its addresses was tried yet
	Relays    int    // reservations held
	Mapped    int    // ports that the router says it opened
	Symmetric bool   // the router gives each destination another port
	Asked     int    // relays that were asked for a reservation
	Refused   int    // and gave none

	NoDHT   bool
	Known   int // nodes known by which this one gets into the network
	Servers int // of them connected, or in the table
	Answers int // to look-ups
	False   int // answers that were refused: forged, expired, oversize

	Proxy        string // host and port
	ProxyProblem string
}

// getIn is what gets a node into the network that knows nobody there.
const getIn = "Answer an invite of somebody whose node is public, name a server that you trust: kinloom bootstrap add ADDRESS, or take a signed list of some: kinloom bootstrap import FILE."

// ownServer is the one command for a server of one's own.
const ownServer = "Run one on a rented server, for yourself and your contacts: kinloom up --profile server."

func (m *MachineFacts) check(add adder) {
	switch {
	case m.Interfaces == 0:
		add("network", Fail, "Connect to a network. Until then you can read, search, and write what goes out later.", "this computer is connected to no network")
	case !m.Route4 && !m.Route6:
		add("network", Warn, "For the internet, check the router or the cable; on the local network all works.", "this computer has a local network and no way to the internet")
	case m.Route4 && m.Route6:
		add("network", OK, "", "a way to the internet over IPv4 and IPv6")
	case m.Route6:
		add("network", OK, "", "a way to the internet over IPv6 only: who has IPv4 only is reached over a relay")
	default:
		add("network", OK, "", "a way to the internet over IPv4")
	}
}

func (p *PortFacts) check(add adder) {
	switch {
	case len(p.Taken) > 0:
		add("ports", Fail, "End that program, or choose another port with --listen; port 0 is any free one.", "another program has %s", some(p.Taken))
	case len(p.Denied) > 0:
		add("ports", Fail, "Choose a port from 1024 on, or allow it: setcap cap_net_bind_service=+ep on the program.", "you may not listen on %s: ports below 1024 are not for everybody", some(p.Denied))
	case len(p.Absent) > 0:
		add("ports", Fail, "Choose another address with --listen.", "this computer does not have the address of %s", some(p.Absent))
	case len(p.Moved) > 0:
		add("ports", Warn, "Contacts are told of the new one by themselves; to have the old one back, end that program and start the node anew.", "another program has the usual %s, so another port is used", some(p.Moved))
	case len(p.Asked) > 0:
		add("ports", OK, "", "%s can be listened on", some(p.Asked))
	default:
		add("ports", OK, "", "the node listens where it is told to")
	}
}

const notSeen = "not looked at, as %s"

// apart says why nobody outside was there who could have told anything, and what to do
// first; "" where somebody was.
func (n *NetFacts) apart(m *MachineFacts) (why, fix string) {
	switch {
	case n.LANOnly || n.UDP+n.TCP+n.Servers > 0:
		return "", ""
	case m != nil && m.Interfaces == 0:
		return "this computer is connected to no network", beginWith("network")
	case n.NoDHT || n.Proxy != "":
		return "nobody outside was reached", beginWith("reach")
	case n.Known == 0:
		return "nobody outside is known who could be asked", beginWith("bootstrap")
	}
	return "nobody outside answers", beginWith("bootstrap")
}

func (n *NetFacts) check(m *MachineFacts, c *ClockFacts, add adder) {
	why, first := n.apart(m)
	switch noUDP := n.UDP == 0 && n.Skipped > 0 && c != nil; {
	case noUDP && c.refused():
		add("udp", Warn, beginWith("clock"), notSeen, "QUIC refuses a clock that is so far off")
	case noUDP && c.Voices == 0:
		add("udp", Warn, "Allow outgoing UDP in the firewall or the router; if it is allowed, compare this computer's clock with another one.", "UDP is blocked, or this computer's clock is off by more than an hour: QUIC has reached nobody outside, TCP did %s", times(n.Skipped))
	default:
		n.checkUDP(why, first, add)
	}
	switch {
	case n.LANOff:
		add("lan", OK, "", "off, as you asked")
	case n.LANProblem != "":
		add("lan", Warn, "Allow multicast (mDNS, UDP port 5353) in the firewall; it is tried again by itself.", "neighbours on the local network cannot be found: %s", n.LANProblem)
	case n.Neighbours == 0 && m != nil && m.Interfaces == 0:
		add("lan", Warn, beginWith("network"), notSeen, "this computer is connected to no network")
	case n.Neighbours == 0:
		add("lan", OK, "", "no other node is on the local network")
	case n.Neighbours == 1:
		add("lan", OK, "", "one other node was found on the local network")
	default:
		add("lan", OK, "", "%d other nodes were found on the local network", n.Neighbours)
	}
	n.checkReach(why, first, add)
	n.checkOthers(why, first, add)
	switch {
	case n.Proxy == "":
		add("proxy", OK, "", "none is used")
	case n.ProxyProblem != "":
		add("proxy", Warn, "Check its address and password. Many proxies let nothing but port 443 through: a server there is needed.", "the proxy %s lets nothing through: %s", n.Proxy, n.ProxyProblem)
	default:
		add("proxy", OK, "", "everything leaves by %s, whose operator sees whom you connect with", n.Proxy)
	}
}

func (n *NetFacts) checkUDP(apart, first string, add adder) {
	switch {
	case n.LANOnly:
		add("udp", OK, "", "not needed: the node keeps to the local network")
	case n.Proxy != "":
		add("udp", OK, "", "off, as everything leaves by the proxy")
	case n.UDP > 0:
		add("udp", OK, "", "UDP gets through (QUIC)")
	case n.Skipped > 0:
		add("udp", Warn, "Allow outgoing UDP in the firewall or the router. Meanwhile TCP is used, and two nodes behind routers need a relay.", "UDP is blocked: QUIC has reached nobody outside, TCP did %s", times(n.Skipped))
	case !n.QUIC:
		add("udp", OK, "", "not listened on, as you asked")
	case apart != "":
		add("udp", Warn, first, notSeen, apart)
	default:
		add("udp", OK, "", "nobody outside was dialled yet, so it is not known whether UDP gets through")
	}
}

// plural puts a number before a word.
func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	if strings.HasSuffix(word, "s") {
		word += "e"
	}
	return fmt.Sprintf("%d %ss", n, word)
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return plural(n, "time")
}

// checkReach says how far others can reach this node.
func (n *NetFacts) checkReach(apart, first string, add adder) {
	const lan = "; invites work on the local network only"
	switch {
	case n.LANOnly:
		add("reach", OK, "", "on the local network only, as you asked")
		add("relay", OK, "", "not needed")
		return
	case n.Direct > 0:
		add("reach", OK, "", "others outside have come in or dialled back: this node is reached from anywhere")
	case n.Claimed && n.Relays == 0:
		add("reach", Warn, "Have somebody outside answer an invite, or name this server: that proves it. If they cannot, let its UDP and TCP ports in at the provider's firewall.", "nobody outside has come in to this server so far, and invites say so")
	case n.Relays > 0:
		add("reach", OK, "", "this node is reached from anywhere, over %s", plural(n.Relays, "relay"))
	case n.Symmetric:
		add("reach", Warn, "A relay is needed. "+ownServer, "nobody outside can reach this node: the router gives each destination another port (symmetric NAT), and no relay is held"+lan)
	case n.Verdict == "private" && n.Mapped > 0:
		add("reach", Warn, "The provider may have a router of its own before yours: a relay is needed. "+ownServer, "nobody outside can reach this node, although the router says that it opened %s"+lan, plural(n.Mapped, "port"))
	case n.Verdict == "private":
		add("reach", Warn, "Allow UPnP in the router, or open the port of this node there; or hold a relay. "+ownServer, "nobody outside can reach this node: others tried, and the router or a firewall kept them out"+lan)
	case n.Known == 0 && first != beginWith("network"):
		add("reach", Warn, getIn, "nobody outside has tried to reach this node, as none is known who could"+lan)
	case apart != "" && first != beginWith("reach"):
		add("reach", Warn, first, notSeen+lan, apart)
	default:
		add("reach", Warn, "Wait a minute and ask again. If it stays so, see the lines on bootstrap and relay.", "nobody outside has tried yet to reach this node"+lan)
	}
	switch {
	case n.Relays > 0:
		add("relay", OK, "", "%s held", plural(n.Relays, "relay"))
	case n.Refused > 0:
		add("relay", Warn, "Relays have room for so many, and for contacts first: ask a contact whose node is public to add you. "+ownServer, "%d of %d relays that were asked refused, so none is held", n.Refused, max(n.Asked, n.Refused))
	case n.Direct > 0:
		add("relay", OK, "", "not needed")
	case apart != "" && n.Asked == 0:
		add("relay", Warn, first, notSeen, apart)
	default:
		add("relay", OK, "", "none is held, and none that is known has refused")
	}
}

// checkOthers says who helps this node to find contacts who have moved.
func (n *NetFacts) checkOthers(apart, first string, add adder) {
	switch {
	case n.LANOnly:
		add("bootstrap", OK, "", "not needed: the node keeps to the local network")
	case n.NoDHT:
		add("bootstrap", OK, "", "not used for look-ups, as you asked; contacts who have moved are not looked for")
	case n.Known == 0:
		add("bootstrap", Warn, getIn, "no node is known by which this one gets into the network, so contacts who have moved are not found")
	case n.Servers == 0 && n.Strange > 0:
		add("bootstrap", Warn, "Log in with a browser, if this network asks for that; else use another one. Nothing of it was taken for anybody's word.", "%s into the network known, and what answers there is no node: a login page, or a box on the way that opens connections", waysKnown(n.Known))
	case n.Servers == 0 && first == beginWith("network"):
		add("bootstrap", Warn, first, notSeen, apart)
	case n.Servers == 0:
		add("bootstrap", Warn, "Check the line on the network. "+getIn, "%s into the network known, and none of them answers", waysKnown(n.Known))
	default:
		add("bootstrap", OK, "", "%d of %s into the network answer", n.Servers, plural(n.Known, "known way"))
	}
	switch {
	case n.LANOnly || n.NoDHT:
		add("dht", OK, "", "off, as you asked")
	case n.False > 0:
		add("dht", Warn, "Nothing false was taken. If a contact is not found for long, exchange a fresh invite, or name a server that you trust: kinloom bootstrap add ADDRESS.", "%d of %d answers to look-ups were false and were refused: somebody out there lies", n.False, max(n.Answers, n.False))
	case apart != "" && n.Answers == 0:
		add("dht", Warn, first, notSeen, apart)
	default:
		add("dht", OK, "", "%s to look-ups, none of them false", plural(n.Answers, "answer"))
	}
}

func waysKnown(n int) string {
	if n == 1 {
		return "one way is"
	}
	return plural(n, "way") + " are"
}
