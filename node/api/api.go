package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/client"
)

// Options are what the server is told besides the node.
type Options struct {
	// Stop ends the node; it must return at once. Nil: the node cannot be stopped from here.
	Stop func()
	// Version stands in the specification.
	Version string
}

// server holds what handlers share.
type server struct {
	node    *node.Node
	options Options
	readers chan struct{} // one slot per open event stream
}

// New gives the handler of the local API for a node.
func New(n *node.Node, o Options) http.Handler {
	s := &server{node: n, options: o, readers: make(chan struct{}, maxReaders)}
	mux := http.NewServeMux()
	s.register(mux)
	return limit(once(mux))
}

// Spec gives the OpenAPI description as JSON.
func Spec(version string) ([]byte, error) {
	s := &server{options: Options{Version: version}}
	return json.MarshalIndent(s.register(http.NewServeMux()).OpenAPI(), "", "  ")
}

// register sets up every operation on the mux.
func (s *server) register(mux *http.ServeMux) huma.API {
	config := huma.DefaultConfig("kinloom local API", s.options.Version)
	config.Info.Description = "Asks and drives one kinloom node. Ids are strings, times RFC 3339 in UTC with milliseconds. " +
		"A POST takes an Idempotency-Key: a repeated one gives the first answer again."
	config.OpenAPIPath = ""  // the specification is a file and a command, not a page of the node
	config.DocsPath = ""     // no page is served that would load something from elsewhere
	config.SchemasPath = ""  // and no reply carries a link to its schema
	config.CreateHooks = nil // which this hook would add
	config.Transformers = []huma.Transformer{problems}
	api := humago.New(mux, config)
	s.identity(api)
	s.look(api)
	s.invites(api)
	s.contacts(api)
	s.requests(api)
	s.conversations(api)
	s.messages(api)
	s.events(api)
	s.bootstrap(api)
	tidy(api.OpenAPI())
	return api
}

// tidy takes out of the specification what the library adds and this API does not do: errors in its own form, and lists
// that are null.
func tidy(spec *huma.OpenAPI) {
	schemas := spec.Components.Schemas.Map()
	delete(schemas, "ErrorModel")
	delete(schemas, "ErrorDetail")
	for _, schema := range schemas {
		for _, property := range schema.Properties {
			property.Nullable = property.Nullable && property.Type != huma.TypeArray
		}
	}
	for _, path := range spec.Paths {
		for _, op := range []*huma.Operation{path.Get, path.Post, path.Patch, path.Delete} {
			if op == nil {
				continue
			}
			if done := op.Responses["200"]; done != nil {
				for _, content := range done.Content {
					content.Schema.Nullable = false
				}
			}
		}
	}
}

// Operation names one call: method and path as in "GET /v1/status", and what it does.
type Operation struct {
	Route   string
	Summary string
	Tag     string
	Status  int // of success, if not 200
}

// body is a reply that is JSON.
type body[T any] struct{ Body T }

// Register is the one door to the HTTP library, so that it can be replaced: in are path and query parameters and the
// body by struct tags, out is the reply.
func Register[In, Out any](api huma.API, op Operation, handle func(context.Context, *In) (Out, error)) {
	huma.Register(api, describe(api, op), func(ctx context.Context, in *In) (*body[Out], error) {
		out, err := handle(ctx, in)
		if err != nil {
			return nil, problem(err)
		}
		return &body[Out]{out}, nil
	})
}

// RegisterEmpty is Register for a call that answers nothing but success, with status 204.
func RegisterEmpty[In any](api huma.API, op Operation, handle func(context.Context, *In) error) {
	op.Status = http.StatusNoContent
	huma.Register(api, describe(api, op), func(ctx context.Context, in *In) (*struct{}, error) {
		if err := handle(ctx, in); err != nil {
			return nil, problem(err)
		}
		return nil, nil
	})
}

// describe turns an Operation into the library's form.
func describe(api huma.API, op Operation) huma.Operation {
	method, path, _ := strings.Cut(op.Route, " ")
	var id strings.Builder
	id.WriteString(strings.ToLower(method))
	for segment := range strings.SplitSeq(strings.TrimPrefix(path, "/v1/"), "/") {
		id.WriteString("-" + strings.Trim(segment, "{}"))
	}
	described := huma.Operation{
		OperationID: id.String(), Method: method, Path: path, Summary: op.Summary, Tags: []string{op.Tag},
		DefaultStatus: op.Status, MaxBodyBytes: maxBody,
		BodyReadTimeout: -1, // limit has read it; the 5 s of the library would end the call, too
		Responses: map[string]*huma.Response{"default": {
			Description: "The problem, with a code and the next step",
			Content: map[string]*huma.MediaType{"application/problem+json": {
				Schema: api.OpenAPI().Components.Schemas.Schema(typeOf[client.Problem](), true, "Problem"),
			}},
		}},
	}
	if method == http.MethodPost && path != "/v1/messages" { // which declares its own, as its store keeps the key
		described.Parameters = append(described.Parameters, &huma.Param{
			Name: keyHeader, In: "header", Description: "Any text of at most 128 bytes; a repeated one gives the first answer again",
			Schema: &huma.Schema{Type: huma.TypeString, MaxLength: new(maxKey)},
		})
	}
	return described
}
