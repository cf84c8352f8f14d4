package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxReply bounds a reply that is read into memory: 64 MiB, above the largest page the API gives.
const maxReply = 64 << 20

// Client calls one node. Its methods may be used from several goroutines.
type Client struct {
	http *http.Client
}

// New gives a client over any transport: one that dials a socket, or InProcess.
func New(transport http.RoundTripper) *Client {
	return &Client{http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Dial gives a client over the unix socket at path. Nothing is sent before the first call.
func Dial(path string) *Client {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	return New(&http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		},
		MaxIdleConns: 4, IdleConnTimeout: time.Minute, DisableCompression: true,
	})
}

// Close gives back idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// call sends in as JSON, if it is not nil, and decodes the reply into out, if that is not nil. Every POST carries a
// fresh Idempotency-Key.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	return c.callOnce(ctx, method, path, query, in, out, newKey())
}

// callOnce is call with an Idempotency-Key of the caller's.
func (c *Client) callOnce(ctx context.Context, method, path string, query url.Values, in, out any, key string) error {
	response, err := c.open(ctx, method, path, query, in, key)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxReply+1))
	switch {
	case err != nil:
		return fmt.Errorf("read the node's reply: %w", err)
	case len(body) > maxReply:
		return fmt.Errorf("read the node's reply: more than %d MiB", maxReply>>20)
	case out == nil || response.StatusCode == http.StatusNoContent:
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("read the node's reply: %w", err)
	}
	return nil
}

// open sends a request and returns a reply of status 2xx; any other reply comes back as *Problem.
func (c *Client) open(ctx context.Context, method, path string, query url.Values, in any, key string) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("write the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	target := "http://localhost" + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, fmt.Errorf("write the request: %w", err)
	}
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if method == http.MethodPost {
		request.Header.Set("Idempotency-Key", key)
	}
	response, err := c.http.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
			return nil, &Problem{
				Status: http.StatusServiceUnavailable, Title: http.StatusText(http.StatusServiceUnavailable), Code: CodeNotRunning,
				Detail: "no node answers on " + op.Addr.String(), Next: "Start one: kinloom up",
			}
		}
		return nil, fmt.Errorf("ask the node: %w", err)
	}
	if response.StatusCode >= 200 && response.StatusCode <= 299 {
		return response, nil
	}
	defer response.Body.Close()
	return nil, readProblem(response)
}

// pathOf joins path segments, each escaped.
func pathOf(segments ...string) string {
	var b strings.Builder
	for _, segment := range segments {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(segment))
	}
	return b.String()
}

func newKey() string { return rand.Text() }

// InProcess is a transport that calls a handler in the caller's goroutine and hands over the whole reply at once: for a
// command that opened the node itself. Streams need a socket.
type InProcess struct{ Handler http.Handler }

// RoundTrip calls the handler.
func (t InProcess) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Body == nil {
		request.Body = http.NoBody
	}
	request.RequestURI = request.URL.RequestURI()
	w := &buffer{header: http.Header{}, status: http.StatusOK}
	t.Handler.ServeHTTP(w, request)
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()), Request: request,
	}, nil
}

// buffer is the reply of one in-process call.
type buffer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *buffer) Header() http.Header         { return w.header }
func (w *buffer) WriteHeader(status int)      { w.status = status }
func (w *buffer) Write(b []byte) (int, error) { return w.body.Write(b) }
