package api

import (
	"cmp"
	"context"
	"encoding/hex"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/client"
)

type conversationsInput struct {
	Inbox  bool `query:"inbox" doc:"Leave out requests and archived conversations"`
	Unread bool `query:"unread" doc:"With inbox: only those with unread messages"`
}

type updateInput struct {
	Who  string `path:"who" maxLength:"512" doc:"Name of its person, me, or conversation id"`
	Body client.ConversationUpdate
}

type readInput struct {
	Who    string `path:"who" maxLength:"512" doc:"Name of its person, me, or conversation id"`
	Limit  int    `query:"limit" minimum:"0" maximum:"1000" doc:"The newest that many; 0 is 1,000"`
	Before string `query:"before" maxLength:"64" doc:"Only what stands before the message with this id: the first one of the page that was read"`
	Peek   bool   `query:"peek" doc:"Leave it unread"`
}

// conversations serves conversations and their timelines.
func (s *server) conversations(api huma.API) {
	Register(api, Operation{Route: "GET /v1/conversations", Summary: "Conversations, the one with the newest message first", Tag: "conversations"},
		func(ctx context.Context, in *conversationsInput) ([]client.Conversation, error) {
			if in.Inbox {
				all, err := s.node.Inbox(ctx, in.Unread)
				return each(all, Conversation), err
			}
			all, err := s.node.Conversations(ctx)
			return each(all, Conversation), err
		})
	Register(api, Operation{Route: "GET /v1/conversations/{who}", Summary: "One conversation", Tag: "conversations"},
		func(ctx context.Context, in *whoInput) (client.Conversation, error) {
			c, err := s.node.Conversation(ctx, in.Who)
			return Conversation(c), err
		})
	Register(api, Operation{Route: "PATCH /v1/conversations/{who}", Summary: "Mute, archive, or set how long messages are kept", Tag: "conversations"}, s.update)
	Register(api, Operation{Route: "POST /v1/conversations/{who}/clear", Summary: "Delete what was said, on this device", Tag: "conversations"},
		func(ctx context.Context, in *whoInput) (client.Cleared, error) {
			n, err := s.node.ClearConversation(ctx, in.Who)
			return client.Cleared{Removed: n}, err
		})
	Register(api, Operation{Route: "GET /v1/conversations/{who}/messages", Summary: "A timeline, oldest first", Tag: "messages"},
		func(ctx context.Context, in *readInput) ([]client.Message, error) {
			all, err := s.node.Read(ctx, in.Who, node.ReadQuery{Limit: cmp.Or(in.Limit, maxPage), Before: in.Before, Peek: in.Peek})
			return each(all, Message), err
		})
}

func (s *server) update(ctx context.Context, in *updateInput) (client.Conversation, error) {
	u := node.ConversationUpdate{Muted: in.Body.Muted, Archived: in.Body.Archived}
	if in.Body.Retention != nil {
		u.Retention = new(time.Duration(*in.Body.Retention) * time.Second)
	}
	c, err := s.node.UpdateConversation(ctx, in.Who, u)
	return Conversation(c), err
}

// Conversation gives a node's conversation the form of the API.
func Conversation(c node.Conversation) client.Conversation {
	out := client.Conversation{
		Changed: c.Changed, ID: hex.EncodeToString(c.ID[:]), Kind: c.Kind, Name: c.Name, State: c.State, Unread: c.Unread,
		LastAt: client.At(c.LastAt), Muted: c.Muted, Archived: c.Archived, Retention: int64(c.Retention / time.Second),
		ClearedTo: c.ClearedTo,
	}
	if c.Person != (identity.PersonID{}) {
		out.Person = c.Person.String()
	}
	if c.Last != nil {
		out.LastText, out.LastOwn = c.Last.Text, c.Last.Own
	}
	return out
}
