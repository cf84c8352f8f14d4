package p2p

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// veilRelayTime is how long a veiled Net gives a relay to be connected with, before it
// dials somebody through it.
const veilRelayTime = 5 * time.Second

// throughRelays returns where a veiled Net dials p: a relay at the addresses of
// Config.Relays, anybody else through those of their relays that are in there, and that
// it is or gets connected with. Nothing else of what was said about p counts: the relay
// that it names, or the address of one, could be its own.
func (n *Net) throughRelays(ctx context.Context, h *p2pHost, p peer.ID, addrs []ma.Multiaddr) []ma.Multiaddr {
	relays := n.ownRelays()
	if own, ok := relays[p]; ok {
		return own
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // guards out
	var out []ma.Multiaddr
	for _, a := range addrs[:min(len(addrs), MaxAddrs)] {
		_, relay, ok := splitCircuit(a)
		at, known := relays[relay]
		if !ok || !known {
			continue
		}
		delete(relays, relay) // each once
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, veilRelayTime)
			defer cancel()
			if h.Network().Connectedness(relay) != network.Connected {
				if err := h.dial(ctx, relay, at); err != nil {
					return
				}
			}
			if h.apart(ctx, relay, at) != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out = append(out, ma.StringCast("/p2p/"+relay.String()).Encapsulate(circuit))
		})
	}
	wg.Wait()
	return out
}

// ownRelays are the relays that a veiled Net may use, with the addresses at which it
// may dial them.
func (n *Net) ownRelays() map[peer.ID][]ma.Multiaddr {
	out := make(map[peer.ID][]ma.Multiaddr)
	if n.cfg.Relays == nil {
		return out
	}
	for _, r := range n.cfg.Relays() {
		for _, a := range r.Addrs[:min(len(r.Addrs), MaxAddrs)] {
			if a, ok := directAddr(a); ok && manet.IsPublicAddr(a) && isEd25519(r.ID) {
				out[r.ID] = append(out[r.ID], a)
			}
		}
	}
	return out
}

// dropRelays ends what there is with relays that a veiled Net may not use any more.
func (n *Net) dropRelays(h *p2pHost) {
	relays := n.ownRelays()
	for _, c := range h.Network().Conns() {
		p := c.RemotePeer()
		if _, ok := relays[p]; !ok && !isCircuit(c.RemoteMultiaddr()) {
			n.ClosePeer(p)
			if n.relays.lost(n, p) {
				n.events.signal()
			}
		}
	}
}

// mayDial is what a veiled host dials: its relays at their addresses, and others
// through them. Nothing in libp2p gets past it.
func (h *hostGuard) mayDial(p peer.ID, a ma.Multiaddr) bool {
	relays := h.veil()
	if inner, relay, ok := splitCircuit(a); ok {
		_, known := relays[relay]
		return known && len(inner) == 0
	}
	return ma.Contains(relays[p], a)
}

// noAddrs is what a veiled host tells of itself.
func noAddrs([]ma.Multiaddr) []ma.Multiaddr { return nil }

// Elsewhere returns those of some nodes that have public addresses, with these alone,
// and none of them at the same place as this machine: what goes over a node shows its
// address, which is this one's then. It says why the others are left out: ErrRelayHere,
// or ErrNoAddress. Of IPv4 and IPv6 each counts only where this machine's own public
// address is known by its interfaces, by its owner or by what one of the nodes says; what
// strangers say of it keeps away from there, and is no knowledge. It does not know where
// none is, as at the start behind a router, or while there is no main host. Through an
// HTTP proxy no address of one's own is seen by anybody, and each node counts; see apart
// for those that relay.
func (n *Net) Elsewhere(nodes []peer.AddrInfo) (out []peer.AddrInfo, left map[peer.ID]error, known bool) {
	h := n.host(mainHost)
	if h == nil {
		return nil, nil, false
	}
	said := n.hostAddrs(h) // by observers, too
	if h.punch != nil {
		said = append(slices.Clone(said), h.punch.addrs(h)...)
	}
	here, kinds := make(map[netip.Prefix]bool), make(map[int]bool)
	for _, a := range said {
		if site, ok := siteOf(a); ok {
			here[site] = true
		}
	}
	for _, a := range n.ownAddrs(h, nodes) {
		if site, ok := siteOf(a); ok {
			here[site], kinds[site.Addr().BitLen()] = true, true
		}
	}
	if len(kinds) == 0 && n.proxy == nil {
		return nil, nil, false
	}
	left = make(map[peer.ID]error)
	for _, node := range nodes {
		at := peer.AddrInfo{ID: node.ID}
		near := false
		for _, a := range node.Addrs {
			if site, ok := siteOf(a); ok && !isCircuit(a) && (n.proxy != nil || kinds[site.Addr().BitLen()]) {
				near = near || here[site]
				at.Addrs = append(at.Addrs, a)
			}
		}
		switch {
		case near:
			left[node.ID] = ErrRelayHere
		case len(at.Addrs) == 0:
			left[node.ID] = ErrNoAddress
		default:
			out = append(out, at)
		}
	}
	return out, left, true
}

// siteOf is the part of a public address that the machines of one home share: of IPv6
// more than the one network that a machine sees, as a home is given several.
func siteOf(a ma.Multiaddr) (netip.Prefix, bool) { return placeOf(a, 48) }

// placeOf is a public IPv4 address, or as many bits of one of IPv6.
func placeOf(a ma.Multiaddr, six int) (netip.Prefix, bool) {
	if a == nil || !manet.IsPublicAddr(a) {
		return netip.Prefix{}, false
	}
	ip, ok := ipOf(a)
	if !ok {
		return netip.Prefix{}, false
	}
	bits := six
	if ip.Is4() {
		bits = 32
	}
	place, err := ip.Prefix(bits)
	return place, err == nil
}
