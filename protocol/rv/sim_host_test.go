package rv

import (
	"crypto/rand"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/marcopolo/simnet"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"
)

// roundTrip is the delay of the simulated network, both ways together.
const roundTrip = 100 * time.Millisecond

// simHosts starts n real libp2p hosts on a simulated network of 20 Mbit/s, QUIC
// only. They are wired as x/simlibp2p does it.
func simHosts(t *testing.T, n int) []host.Host {
	t.Helper()
	router := &simnet.Simnet{LatencyFunc: simnet.StaticLatency(roundTrip / 2)}
	link := simnet.LinkSettings{BitsPerSecond: 20_000_000}
	hosts := make([]host.Host, n)
	for i := range hosts {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		hosts[i], err = libp2p.New(
			libp2p.Identity(key),
			libp2p.ListenAddrStrings("/ip4/"+simnet.IntToPublicIPv4(i).String()+"/udp/8000/quic-v1"),
			libp2p.DisableIdentifyAddressDiscovery(),
			libp2p.ResourceManager(&network.NullResourceManager{}),
			simQUIC(router, simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}),
		)
		if err != nil {
			t.Fatal(err)
		}
	}
	router.Start()
	t.Cleanup(func() {
		for _, h := range hosts {
			_ = h.Close()
		}
		router.Close()
	})
	return hosts
}

// simQUIC puts libp2p's QUIC on a socket of the simulated network.
func simQUIC(router *simnet.Simnet, link simnet.NodeBiDiLinkSettings) libp2p.Option {
	source := &simSource{}
	return libp2p.QUICReuse(func(l fx.Lifecycle, reset quic.StatelessResetKey, token quic.TokenGeneratorKey) (*quicreuse.ConnManager, error) {
		cm, err := quicreuse.NewConnManager(reset, token,
			quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return source, nil }),
			quicreuse.OverrideListenUDP(func(_ string, addr *net.UDPAddr) (net.PacketConn, error) {
				source.ip.Store(&addr.IP)
				return router.NewEndpoint(addr, link), nil
			}))
		if err != nil {
			return nil, err
		}
		l.Append(fx.StopHook(cm.Close))
		return cm, nil
	})
}

// simSource dials from the address that is listened on.
type simSource struct{ ip atomic.Pointer[net.IP] }

func (s *simSource) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) {
	return *s.ip.Load(), nil
}

func connect(t *testing.T, from, to host.Host) {
	t.Helper()
	if err := from.Connect(t.Context(), peer.AddrInfo{ID: to.ID(), Addrs: to.Addrs()}); err != nil {
		t.Fatal(err)
	}
}
