package p2p

import (
	"context"
	"log/slog"

	"github.com/libp2p/go-libp2p/core/peer"
)

type mdns struct{ log *slog.Logger }

func (m *mdns) Run(ctx context.Context, self peer.AddrInfo, found func(peer.AddrInfo)) error {
	<-ctx.Done()
	return nil
}
