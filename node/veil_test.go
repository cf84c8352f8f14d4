package node_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/wire"
)

// The machines of a veiled world. Those of mallory record what comes from Ada's.
const (
	hers, moved         = 1, 2
	bobs, evils, probes = 3, 4, 5
	relayA, relayB      = 6, 7
	carols              = 8
)

// veiled is a world in which Ada does not trust Bob with her address. He runs a node,
// a relay that he names to her, and one more host that looks for what it can find.
type veiled struct {
	t               *testing.T
	net             *testnet.Net
	home            string
	ada, bob, carol *node.Node
	evil            *node.Node
	servers         map[int]*node.Node
	homes           map[int]string
	said            int
	secrets         [][]byte // what Bob must find nowhere
	person          identity.PersonID
	packets         int
}

// at starts a node on a machine behind a router, which knows the servers on others.
func (v *veiled) at(ctx context.Context, machine int, dir, name, profile string, noDHT bool, servers ...*node.Node) *node.Node {
	v.t.Helper()
	if profile == "home" {
		v.net.Host(machine).Firewall(true)
	}
	var known []string
	for _, s := range servers {
		known = append(known, listensAt(v.t, s))
	}
	n, err := node.Open(ctx, node.Config{
		Dir: dir, Name: name, NoLAN: true, NoDHT: noDHT, Profile: profile, Bootstrap: known, Network: v.net.Host(machine).Configure,
	})
	if err != nil {
		v.t.Fatalf("open %s: %v", name, err)
	}
	return n
}

func listensAt(t *testing.T, n *node.Node) string {
	t.Helper()
	s, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.Listening[0] + "/p2p/" + s.PeerID
}

// begin has Ada meet both, and then not trust Bob any more.
func begin(ctx context.Context, t *testing.T) *veiled {
	t.Helper()
	v := &veiled{t: t, net: testnet.New(t, 1, testnet.Options{}), home: t.TempDir(), servers: map[int]*node.Node{}, homes: map[int]string{relayA: t.TempDir(), relayB: t.TempDir()}}
	for _, m := range []int{relayA, relayB} {
		v.servers[m] = v.at(ctx, m, v.homes[m], "Relay", "server", false)
	}
	v.evil = v.at(ctx, evils, "", "Evil", "server", true)
	v.ada = v.at(ctx, hers, v.home, "Ada", "home", false, v.servers[relayA], v.servers[relayB])
	v.bob = v.at(ctx, bobs, "", "Bob", "home", true, v.evil, v.servers[relayA])
	v.carol = v.at(ctx, carols, "", "Carol", "home", false, v.servers[relayA])
	time.Sleep(30 * time.Second) // relays are found
	befriend(ctx, t, v.ada, v.bob)
	befriend(ctx, t, v.ada, v.carol)
	time.Sleep(time.Minute)
	a, err := v.ada.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	v.person = a.Person
	c, err := v.ada.SetWays(ctx, "Bob", node.WaysRelay)
	if err != nil || c.Ways != node.WaysRelay {
		t.Fatalf("%+v, %v", c, err)
	}
	time.Sleep(time.Minute) // what was on the line has arrived
	v.net.Tap(func(p testnet.Packet) {
		if (p.From == hers || p.From == moved) && (p.To == bobs || p.To == evils || p.To == probes) {
			v.packets++
		}
	})
	return v
}

// end closes all.
func (v *veiled) end() {
	closeAll(v.t, v.ada, v.bob, v.carol, v.evil)
	for _, s := range v.servers {
		closeAll(v.t, s)
	}
}

// talk has Ada and Bob write to each other: all arrives, over relays.
func (v *veiled) talk(ctx context.Context, when string) {
	v.t.Helper()
	v.said++
	for _, say1 := range []struct {
		from, to *node.Node
		who, by  string
	}{{v.ada, v.bob, "Bob", "Ada"}, {v.bob, v.ada, "Ada", "Bob"}} {
		text := fmt.Sprintf("%s %d", when, v.said)
		delivered(ctx, v.t, say1.from, say(ctx, v.t, say1.from, say1.who, text))
		got, err := say1.to.Read(ctx, say1.by, node.ReadQuery{Limit: 1, Peek: true})
		if err != nil || len(got) != 1 || got[0].Text != text || got[0].Route != "relay" {
			v.t.Errorf("%s: read %+v, %v", when, got, err)
		}
	}
	v.knows(ctx, when)
}

// knows fails if Bob knows more of Ada than the veil, or anything of hers went to him.
func (v *veiled) knows(ctx context.Context, when string) {
	v.t.Helper()
	secret, transport, _, err := v.ada.Placed(ctx)
	if err != nil {
		v.t.Fatal(err)
	}
	_, _, others, err := v.bob.Placed(ctx)
	if err != nil {
		v.t.Fatal(err)
	}
	d := others[v.person]
	main := contact.Transport(transport).PeerID()
	if d.Secret == secret || string(d.Transport) == string(main) || len(d.Addrs) == 0 {
		v.t.Errorf("%s: Bob knows the secret: %v, the transport: %v, and %d addresses", when, d.Secret == secret, string(d.Transport) == string(main), len(d.Addrs))
	}
	v.secrets = [][]byte{secret[:], transport[:], v.ip(hers), v.ip(moved)}
	for _, a := range d.Addrs {
		v.clean(when+": an address that Bob has", a.Addr)
	}
	if v.packets != 0 {
		v.t.Errorf("%s: %d packets went from Ada to machines of Bob's", when, v.packets)
	}
}

// ip is how a machine's address stands in a multiaddr.
func (v *veiled) ip(machine int) []byte {
	ip, _ := ma.SplitFirst(v.net.Host(machine).Addr)
	return ip.Bytes()
}

// clean fails where bytes hold what Bob must not find.
func (v *veiled) clean(what string, b []byte) {
	v.t.Helper()
	for i, s := range v.secrets {
		if bytes.Contains(b, s) {
			v.t.Errorf("%s holds number %d of what Bob must not find: %x", what, i, s)
		}
	}
}

// probe looks for Ada by all that Bob knows of her: it comes over the relay and asks the
// host there and the relay itself for all that they tell.
func (v *veiled) probe(ctx context.Context, when string) {
	v.t.Helper()
	h, err := libp2p.New(append(v.net.Host(probes).Throwaway(), libp2p.NoListenAddrs, libp2p.EnableRelay(), libp2p.DisableMetrics(),
		libp2p.DisableIdentifyAddressDiscovery(), libp2p.ForceReachabilityPrivate())...)
	if err != nil {
		v.t.Fatal(err)
	}
	defer h.Close()
	_, _, others, err := v.bob.Placed(ctx)
	if err != nil {
		v.t.Fatal(err)
	}
	d := others[v.person]
	ada := peer.ID(d.Transport)
	info := peer.AddrInfo{ID: ada}
	for _, a := range d.Addrs {
		if addr, err := ma.NewMultiaddrBytes(a.Addr); err == nil && strings.Contains(addr.String(), "p2p-circuit") {
			info.Addrs = append(info.Addrs, addr)
		}
	}
	if err := h.Connect(network.WithAllowLimitedConn(ctx, "probe"), info); err != nil {
		v.t.Fatalf("%s: %v", when, err)
	}
	time.Sleep(10 * time.Second) // identify, and whatever the other side begins
	protocols, err := h.Peerstore().GetProtocols(ada)
	if err != nil {
		v.t.Fatal(err)
	}
	for _, p := range protocols {
		for _, never := range []string{"dcutr", "autonat", "/kinloom/hello", "/kinloom/contact", "/kinloom/dhtproxy", "/kinloom/kad", "hop"} {
			if strings.Contains(string(p), never) {
				v.t.Errorf("%s: the veil speaks %s", when, p)
			}
		}
	}
	told := v.hear(ctx, h, ada, "/ipfs/id/1.0.0", nil)
	if len(told) == 0 || len(protocols) == 0 {
		v.t.Errorf("%s: identify says nothing", when)
	}
	v.clean(when+": identify", told)
	for _, c := range h.Network().Conns() {
		v.clean(when+": a connection", c.RemoteMultiaddr().Bytes())
	}
	for _, p := range h.Peerstore().Peers() {
		for _, a := range h.Peerstore().Addrs(p) {
			v.clean(when+": what is known of "+p.ShortString(), a.Bytes())
		}
	}
	for _, p := range h.Network().Peers() {
		if p == ada {
			continue
		}
		// FIND_NODE, of her key; the answer names the peers that the relay knows.
		find := append([]byte{0x08, 0x04, 0x12, byte(len(ada))}, ada...)
		v.clean(when+": the DHT of the relay", v.hear(ctx, h, p, "/kinloom/kad/1.0.0", append([]byte{byte(len(find))}, find...)))
	}
	if _, err := h.NewStream(network.WithAllowLimitedConn(ctx, "probe"), ada, protocol.ID(wire.Hello)); err == nil {
		v.t.Errorf("%s: the veil says hello", when)
	}
}

// hear gives what a peer says on a stream after a question.
func (v *veiled) hear(ctx context.Context, h host.Host, p peer.ID, id protocol.ID, question []byte) []byte {
	s, err := h.NewStream(network.WithAllowLimitedConn(ctx, "probe"), p, id)
	if err != nil {
		return nil
	}
	defer s.Reset()
	_ = s.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := s.Write(question); err != nil {
		return nil
	}
	out, _ := io.ReadAll(io.LimitReader(s, 64<<10))
	return out
}

// TestRelayOnlyContactLearnsNoAddress: over changes of address, restarts and lost
// relays, a contact who may reach Ada by relays only finds no address of hers and no
// key of her main host, nothing of hers goes to machines of his, the relay that he names
// included, and every message arrives.
func TestRelayOnlyContactLearnsNoAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		v := begin(ctx, t)
		defer v.end()
		v.talk(ctx, "at home")
		v.probe(ctx, "at home")
		talking(ctx, t, v.ada, v.carol, "Ada", "Carol")

		closeAll(t, v.ada) // and she moves
		v.ada = v.at(ctx, moved, v.home, "", "home", false, v.servers[relayA], v.servers[relayB])
		v.talk(ctx, "moved")
		if testing.Short() { // the relays stay as they are then
			return
		}
		time.Sleep(10 * time.Minute) // over cuts of the circuits
		v.talk(ctx, "later")
		v.probe(ctx, "moved")

		closeAll(t, v.servers[relayA]) // a relay dies, and then all
		v.talk(ctx, "one relay")
		closeAll(t, v.servers[relayB])
		time.Sleep(time.Minute)
		c, err := v.ada.Contact(ctx, "Bob")
		if err != nil || !strings.Contains(c.Unreached, "kinloom bootstrap add") {
			t.Errorf("without a relay: %q, %v", c.Unreached, err)
		}
		s, err := v.ada.Status(ctx)
		if err != nil || !strings.Contains(strings.Join(s.Warnings, " "), c.Unreached) {
			t.Errorf("status without a relay warns of %q, %v", s.Warnings, err)
		}
		waiting := []node.Message{say(ctx, t, v.ada, "Bob", "waits"), say(ctx, t, v.ada, "Bob", "waits too")}
		other := say(ctx, t, v.bob, "Ada", "waits here")
		time.Sleep(10 * time.Minute)
		v.knows(ctx, "without a relay")
		if s, err = v.ada.Status(ctx); err != nil || s.Queued != 2 {
			t.Errorf("%d wait, %v", s.Queued, err)
		}
		for m := range v.homes {
			v.servers[m] = v.at(ctx, m, v.homes[m], "", "server", false)
		}
		for _, m := range waiting {
			delivered(ctx, t, v.ada, m)
		}
		delivered(ctx, t, v.bob, other)
		v.talk(ctx, "again")
		v.probe(ctx, "again")
	})
}
