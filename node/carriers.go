package node

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/node/p2p"
)

// carriers are the nodes that may carry for the veil, and look records up for it.
type carriers struct {
	use   []peer.AddrInfo // of contacts, then named ones, by their ids: the order says nothing new
	left  []leftOut       // who else was named, or is a contact's
	blind bool            // where this machine is, is not known, so neither is who is elsewhere
}

// leftOut is a server that may not carry, and why.
type leftOut struct {
	peer.AddrInfo
	err error
}

var errShunned = errors.New("its owner is not to know this node's address")

// chooseCarriers looks anew who they are. Who calls it last has the last word.
func (e *edge) chooseCarriers() {
	e.choosing.Lock()
	defer e.choosing.Unlock()
	k := e.known.Load()
	if k == nil || !k.veil {
		e.carriers.Store(nil)
		return
	}
	var all []peer.AddrInfo
	seen := make(map[peer.ID]bool)
	var left []leftOut
	take := func(servers []peer.AddrInfo) {
		for _, s := range slices.SortedFunc(slices.Values(servers), func(a, b peer.AddrInfo) int { return cmp.Compare(a.ID, b.ID) }) {
			switch {
			case seen[s.ID]:
			case k.shunned[s.ID]:
				left = append(left, leftOut{s, errShunned})
			default:
				all = append(all, s)
			}
			seen[s.ID] = true
		}
	}
	take(k.trusted)
	var named []peer.AddrInfo
	for _, s := range e.n.net.Book() {
		if s.Source == p2p.FromUser {
			named = append(named, s.Peer)
		}
	}
	take(named)
	before := e.carriers.Load()
	use, why, known := e.n.net.Elsewhere(all)
	if !known {
		now := carriers{blind: len(all) > 0, left: left}
		if before != nil {
			now.use = stillCarrying(before.use, all)
		}
		e.carriers.Store(&now)
		return
	}
	for _, s := range all {
		if err := why[s.ID]; err != nil {
			left = append(left, leftOut{s, err})
		}
	}
	use = use[:min(len(use), relaysMax)]
	e.carriers.Store(&carriers{use: use, left: left})
	if n := e.under.Load(); n != nil && (before == nil || anew(before.use, use, n.Reachability().Relays)) {
		n.FindRelays()
	}
}

// stillCarrying gives those that carried so far and may: they go on as long as the new
// address of this machine is not known.
func stillCarrying(before, all []peer.AddrInfo) []peer.AddrInfo {
	return slices.DeleteFunc(slices.Clone(before), func(b peer.AddrInfo) bool {
		return !slices.ContainsFunc(all, func(s peer.AddrInfo) bool { return s.ID == b.ID })
	})
}

// anew says whether relays have to be asked again at once, which doubts all that are
// held: one may not be used any more, or there is another one, or another address of one
// that is not held.
func anew(before, now []peer.AddrInfo, held []p2p.Relay) bool {
	addrs := func(all []peer.AddrInfo) map[peer.ID]string {
		out := make(map[peer.ID]string)
		for _, s := range all {
			var at []string
			for _, a := range s.Addrs {
				at = append(at, a.String())
			}
			slices.Sort(at)
			out[s.ID] = strings.Join(at, " ")
		}
		return out
	}
	was, is := addrs(before), addrs(now)
	for id := range was {
		if _, ok := is[id]; !ok {
			return true
		}
	}
	for _, r := range held {
		delete(is, r.Peer)
		delete(was, r.Peer)
	}
	maps.DeleteFunc(is, func(id peer.ID, at string) bool { return was[id] == at })
	return len(is) > 0
}

// carries says whether a relay may be used towards contacts of the veil.
func (e *edge) carries(relay peer.ID) bool {
	return slices.ContainsFunc(e.veilRelays(), func(c peer.AddrInfo) bool { return c.ID == relay })
}

// troublesMax bounds the servers of which veilTrouble speaks.
const troublesMax = 3

// veilTrouble says why contacts who may reach this node by relays only do not, and
// what to do; nothing where they do, or the node has no network.
func (n *Node) veilTrouble() string {
	switch {
	case n.net == nil:
		return ""
	case n.cfg.LANOnly:
		return "this node speaks to the local network only, so no relay is reached"
	case len(n.edge.veilPlaces()) > 0:
		return ""
	}
	why := n.edge.carriersTrouble()
	if len(why) > troublesMax {
		why = append(why[:troublesMax:troublesMax], "and others")
	}
	text := "no relay of your own choosing is held, so they cannot reach this node"
	if len(why) > 0 {
		text += " (" + strings.Join(why, "; ") + ")"
	}
	return text + ": name a server elsewhere (kinloom bootstrap add ADDRESS), or add a contact who runs one"
}

// carriersTrouble says of each server that could carry why it does not.
func (e *edge) carriersTrouble() (out []string) {
	c := e.carriers.Load()
	if c == nil {
		return nil
	}
	say := func(s peer.AddrInfo, what string) {
		name := s.ID.String()
		if len(s.Addrs) > 0 {
			name = s.Addrs[0].String()
		}
		out = append(out, name+" "+what)
	}
	tried := make(map[peer.ID]error)
	if under := e.under.Load(); under != nil {
		for _, t := range under.RelayTries() {
			tried[t.Peer] = t.Err
		}
	}
	for _, s := range c.use {
		switch err := tried[s.ID]; {
		case err == nil:
			say(s, "is being asked")
		case errors.Is(err, p2p.ErrRelayHere):
			say(s, "is at this node's own place, which it would show")
		case errors.Is(err, p2p.ErrRelayRefused), errors.Is(err, p2p.ErrRelayLeft):
			say(s, "refuses to relay")
		case errors.Is(err, p2p.ErrNotSupported):
			say(s, "is no relay")
		default:
			say(s, "does not answer")
		}
	}
	for _, s := range c.left {
		switch {
		case errors.Is(s.err, errShunned):
			say(s.AddrInfo, "is of somebody who is not to know this node's address")
		case errors.Is(s.err, p2p.ErrRelayHere):
			say(s.AddrInfo, "is at this node's own place, which it would show")
		default:
			say(s.AddrInfo, "has no public address that this node can use")
		}
	}
	if c.blind {
		out = append(out, "this node's own public address is not known yet, so neither is which server is elsewhere")
	}
	return out
}
