package p2p

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// Peer is somebody who is connected.
type Peer struct {
	ID peer.ID
	Path
	Since time.Time
	// Serves says that it offers to relay or to answer look-ups, by its own word.
	Serves bool
}

// Peers lists who is connected, each once with the connection that is used, the
// longest connected first.
func (n *Net) Peers() []Peer {
	var out []Peer
	for which := range n.hosts {
		h := n.host(which)
		if h == nil {
			continue
		}
		for _, p := range h.Network().Peers() {
			c := n.conn(p)
			if c == nil || slices.ContainsFunc(out, func(known Peer) bool { return known.ID == p }) {
				continue
			}
			offered, err := h.Peerstore().GetProtocols(p)
			out = append(out, Peer{ID: p, Path: pathOf(c), Since: c.Stat().Opened, Serves: err == nil && serves(offered)})
		}
	}
	slices.SortFunc(out, func(a, b Peer) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID)) })
	return out
}

// serves reports whether protocols are those of a node that serves others.
func serves(offered []protocol.ID) bool {
	return slices.ContainsFunc(offered, func(id protocol.ID) bool {
		return strings.HasSuffix(string(id), "/kad/1.0.0") || id == "/libp2p/circuit/relay/0.2.0/hop"
	})
}
