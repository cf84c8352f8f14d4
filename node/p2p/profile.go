package p2p

import (
	"slices"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
)

// Profile says what a node does for its own reachability, and for that of others.
// All of it is the main host's; the LAN host does none of it.
type Profile string

// The profiles.
const (
	// Home is a machine in a home network. It lets others test whether it can be
	// dialled (AutoNAT v1 and v2), opens ports in the router (UPnP, NAT-PMP), holds up
	// to three reservations on relays while it is not known to be public, and punches
	// holes (DCUtR). Found to be public, it tests and relays for others.
	Home Profile = "home"
	// Server is a rented machine with a public address: it is taken for public from
	// the start, and tests and relays for others. Empty Config.Listen means port 443.
	Server Profile = "server"
	// Client is a laptop or phone on battery: one relay at most, nothing for others,
	// and no tests of its own addresses, which change too often to be known to anybody.
	Client Profile = "client"
	// LANProfile talks to the local network only: LANOnly.
	LANProfile Profile = "lan"
)

func (p Profile) valid() bool { return slices.Contains([]Profile{Home, Server, Client, LANProfile}, p) }

// relays is how many reservations the profile holds.
func (p Profile) relays() int {
	switch p {
	case Home:
		return 3
	case Client:
		return 1
	}
	return 0
}

// serves reports whether the profile relays for others when it is public.
func (p Profile) serves() bool { return p == Home || p == Server }

// setProfile fills in what the profile decides.
func (c *Config) setProfile() {
	if c.Profile == "" {
		c.Profile = Home
	}
	if c.LANOnly {
		c.Profile = LANProfile
	}
	c.LANOnly = c.Profile == LANProfile
	if c.Veiled {
		c.Listen, c.Prefer, c.Announce, c.LAN, c.NoDHT = nil, nil, nil, false, true
		if c.Profile == Server {
			c.Profile = Home // which holds relays
		}
	}
	if c.ConnLow == 0 && c.ConnHigh == 0 {
		switch c.Profile {
		case Server:
			c.ConnLow, c.ConnHigh = 160, 192
		case Client:
			c.ConnLow, c.ConnHigh = 8, 12
		default:
			c.ConnLow, c.ConnHigh = 64, 96
		}
	}
}

// reachOptions are the options of the main host that make it reachable, none where
// only the LAN is spoken to. libp2p's own AutoRelay, relay service and hole punching
// are not among them; see keepRelays, relayService and puncher.
func (n *Net) reachOptions() []libp2p.Option {
	if n.cfg.LANOnly {
		return nil
	}
	if n.proxy != nil || n.cfg.Veiled {
		// What others could dial back to or punch a hole for, is the proxy, or is not to be known.
		return []libp2p.Option{circuitOption(), libp2p.DisableIdentifyAddressDiscovery(), libp2p.ForceReachabilityPrivate()}
	}
	opts := []libp2p.Option{circuitOption()}
	if len(n.cfg.Options) > 0 {
		// What others say of our address stops a simulation's clock.
		opts = append(opts, libp2p.DisableIdentifyAddressDiscovery())
	}
	switch n.cfg.Profile {
	case Server:
		return append(opts, libp2p.ForceReachabilityPublic(), libp2p.EnableNATService(), libp2p.EnableAutoNATv2(),
			libp2p.NonPublicAddrPublishing(false))
	case Client:
		return append(opts, libp2p.ForceReachabilityPrivate())
	}
	opts = append(opts, libp2p.EnableNATService(), libp2p.EnableAutoNATv2())
	if len(n.cfg.Options) == 0 && !slices.ContainsFunc(n.cfg.Listen, isLoopback) {
		opts = append(opts, libp2p.NATManager(func(nw network.Network) basichost.NATManager {
			m := basichost.NewNATManager(nw)
			n.reach.setRouter(m)
			return m
		}))
	}
	return opts
}
