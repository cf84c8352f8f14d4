package p2p

import (
	"net/netip"
	"sync"

	"github.com/libp2p/go-libp2p-kbucket/peerdiversity"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// newDiversity watches the routing table of a host.
func newDiversity(h *p2pHost) *diversity {
	return &diversity{
		groups: make(map[peer.ID]netip.Prefix), cpls: make(map[peer.ID]int),
		addr: func(p peer.ID) ma.Multiaddr {
			if c := h.conn(p); c != nil {
				return c.RemoteMultiaddr()
			}
			return nil
		},
	}
}

// diversity keeps the routing table from being filled out of one subnet. It goes by
// the address of the connection, not by what a peer says, and by /24 and /48:
// kad-dht's own groups are far larger, and one for most of IPv6.
type diversity struct {
	addr func(peer.ID) ma.Multiaddr // of the connection, nil if there is none

	mu     sync.Mutex // guards groups and cpls, of those in the table
	groups map[peer.ID]netip.Prefix
	cpls   map[peer.ID]int
}

// PeerAddresses implements [peerdiversity.PeerIPGroupFilter]. One address is enough:
// a peer counts once.
func (f *diversity) PeerAddresses(p peer.ID) []ma.Multiaddr {
	if a := f.addr(p); a != nil {
		return []ma.Multiaddr{a}
	}
	return nil
}

// group is the subnet of a peer; loopback has none.
func (f *diversity) group(p peer.ID) (netip.Prefix, bool) {
	if a := f.addr(p); a != nil {
		return subnetOf(a)
	}
	return netip.Prefix{}, false
}

// Allow implements [peerdiversity.PeerIPGroupFilter].
func (f *diversity) Allow(g peerdiversity.PeerGroupInfo) bool {
	prefix, ok := f.group(g.Id)
	if !ok {
		return f.addr(g.Id) != nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	table, bucket := 0, 0
	for p, other := range f.groups {
		if other == prefix {
			table++
			if f.cpls[p] == g.Cpl {
				bucket++
			}
		}
	}
	return table < maxDHTGroup && bucket < maxDHTBucket
}

// Increment implements [peerdiversity.PeerIPGroupFilter].
func (f *diversity) Increment(g peerdiversity.PeerGroupInfo) {
	if prefix, ok := f.group(g.Id); ok {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.groups[g.Id], f.cpls[g.Id] = prefix, g.Cpl
	}
}

// Decrement implements [peerdiversity.PeerIPGroupFilter].
func (f *diversity) Decrement(g peerdiversity.PeerGroupInfo) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.groups, g.Id)
	delete(f.cpls, g.Id)
}
