package api

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/client"
)

type inviteInput struct {
	Body client.NewInvite
}

type inviteID struct {
	ID string `path:"id" doc:"Id of an invite, or its beginning"`
}

// invites serves invites.
func (s *server) invites(api huma.API) {
	Register(api, Operation{Route: "POST /v1/invites", Summary: "Make an invite", Tag: "invites"},
		func(ctx context.Context, in *inviteInput) (client.Invite, error) {
			made, err := s.node.NewInvite(ctx, node.InviteRequest{Many: in.Body.Many, For: in.Body.For, Expires: time.Duration(in.Body.Seconds) * time.Second})
			return Invite(made), err
		})
	Register(api, Operation{Route: "GET /v1/invites", Summary: "Invites, the newest first", Tag: "invites"},
		func(ctx context.Context, _ *none) ([]client.Invite, error) {
			all, err := s.node.Invites(ctx)
			return each(all, Invite), err
		})
	RegisterEmpty(api, Operation{Route: "DELETE /v1/invites/{id}", Summary: "End an invite before its time", Tag: "invites"},
		func(ctx context.Context, in *inviteID) error { return s.node.RevokeInvite(ctx, in.ID) })
}

// Invite gives a node's invite the form of the API.
func Invite(i node.Invite) client.Invite {
	return client.Invite{
		ID: i.ID, Link: i.Link, QR: i.QR, Expires: client.At(i.Expires), Reach: i.Reach, Many: i.Many,
		Created: client.At(i.Created), Uses: i.Uses, Revoked: i.Revoked, Changed: i.Changed, Warning: i.Warning,
	}
}
