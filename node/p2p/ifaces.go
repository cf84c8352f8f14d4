package p2p

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// ifacePoll is how often the addresses of this computer are looked at: a system
	// call of some 50 µs. libp2p keeps them for a minute.
	ifacePoll = time.Second
	// ifaceStale is for how long libp2p may go on naming an address that is gone.
	ifaceStale = 2 * time.Minute
)

// ifaces are the addresses of this computer's interfaces, of which libp2p hears up to a
// minute late. The zero value is ready; in a simulation it stays as it is.
type ifaces struct {
	mu   sync.Mutex // guards all below
	now  []netip.Addr
	gone map[netip.Addr]time.Time // since when
}

// look asks the system, and returns what there is now.
func (i *ifaces) look(now time.Time) []netip.Addr {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return i.ips()
	}
	var ips []netip.Addr
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && !(ip.Unmap().Is6() && ip.IsLinkLocalUnicast()) {
				ips = append(ips, ip.Unmap())
			}
		}
	}
	slices.SortFunc(ips, netip.Addr.Compare)
	ips = slices.Compact(ips)
	i.set(now, ips)
	return ips
}

// set notes what there is now.
func (i *ifaces) set(now time.Time, ips []netip.Addr) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for ip, since := range i.gone {
		if now.Sub(since) > ifaceStale {
			delete(i.gone, ip)
		}
	}
	for _, ip := range i.now {
		if !slices.Contains(ips, ip) {
			if i.gone == nil {
				i.gone = make(map[netip.Addr]time.Time)
			}
			i.gone[ip] = now
		}
	}
	for _, ip := range ips {
		delete(i.gone, ip)
	}
	i.now = ips
}

func (i *ifaces) ips() []netip.Addr {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.now
}

// fresh makes what libp2p says of a host's own addresses true: without what is gone,
// and with what has come at the addresses that it listens on.
func (i *ifaces) fresh(told, listen []ma.Multiaddr) []ma.Multiaddr {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.now) == 0 {
		return told
	}
	out := slices.DeleteFunc(slices.Clone(told), func(a ma.Multiaddr) bool {
		ip, ok := ipOf(a)
		_, gone := i.gone[ip]
		return ok && gone && !isCircuit(a)
	})
	var mine []ma.Multiaddr
	for _, ip := range i.now {
		if a, err := manet.FromIP(ip.AsSlice()); err == nil {
			mine = append(mine, a)
		}
	}
	for _, l := range listen {
		if isCircuit(l) {
			continue
		}
		resolved, err := manet.ResolveUnspecifiedAddress(l, mine)
		if err != nil {
			continue // no interface of its kind of IP
		}
		out = append(out, resolved...)
	}
	return ma.Unique(out)
}
