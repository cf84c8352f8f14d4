package node

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/contact"
)

// TestVeilTrustsPresentKeys: the veil knows a contact by the key that their device has
// now, as one person with all of them, and by none once they are blocked. By those that
// they had they are strangers, though they are avoided by them.
func TestVeilTrustsPresentKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		net := testnet.New(t, 1, testnet.Options{})
		ada, bob := alone(t, net, 0, "Ada"), alone(t, net, 1, "Bob")
		meet(t, ada, bob)
		time.Sleep(10 * time.Second)
		if _, err := ada.SetWays(ctx, "Bob", WaysRelay); err != nil {
			t.Fatal(err)
		}
		now := peer.ID(contact.Transport{1: 7}.PeerID())
		var old peer.ID
		if err := ada.change(ctx, func(l *loop, tx *store.Tx) error {
			d := l.acct.devices[bob.device]
			old = peer.ID(d.Transport)
			if err := l.leaves(tx, &d.Device, []byte(now)); err != nil {
				return err
			}
			d.Transport = []byte(now)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		cfg := ada.edge.veilHost(nil)
		if !cfg.Trusted(now) || cfg.Owner(now) != bob.me.String() {
			t.Errorf("the key that he has: %v, of %q", cfg.Trusted(now), cfg.Owner(now))
		}
		if cfg.Trusted(old) || !ada.edge.avoid(old) {
			t.Errorf("the key that he had: trusted %v, avoided %v", cfg.Trusted(old), ada.edge.avoid(old))
		}
		if _, err := ada.Block(ctx, "Bob"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if cfg.Trusted(now) {
			t.Error("trusted when he is blocked")
		}
		closed(t, ada, bob)
	})
}
