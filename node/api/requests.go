package api

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kinloom/kinloom/node/client"
)

// requests serves people who wrote without being invited by name.
func (s *server) requests(api huma.API) {
	Register(api, Operation{Route: "GET /v1/requests", Summary: "People who wait for an answer", Tag: "requests"},
		func(ctx context.Context, _ *none) ([]client.Contact, error) {
			all, err := s.node.Requests(ctx)
			return each(all, Contact), err
		})
	Register(api, Operation{Route: "POST /v1/requests/{who}/accept", Summary: "Make a contact of a request", Tag: "requests"},
		func(ctx context.Context, in *whoInput) (client.Contact, error) {
			c, err := s.node.AcceptRequest(ctx, in.Who)
			return Contact(c), err
		})
	RegisterEmpty(api, Operation{Route: "POST /v1/requests/{who}/decline", Summary: "Forget a request; the other side is told nothing", Tag: "requests"},
		func(ctx context.Context, in *whoInput) error {
			_, err := s.node.DeclineRequest(ctx, in.Who)
			return err
		})
}
