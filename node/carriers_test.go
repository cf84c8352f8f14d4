package node_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// TestVeilKeepsItsRelays: as long as nothing changes, no relay of the veil is asked again
// before its term is half over, whoever of the contacts that relay was heard of last.
func TestVeilKeepsItsRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		r1, r2 := around(t, net, 0, "", "R1", "server"), around(t, net, 4, "", "R2", "server")
		ada, bob := around(t, net, 1, "", "Ada", "home"), around(t, net, 2, "", "Bob", "client")
		for _, n := range []*node.Node{r1, r2, bob} {
			befriend(ctx, t, n, ada)
		}
		time.Sleep(10 * time.Second)
		setWays(ctx, t, ada, "Bob", node.WaysRelay)
		time.Sleep(time.Minute)
		held := fmt.Sprint(node.VeilRelays(ada))
		if n := len(node.VeilRelays(ada)); n != 2 {
			t.Errorf("%d relays are held", n)
		}
		for range 10 {
			time.Sleep(time.Minute)
			if now := fmt.Sprint(node.VeilRelays(ada)); now != held {
				t.Fatalf("held %s, then %s", held, now)
			}
		}
		closeAll(t, ada, bob, r1, r2)
	})
}

// TestVeilSaysWhyThereIsNoRelay: of each server that could carry, the owner is told why it
// does not, and what to do.
func TestVeilSaysWhyThereIsNoRelay(t *testing.T) {
	const hers = "/ip4/8.5.5.5/udp/4001/quic-v1"
	for name, tc := range map[string]struct {
		own   string
		named func(t *testing.T, net *testnet.Net) (*node.Node, string)
		want  string
	}{
		"none is named": {hers, nil, "cannot reach this node: name a server"},
		"its own place": {hers, atOf("/ip4/8.5.5.5/udp/4009/quic-v1", "server"), "own place"},
		"no relay":      {hers, atOf("/ip4/8.5.5.6/udp/4001/quic-v1", "client"), "is no relay"},
		"private":       {hers, atOf("/ip4/192.168.1.6/udp/4001/quic-v1", "server"), "no public address"},
		"behind a router, no answer": {
			"/ip4/192.168.1.5/udp/4001/quic-v1", atOf("/ip4/8.5.5.6/udp/4001/quic-v1", "server"),
			"own public address is not known",
		},
		"no answer": {hers, func(t *testing.T, net *testnet.Net) (*node.Node, string) {
			n, at := atOf("/ip4/8.5.5.6/udp/4001/quic-v1", "server")(t, net)
			closeAll(t, n)
			return nil, at
		}, "does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
				defer cancel()
				net := testnet.New(t, 1, testnet.Options{})
				net.HostAt(1, ma.StringCast(tc.own))
				ada, bob := around(t, net, 1, "", "Ada", "client"), around(t, net, 2, "", "Bob", "client")
				befriend(ctx, t, ada, bob)
				all := []*node.Node{ada, bob}
				if tc.named != nil {
					n, at := tc.named(t, net)
					if n != nil {
						all = append(all, n)
					}
					if _, err := ada.AddBootstrap(ctx, at); err != nil {
						t.Fatal(err)
					}
				}
				setWays(ctx, t, ada, "Bob", node.WaysRelay)
				time.Sleep(time.Minute)
				c, err := ada.Contact(ctx, "Bob")
				if err != nil || !strings.Contains(c.Unreached, tc.want) || !strings.Contains(c.Unreached, "kinloom bootstrap add ADDRESS") {
					t.Errorf("%q, %v", c.Unreached, err)
				}
				closeAll(t, all...)
			})
		})
	}
}

// atOf gives what starts a node at an address.
func atOf(addr, profile string) func(*testing.T, *testnet.Net) (*node.Node, string) {
	return func(t *testing.T, net *testnet.Net) (*node.Node, string) {
		t.Helper()
		net.HostAt(9, ma.StringCast(addr))
		n := around(t, net, 9, "", "Other", profile)
		return n, listensAt(t, n)
	}
}
