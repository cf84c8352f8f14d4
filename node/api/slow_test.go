package api

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// pipes is a listener in memory, whose connections know deadlines.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Close() error {
	close(p)
	return nil
}

func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	p <- there
	return here, nil
}

// TestSlowCallIsNotCutOff: answering an invite over a bad connection takes a minute and more, and a wait for a message
// hours. The library gave the reading of a body 5 seconds, and net/http ends a call whose connection may be read no more.
func TestSlowCallIsNotCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mux := http.NewServeMux()
		api := humago.New(mux, huma.DefaultConfig("slow", "1"))
		type in struct{ Body struct{ Link string } }
		Register(api, Operation{Route: "POST /v1/slow"}, func(ctx context.Context, _ *in) (string, error) {
			return sleepy(ctx, addTime)
		})
		mux.HandleFunc("GET /v1/wait", func(w http.ResponseWriter, r *http.Request) {
			said, err := "", error(nil)
			if setDeadline(w, 0) {
				said, err = sleepy(r.Context(), maxWait)
			}
			if err != nil {
				said = err.Error()
			}
			_, _ = io.WriteString(w, said)
		})
		ctx, stop := context.WithCancel(t.Context())
		listener := make(pipes)
		ended := make(chan error, 1)
		go func() { ended <- Serve(ctx, listener, limit(mux)) }()
		transport := &http.Transport{DialContext: listener.dial}
		for _, call := range []struct{ method, path, body string }{
			{http.MethodPost, "/v1/slow", `{"Link":"x"}`},
			{http.MethodGet, "/v1/wait", ""},
		} {
			r, err := http.NewRequestWithContext(ctx, call.method, "http://node"+call.path, strings.NewReader(call.body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			answer, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatalf("%s: %v", call.path, err)
			}
			b, err := io.ReadAll(answer.Body)
			if err != nil || !strings.Contains(string(b), "done") {
				t.Errorf("%s answers %q, %v, want done", call.path, b, err)
			}
			answer.Body.Close()
		}
		transport.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// sleepy works for some time, unless it is told to stop.
func sleepy(ctx context.Context, d time.Duration) (string, error) {
	select {
	case <-time.After(d - time.Second):
		return "done", nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
