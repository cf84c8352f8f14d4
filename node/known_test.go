package node_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/protocol/contact"
)

// fullAddress is where others dial a node.
func fullAddress(t *testing.T, n *node.Node) string {
	t.Helper()
	s, err := n.Status(t.Context())
	if err != nil || len(s.Listening) == 0 {
		t.Fatal(err)
	}
	return s.Listening[0] + "/p2p/" + s.PeerID
}

// named says where the servers came from that a node knows, by their transport ids.
func named(n *node.Node) map[string]p2p.Source {
	out := map[string]p2p.Source{}
	for _, k := range n.Servers() {
		out[k.Peer.ID.String()] = k.Source
	}
	return out
}

// TestTheRelayOfAnInviteLeadsIn: who relays for the inviter is a way into the network,
// even if the inviter is away.
func TestTheRelayOfAnInviteLeadsIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		net := testnet.New(t, 1, testnet.Options{})
		server := onto(t, net, 0, "", "Server", "server")
		bob := onto(t, net, 1, "", "Bob", "home")
		relay, err := multiaddr.NewMultiaddr(fullAddress(t, server) + "/p2p-circuit")
		if err != nil {
			t.Fatal(err)
		}
		away := contact.Invite{
			Person: identity.NewRootKey([32]byte{1}).Person().Hash16(), Transport: identity.NewDeviceKey([32]byte{2}).Public(),
			Expiry: contact.ExpiryHours(time.Now().Add(time.Hour)), Addresses: [][]byte{relay.Bytes()},
		}
		link, err := away.Link()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bob.AddContact(ctx, link, node.AddOptions{}); err == nil {
			t.Error("somebody who is away was added")
		}
		time.Sleep(time.Minute)
		s, err := server.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got := named(bob); len(got) != 1 || got[s.PeerID] != p2p.FromInvite {
			t.Errorf("known: %v, want the relay, from the invite", got)
		}
		if found := examined(ctx, t, bob)["bootstrap"]; found.Verdict != node.OK {
			t.Errorf("the doctor says %+v", found)
		}
		closeAll(t, bob, server)
	})
}

// TestARemovedContactsServerIsOneOfMany: a contact's server is a way into the network, and
// asked to relay; when they are removed it is one that others know, if any, and relays
// no more.
func TestARemovedContactsServerIsOneOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		net := testnet.New(t, 1, testnet.Options{})
		sam, ada := onto(t, net, 0, "", "Sam", "server"), onto(t, net, 1, "", "Ada", "home")
		befriend(ctx, t, sam, ada)
		time.Sleep(time.Minute)
		s, err := sam.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if from := named(ada)[s.PeerID]; from != p2p.FromContact {
			t.Errorf("the server is known from %q", from)
		}
		if _, err := ada.RemoveContact(ctx, "Sam", false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if from, ok := named(ada)[s.PeerID]; ok && from != p2p.FromDHT {
			t.Errorf("the server of somebody removed is known from %q", from)
		}
		closeAll(t, ada, sam)
	})
}
