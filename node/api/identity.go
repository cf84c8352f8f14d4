package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/client"
)

type none struct{}

type renameInput struct {
	Body client.Rename
}

// identity serves what the node is: health, status, its person, and its end.
func (s *server) identity(api huma.API) {
	Register(api, Operation{Route: "GET /v1/health", Summary: "Says ok, and nothing else", Tag: "node"},
		func(context.Context, *none) (client.Health, error) { return client.Health{Status: "ok"}, nil })
	Register(api, Operation{Route: "GET /v1/status", Summary: "How the node stands", Tag: "node"},
		func(ctx context.Context, _ *none) (client.Status, error) {
			status, err := s.node.Status(ctx)
			return Status(status), err
		})
	Register(api, Operation{Route: "GET /v1/identity", Summary: "The person that the node speaks for", Tag: "identity"},
		func(ctx context.Context, _ *none) (client.Identity, error) { return s.person(ctx) })
	Register(api, Operation{Route: "PATCH /v1/identity", Summary: "Change the profile name, which contacts are told", Tag: "identity"},
		func(ctx context.Context, in *renameInput) (client.Identity, error) {
			if err := s.node.SetName(ctx, in.Body.Name); err != nil {
				return client.Identity{}, err
			}
			return s.person(ctx)
		})
	RegisterEmpty(api, Operation{Route: "POST /v1/stop", Summary: "End the node, after this reply", Tag: "node"},
		func(context.Context, *none) error {
			if s.options.Stop == nil {
				return newProblem(http.StatusServiceUnavailable, client.CodeNotRunning, "this node ends with its command", "")
			}
			s.options.Stop()
			return nil
		})
}

func (s *server) person(ctx context.Context) (client.Identity, error) {
	status, err := s.node.Status(ctx)
	return client.Identity{ID: status.Person.String(), Device: status.Device.String(), Name: status.Name}, err
}

// Status gives a node's status the form of the API.
func Status(s node.Status) client.Status {
	return client.Status{
		Sent: s.Sent, Received: s.Received, Ready: s.Ready, ID: s.Person.String(), Device: s.Device.String(), Name: s.Name, Home: s.Dir, Version: s.Version,
		Started: client.At(s.Started), KeyProtection: s.KeyProtection, Listening: list(s.Listening), Peer: s.PeerID, LANPeer: s.LANPeerID,
		Reach: s.Reach, ReachText: s.ReachText, ReachNext: s.ReachNext, Profile: s.Profile, Contacts: s.Contacts, Requests: s.Requests, Online: s.Online, Unread: s.Unread, Queued: s.Queued,
		LastCrash: s.LastCrash, Warnings: s.Warnings,
	}
}

// list gives an empty list where JSON would say null.
func list[T any](in []T) []T {
	if in == nil {
		return []T{}
	}
	return in
}

// each turns every element.
func each[From, To any](in []From, turn func(From) To) []To {
	out := make([]To, 0, len(in))
	for _, v := range in {
		out = append(out, turn(v))
	}
	return out
}
