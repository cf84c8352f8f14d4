package api

import (
	"context"
	"encoding/hex"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/client"
)

type whoInput struct {
	Who string `path:"who" maxLength:"512" doc:"Petname, profile name or did:key"`
}

type addInput struct {
	Body client.AddContact
}

type renameContactInput struct {
	Who  string `path:"who" maxLength:"512" doc:"Petname, profile name or did:key"`
	Body client.Rename
}

type removeInput struct {
	Who     string `path:"who" maxLength:"512" doc:"Petname, profile name or did:key"`
	History bool   `query:"history" doc:"Delete what was said, too"`
}

type waysInput struct {
	Who  string `path:"who" maxLength:"512" doc:"Petname, profile name or did:key"`
	Body client.Ways
}

type verifyInput struct {
	Who  string `path:"who" maxLength:"512" doc:"Petname, profile name or did:key"`
	Body client.Verdict
}

// contacts serves other persons.
func (s *server) contacts(api huma.API) {
	Register(api, Operation{Route: "POST /v1/contacts", Summary: "Answer an invite", Tag: "contacts"}, s.add)
	Register(api, Operation{Route: "GET /v1/contacts", Summary: "Contacts by name", Tag: "contacts"},
		func(ctx context.Context, _ *none) ([]client.Contact, error) {
			all, err := s.node.Contacts(ctx)
			return each(all, Contact), err
		})
	Register(api, Operation{Route: "GET /v1/contacts/{who}", Summary: "One contact", Tag: "contacts"},
		func(ctx context.Context, in *whoInput) (client.Contact, error) {
			c, err := s.node.Contact(ctx, in.Who)
			return Contact(c), err
		})
	Register(api, Operation{Route: "PATCH /v1/contacts/{who}", Summary: "Give a petname; an empty one takes it away", Tag: "contacts"},
		func(ctx context.Context, in *renameContactInput) (client.Contact, error) {
			c, err := s.node.RenameContact(ctx, in.Who, in.Body.Name)
			return Contact(c), err
		})
	RegisterEmpty(api, Operation{Route: "DELETE /v1/contacts/{who}", Summary: "Forget a contact", Tag: "contacts"},
		func(ctx context.Context, in *removeInput) error {
			_, err := s.node.RemoveContact(ctx, in.Who, in.History)
			return err
		})
	Register(api, Operation{Route: "GET /v1/contacts/{who}/fingerprint", Summary: "What two persons compare", Tag: "contacts"}, s.fingerprint)
	Register(api, Operation{Route: "POST /v1/contacts/{who}/verify", Summary: "The owner's answer to the comparison", Tag: "contacts"},
		func(ctx context.Context, in *verifyInput) (client.Contact, error) {
			c, err := s.node.VerifyContact(ctx, in.Who, in.Body.Same)
			return Contact(c), err
		})
	Register(api, Operation{Route: "POST /v1/contacts/{who}/block", Summary: "Take nothing more from a contact", Tag: "contacts"},
		func(ctx context.Context, in *whoInput) (client.Contact, error) {
			c, err := s.node.Block(ctx, in.Who)
			return Contact(c), err
		})
	Register(api, Operation{Route: "POST /v1/contacts/{who}/unblock", Summary: "End a block", Tag: "contacts"},
		func(ctx context.Context, in *whoInput) (client.Contact, error) {
			c, err := s.node.Unblock(ctx, in.Who)
			return Contact(c), err
		})
	Register(api, Operation{Route: "POST /v1/contacts/{who}/ways", Summary: "By which routes a contact is reached", Tag: "contacts"},
		func(ctx context.Context, in *waysInput) (client.Contact, error) {
			c, err := s.node.SetWays(ctx, in.Who, in.Body.Ways)
			return Contact(c), err
		})
	Register(api, Operation{Route: "GET /v1/contacts/{who}/routes", Summary: "Ways to a contact's devices, the live one first, then in the order in which they are tried", Tag: "contacts"},
		func(ctx context.Context, in *whoInput) ([]client.Way, error) {
			ways, err := s.node.Route(ctx, in.Who)
			return each(ways, way), err
		})
}

func (s *server) add(ctx context.Context, in *addInput) (client.Added, error) {
	ctx, cancel := context.WithTimeout(ctx, addTime)
	defer cancel()
	added, err := s.node.AddContact(ctx, in.Body.Link, node.AddOptions{Name: in.Body.Name})
	if err != nil {
		return client.Added{}, err
	}
	out := client.Added{Contact: Contact(added.Contact), Via: added.Via, Took: added.Took.Milliseconds(), Request: added.Request}
	out.Words = added.Words
	return out, nil
}

func (s *server) fingerprint(ctx context.Context, in *whoInput) (client.Fingerprint, error) {
	c, err := s.node.Contact(ctx, in.Who)
	if err != nil {
		return client.Fingerprint{}, err
	}
	digits, qr, err := s.node.Fingerprint(ctx, in.Who)
	return client.Fingerprint{ID: c.ID.String(), Name: c.Name, Trust: c.Trust, Words: c.Words, Digits: digits, QR: qr}, err
}

// Contact gives a node's contact the form of the API.
func Contact(c node.Contact) client.Contact {
	return client.Contact{
		Changed: c.Changed, ID: c.ID.String(), Name: c.Name, Trust: c.Trust, State: c.State, Petname: c.Petname, Profile: c.ProfileName,
		Since: client.At(c.Since), Devices: c.Devices, LastSeen: client.At(c.LastSeen), Words: c.Words,
		Conversation: hex.EncodeToString(c.Conversation[:]), Ways: c.Ways, Unreached: c.Unreached,
	}
}

func way(w node.Way) client.Way {
	return client.Way{
		Device: w.Device, Route: w.Route, Transport: w.Transport, Address: w.Address, Source: w.Source, Live: w.Live,
		LastTry: client.At(w.LastTry), LastOK: client.At(w.LastOK), Result: w.Result,
	}
}
