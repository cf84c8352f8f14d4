package p2p

import (
	"cmp"
	"net"
	"net/netip"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Reach is where an invite is meant to be used.
type Reach string

// The two places an address can be for.
const (
	OnLAN    Reach = "lan"
	Internet Reach = "internet"
)

// transportOf returns the address without a trailing /p2p part if it is
// something we can dial, and the name of its transport: IP, then UDP and QUIC v1,
// or TCP, or TCP and WebSocket over TLS; or one of these, the id of a relay and
// /p2p-circuit: then the transport is that to the relay.
//
// There is no plain WebSocket, which no firewall lets through that stops TCP, and no
// name instead of an IP: asking for one tells a resolver whom we look for.
func transportOf(a ma.Multiaddr) (ma.Multiaddr, string) {
	if _, id := peer.SplitAddr(a); id != "" {
		a, _ = peer.SplitAddr(a)
	}
	if inner, relay, ok := splitCircuit(a); ok {
		if _, id := peer.SplitAddr(inner); id != "" || !isEd25519(relay) {
			return nil, ""
		}
		_, transport := direct(inner)
		return a, transport
	}
	return direct(a)
}

// direct is transportOf for an address without a relay and without a /p2p part.
func direct(a ma.Multiaddr) (ma.Multiaddr, string) {
	if len(a) < 2 || (a[0].Code() != ma.P_IP4 && a[0].Code() != ma.P_IP6) {
		return nil, ""
	}
	switch {
	case len(a) == 2 && a[1].Code() == ma.P_TCP:
		return a, "tcp"
	case len(a) == 3 && a[1].Code() == ma.P_UDP && a[2].Code() == ma.P_QUIC_V1:
		return a, "quic"
	case len(a) == 4 && a[1].Code() == ma.P_TCP && a[2].Code() == ma.P_TLS && a[3].Code() == ma.P_WS:
		return a, "wss"
	case len(a) == 3 && a[1].Code() == ma.P_TCP && a[2].Code() == ma.P_WSS: // what libp2p calls it on a connection
		return ma.Join(a[:2], tlsWS), "wss"
	}
	return nil, ""
}

var (
	circuit = ma.StringCast("/p2p-circuit")
	tlsWS   = ma.StringCast("/tls/ws")
)

// splitCircuit takes .../p2p/RELAY/p2p-circuit apart, with or without the id of the
// other side behind it.
func splitCircuit(a ma.Multiaddr) (inner ma.Multiaddr, relay peer.ID, ok bool) {
	for i, c := range a {
		if c.Code() == ma.P_CIRCUIT {
			inner, relay = peer.SplitAddr(a[:i])
			return inner, relay, len(a)-i == 1 || len(a)-i == 2 && a[i+1].Code() == ma.P_P2P
		}
	}
	return nil, "", false
}

// RelaysOf returns the relays that addresses lead over, those with a public address.
func RelaysOf(addrs []ma.Multiaddr) []peer.AddrInfo {
	var out []peer.AddrInfo
	for _, a := range addrs {
		if a, ok := usable(a); ok && isCircuit(a) && manet.IsPublicAddr(a) {
			inner, relay, _ := splitCircuit(a)
			out = append(out, peer.AddrInfo{ID: relay, Addrs: []ma.Multiaddr{inner}})
		}
	}
	return out
}

// RelayOf returns the relay that an address leads over.
func RelayOf(a ma.Multiaddr) (peer.ID, bool) {
	_, relay, ok := splitCircuit(a)
	return relay, ok
}

// isCircuit reports whether a leads over a relay, in whatever form.
func isCircuit(a ma.Multiaddr) bool {
	for _, c := range a {
		if c.Code() == ma.P_CIRCUIT {
			return true
		}
	}
	return false
}

// Listenable reports whether a host can listen on an address of this form: IP, then
// UDP and QUIC v1, or TCP, and nothing behind.
func Listenable(a ma.Multiaddr) bool {
	_, transport := direct(a)
	return transport == "quic" || transport == "tcp"
}

// Dialable reports whether a node with this transport id can be dialled at a full
// address of this form.
func Dialable(id peer.ID, a ma.Multiaddr) bool {
	_, ok := usable(a)
	return ok && isEd25519(id)
}

// ipOf returns the IP of an address, IPv4 in its short form.
func ipOf(a ma.Multiaddr) (netip.Addr, bool) {
	ip, err := manet.ToIP(a)
	if err != nil {
		return netip.Addr{}, false
	}
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}

// isLocal reports whether a is an IP address that the Internet does not route:
// private, unique local, link-local, shared (100.64/10), documentation, loopback. Of
// an address over a relay it speaks of the relay.
func isLocal(a ma.Multiaddr) bool {
	ip, ok := ipOf(a)
	return ok && !ip.IsUnspecified() && !ip.IsMulticast() && !manet.IsPublicAddr(a)
}

func isLoopback(a ma.Multiaddr) bool {
	ip, ok := ipOf(a)
	return ok && ip.IsLoopback()
}

// usable is the part of Clean that depends on the address alone.
func usable(a ma.Multiaddr) (ma.Multiaddr, bool) {
	a, transport := transportOf(a)
	if transport == "" {
		return nil, false
	}
	ip, ok := ipOf(a)
	if !ok || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() && ip.Is6() {
		return nil, false // libp2p cannot dial IPv6 link-local
	}
	return a, true
}

// Clean returns the addresses among addrs, told by somebody else, that may be
// dialled and stored: IP with QUIC v1, TCP or wss, or one of these over a relay,
// without a /p2p part at the end, each once, at most MaxAddrs. Loopback is dropped, being this machine and not theirs, unless
// this node has only loopback itself: then the other one is on this machine too.
func (n *Net) Clean(addrs []ma.Multiaddr) []ma.Multiaddr {
	keep := n.loopbackOnly()
	relayed := 0
	out := make([]ma.Multiaddr, 0, min(len(addrs), MaxAddrs))
	for _, a := range addrs {
		a, ok := usable(a)
		if !ok || (isLoopback(a) && !keep) || ma.Contains(out, a) {
			continue
		}
		if isCircuit(a) {
			if relayed++; relayed > maxCircuits {
				continue
			}
		}
		if out = append(out, a); len(out) == MaxAddrs {
			break
		}
	}
	return out
}

// advertisable drops loopback unless nothing else is left, and public addresses
// if the host is local.
func advertisable(addrs []ma.Multiaddr, local bool) []ma.Multiaddr {
	var out, loop []ma.Multiaddr
	for _, a := range addrs {
		a, ok := usable(a)
		switch {
		case !ok || isCircuit(a) || local && !isLocal(a):
		case isLoopback(a):
			loop = append(loop, a)
		default:
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		out = loop
	}
	return out
}

// identifyAddrs is what the main host tells everybody who connects: its public
// addresses only. Those of the LAN go to whom the node gives them, sealed.
func identifyAddrs(local bool, public []netip.Addr) func([]ma.Multiaddr) []ma.Multiaddr {
	return func(addrs []ma.Multiaddr) []ma.Multiaddr {
		if local {
			return advertisable(addrs, local)
		}
		out := advertisable(announced(addrs, public), local)
		return slices.DeleteFunc(out, func(a ma.Multiaddr) bool { return !manet.IsPublicAddr(a) })
	}
}

// Addrs returns the addresses at which the main host may be reached, best first:
// over the relays held, then the public ones but those that a dial back found to
// lead nowhere, then those of the LAN; loopback only if there is nothing else; at
// most MaxAddrs, without a /p2p part at the end. They are meant for contacts: they
// show the addresses of the home network.
func (n *Net) Addrs() []ma.Multiaddr {
	h := n.host(mainHost)
	if h == nil {
		return nil
	}
	out := append(n.relays.addrs(), n.directAddrs(h)...)
	return out[:min(len(out), MaxAddrs)]
}

// interfaceAddrs are the main host's own, whatever others found out about them.
func (n *Net) interfaceAddrs() []ma.Multiaddr {
	h := n.host(mainHost)
	if h == nil {
		return nil
	}
	addrs, err := h.Network().InterfaceListenAddresses()
	if err != nil {
		return nil
	}
	slices.SortFunc(addrs, ma.Multiaddr.Compare)
	return addrs
}

// hostAddrs are the direct addresses of a host, those that identify leaves out included.
func (n *Net) hostAddrs(h *p2pHost) []ma.Multiaddr {
	addrs := n.ifaces.fresh(h.allAddrs(), h.Network().ListenAddresses())
	if h.local {
		return addrs
	}
	return announced(addrs, n.cfg.Announce)
}

// directAddrs is Addrs without those over relays.
func (n *Net) directAddrs(h *p2pHost) []ma.Multiaddr {
	if n.cfg.Veiled {
		return nil
	}
	out := n.reach.withoutUnreachable(advertisable(n.hostAddrs(h), n.cfg.LANOnly))
	sortAddrs(out, n.outIP())
	slices.SortStableFunc(out, func(a, b ma.Multiaddr) int { return cmp.Compare(b2i(isLocal(a)), b2i(isLocal(b))) })
	return out
}

// BestAddr returns the one address to print into an invite, and false if there is
// none for that reach. OnLAN: QUIC at the address of the interface that has the
// default route, if it has one that is not public; loopback if there is nothing
// else. Internet: one that Reachability knows to work, without a relay if there is
// one.
func (n *Net) BestAddr(reach Reach) (ma.Multiaddr, bool) {
	if reach == Internet {
		r := n.Reachability()
		for _, l := range append([]Relay{{Addrs: r.Direct}}, r.Relays...) {
			if len(l.Addrs) > 0 {
				return l.Addrs[0], true
			}
		}
		return nil, false
	}
	h := n.host(mainHost)
	if h == nil {
		return nil, false
	}
	for _, a := range n.directAddrs(h) {
		if isLocal(a) {
			return a, true
		}
	}
	return nil, false
}

// ListenAddrs returns the addresses that the main host listens on, for
// Config.Prefer of the next run. WebSocket is not among them: it shares a port.
func (n *Net) ListenAddrs() []ma.Multiaddr {
	if h := n.host(mainHost); h != nil {
		return slices.DeleteFunc(h.Network().ListenAddresses(), func(a ma.Multiaddr) bool { return !Listenable(a) })
	}
	return nil
}

// loopbackOnly reports whether all of the main host's addresses are loopback.
func (n *Net) loopbackOnly() bool {
	h := n.host(mainHost)
	if h == nil {
		return false
	}
	addrs := n.directAddrs(h)
	return len(addrs) > 0 && isLoopback(addrs[0])
}

// sortAddrs puts the addresses with the source IP of the default route first,
// then QUIC before TCP, IPv4 before IPv6, and home networks before those that
// containers and virtual machines use.
func sortAddrs(addrs []ma.Multiaddr, out []netip.Addr) {
	rank := func(a ma.Multiaddr) int {
		ip, _ := ipOf(a)
		_, transport := transportOf(a)
		r := 0
		if !slices.Contains(out, ip) {
			r += 8
		}
		switch transport {
		case "quic":
		case "tcp":
			r += 4
		default:
			r += 16 // wss last: for who cannot get through otherwise
		}
		if !ip.Is4() {
			r += 2
		}
		if ip.Is4() && ip.As4()[0] == 172 {
			r++
		}
		return r
	}
	slices.SortStableFunc(addrs, func(a, b ma.Multiaddr) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.Compare(b))
	})
}

// defaultRouteIPs returns the source addresses of the default routes. Connecting
// a UDP socket sends nothing.
func defaultRouteIPs() []netip.Addr {
	var out []netip.Addr
	for _, to := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		c, err := net.Dial("udp", to)
		if err != nil {
			continue
		}
		if ap, err := netip.ParseAddrPort(c.LocalAddr().String()); err == nil {
			out = append(out, ap.Addr().Unmap())
		}
		c.Close()
	}
	return out
}

// Routes reports whether this computer has a way to the internet over IPv4 and over
// IPv6, by its own routes. Nothing is sent.
func Routes() (v4, v6 bool) {
	for _, ip := range defaultRouteIPs() {
		v4, v6 = v4 || ip.Is4(), v6 || ip.Is6()
	}
	return v4, v6
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// lanAddrs returns what the LAN host announces: no loopback, nothing public.
func (n *Net) lanAddrs(h *p2pHost) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, a := range n.hostAddrs(h) {
		if a, ok := usable(a); ok && isLocal(a) && !isLoopback(a) {
			out = append(out, a)
		}
	}
	sortAddrs(out, nil)
	return out[:min(len(out), MaxAddrs)]
}

func sameAddrs(a, b []ma.Multiaddr) bool {
	return slices.EqualFunc(a, b, func(x, y ma.Multiaddr) bool { return x.Equal(y) })
}
