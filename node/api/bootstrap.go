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

type sourceInput struct {
	Body client.NewSource
}

type sourceQuery struct {
	Place string `query:"place" required:"true" maxLength:"512" doc:"As it was named"`
}

type signerInput struct {
	Body client.Signer
}

type signersInput struct {
	Body client.SignersNeeded
}

type signerPath struct {
	Key string `path:"key" maxLength:"128" doc:"Public key, 64 hex digits"`
}

type listInput struct {
	Body client.NewServerList
}

type listPath struct {
	Name string `path:"name" maxLength:"64" doc:"What the list is called"`
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
	s.sources(api)
	s.serverLists(api)
}

// sources serves the places that are asked when no server answers.
func (s *server) sources(api huma.API) {
	Register(api, Operation{Route: "POST /v1/bootstrap/sources", Summary: "Name a place that is asked for servers when none answers", Tag: "network"},
		func(ctx context.Context, in *sourceInput) (client.Source, error) {
			out, err := s.node.AddSource(ctx, in.Body.Place)
			return source(out), err
		})
	Register(api, Operation{Route: "GET /v1/bootstrap/sources", Summary: "Places that are asked for servers, and what came of it", Tag: "network"},
		func(ctx context.Context, _ *none) ([]client.Source, error) {
			all, err := s.node.Sources(ctx)
			return each(all, source), err
		})
	RegisterEmpty(api, Operation{Route: "DELETE /v1/bootstrap/sources", Summary: "Forget a place", Tag: "network"},
		func(ctx context.Context, in *sourceQuery) error { return s.node.RemoveSource(ctx, in.Place) })
}

// serverLists serves signed lists of servers, and whom the owner believes.
func (s *server) serverLists(api huma.API) {
	Register(api, Operation{Route: "POST /v1/bootstrap/lists", Summary: "Import a signed list of servers", Tag: "network"},
		func(ctx context.Context, in *listInput) (client.ServerList, error) {
			out, err := s.node.ImportServers(ctx, []byte(in.Body.Text))
			return serverList(out), err
		})
	Register(api, Operation{Route: "GET /v1/bootstrap/lists", Summary: "Lists of servers that were imported", Tag: "network"},
		func(ctx context.Context, _ *none) ([]client.ServerList, error) {
			all, err := s.node.ServerLists(ctx)
			return each(all, serverList), err
		})
	RegisterEmpty(api, Operation{Route: "DELETE /v1/bootstrap/lists/{name}", Summary: "Forget a list and its servers", Tag: "network"},
		func(ctx context.Context, in *listPath) error { return s.node.RemoveServerList(ctx, in.Name) })
	Register(api, Operation{Route: "POST /v1/bootstrap/signers", Summary: "Believe lists that a key has signed", Tag: "network"},
		func(ctx context.Context, in *signerInput) (client.Signer, error) {
			out, err := s.node.AddSigner(ctx, in.Body.Key, in.Body.Name)
			return signer(out), err
		})
	Register(api, Operation{Route: "GET /v1/bootstrap/signers", Summary: "Whose lists are believed, and how many must agree", Tag: "network"},
		func(ctx context.Context, _ *none) (client.Signers, error) {
			out, err := s.node.Signers(ctx)
			return client.Signers{Need: out.Need, Signers: each(out.Signers, signer)}, err
		})
	RegisterEmpty(api, Operation{Route: "PATCH /v1/bootstrap/signers", Summary: "Say how many signers must agree", Tag: "network"},
		func(ctx context.Context, in *signersInput) error { return s.node.NeedSigners(ctx, in.Body.Need) })
	RegisterEmpty(api, Operation{Route: "DELETE /v1/bootstrap/signers/{key}", Summary: "Believe a key no longer", Tag: "network"},
		func(ctx context.Context, in *signerPath) error { return s.node.RemoveSigner(ctx, in.Key) })
}

func source(s node.Source) client.Source {
	return client.Source{Place: s.Place, Asked: client.At(s.Asked), Servers: s.Servers, Problem: s.Problem}
}

func signer(s node.Signer) client.Signer { return client.Signer{Key: s.Key, Name: s.Name} }

func serverList(l node.ServerList) client.ServerList {
	return client.ServerList{
		List: l.Name, Issued: client.At(l.Issued), Expires: client.At(l.Expires), Servers: l.Servers, Skipped: l.Skipped,
		Signers: list(l.Signers), Problem: l.Problem, New: l.New,
	}
}

func bootstrap(b node.Bootstrap) client.Bootstrap {
	return client.Bootstrap{Peer: b.Peer, Addresses: list(b.Addresses), Answered: client.At(b.Answered), Fails: b.Fails}
}
