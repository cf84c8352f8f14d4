package p2p

import (
	lpevent "github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// mapping is what a peer outside says of where this node's UDP comes from.
type mapping struct {
	local, port string // the port here, and the one that the peer sees
	from        string // the peer's address
}

// mappingOf gives the mapping that an identification tells, of a connection over QUIC
// with the internet.
func mappingOf(c network.Conn, observed ma.Multiaddr) (m mapping, ok bool) {
	if c == nil || observed == nil || isCircuit(c.RemoteMultiaddr()) || !manet.IsPublicAddr(c.RemoteMultiaddr()) || !manet.IsPublicAddr(observed) {
		return m, false
	}
	ip, err := manet.ToIP(c.RemoteMultiaddr())
	if err != nil || ip.To4() == nil {
		return m, false // IPv6 is not translated
	}
	m.from = ip.String()
	if m.local, err = c.LocalMultiaddr().ValueForProtocol(ma.P_UDP); err == nil {
		m.port, err = observed.ValueForProtocol(ma.P_UDP)
	}
	return m, err == nil
}

// maps takes in what a peer says, and reports whether that alters what is known of the
// router.
func (r *reach) maps(e lpevent.EvtPeerIdentificationCompleted) bool {
	m, ok := mappingOf(e.Conn, e.ObservedAddr)
	if !ok {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.dependent()
	if r.mappings == nil {
		r.mappings = map[peer.ID]mapping{}
	}
	r.mappings[e.Peer] = m
	return r.dependent() != before
}

// unmaps forgets what a peer said that is not connected any more.
func (r *reach) unmaps(p peer.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mappings, p)
}

// dependent reports whether the router gives each destination another port: two
// addresses at least tell of connections that are open, and no two of them see the same
// port. libp2p says so from nine observers on, which few nodes have. One of two can lie;
// nothing but a line for people rests on it. The caller holds mu.
func (r *reach) dependent() bool {
	type port struct{ local, seen string }
	at, by := map[port]string{}, map[string]map[string]bool{}
	for _, m := range r.mappings {
		p := port{m.local, m.port}
		if other, ok := at[p]; ok && other != m.from {
			return false
		}
		at[p] = m.from
		if by[m.local] == nil {
			by[m.local] = map[string]bool{}
		}
		by[m.local][m.from] = true
	}
	for _, from := range by {
		if len(from) > 1 {
			return true
		}
	}
	return false
}
