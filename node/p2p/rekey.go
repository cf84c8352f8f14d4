package p2p

import (
	"context"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
)

// Rekey replaces the main host by one with another transport key, at other ports where
// the configuration leaves them to the system: who dials an address of before with the
// key of before is told the key that answers there, so at a fixed port the node can be
// recognised until its address changes. Its connections end with Disconnected. After an
// error there is no main host: call it again.
// Errors: ErrPeerID, ErrClosed, those of Open.
func (n *Net) Rekey(ctx context.Context, key crypto.PrivKey) error {
	if key == nil || key.Type() != crypto.Ed25519 {
		return fmt.Errorf("transport key: %w", ErrPeerID)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return fmt.Errorf("transport key: %w", err)
	}
	n.lifecycle.Lock()
	defer n.lifecycle.Unlock()
	if n.isClosed() {
		return ErrClosed
	}
	if d := n.dht.Swap(nil); d != nil {
		if err := d.close(); err != nil {
			n.log.Warn("the DHT of the old key did not close well", "err", err)
		}
	}
	if old := n.adopt(mainHost, nil); old != nil {
		if err := old.Close(); err != nil && !errors.Is(err, transport.ErrListenerClosed) {
			n.log.Warn("the host of before did not close well", "err", err)
		}
	}
	for _, r := range n.relays.held() { // they were the old key's
		n.relays.lost(n, r.Peer)
	}
	n.reach.forget()
	n.mu.Lock()
	n.key, n.id = key, id
	n.mu.Unlock()
	return n.openMain(ctx, nil)
}
