package node

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node/internal/testnet"
)

// TestFixedPortStaysRecognisable: who is removed is told nothing, but the owner is, where
// the node goes on at a port that it cannot change by itself.
func TestFixedPortStaysRecognisable(t *testing.T) {
	for _, tc := range []struct {
		name   string
		config Config
		fixed  bool
	}{
		{"any port", Config{}, false},
		{"port 0 asked for", Config{Listen: []string{"/ip4/0.0.0.0/udp/0/quic-v1"}}, false},
		{"a port asked for", Config{Listen: []string{"/ip4/0.0.0.0/udp/4001/quic-v1"}}, true},
		{"a server", Config{Profile: "server"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := testnet.New(t, 1, testnet.Options{})
				tc.config.Name, tc.config.NoLAN, tc.config.NoDHT, tc.config.Network = "Ada", true, true, net.Host(0).Configure
				ada, bob := opened(t, tc.config), alone(t, net, 1, "Bob")
				meet(t, ada, bob)
				time.Sleep(5 * time.Second)
				notices := ada.Watch()
				if _, err := ada.RemoveContact(t.Context(), "Bob", false); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				told := false
				for _, n := range notices() {
					told = told || n.Kind == "route" && strings.Contains(n.Text, "at a fixed port")
				}
				if told != tc.fixed {
					t.Errorf("the owner was told of a port that stays: %v, want %v", told, tc.fixed)
				}
				closed(t, ada, bob)
			})
		})
	}
}
