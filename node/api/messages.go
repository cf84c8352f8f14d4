package api

import (
	"context"
	"encoding/hex"
	"errors"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/client"
)

type sendInput struct {
	Key  string `header:"Idempotency-Key" maxLength:"128" doc:"A repeated key gives the first message again, for 24 hours"`
	Body client.Outgoing
}

type messageInput struct {
	ID string `path:"id" maxLength:"64" doc:"Id of a message, or at least 8 digits of it"`
}

type waitInput struct {
	ID      string `path:"id" maxLength:"64" doc:"Id of a message, or at least 8 digits of it"`
	State   string `query:"state" enum:"queued,delivered,read" default:"delivered"`
	Timeout int64  `query:"timeout_ms" minimum:"0" default:"30000" doc:"Milliseconds"`
}

type searchInput struct {
	Text       string    `query:"q" maxLength:"1024" doc:"Words, a quoted phrase, or a beginning followed by *; all must be there"`
	Network    string    `query:"network"`
	Person     string    `query:"person" doc:"Name or did:key"`
	Protection string    `query:"protection"`
	Since      time.Time `query:"since"`
	Limit      int       `query:"limit" minimum:"0" maximum:"10000" doc:"0 is 50"`
}

// messages serves what was said and what becomes of it.
func (s *server) messages(api huma.API) {
	Register(api, Operation{Route: "POST /v1/messages", Summary: "Say something; it is durable when this answers", Tag: "messages"}, s.send)
	Register(api, Operation{Route: "GET /v1/messages", Summary: "Search, the newest first", Tag: "messages"}, s.search)
	Register(api, Operation{Route: "GET /v1/messages/{id}", Summary: "One message", Tag: "messages"},
		func(ctx context.Context, in *messageInput) (client.Message, error) {
			m, err := s.node.Message(ctx, in.ID)
			return Message(m), err
		})
	Register(api, Operation{Route: "GET /v1/messages/{id}/wait", Summary: "Wait until a message has come as far as a state", Tag: "messages"}, s.wait)
	Register(api, Operation{Route: "GET /v1/messages/{id}/stages", Summary: "Every step of a message on its way", Tag: "messages"},
		func(ctx context.Context, in *messageInput) ([]client.Stage, error) {
			stages, err := s.node.Why(ctx, in.ID)
			return each(stages, stage), err
		})
}

func (s *server) send(ctx context.Context, in *sendInput) (client.Message, error) {
	conversation, err := s.node.ConversationID(ctx, in.Body.To)
	if err != nil {
		return client.Message{}, err
	}
	m, err := s.node.SendOnce(ctx, conversation, node.Text(in.Body.Text), in.Key)
	return Message(m), err
}

func (s *server) search(ctx context.Context, in *searchInput) ([]client.Message, error) {
	all, err := s.node.Search(ctx, node.SearchQuery{
		Text: in.Text, Network: in.Network, Person: in.Person, Protection: in.Protection, Since: in.Since, Limit: in.Limit,
	})
	return each(all, Message), err
}

func (s *server) wait(ctx context.Context, in *waitInput) (client.Waited, error) {
	m, err := s.node.Message(ctx, in.ID)
	if err != nil {
		return client.Waited{}, err
	}
	waiting, cancel := context.WithTimeout(ctx, min(time.Duration(in.Timeout)*time.Millisecond, maxWait))
	defer cancel()
	m, err = s.node.Wait(waiting, m.ID, in.State)
	late := errors.Is(err, node.ErrTimeout)
	if err != nil && !late {
		return client.Waited{}, err
	}
	return client.Waited{Message: Message(m), TimedOut: late}, nil
}

// Message gives a node's message the form of the API.
func Message(m node.Message) client.Message {
	out := client.Message{
		Changed: m.Changed, ID: hex.EncodeToString(m.ID[:]), Conversation: hex.EncodeToString(m.Conversation[:]),
		From: m.From.String(), Name: m.FromName, Own: m.Own, Type: m.Type, Text: m.Text, At: client.At(m.At), State: m.State,
		Network: m.Network, Protection: m.Protection, Route: m.Route, Reason: m.Reason, Next: m.Next,
		ClockWrong: m.ClockWrong, Deleted: m.Deleted, Gap: m.Gap,
	}
	if m.About != nil {
		out.About = hex.EncodeToString(m.About[:])
	}
	return out
}

func stage(s node.Stage) client.Stage {
	return client.Stage{At: client.At(s.At), Stage: s.Stage, Route: s.Route, By: s.By, Reason: s.Reason, Next: s.Next}
}
