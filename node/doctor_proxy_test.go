package node_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kinloom/kinloom/node"
)

// TestDoctorNamesTheProxysFault: a proxy that wants another password, one that answers
// with the page of a login portal, and one that is not there.
func TestDoctorNamesTheProxysFault(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer http.HandlerFunc // nil: nobody answers
		want   string
	}{
		{"wrong password", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Proxy-Authenticate", `Basic realm="office"`)
			w.WriteHeader(http.StatusProxyAuthRequired)
		}, "asks for a user name and a password"},
		{"captive portal", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html>please log in</html>")
		}, "a page of a login portal"},
		{"not there", nil, "does not answer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			proxy := httptest.NewServer(tc.answer)
			defer proxy.Close()
			if tc.answer == nil {
				proxy.Close()
			}
			n, err := node.Open(t.Context(), node.Config{
				NoLAN: true, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Proxy: proxy.URL, ProxyLogin: "ada:" + secretWord,
				Bootstrap: []string{"/ip4/8.8.8.8/tcp/443/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer closeAll(t, n)
			poll := time.NewTicker(50 * time.Millisecond)
			defer poll.Stop()
			late := time.After(20 * time.Second)
			for {
				f := examined(t.Context(), t, n)["proxy"]
				if strings.Contains(f.Found+f.Fix, secretWord) {
					t.Fatalf("the password is told: %+v", f)
				}
				if f.Verdict == node.Warn && strings.Contains(f.Found, tc.want) {
					return
				}
				select {
				case <-poll.C:
				case <-late:
					t.Fatalf("%+v, want a warning of %q", f, tc.want)
				}
			}
		})
	}
}

const secretWord = "correct-horse"
