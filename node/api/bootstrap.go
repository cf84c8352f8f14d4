package api

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/client"
)

type bootstrapInput struct {
	Body client.NewBootstrap
}

type bootstrapPeer struct {
	Peer string `path:"peer" maxLength:"128" doc:"Transport key of a node that was named"`
}

// bootstrap serves the ways into the network that the owner named.
func (s *server) bootstrap(api huma.API) {
	Register(api, Operation{Route: "POST /v1/bootstrap", Summary: "Name a way into the network", Tag: "network"},
		func(ctx context.Context, in *bootstrapInput) (client.Bootstrap, error) {
			b, err := s.node.AddBootstrap(ctx, in.Body.Address)
			return bootstrap(b), err
		})
	Register(api, Operation{Route: "GET /v1/bootstrap", Summary: "Ways into the network that were named", Tag: "network"},
		func(ctx context.Context, _ *none) ([]client.Bootstrap, error) {
			all, err := s.node.Bootstraps(ctx)
			return each(all, bootstrap), err
		})
	RegisterEmpty(api, Operation{Route: "DELETE /v1/bootstrap/{peer}", Summary: "Forget a way into the network", Tag: "network"},
		func(ctx context.Context, in *bootstrapPeer) error { return s.node.RemoveBootstrap(ctx, in.Peer) })
}

func bootstrap(b node.Bootstrap) client.Bootstrap {
	return client.Bootstrap{Peer: b.Peer, Addresses: list(b.Addresses)}
}
