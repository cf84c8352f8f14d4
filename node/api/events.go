package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/client"
	"github.com/kinloom/kinloom/protocol/event"
)

type changesInput struct {
	Since uint64 `query:"since" doc:"Everything that changed after this number"`
	Limit int    `query:"limit" minimum:"0" maximum:"1000" doc:"0 is 1000"`
}

type eventsInput struct {
	Since uint64 `query:"since" doc:"Everything that changed after this number, then what changes from now on"`
	Last  string `header:"Last-Event-ID" doc:"Stands above since: the last id that a reader of the stream saw"`
	Store string `query:"store" doc:"Store that since belongs to; if it is another one the stream begins with reset, at 0"`
}

// events serves what changes, by page and as a stream.
func (s *server) events(api huma.API) {
	Register(api, Operation{Route: "GET /v1/changes", Summary: "Stored objects by the order in which they changed", Tag: "events"}, s.changes)
	op := describe(api, Operation{Route: "GET /v1/events", Summary: "The same as a stream of server-sent events, resumable", Tag: "events"})
	op.Responses["200"] = &huma.Response{
		Description: "event is store or reset (first, without id), msg, state, contact, conversation or invite; id is the number of the change; data is the object. " +
			"problem (last, without id) says why the stream cannot go on",
		Content: map[string]*huma.MediaType{"text/event-stream": {Schema: streamSchema(api.OpenAPI().Components.Schemas)}},
	}
	huma.Register(api, op, s.stream)
}

// streamSchema describes the objects that stand in data.
func streamSchema(schemas huma.Registry) *huma.Schema {
	one := &huma.Schema{}
	for _, t := range []reflect.Type{
		typeOf[client.Message](), typeOf[client.StateChange](), typeOf[client.Contact](), typeOf[client.Conversation](),
		typeOf[client.Invite](), typeOf[client.Store](),
	} {
		one.OneOf = append(one.OneOf, schemas.Schema(t, true, t.Name()))
	}
	return one
}

// changed is a change in a page: the object's own fields, with its kind in front as event.
type changed struct{ client.Change }

// Schema describes it to the library, which sees a struct.
func (changed) Schema(schemas huma.Registry) *huma.Schema {
	one := streamSchema(schemas)
	one.Description = "The object, with event (its name in the stream) and changed"
	return one
}

// changes pages through what changed. Objects that nobody is shown are passed over, so a page may be short; the reader
// has seen everything when a page is empty.
func (s *server) changes(ctx context.Context, in *changesInput) ([]changed, error) {
	limit := in.Limit
	if limit == 0 {
		limit = maxPage
	}
	out := []changed{}
	for since := in.Since; ; {
		page, err := s.node.Changes(ctx, since, limit)
		if err != nil {
			return nil, err
		}
		for _, c := range page {
			since = c.Changed
			if c.Kind != "" {
				out = append(out, changed{Change(c)})
			}
		}
		if len(page) == 0 || len(out) > 0 {
			return out, nil
		}
	}
}

func (s *server) stream(ctx context.Context, in *eventsInput) (*huma.StreamResponse, error) {
	since := in.Since
	if in.Last != "" {
		last, err := strconv.ParseUint(in.Last, 10, 64)
		if err != nil {
			return nil, newProblem(http.StatusUnprocessableEntity, client.CodeUsage, "Last-Event-ID is not a number of a change", "Give the last id that the stream sent.")
		}
		since = last
	}
	status, err := s.node.Status(ctx)
	if err != nil {
		return nil, problem(err)
	}
	select {
	case s.readers <- struct{}{}:
	default:
		return nil, newProblem(http.StatusServiceUnavailable, client.CodeRefused, fmt.Sprintf("%d programs read events already", maxReaders), "End one of them.")
	}
	store := status.Device.String()
	first := client.Change{Kind: client.KindStore, Store: &client.Store{ID: store}}
	if in.Store != "" && in.Store != store {
		first.Kind, since = client.KindReset, 0
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer func() { <-s.readers }()
		_, w := humago.Unwrap(hc)
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusOK)
		follow(ctx, w, first, func(ctx context.Context) iter.Seq2[node.Change, error] { return s.node.Events(ctx, since) })
	}}, nil
}

// follow writes first, then the changes, with a sign of life where nothing changes, until the reader or the node goes.
// If the changes cannot be read, that is the last thing it writes: a stream that just ends is taken up again at once.
// Events are written by one goroutine, so a slow reader only delays itself: the store is the queue.
func follow(ctx context.Context, w http.ResponseWriter, first client.Change, events func(context.Context) iter.Seq2[node.Change, error]) {
	if send(w, first) != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	changes := make(chan node.Change)
	done := make(chan struct{})
	var ended error // set before done is closed
	go func() {
		defer close(done)
		for c, err := range events(ctx) {
			if err != nil {
				ended = err
				return
			}
			select {
			case changes <- c:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() {
		cancel()
		<-done
	}()
	beat := time.NewTicker(beatTime)
	defer beat.Stop()
	for {
		var err error
		select {
		case c := <-changes:
			err = send(w, Change(c))
		case <-beat.C:
			err = put(w, ":\n\n")
		case <-done:
			if ended != nil && ctx.Err() == nil && !errors.Is(ended, node.ErrClosed) {
				_ = sendAs(w, client.KindProblem, "", problem(ended)) // the reader went away: nobody is left to tell
			}
			return
		}
		if err != nil {
			return
		}
	}
}

// send writes one event.
func send(w http.ResponseWriter, c client.Change) error {
	id := ""
	if c.Changed > 0 {
		id = fmt.Sprintf("id: %d\n", c.Changed)
	}
	return sendAs(w, c.Kind, id, c.Object())
}

func sendAs(w http.ResponseWriter, kind, id string, object any) error {
	data, err := json.Marshal(object)
	if err != nil {
		return err
	}
	return put(w, fmt.Sprintf("event: %s\n%sdata: %s\n\n", kind, id, data))
}

// put writes and flushes; a reader that takes nothing for a while is let go.
func put(w http.ResponseWriter, text string) error {
	setDeadline(w, replyTime)
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	return http.NewResponseController(w).Flush()
}

// Change gives a node's change the form of the API.
func Change(c node.Change) client.Change {
	out := client.Change{Changed: c.Changed, Kind: c.Kind}
	switch {
	case c.Message != nil:
		out.Kind, out.Message = client.KindMessage, new(Message(*c.Message))
		out.Message.Changed = c.Changed
	case c.State != nil:
		out.Kind, out.State = client.KindState, new(state(*c.State))
		out.State.Changed = c.Changed
	case c.Contact != nil:
		out.Kind, out.Contact = client.KindContact, new(Contact(*c.Contact))
		out.Contact.Changed = c.Changed
	case c.Conversation != nil:
		out.Kind, out.Conversation = client.KindConversation, new(Conversation(*c.Conversation))
		out.Conversation.Changed = c.Changed
	case c.Invite != nil:
		out.Kind, out.Invite = client.KindInvite, new(Invite(*c.Invite))
		out.Invite.Changed = c.Changed
	}
	return out
}

func state(s node.StateChange) client.StateChange {
	out := client.StateChange{
		Conversation: hex.EncodeToString(s.Conversation[:]), From: s.From, To: s.To, State: s.State, At: client.At(s.At),
	}
	if s.Upto != (event.ID{}) {
		out.Upto = hex.EncodeToString(s.Upto[:])
	}
	if s.Person != (identity.PersonID{}) {
		out.Person = s.Person.String()
	}
	if s.Device != (identity.DeviceID{}) {
		out.Device = s.Device.String()
	}
	return out
}
