package p2p

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"go.uber.org/fx"
)

// maxPunch is how many addresses DCUtR takes from one peer, and tells it: two
// transports over two kinds of IP, with a guess to spare each.
const maxPunch = 8

// punchAgain is the age of a connection over a relay at which another hole is tried.
// libp2p tries once, when it is opened, and gives up where the other side has just
// started and does not know its own address yet.
var punchAgain = []time.Duration{2 * time.Second, 8 * time.Second, 30 * time.Second, 90 * time.Second}

// puncher makes connections over a relay into ones without (DCUtR). libp2p's own
// service of the host cannot be asked to try again, so it is made here.
type puncher struct {
	*holepunch.Service
	seen basichost.ObservedAddrsManager // nil in a simulation
}

// observer is the option that gets hold of what others say of our addresses.
func (p *puncher) observer() libp2p.Option {
	return libp2p.WithFxOption(fx.Invoke(func(o basichost.ObservedAddrsManager) { p.seen = o }))
}

// start begins to punch for h.
func (p *puncher) start(h *p2pHost) error {
	ids, ok := h.Host.(interface{ IDService() identify.IDService })
	if !ok {
		return fmt.Errorf("bug: host %T has no identify service", h.Host)
	}
	var err error
	if p.Service, err = holepunch.NewService(h, ids.IDService(), func() []ma.Multiaddr { return p.addrs(h) }, holepunch.WithAddrFilter(punchFilter{})); err != nil {
		return fmt.Errorf("hole punching: %w", err)
	}
	return nil
}

// addrs are the public addresses that a hole could be punched for, those that one
// observer named included.
func (p *puncher) addrs(h *p2pHost) []ma.Multiaddr {
	all := h.allAddrs()
	if p.seen != nil {
		all = append(slices.Clone(all), p.seen.Addrs(1)...)
	}
	return punchable(ma.Unique(all))
}

// keepPunching tries again for those that came over a relay, until ctx ends.
func (n *Net) keepPunching(ctx context.Context, h *p2pHost) {
	if h.punch == nil {
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer h.punch.Close() // ends attempts
	timer := time.NewTimer(0)
	defer timer.Stop()
	tried := make(map[network.Conn]int)
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.circuits:
		case <-timer.C:
		}
		now, waiting := time.Now(), false
		for c := range tried {
			if c.IsClosed() {
				delete(tried, c)
			}
		}
		for _, c := range h.Network().Conns() {
			p, i := c.RemotePeer(), tried[c]
			// It is for the side that was called to begin.
			if !isCircuit(c.RemoteMultiaddr()) || c.Stat().Direction != network.DirInbound || i == len(punchAgain) || isDirect(h.conn(p)) {
				continue
			}
			waiting = true
			// Without the handler there is no address yet, and DirectConnect would wait for it.
			if now.Sub(c.Stat().Opened) < punchAgain[i] || !slices.Contains(h.Mux().Protocols(), holepunch.Protocol) {
				continue
			}
			tried[c]++
			wg.Go(func() {
				if err := h.punch.DirectConnect(p); err != nil && !errors.Is(err, holepunch.ErrHolePunchActive) {
					n.log.Debug("no hole punched", "peer", short(p), "err", err)
				}
			})
		}
		timer.Stop()
		if waiting {
			timer.Reset(punchAgain[0])
		}
	}
}

func isDirect(c network.Conn) bool { return c != nil && !isCircuit(c.RemoteMultiaddr()) }

// punchFilter bounds what a peer behind a relay can make us dial.
type punchFilter struct{}

// FilterLocal implements holepunch.AddrFilter.
func (punchFilter) FilterLocal(_ peer.ID, addrs []ma.Multiaddr) []ma.Multiaddr {
	return punchable(addrs)
}

// FilterRemote implements holepunch.AddrFilter.
func (punchFilter) FilterRemote(_ peer.ID, addrs []ma.Multiaddr) []ma.Multiaddr {
	return punchable(addrs)
}

func punchable(addrs []ma.Multiaddr) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, a := range addrs {
		if a, ok := usable(a); ok && !isCircuit(a) && manet.IsPublicAddr(a) && len(out) < maxPunch {
			out = append(out, a)
		}
	}
	return out
}
