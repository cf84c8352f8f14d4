package node_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	relayv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/node/p2p"
)

// noReservations is the rule of a relay that relays for nobody.
type noReservations struct{}

func (noReservations) AllowReserve(peer.ID, ma.Multiaddr) bool          { return false }
func (noReservations) AllowConnect(peer.ID, ma.Multiaddr, peer.ID) bool { return false }

// refusingRelay is a relay that has no room.
func refusingRelay(t *testing.T, at *testnet.Host) host.Host {
	t.Helper()
	h, err := libp2p.New(append(at.Options(), libp2p.ListenAddrs(at.Addr), libp2p.DisableIdentifyAddressDiscovery(), libp2p.DisableMetrics(),
		libp2p.DisableRelay(), libp2p.UDPBlackHoleSuccessCounter(nil), libp2p.ResourceManager(&network.NullResourceManager{}))...)
	if err != nil {
		t.Fatal(err)
	}
	r, err := relayv2.New(h, relayv2.WithACL(noReservations{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(r.Close(), h.Close()); err != nil {
			t.Error(err)
		}
	})
	return h
}

// TestDoctorOfARoutedNode: what the doctor of a node behind a firewall says, by whom
// it knows outside.
func TestDoctorOfARoutedNode(t *testing.T) {
	for _, test := range []struct {
		name              string
		server, dead, not bool // it knows a server, one that is gone, a relay that refuses
		want              map[string]string
	}{
		{"nobody", false, false, false, map[string]string{
			"reach": "WARN nobody outside has tried to reach this node, as none is known who could", "bootstrap": "WARN no node is known", "relay": "WARN not looked at, as nobody outside is known",
			"clock": "WARN this computer's clock (2000-01-01 00:01 UTC) could not be compared, as nobody was asked", "dht": "WARN not looked at, as nobody",
		}},
		{"a server", true, false, false, map[string]string{
			"reach": "OK this node is reached from anywhere, over 1 relay", "bootstrap": "OK 1 of 1 known way into the network answer", "relay": "OK 1 relay held", "udp": "OK UDP gets through",
		}},
		{"a server that is gone", false, true, false, map[string]string{
			"reach": "WARN not looked at, as nobody outside answers", "bootstrap": "WARN one way is into the network known, and none of them answers",
			"relay": "WARN not looked at, as nobody outside answers", "dht": "WARN not looked at, as nobody outside answers",
		}},
		{"a relay that refuses", false, false, true, map[string]string{
			"reach": "WARN nobody outside", "relay": "WARN 1 of 1 relays that were asked refused, so none is held", "bootstrap": "WARN no node is known",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				net := testnet.New(t, 1, testnet.Options{})
				var servers, relays []peer.AddrInfo
				if test.server || test.dead {
					server, err := node.Open(ctx, node.Config{NoLAN: true, Network: func(cfg *p2p.Config) {
						cfg.Profile = p2p.Server
						net.Host(0).Configure(cfg)
					}})
					if err != nil {
						t.Fatal(err)
					}
					status, err := server.Status(ctx)
					if err != nil {
						t.Fatal(err)
					}
					id, err := peer.Decode(status.PeerID)
					if err != nil {
						t.Fatal(err)
					}
					if f := examined(ctx, t, server)["reach"]; f.Verdict != node.Warn || !strings.Contains(f.Found, "nobody outside has come in to this server") {
						t.Errorf("of the server itself: %+v", f)
					}
					if r := server.Reach(); r.Reach != node.ReachLAN || !strings.Contains(r.Text, "nobody outside has come in") {
						t.Errorf("reach of the server itself: %+v", r)
					}
					servers = []peer.AddrInfo{{ID: id, Addrs: []ma.Multiaddr{net.Host(0).Addr}}}
					if test.dead {
						closeAll(t, server)
					} else {
						relays = servers
						defer func() {
							if f := examined(ctx, t, server)["reach"]; f.Verdict != node.OK || !strings.Contains(f.Found, "others outside have come in") {
								t.Errorf("of the server once somebody came: %+v", f)
							}
							if r := server.Reach(); r.Reach != node.ReachInternet {
								t.Errorf("reach of the server once somebody came: %+v", r)
							}
							closeAll(t, server)
						}()
					}
				}
				if test.not {
					h := refusingRelay(t, net.Host(1))
					relays = []peer.AddrInfo{{ID: h.ID(), Addrs: []ma.Multiaddr{net.Host(1).Addr}}}
				}
				net.Host(2).Firewall(true)
				n, err := node.Open(ctx, node.Config{NoLAN: true, Network: func(cfg *p2p.Config) {
					net.Host(2).Configure(cfg)
					cfg.Bootstrap, cfg.Relays = servers, func() []peer.AddrInfo { return relays }
				}})
				if err != nil {
					t.Fatal(err)
				}
				defer closeAll(t, n)
				time.Sleep(time.Minute)
				peers, err := n.Peers(ctx)
				if err != nil || test.server && (len(peers) != 1 || peers[0].Kind != "server" || peers[0].Route != "direct") {
					t.Errorf("peers: %+v, %v", peers, err)
				}
				found := examined(ctx, t, n)
				for check, want := range test.want {
					if f := found[check]; !strings.HasPrefix(string(f.Verdict)+" "+f.Found, want) {
						t.Errorf("%s: %+v, want %s", check, f, want)
					}
				}
			})
		})
	}
}

// TestDoctorOfTwoFaultsAtOnce: of a real node, whose collectors find what they can.
func TestDoctorOfTwoFaultsAtOnce(t *testing.T) {
	damaged := damagedHome(t)
	for _, test := range []struct {
		name     string
		dir      string
		off      time.Duration
		refusing bool
		want     map[string]string
	}{
		{"no bootstrap, and a clock that is ahead", "", 26 * time.Hour, false, map[string]string{
			"bootstrap": "WARN no node is known", "clock": "WARN this computer's clock (2000-01-02 02:01 UTC) could not be compared, as nobody was asked",
		}},
		{"a relay that refuses, and a store that is damaged", damaged, 0, true, map[string]string{
			"relay": "WARN 1 of 1 relays that were asked refused", "store": "FAIL account.db in " + damaged + " is damaged",
		}},
		{"a store that is damaged, and a clock that is behind", damaged, 0, false, map[string]string{ // virtual time begins in 2000
			"store": "FAIL account.db in " + damaged + " is damaged", "clock": "FAIL this computer's clock (2000-01-01 00:01 UTC) is behind what this home wrote",
			"bootstrap": "WARN no node is known",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := testnet.New(t, 1, testnet.Options{})
				var relays []peer.AddrInfo
				if test.refusing {
					h := refusingRelay(t, net.Host(1))
					relays = []peer.AddrInfo{{ID: h.ID(), Addrs: []ma.Multiaddr{net.Host(1).Addr}}}
				}
				net.Host(2).Firewall(true)
				n, err := node.Open(t.Context(), node.Config{
					Dir: test.dir, NoLAN: true, Now: func() time.Time { return time.Now().Add(test.off) },
					Network: func(cfg *p2p.Config) {
						net.Host(2).Configure(cfg)
						cfg.Relays = func() []peer.AddrInfo { return relays }
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				found := examined(t.Context(), t, n)
				for check, want := range test.want {
					if f := found[check]; !strings.HasPrefix(string(f.Verdict)+" "+f.Found, want) {
						t.Errorf("%s: %+v, want %s", check, f, want)
					}
				}
				if err := n.Close(); err != nil {
					t.Log(err) // it may find the damage too
				}
			})
		})
	}
}

// TestDoctorSeesAWrongClock: who is asked for look-ups has another time. Two of them
// are not enough to call a clock wrong.
func TestDoctorSeesAWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		net := testnet.New(t, 1, testnet.Options{})
		server := onto(t, net, 0, "", "Server", "server")
		status, err := server.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		late := func() time.Time { return time.Now().Add(-26 * time.Hour) }
		n, err := node.Open(ctx, node.Config{
			NoLAN: true, Now: late, Bootstrap: []string{status.Listening[0] + "/p2p/" + status.PeerID}, Network: net.Host(1).Configure,
		})
		if err != nil {
			t.Fatal(err)
		}
		right := onto(t, net, 2, "", "Bob", "home", server)
		befriend(ctx, t, right, n)
		time.Sleep(time.Hour)
		if f := examined(ctx, t, n)["clock"]; f.Verdict == node.OK || !strings.Contains(f.Found, "26 hours behind") {
			t.Errorf("%+v", f)
		}
		if f := examined(ctx, t, right)["clock"]; f.Verdict == node.Fail { // two were asked, and one of them is wrong
			t.Errorf("%+v", f)
		}
		closeAll(t, right, n, server)
	})
}
