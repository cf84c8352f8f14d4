package api

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/client"
)

type pingInput struct {
	Who     string `path:"who" maxLength:"512" doc:"Petname, profile name or did:key"`
	Timeout int64  `query:"timeout_ms" minimum:"1" maximum:"90000" default:"30000" doc:"Milliseconds"`
}

// look serves how the node's connections stand.
func (s *server) look(api huma.API) {
	Register(api, Operation{Route: "GET /v1/peers", Summary: "Who is connected, the longest connected first", Tag: "node"},
		func(ctx context.Context, _ *none) ([]client.Peer, error) {
			all, err := s.node.Peers(ctx)
			return each(all, peer), err
		})
	Register(api, Operation{Route: "GET /v1/doctor", Summary: "Every check of the node and its computer, in words", Tag: "node"},
		func(ctx context.Context, _ *none) ([]client.Finding, error) {
			all, err := s.node.Doctor(ctx)
			return each(all, Finding), err
		})
	Register(api, Operation{Route: "POST /v1/contacts/{who}/ping", Summary: "Reach a contact's devices now, and measure a round trip to each", Tag: "contacts"}, s.ping)
}

func (s *server) ping(ctx context.Context, in *pingInput) ([]client.Pong, error) {
	ctx, cancel := context.WithTimeout(ctx, min(time.Duration(in.Timeout)*time.Millisecond, maxPing))
	defer cancel()
	all, err := s.node.Ping(ctx, in.Who)
	return each(all, pong), err
}

func peer(p node.Peer) client.Peer {
	out := client.Peer{
		Peer: p.ID, Kind: p.Kind, Name: p.Name, Device: p.Device, Route: p.Route, Transport: p.Transport, Direction: "out",
		Address: p.Address, Since: client.At(p.Since),
	}
	if p.Device != "" {
		out.Who = p.Person.String()
	}
	if p.Inbound {
		out.Direction = "in"
	}
	return out
}

func pong(p node.Pong) client.Pong {
	out := client.Pong{
		Device: p.Device, Name: p.Name, State: "unanswered", Route: p.Route, Transport: p.Transport, Address: p.Address,
		Reason: p.Reason, Next: p.Next,
	}
	if p.Answered {
		out.State, out.RTT = "answered", float64(p.RTT.Microseconds())/1000
	}
	return out
}

// Finding gives a finding of a node the form of the API.
func Finding(f node.Finding) client.Finding {
	return client.Finding{Check: f.Check, Verdict: string(f.Verdict), Found: f.Found, Fix: f.Fix}
}
