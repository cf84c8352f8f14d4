package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/protocol/event"
)

// Config is all that a node is told from outside. The zero value is a node in
// memory with a random identity, listening on every interface.
type Config struct {
	// Dir is the node's home folder, created with mode 0700 when absent. Empty:
	// everything lies in memory and is gone after Close.
	Dir string
	// Name is the profile name given at the first start, at most 64 characters.
	// Empty: none, contacts see the identity until they give a petname.
	Name string
	// Listen replaces the addresses of the main host. Empty: QUIC and TCP on
	// all interfaces, on a port that is kept from start to start.
	Listen []string
	// LANOnly keeps the node on the local network: public addresses are refused
	// in both directions before any handshake.
	LANOnly bool
	// Profile says what the node does so that it is reached, and for others: "home"
	// (the default), "server" for a rented machine, "client" for a device on battery,
	// "lan" for LANOnly.
	Profile string
	// Bootstrap are full addresses of nodes by which this one gets into the network,
	// beside those that AddBootstrap has named.
	Bootstrap []string
	// NoDHT keeps the node out of the table by which contacts who have moved find each
	// other: it neither publishes nor looks up.
	NoDHT bool
	// Announce are public addresses that a provider translates to this machine's
	// private ones, with the same ports; others are told of them.
	Announce []string
	// Proxy is the HTTP proxy that every connection leaves by, as http://HOST:PORT.
	// Nothing but TCP leaves then. Empty: none.
	Proxy string
	// ProxyLogin is "user:password" for the proxy; it is never logged.
	ProxyLogin string
	// LookupTXT asks the names of AddSource. Nil: as the system does.
	LookupTXT func(ctx context.Context, name string) ([]string, error)
	// NoLAN starts no LAN host and announces nothing on the local network.
	NoLAN bool
	// Passphrase seals the key file of a new home and opens that of an old one.
	Passphrase []byte
	// Keychain keeps the secret that seals the key file when there is no
	// passphrase. Nil: a new home without passphrase has an open key file of
	// mode 0600, and Status says so.
	Keychain Keychain
	// Log receives what happened, without contents or addresses. Nil: nowhere.
	Log *slog.Logger
	// Now is the clock for times that are stored and shown, without a monotonic
	// reading: the loop sees by it that the machine slept. Nil: the system's.
	Now func() time.Time
	// Random is the source of keys and nonces. Nil: crypto/rand.
	Random io.Reader
	// Version is what Status reports as the program's version.
	Version string
	// Network changes the hosts' configuration before they start: a simulation
	// puts its own addresses, transports and neighbours there. Nil: as it is.
	Network func(*p2p.Config)
}

// Keychain keeps one secret per home outside of it. The secret is 32 bytes.
type Keychain interface {
	Get(id string) ([]byte, error)
	Set(id string, secret []byte) error
}

// maxName is the longest profile name or petname, in characters.
const maxName = 64

// wallClock is the system's clock as it is set. The monotonic reading that time.Now
// gives beside it stands still while the machine sleeps, and differences are taken of it
// wherever both times have one.
func wallClock() time.Time { return time.Now().Round(0) }

// check validates c and fills in the defaults.
func (c *Config) check() error {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = wallClock
	}
	if c.LookupTXT == nil {
		c.LookupTXT = net.DefaultResolver.LookupTXT
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if _, err := parseAddrs(c.Listen); err != nil {
		return err
	}
	if c.Name != "" {
		if err := checkName(c.Name); err != nil {
			return err
		}
	}
	if _, err := parseBootstraps(c.Bootstrap); err != nil {
		return err
	}
	if _, err := c.proxy(); err != nil {
		return err
	}
	if _, err := c.announce(); err != nil {
		return err
	}
	switch p2p.Profile(c.Profile) {
	case p2p.Server, p2p.Client:
		if c.LANOnly {
			return usage("Leave one of the two out.", "a %s speaks to more than the local network", c.Profile)
		}
	case "", p2p.Home:
	case p2p.LANProfile:
		c.LANOnly = true
	default:
		return usage("Give home, server, client or lan.", "there is no profile %q", event.Clean(c.Profile, maxName))
	}
	if c.Dir != "" {
		dir, err := filepath.Abs(c.Dir)
		if err != nil {
			return fmt.Errorf("find home %s: %w", c.Dir, err)
		}
		c.Dir = dir
	}
	return nil
}

// announce gives the public addresses that others are told of.
func (c *Config) announce() (out []netip.Addr, err error) {
	for _, s := range c.Announce {
		ip, err := netip.ParseAddr(s)
		if err != nil || !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.Zone() != "" {
			return nil, usage("Give the one that your provider shows for this machine, like 203.0.113.7.", "%q is no public IP address", event.Clean(s, 100))
		}
		out = append(out, ip.Unmap())
	}
	return out, nil
}

// proxy gives the HTTP proxy to leave by, nil for none.
func (c *Config) proxy() (*url.URL, error) {
	if c.Proxy == "" {
		return nil, nil
	}
	u, err := url.Parse(c.Proxy)
	switch {
	case err != nil || u.Scheme != "http" || u.Host == "" || u.Path != "" && u.Path != "/":
		return nil, usage("Give one like http://proxy.example:3128.", "this is not the address of an HTTP proxy")
	case u.User != nil:
		return nil, usage("Put user:password into a file and name it with --proxy-login-file.", "a password does not belong into an address, which others can see")
	}
	if c.ProxyLogin != "" {
		user, password, _ := strings.Cut(c.ProxyLogin, ":")
		u.User = url.UserPassword(user, password)
	}
	return u, nil
}

func parseAddrs(addrs []string) ([]multiaddr.Multiaddr, error) {
	var out []multiaddr.Multiaddr
	for _, s := range addrs {
		a, err := multiaddr.NewMultiaddr(s)
		if err != nil || !p2p.Listenable(a) {
			return nil, &Error{
				Kind: KindUsage, Err: err, Quiet: true, Text: fmt.Sprintf("%q is not an address to listen on", event.Clean(s, 200)),
				Next: "It has an IP address, a port and a transport: give one like /ip4/0.0.0.0/udp/4001/quic-v1 or /ip4/127.0.0.1/tcp/0.",
			}
		}
		out = append(out, a)
	}
	return out, nil
}

// listenError puts a failure to listen into words.
func listenError(err error) error {
	e := &Error{Kind: KindError, Err: err, Text: "cannot listen", Next: "Choose other addresses with --listen."}
	if taken, ok := errors.AsType[*p2p.ErrPortTaken](err); ok {
		e.Text, e.Err = "the port of "+taken.Addr.String()+" is taken by another program", nil
		e.Next = "Choose another with --listen, or port 0 for any free one."
	} else if at, ok := errors.AsType[*p2p.ListenError](err); ok {
		e.Text, e.Quiet, e.Next = "cannot listen on "+at.Addr.String(), true, "Choose another with --listen."
		switch {
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			e.Text += ": this computer does not have that address"
		case errors.Is(err, syscall.EACCES):
			e.Text += ": ports below 1024 are not for everybody"
			e.Next = "Choose a port from 1024 on with --listen, or allow it: setcap cap_net_bind_service=+ep on the program."
		}
	}
	return e
}

// fixedPort says whether the main host listens at a port that does not change by itself.
func (c *Config) fixedPort() bool {
	listen, err := parseAddrs(c.Listen)
	if err != nil || len(listen) == 0 {
		return p2p.Profile(c.Profile) == p2p.Server
	}
	return slices.ContainsFunc(listen, func(a multiaddr.Multiaddr) bool { return len(a) > 1 && a[1].Value() != "0" })
}
