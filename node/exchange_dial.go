package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/wire"
)

// dialInvite reaches the host that an invite names and opens the exchange.
func (n *Node) dialInvite(ctx context.Context, invite contact.Invite) (p2p.Path, network.Stream, error) {
	id := peer.ID(contact.Transport(invite.Transport).PeerID())
	var addrs []multiaddr.Multiaddr
	for _, b := range invite.Addresses {
		if a, err := multiaddr.NewMultiaddrBytes(b); err == nil {
			addrs = append(addrs, a)
		}
	}
	// Whoever relays for the inviter is a way into the network, whether this works or not.
	n.net.AddBootstrap(p2p.FromInvite, p2p.RelaysOf(addrs)...)
	n.edge.called.Store(id, true)
	defer n.edge.called.Delete(id)
	path, err := n.net.Dial(ctx, id, addrs)
	if err == nil {
		s, err := n.net.NewStream(ctx, id, wire.Contact)
		if err == nil {
			return path, s, nil
		}
		return path, nil, exchangeError(err)
	}
	if errors.Is(err, p2p.ErrPeerID) {
		return path, nil, exchangeError(contact.ErrInviteBroken)
	}
	e := &Error{Kind: KindTimeout, Err: err, Quiet: true, Text: "the other side could not be reached: " + unreached(err)}
	e.Next = "Their node must be running while you add them; ask, then try again."
	if invite.LAN {
		e.Next = "The invite says \"LAN only so far\": both must be on the same network, and their node must be running. Then try again."
	}
	n.cfg.Log.Info("an invite could not be answered", "tried", len(addrs), "error", err)
	return path, nil, e
}

// unreached says in words what was tried, and what came of it.
func unreached(err error) string {
	dial, ok := errors.AsType[*p2p.DialError](err)
	switch {
	case errors.Is(err, p2p.ErrNoAddress):
		return "the invite has no address that this node may call"
	case errors.Is(err, p2p.ErrClosed):
		return "this node is ending"
	case !ok:
		return "nobody answered in time"
	}
	tried := "the one address of the invite was tried"
	if len(dial.Attempts) > 1 {
		tried = fmt.Sprintf("all %d addresses of the invite were tried", len(dial.Attempts))
	}
	return tried + "; " + cmp.Or(whatIsThere(err), "nobody answered")
}
