package testnet

import (
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/p2p"
)

// TestDeadRelayIsPassed: a relay that died without a word does not stand in the way of
// one that works, for the connection with it lives on for half a minute, and nor does
// one that has lost the other side.
func TestDeadRelayIsPassed(t *testing.T) {
	for _, tc := range []struct {
		name string
		cut  [][2]int // machines: 0 and 1 relay, 2 is called, 3 calls
	}{
		{"dead", [][2]int{{0, 2}, {0, 3}}},
		{"other side lost", [][2]int{{0, 2}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := New(t, 1, Options{})
				relays := []*up{server(t, n, 0, p2p.Config{}), server(t, n, 1, p2p.Config{})}
				b, wb := walled(t, n, 2, p2p.Config{}, relays...)
				a, _ := walled(t, n, 3, p2p.Config{}, relays...)
				noDirect(n, 2, 3)
				wb.until(t, b, "both relays", time.Minute, func(r p2p.Reachability) bool { return len(r.Relays) == 2 })
				addrs := make([]ma.Multiaddr, 2) // that of the one that will be cut first
				for _, r := range b.Reachability().Relays {
					at := 0
					if r.Peer == relays[1].id {
						at = 1
					}
					addrs[at] = r.Addrs[0]
				}
				if path, err := over(t.Context(), a, b, addrs[:1], "before"); err != nil || path.Relay != relays[0].id {
					t.Fatalf("%+v, %v", path, err)
				}
				for _, c := range tc.cut {
					n.Cut([]int{c[0]}, []int{c[1]})
				}
				a.ClosePeer(b.id) // what the node does when nobody answers
				for _, order := range [][]ma.Multiaddr{addrs, {addrs[1], addrs[0]}} {
					begin := time.Now()
					path, err := over(t.Context(), a, b, order, "after")
					if err != nil || path.Relay != relays[1].id {
						t.Fatalf("%+v, %v", path, err)
					}
					within(t, "over the other relay", time.Since(begin), 0, 3*time.Second)
					a.ClosePeer(b.id)
				}
			})
		})
	}
}
