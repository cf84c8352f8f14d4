package p2p

import (
	"net/netip"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// announced adds to addresses of this machine what they are outside: the same port and
// transport at each public address of its own that a provider gives it and translates
// one to one. Of addrs those count that are direct and in a private network.
func announced(addrs []ma.Multiaddr, public []netip.Addr) []ma.Multiaddr {
	if len(public) == 0 {
		return addrs
	}
	out := addrs[:len(addrs):len(addrs)]
	for _, a := range addrs {
		first, rest := ma.SplitFirst(a)
		ip, ok := ipOf(a)
		if first == nil || !ok || isCircuit(a) || !ip.IsPrivate() {
			continue
		}
		for _, p := range public {
			if p.Is4() != ip.Is4() {
				continue
			}
			if at, err := manet.FromIP(p.AsSlice()); err == nil {
				out = append(out, ma.Join(at, rest))
			}
		}
	}
	return ma.Unique(out)
}
