package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/client"
)

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

// kinds gives the code and the HTTP status of each kind of failure.
var kinds = map[node.Kind]struct {
	code   string
	status int
}{
	node.KindError:      {client.CodeError, http.StatusInternalServerError},
	node.KindUsage:      {client.CodeUsage, http.StatusUnprocessableEntity},
	node.KindNotFound:   {client.CodeNotFound, http.StatusNotFound},
	node.KindRefused:    {client.CodeRefused, http.StatusForbidden},
	node.KindTimeout:    {client.CodeTimeout, http.StatusGatewayTimeout},
	node.KindNotRunning: {client.CodeNotRunning, http.StatusServiceUnavailable},
}

// problem turns any error into what the API answers.
func problem(err error) *client.Problem {
	if p, ok := errors.AsType[*client.Problem](err); ok {
		return p
	}
	kind := kinds[node.KindOf(err)]
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		kind = kinds[node.KindTimeout]
	case errors.Is(err, node.ErrClosed):
		kind = kinds[node.KindNotRunning]
	}
	p := &client.Problem{Title: http.StatusText(kind.status), Status: kind.status, Code: kind.code, Detail: err.Error()}
	if e, ok := errors.AsType[*node.Error](err); ok {
		p.Detail, p.Next, p.Candidates, p.Technical = e.Text, e.Next, e.Candidates, e.Technical()
		if cause := e.Cause(); cause != "" {
			p.Detail += ": " + cause
		}
	}
	return p
}

// newProblem makes a problem of the server itself.
func newProblem(status int, code, detail, next string) *client.Problem {
	return &client.Problem{Title: http.StatusText(status), Status: status, Code: code, Detail: detail, Next: next}
}

// problems gives the library's own errors, about requests that do not fit their description, our form.
func problems(_ huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	code, next := client.CodeUsage, "The specification tells what fits: node/api/testdata/openapi.json."
	if e.Status >= http.StatusInternalServerError {
		code, next = client.CodeError, ""
	}
	if said := tooLong(e.Errors); said != "" {
		return newProblem(e.Status, code, said, "Give less of it."), nil
	}
	var detail strings.Builder
	detail.WriteString(e.Detail)
	for _, part := range e.Errors {
		detail.WriteString("; " + strings.TrimSpace(part.Location+" "+part.Message))
	}
	return newProblem(e.Status, code, detail.String(), next), nil
}

// tooLong says of what is too long by how much, in words for people: it is what they give by mistake. Empty: something
// else is wrong with the request.
func tooLong(parts []*huma.ErrorDetail) string {
	words := map[string]string{"q": "query", "who": "name", "to": "name"}
	var out []string
	for _, part := range parts {
		most, ok := strings.CutPrefix(part.Message, "expected length <= ")
		if !ok {
			return ""
		}
		field := part.Location[strings.LastIndexByte(part.Location, '.')+1:]
		out = append(out, "the "+cmp.Or(words[field], field)+" is longer than "+most+" characters")
	}
	return strings.Join(out, "; ")
}
