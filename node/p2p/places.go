package p2p

import (
	"net/netip"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Places returns the public places at which this machine is: those known by its
// interfaces, by its owner or by what one of some nodes says: of IPv4 the address, of IPv6
// the network. It returns none where none is known, as while there is no main host.
func (n *Net) Places(by []peer.AddrInfo) (out []netip.Prefix) {
	h := n.host(mainHost)
	if h == nil {
		return nil
	}
	for _, a := range n.ownAddrs(h, by) {
		if place, ok := placeOf(a, 64); ok && !slices.Contains(out, place) {
			out = append(out, place)
		}
	}
	return out
}

// ownAddrs are the addresses of a host that are known by its interfaces, by its owner or
// by what one of some nodes says. Some may be nil.
func (n *Net) ownAddrs(h *p2pHost, by []peer.AddrInfo) []ma.Multiaddr {
	ifaces, _ := h.Network().InterfaceListenAddresses() // none, if the system does not tell; of a minute ago
	own := slices.Clone(announced(n.ifaces.fresh(ifaces, h.Network().ListenAddresses()), n.cfg.Announce))
	for _, node := range by { // a stranger could lie
		if c := h.conn(node.ID); c != nil && h.sights != nil && !isCircuit(c.RemoteMultiaddr()) {
			own = append(own, h.sights.by(c))
		}
	}
	return own
}
