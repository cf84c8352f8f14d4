package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/gologshim"
	ma "github.com/multiformats/go-multiaddr"
)

// Config says what a Net is made of. Key is the only required field.
type Config struct {
	// Key is the main transport key, Ed25519. It is not the identity of anybody.
	Key crypto.PrivKey
	// Listen are the addresses of the main host. Empty: QUIC and TCP on all
	// interfaces, IPv4 and IPv6, at random ports, or at port 443 for a server. On the
	// TCP ports of a server wss is answered, too. An address given here that cannot
	// be had is an error of Open; of the default ones it is enough that one works.
	Listen []ma.Multiaddr
	// Prefer are the ListenAddrs of the last run. Where an address leaves the port
	// to the system, with port 0 or because Listen is empty, Open tries theirs
	// first, so that what others know stays true; a port taken meanwhile is
	// replaced by a random one.
	Prefer []ma.Multiaddr

	// LAN starts the second host.
	LAN bool
	// LANKey is the key of the LAN host, Ed25519. Nil: a fresh one at each Open.
	LANKey crypto.PrivKey
	// LANOnly makes the main host, too, refuse every public address, in both
	// directions and before the handshake.
	LANOnly bool
	// Veiled makes a Net for those who must not learn where this machine is. Its one
	// host listens nowhere. It is reached by reservations with peers of Relays alone, and
	// dials nobody but them, at the public addresses given there; everybody else it dials
	// through them. It names no address of itself, tests none and punches no holes, and
	// has neither a LAN host nor a DHT. Its relays see the address.
	Veiled bool
	// Profile says what the node does for its own reachability and for that of
	// others; see the type. Empty: Home. LANProfile implies LANOnly, and LANOnly
	// turns all of it off.
	Profile Profile
	// Trusted reports whether a transport id is that of a contact: who may hold a
	// reservation on this node's relay by the larger limits. It may be called from any
	// goroutine and must not block. Nil: nobody is.
	Trusted func(peer.ID) bool
	// Owner names the person behind a transport id that is trusted, in whatever way: what
	// contacts may use of the relay, and how many of them come over one, is counted by it,
	// so that a new key is no new share. It is called as Trusted is. Nil: each id is a person.
	Owner func(peer.ID) string
	// ContactBytes is what a contact may use of this node's relay in a day, by large
	// limits. 0: ContactDayBytes.
	ContactBytes int64
	// Shunned reports whether a transport id is that of somebody who is not to know the
	// main host, such as a person who was blocked: it is no server, relay or proxy of this
	// node, unless the owner named it. It is called as Trusted is. Nil: nobody is.
	Shunned func(peer.ID) bool
	// Avoid reports whether a transport id is that of somebody whom this Net must not
	// choose, as it would show them where it is: it dials them not, even if the owner named
	// them, and does not ask them to relay; nor to look up, if the owner or a contact told
	// of them. But they must not be able to tell this node from others of which they know
	// nothing. So whatever a stranger can bring about happens with them, too: they are let
	// in, dialled back, greeted on the LAN, and have their place in the DHT's table and
	// among those that look up. It is called as Trusted is. Nil: nobody is.
	Avoid func(peer.ID) bool
	// Relays returns the peers to ask for a reservation, best first: the relays of
	// contacts, then public servers. Connected peers that relay are asked after them. It
	// must not block. Nil: only those.
	Relays func() []peer.AddrInfo

	// Proxy is the HTTP proxy that TCP and wss go through by CONNECT, as
	// http://user:password@host:port; user and password are in no log and no error.
	// There is no QUIC then, nobody can reach the node but over a relay, and it serves
	// nobody. The local network is spoken to without it. Nil: none; the environment is
	// not asked.
	Proxy *url.URL

	// MDNS announces the LAN host to the local network and searches it for others.
	MDNS bool
	// LANListen replaces the addresses of the LAN host. Empty: QUIC and TCP on all
	// interfaces at random ports. For simulations.
	LANListen []ma.Multiaddr

	// Announce are public addresses that the provider translates to this machine's
	// private ones, with the same ports.
	Announce []netip.Addr
	// NoDHT leaves the DHT out, as LANOnly does.
	NoDHT bool
	// Bootstrap are servers of the DHT that the owner named.
	Bootstrap []peer.AddrInfo
	// Silent is called when no server of the address book answers, in any way and again
	// with growing pauses until one does. It must not block. Nil: nobody is.
	Silent func()
	// Data keeps the records that this node stores for others, under /dht, and under
	// /peers the address book and who has seen its own records. Nil: they are kept in
	// memory.
	Data datastore.Batching

	// Now is the wall clock, by which look-up records are good or too old. Nil:
	// time.Now.
	Now func() time.Time

	// Handler gets the events. Nil: nobody does.
	Handler Handler
	// Discovery replaces mDNS; the simulation has one. Nil: mDNS if MDNS is set.
	Discovery Discovery
	// Options replace the default transports of the main host; LANOptions those of
	// the LAN host. For simulations.
	Options, LANOptions []libp2p.Option
	// Throwaway returns what replaces the default transports of one throwaway host.
	// For simulations.
	Throwaway func() []libp2p.Option

	// ConnLow and ConnHigh: above ConnHigh peers the unprotected connections are
	// closed down to ConnLow peers. Default 64 and 96, server 160 and 192, client 8 and
	// 12; the LAN host has half.
	ConnLow, ConnHigh int
	// Log gets what is worth knowing. Nil: nothing is logged. No address is logged
	// above debug level.
	Log *slog.Logger
}

// Handler is told what happens on the network. All calls come from the goroutine
// of Run, one at a time, in order. They must not wait for the network.
type Handler interface {
	// Found reports a neighbour that announced itself on the LAN. Who it is, is
	// unknown; the addresses are checked (see Clean) and at most MaxAddrs.
	Found(peer.AddrInfo)
	// Connected reports the first connection with p. Further ones are silent, but for
	// the first one without a relay after one over a relay: that is reported by
	// Disconnected and Connected, and new streams use it. Those on the old one go on.
	Connected(p peer.ID, path Path)
	// Disconnected reports that the last connection with p has gone; path is the
	// one that Connected had named.
	Disconnected(p peer.ID, path Path)
	// AddrsChanged reports that Addrs or Reachability returns something else than
	// before: another network, an interface came or went, a relay was found or lost. It
	// is called once after the start, and at once where Moves has grown; of what others
	// find out about this node, more than a few changes in a row come together.
	AddrsChanged()
}

// Discovery finds the neighbours of the LAN host.
type Discovery interface {
	// Run announces self and reports others until ctx ends. It is started again
	// with a new self after each RotateLAN and each change of addresses. It has
	// ended every goroutine when it returns. found may be called at any time,
	// doubles and all; it does not block.
	Run(ctx context.Context, self peer.AddrInfo, found func(peer.AddrInfo)) error
}

// Route says how a connection runs.
type Route string

// The routes that exist now.
const (
	Direct Route = "direct" // over a public address
	LAN    Route = "lan"    // over an address that is not public, loopback included
	// Relayed is over a third node, which sees both ends, the times and the sizes. It
	// is told by the address: a relay without limits makes connections that libp2p
	// does not mark.
	Relayed Route = "relay"
)

// Path describes one connection.
type Path struct {
	Route     Route
	Transport string       // "quic", "tcp" or "wss"; that to the relay where there is one
	Addr      ma.Multiaddr // of the other side
	Relay     peer.ID      // the relay, if the route is Relayed
	Local     peer.ID      // our transport id on this connection
	Inbound   bool         // the other side dialled
}

// Errors that a caller branches on.
var (
	ErrPeerID       = errors.New("peer id is not an Ed25519 key")
	ErrAvoided      = errors.New("this node does not dial them")
	ErrNoAddress    = errors.New("no usable address")
	ErrNotConnected = errors.New("not connected")
	ErrNotSupported = errors.New("the other side does not speak this protocol")
	ErrClosed       = errors.New("network is closed")
)

// ErrPortTaken is the error of Open when another program listens on an address
// of Config.Listen.
type ErrPortTaken struct{ Addr ma.Multiaddr }

func (e *ErrPortTaken) Error() string {
	return fmt.Sprintf("listen on %s: the port is taken by another program; choose another port, or 0 for any free one", e.Addr)
}

// ListenError is the error of Open when the system refuses to listen on an address
// for another reason.
type ListenError struct {
	Addr ma.Multiaddr
	Err  error
}

func (e *ListenError) Error() string {
	if errors.Is(e.Err, syscall.EACCES) {
		return fmt.Sprintf("listen on %s: the system does not let this program use ports below 1024; "+
			"give it the right (setcap cap_net_bind_service=+ep PROGRAM, or AmbientCapabilities=CAP_NET_BIND_SERVICE "+
			"in its systemd unit), or choose another port", e.Addr)
	}
	return fmt.Sprintf("listen on %s: %v", e.Addr, e.Err)
}

// Unwrap returns what the system said.
func (e *ListenError) Unwrap() error { return e.Err }

// DialError is the error of Dial when no address answered.
type DialError struct {
	Peer     peer.ID
	Attempts []Attempt // one per address, at most MaxAddrs
}

// Attempt is what happened at one address.
type Attempt struct {
	Addr ma.Multiaddr
	Err  error
}

// Error names no address: addresses do not belong into logs at default level.
func (e *DialError) Error() string {
	if len(e.Attempts) == 1 {
		return "no answer at the one address known"
	}
	return fmt.Sprintf("no answer at any of %d addresses", len(e.Attempts))
}

// Details names the addresses and what libp2p said of each.
func (e *DialError) Details() string {
	var parts []string
	for _, a := range e.Attempts {
		parts = append(parts, fmt.Sprintf("%s: %v", a.Addr, a.Err))
	}
	return strings.Join(parts, "; ")
}

// Unwrap returns the causes of all attempts.
func (e *DialError) Unwrap() []error {
	errs := make([]error, len(e.Attempts))
	for i, a := range e.Attempts {
		errs[i] = a.Err
	}
	return errs
}

// LibraryLog sends the log of libp2p, of which there is one per process, to h, or
// nowhere if h is nil. It takes effect for a part of libp2p that has not logged
// yet, so a program calls it first in main; without it errors go to stderr, with
// addresses in them. A program that embeds a node decides for itself.
func LibraryLog(h slog.Handler) {
	if h == nil {
		h = slog.DiscardHandler
	}
	gologshim.SetDefaultHandler(h)
}

func (c *Config) validate() error {
	if c.Key == nil {
		return errors.New("transport key is missing")
	}
	if c.Key.Type() != crypto.Ed25519 {
		return fmt.Errorf("transport key: %w", ErrPeerID)
	}
	if c.LANKey != nil && c.LANKey.Type() != crypto.Ed25519 {
		return fmt.Errorf("LAN key: %w", ErrPeerID)
	}
	if c.LANKey != nil && c.LANKey.Equals(c.Key) {
		return errors.New("LAN key equals the main transport key: neighbours could follow this device")
	}
	if c.Veiled && c.LANOnly {
		return errors.New("a veiled host has nobody to speak to on the local network")
	}
	if c.Proxy != nil {
		if err := checkProxy(c.Proxy); err != nil {
			return err
		}
		if c.Profile == Server {
			return errors.New("a server cannot be behind an HTTP proxy: nobody reaches it there")
		}
	}
	if !c.Profile.valid() {
		return fmt.Errorf("profile %q is unknown: home, server, client or lan", c.Profile)
	}
	if c.ConnHigh < c.ConnLow {
		return fmt.Errorf("connection limits: high %d is below low %d", c.ConnHigh, c.ConnLow)
	}
	return nil
}
