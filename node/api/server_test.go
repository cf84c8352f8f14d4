package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/client"
)

// TestProblem gives every kind of failure its code, status and exit code.
func TestProblem(t *testing.T) {
	for _, test := range []struct {
		err    error
		code   string
		status int
		exit   int
		text   string
	}{
		{errors.New("disk on fire"), client.CodeError, 500, 1, "disk on fire"},
		{&node.Error{Kind: node.KindUsage, Text: "no text", Next: "Write one."}, client.CodeUsage, 422, 2, "no text. Write one."},
		{&node.Error{Kind: node.KindNotFound, Text: "no contact", Candidates: []string{"ada", "bob"}, Next: "Add one."}, client.CodeNotFound, 404, 3, "no contact. Known: ada, bob. Add one."},
		{fmt.Errorf("send: %w", &node.Error{Kind: node.KindRefused, Text: "blocked"}), client.CodeRefused, 403, 4, "blocked"},
		{&node.Error{Kind: node.KindTimeout, Text: "not in time"}, client.CodeTimeout, 504, 5, "not in time"},
		{fmt.Errorf("dial: %w", context.DeadlineExceeded), client.CodeTimeout, 504, 5, "dial: context deadline exceeded"},
		{&node.Error{Kind: node.KindNotRunning, Text: "no node"}, client.CodeNotRunning, 503, 6, "no node"},
		{node.ErrClosed, client.CodeNotRunning, 503, 6, "the node is closed"},
		{&node.Error{Kind: node.KindError, Text: "cannot open", Err: errors.New("cut short")}, client.CodeError, 500, 1, "cannot open: cut short"},
		{newProblem(503, client.CodeRefused, "too many", ""), client.CodeRefused, 503, 4, "too many"},
	} {
		p := problem(test.err)
		if p.Code != test.code || p.Status != test.status || p.ExitCode() != test.exit || p.Error() != test.text {
			t.Errorf("problem(%v) = %s %d exit %d %q, want %s %d exit %d %q", test.err, p.Code, p.Status, p.ExitCode(), p.Error(), test.code, test.status, test.exit, test.text)
		}
	}
}

// post sends a request to a handler and gives status and body.
func post(h http.Handler, path, key, body string) (int, string) {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	if key != "" {
		r.Header.Set(keyHeader, key)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// TestOnce repeats requests with the same Idempotency-Key.
func TestOnce(t *testing.T) {
	var calls atomic.Int32
	h := once(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if string(b) == "fail" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		fmt.Fprintf(w, "%d %s", calls.Add(1), b)
	}))
	for _, test := range []struct {
		name, path, key, body string
		status                int
		want                  string
	}{
		{"first", "/v1/x", "a", "one", 200, "1 one"},
		{"repeated", "/v1/x", "a", "one", 200, "1 one"},
		{"another key", "/v1/x", "b", "one", 200, "2 one"},
		{"no key", "/v1/x", "", "one", 200, "3 one"},
		{"no key again", "/v1/x", "", "one", 200, "4 one"},
		{"a failure", "/v1/x", "c", "fail", 500, "5 fail"},
		{"a failure may be tried again", "/v1/x", "c", "fail", 500, "6 fail"},
		{"old key", "/v1/x", "a", "one", 200, "1 one"},
	} {
		if status, body := post(h, test.path, test.key, test.body); status != test.status || body != test.want {
			t.Errorf("%s: got %d %q, want %d %q", test.name, status, body, test.status, test.want)
		}
	}
	for _, test := range []struct{ name, path, body string }{{"other body", "/v1/x", "two"}, {"other path", "/v1/y", "one"}} {
		if status, body := post(h, test.path, "a", test.body); status != 422 || !strings.Contains(body, "used for another request") {
			t.Errorf("%s with the same key: got %d %s", test.name, status, body)
		}
	}
}

// TestOnceAtOnce sends one key from many callers at the same time: one call is made.
func TestOnceAtOnce(t *testing.T) {
	var calls atomic.Int32
	entered, release := make(chan struct{}), make(chan struct{})
	h := once(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) == 1 {
			close(entered)
		}
		<-release
		fmt.Fprint(w, "done")
	}))
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			if status, body := post(h, "/v1/x", "same", "x"); status != 200 || body != "done" {
				t.Errorf("got %d %q", status, body)
			}
		})
	}
	<-entered
	close(release)
	callers.Wait()
	if calls.Load() != 1 {
		t.Errorf("%d calls, want 1", calls.Load())
	}
}

// TestOnceForgets keeps a bounded number of answers.
func TestOnceForgets(t *testing.T) {
	var calls atomic.Int32
	h := once(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, calls.Add(1)) }))
	for i := range maxAnswers + 1 {
		post(h, "/v1/x", fmt.Sprint("key", i), "")
	}
	if _, body := post(h, "/v1/x", "key1", ""); body != "2" {
		t.Errorf("a key still kept was answered %s, want 2", body)
	}
	if _, body := post(h, "/v1/x", "key0", ""); body != fmt.Sprint(maxAnswers+2) {
		t.Errorf("the oldest key was answered %s, want a new call", body)
	}
}

// TestLimits refuses what is too large or no text before any handler sees it.
func TestLimits(t *testing.T) {
	h := limit(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	for _, test := range []struct {
		name, key, body string
		status          int
		want            string
	}{
		{"largest", "", strings.Repeat("x", maxBody), 200, "xxx"},
		{"too large", "", strings.Repeat("x", maxBody+1), 413, "A request has at most 96 KiB"},
		{"longest key", strings.Repeat("k", maxKey), "x", 200, "x"},
		{"key too long", strings.Repeat("k", maxKey+1), "x", 422, "longer than 128 bytes"},
		{"no UTF-8", "", "\xff\xfe", 422, "not valid UTF-8"},
	} {
		if status, body := post(h, "/v1/x", test.key, test.body); status != test.status || !strings.Contains(body, test.want) {
			t.Errorf("%s: got %d %.80q, want %d and %q", test.name, status, body, test.status, test.want)
		}
	}
}
