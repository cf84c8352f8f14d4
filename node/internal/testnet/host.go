package testnet

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/transport"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"

	"github.com/kinloom/kinloom/node/p2p"
)

// port is where every simulated host listens.
const port = 4001

// maxHosts is how many hosts a Net can have: the numbering of addresses.
const maxHosts = 10_000

// Host is a machine on the simulated network. It keeps its addresses over
// restarts of what runs on it.
type Host struct {
	net *Net
	n   int
	// Addr is the public address of the host, and LANAddr the one on the LAN.
	Addr, LANAddr ma.Multiaddr
	ports         int        // ephemeral ones used, guarded by net.mu
	recording     *Recording // guarded by net.mu
}

// Host returns machine i, from 0. It is the same one at each call.
func (n *Net) Host(i int) *Host {
	if i < 0 || i >= maxHosts {
		panic(fmt.Sprintf("bug: no host %d", i))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.hosts[i]; h != nil {
		return h
	}
	h := &Host{
		net: n, n: i,
		Addr:    ma.StringCast(fmt.Sprintf("/ip4/8.%d.%d.1/udp/%d/quic-v1", i/250, i%250, port)),
		LANAddr: ma.StringCast(fmt.Sprintf("/ip4/10.0.%d.%d/udp/%d/quic-v1", i/250, i%250+1, port)),
	}
	n.hosts[i] = h
	return h
}

// HostAt returns machine i with a public address of your choice instead of its
// own: for machines that share a subnet. It must be called before Host(i).
func (n *Net) HostAt(i int, addr ma.Multiaddr) *Host {
	h := n.Host(i)
	n.mu.Lock()
	defer n.mu.Unlock()
	h.Addr = addr
	return h
}

// Options returns libp2p options for one start of the main host: QUIC over the
// simulated network. They serve once; a restart takes new ones.
func (h *Host) Options() []libp2p.Option { return h.quic() }

// Firewall lets nothing in from outside that does not answer a packet which this
// machine's socket sent to that very address in the last natTime: a router in front
// of it that keeps ports.
func (h *Host) Firewall(on bool) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if on {
		h.net.walls[h.n] = make(map[flow]time.Time)
	} else {
		delete(h.net.walls, h.n)
	}
}

// Throwaway returns libp2p options for a host on this machine that only dials: QUIC
// from a port of its own at the host's address.
func (h *Host) Throwaway() []libp2p.Option {
	return h.quic()
}

// Configure fills in what a Net needs to run on this machine: addresses,
// transports and, if the LAN host is on, the neighbourhood. It serves one start.
func (h *Host) Configure(cfg *p2p.Config) {
	cfg.Listen = []ma.Multiaddr{h.Addr}
	cfg.Options = h.quic()
	cfg.Throwaway = h.Throwaway
	if cfg.LANOnly {
		cfg.Listen = []ma.Multiaddr{ma.StringCast(fmt.Sprintf("/ip4/10.1.%d.%d/udp/%d/quic-v1", h.n/250, h.n%250+1, port))}
	}
	if cfg.LAN {
		cfg.LANListen = []ma.Multiaddr{h.LANAddr}
		cfg.LANOptions = h.quic()
		cfg.MDNS = false
		cfg.Discovery = (*discovery)(h)
	}
}

// quic returns the options that put libp2p's QUIC on this machine's sockets. The
// dialers of AutoNAT inside a host take over its transports and not its sockets: they
// get sockets of their own.
func (h *Host) quic() []libp2p.Option {
	var own *quicreuse.ConnManager
	return []libp2p.Option{
		// As an option of its own it is closed after the connections.
		libp2p.QUICReuse(func(lc fx.Lifecycle, srk quic.StatelessResetKey, token quic.TokenGeneratorKey, rm network.ResourceManager) (*quicreuse.ConnManager, error) {
			cm, err := h.sockets(lc, srk, token, rm)
			own = cm
			return cm, err
		}),
		libp2p.Transport(func(lc fx.Lifecycle, key crypto.PrivKey, psk pnet.PSK, gater connmgr.ConnectionGater, cm *quicreuse.ConnManager, srk quic.StatelessResetKey, token quic.TokenGeneratorKey, rm network.ResourceManager) (transport.Transport, error) {
			if cm != own {
				var err error
				if cm, err = h.sockets(lc, srk, token, rm); err != nil {
					return nil, err
				}
			}
			t, err := libp2pquic.NewTransport(key, cm, psk, gater, rm)
			if err != nil {
				return nil, err
			}
			return h.record(t), nil
		}),
	}
}

// sockets returns what opens this machine's sockets for one host. It asks the
// resource manager before the handshake, as libp2p's own does.
func (h *Host) sockets(lc fx.Lifecycle, srk quic.StatelessResetKey, token quic.TokenGeneratorKey, rm network.ResourceManager) (*quicreuse.ConnManager, error) {
	ip := new(sourceIP)
	cm, err := quicreuse.NewConnManager(srk, token,
		quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return ip, nil }),
		quicreuse.OverrideListenUDP(func(_ string, addr *net.UDPAddr) (net.PacketConn, error) {
			switch {
			case !addr.IP.IsUnspecified():
				ip.addr.Store(&addr.IP)
			case addr.Port == 0:
				addr = h.ephemeral()
			default:
				return nil, fmt.Errorf("host %d has no interface for %s", h.n, addr)
			}
			return h.net.listen(h.n, addr)
		}),
		quicreuse.VerifySourceAddress(rm.VerifySourceAddress),
		quicreuse.ConnContext(func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
			addr, err := quicreuse.ToQuicMultiaddr(info.RemoteAddr, quic.Version1)
			if err != nil {
				return ctx, fmt.Errorf("remote address: %w", err)
			}
			scope, err := rm.OpenConnection(network.DirInbound, false, addr)
			if err != nil {
				return ctx, err
			}
			context.AfterFunc(ctx, scope.Done)
			return network.WithConnManagementScope(ctx, scope), nil
		}),
	)
	if err != nil {
		return nil, err
	}
	lc.Append(fx.StopHook(cm.Close))
	return cm, nil
}

// ephemeral returns an address of this machine that nobody has used: for a dialer
// that listens nowhere.
func (h *Host) ephemeral() *net.UDPAddr {
	ip, err := manet.ToIP(h.Addr)
	if err != nil {
		panic("bug: host without an IP address: " + err.Error())
	}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.ports++
	return &net.UDPAddr{IP: ip, Port: port + h.ports}
}

// sourceIP tells QUIC which of its sockets to dial from: the one it listens on.
type sourceIP struct{ addr atomic.Pointer[net.IP] }

func (s *sourceIP) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) {
	ip := s.addr.Load()
	if ip == nil {
		return nil, fmt.Errorf("host listens nowhere")
	}
	return *ip, nil
}

// announceEvery is how often a simulated neighbour announces itself.
const announceEvery = 10 * time.Second

// discovery stands in for mDNS: who runs it hears of all others that do, except
// across a cut.
type discovery Host

type neighbour struct {
	run   int
	info  peer.AddrInfo
	found func(peer.AddrInfo)
}

// Run implements p2p.Discovery.
func (d *discovery) Run(ctx context.Context, self peer.AddrInfo, found func(peer.AddrInfo)) error {
	n := d.net
	n.mu.Lock()
	n.lastLAN++
	me := &neighbour{run: n.lastLAN, info: self, found: found}
	n.lan[d.n] = me
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.lan[d.n] == me {
			delete(n.lan, d.n)
		}
	}()
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	for {
		for _, other := range n.neighbours(d.n) {
			other.found(self)
			found(other.info)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// neighbours returns who is on the LAN and hears host i, in the order they came.
func (n *Net) neighbours(i int) []*neighbour {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []*neighbour
	for j, other := range n.lan {
		if j != i && !n.cuts[pair{i, j}] && !n.cuts[pair{j, i}] {
			out = append(out, other)
		}
	}
	slices.SortFunc(out, func(a, b *neighbour) int { return a.run - b.run })
	return out
}
