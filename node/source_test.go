package node_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/node/p2p"
)

// names is a DNS server on loopback that knows the TXT records of some names. Each
// question goes to asked.
func names(t *testing.T, txt map[string][]string) (r *net.Resolver, asked chan string) {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked = make(chan string, 100)
	ended := make(chan struct{})
	t.Cleanup(func() {
		c.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		b := make([]byte, 4096)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			asked <- q.Name.String()
			answer := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true}, Questions: m.Questions}
			records, ok := txt[q.Name.String()]
			if !ok {
				answer.RCode = dnsmessage.RCodeNameError
			}
			for _, s := range records {
				answer.Answers = append(answer.Answers, dnsmessage.Resource{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 60}, Body: &dnsmessage.TXTResource{TXT: []string{s}},
				})
			}
			if out, err := answer.Pack(); err == nil {
				c.WriteTo(out, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", c.LocalAddr().String())
	}}, asked
}

// quiet is a node on this machine that knows nobody.
func quiet(t *testing.T, c node.Config) *node.Node {
	t.Helper()
	c.Listen, c.NoLAN = []string{"/ip4/127.0.0.1/udp/0/quic-v1"}, true
	n, err := node.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(t, n) })
	return n
}

func sources(t *testing.T, n *node.Node) map[string]node.Source {
	t.Helper()
	all, err := n.Sources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]node.Source{}
	for _, s := range all {
		out[s.Place] = s
	}
	return out
}

// TestNameServersAreAsked over the wire: what is no server in the answer is passed over.
func TestNameServersAreAsked(t *testing.T) {
	const server = "12D3KooWS3RJevJD2dni1UhHaEebzsCgc6QVbC5XF9MZKKkYF3P2"
	r, asked := names(t, map[string][]string{"_dnsaddr.ours.example.": {
		"dnsaddr=/ip4/11.1.0.1/udp/1/quic-v1/p2p/" + server, "dnsaddr=/dnsaddr/other.example", "dnsaddr=/dns4/x.example/tcp/1/p2p/12D3KooWAvocDfgG4k8GXErtRqhENCzRYg5vbJiQEQtXgmCxGYJt", "v=spf1 -all", "",
	}})
	ada := quiet(t, node.Config{LookupTXT: r.LookupTXT, NoDHT: true})
	if _, err := ada.AddSource(t.Context(), "dns:Ours.Example."); err != nil {
		t.Fatal(err)
	}
	if err := ada.AskSources(t.Context()); err != nil {
		t.Fatal(err)
	}
	if name := <-asked; name != "_dnsaddr.ours.example." || len(asked) > 0 {
		t.Errorf("asked for %s, and %d more", name, len(asked))
	}
	if got := named(ada); len(got) != 1 || got[server] != p2p.FromDNS {
		t.Errorf("known: %v, want the server, from dns", got)
	}
	if got := sources(t, ada)["dns:ours.example"]; got.Servers != 1 || got.Problem != "" {
		t.Errorf("told: %+v", got)
	}
}

// TestANameLeadsIntoTheNetwork: a name that the owner named is asked when no server that
// is known answers, and at no other time.
func TestANameLeadsIntoTheNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		net := testnet.New(t, 1, testnet.Options{})
		server := onto(t, net, 0, "", "Server", "server")
		address := fullAddress(t, server)
		var asked atomic.Int32
		ada, err := node.Open(ctx, node.Config{
			NoLAN: true, Network: net.Host(1).Configure,
			LookupTXT: func(context.Context, string) ([]string, error) {
				asked.Add(1)
				return []string{"dnsaddr=" + address}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if asked.Load() > 0 {
			t.Error("a name was asked that nobody named")
		}
		if _, err := ada.AddSource(ctx, "dns:ours.example"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if found := examined(ctx, t, ada)["bootstrap"]; asked.Load() != 1 || found.Verdict != node.OK {
			t.Errorf("asked %d times, and then %+v", asked.Load(), found)
		}
		time.Sleep(3 * time.Hour)
		if asked.Load() != 1 {
			t.Errorf("asked %d times although a server answers", asked.Load())
		}
		// Another name that names the same server keeps it; the last one takes it along.
		known := func() bool { return len(ada.Servers()) > 0 }
		if _, err := ada.AddSource(ctx, "dns:theirs.example"); err != nil || !known() {
			t.Fatalf("known: %v, %v", known(), err)
		}
		if err := ada.RemoveSource(ctx, "dns:theirs.example"); err != nil || !known() {
			t.Errorf("known after a name went that gave none: %v, %v", known(), err)
		}
		if err := ada.RemoveSource(ctx, "dns:Ours.example."); err != nil || known() {
			t.Errorf("known after its name went: %v, %v", known(), err)
		}
		if _, err := ada.AddSource(ctx, "dns:ours.example"); err != nil {
			t.Fatal(err)
		}
		asked.Store(1)
		closeAll(t, server)
		time.Sleep(8 * time.Hour) // home looks through its table each 3 h
		if n := asked.Load(); n < 2 || n > 33 {
			t.Errorf("asked %d times in 8 hours after the one server went", n-1)
		}
		closeAll(t, ada)
	})
}

// TestPlacesSayWhatCameOfThem covers names and lists, and that nobody is asked twice in a
// row.
func TestPlacesSayWhatCameOfThem(t *testing.T) {
	signer, key := listKey(1)
	stranger, _ := listKey(2)
	now := time.Now()
	good := signedList(t, listOf(now, someServer), signer)
	var requests atomic.Int32
	var later atomic.Int64
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if got := r.Header.Get("Accept-Encoding") + r.Header.Get("Cookie") + r.Header.Get("Referer"); got != "" || r.UserAgent() != "kinloom" {
			t.Errorf("the request says %q, %q", got, r.UserAgent())
		}
		switch r.URL.Path {
		case "/good":
			w.Write(good)
		case "/stranger":
			w.Write(signedList(t, listOf(now, someServer), stranger))
		case "/portal":
			io.WriteString(w, "<html>Please log in</html>")
		case "/huge":
			w.Write(make([]byte, 10<<20))
		case "/moved":
			http.Redirect(w, r, "/good", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	defer web.Close()
	r, _ := names(t, map[string][]string{"_dnsaddr.empty.example.": {"v=spf1 -all"}})
	n := quiet(t, node.Config{LookupTXT: r.LookupTXT, Now: func() time.Time { return now.Add(time.Duration(later.Load())) }, NoDHT: true}) // asks by hand alone
	if _, err := n.AddSource(t.Context(), web.URL+"/good"); err == nil {
		t.Error("a list was named although nobody is believed")
	}
	if _, err := n.AddSigner(t.Context(), key, ""); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"dns:empty.example": "the name has no servers", "dns:none.example": "the name has no servers",
		web.URL + "/stranger": "this list is signed by nobody whom you believe", web.URL + "/portal": "damaged, or no list of servers",
		web.URL + "/huge": "larger than 48 KiB", web.URL + "/moved": "sends on to another place", web.URL + "/none": "answered with status 404",
		"http://127.0.0.1:1/": "does not answer",
	}
	for place := range want {
		if _, err := n.AddSource(t.Context(), place); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.AskSources(t.Context()); err != nil {
		t.Fatal(err)
	}
	for place, s := range sources(t, n) {
		if !s.Asked.Equal(now.Truncate(time.Second)) || s.Servers != 0 || !strings.Contains(s.Problem, want[place]) {
			t.Errorf("%s: %+v, want %q", place, s, want[place])
		}
	}
	if got := named(n); len(got) != 0 {
		t.Errorf("servers known from it: %v", got)
	}
	// A good one ends the asking; the others have their turn when that did not help.
	if _, err := n.AddSource(t.Context(), web.URL+"/good"); err != nil {
		t.Fatal(err)
	}
	requests.Store(0)
	if err := n.AskSources(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := sources(t, n)[web.URL+"/good"]; s.Servers != 1 || s.Problem != "" || requests.Load() != 1 {
		t.Errorf("a good list: %+v after %d requests", s, requests.Load())
	}
	if got := named(n); len(got) != 1 {
		t.Errorf("servers known from it: %v", got)
	}
	if err := n.AskSources(t.Context()); err != nil || requests.Load() != 1 {
		t.Errorf("asked again at once: %v, %d requests", err, requests.Load())
	}
	later.Store(int64(time.Hour))
	if err := n.AskSources(t.Context()); err != nil || requests.Load() < 2 {
		t.Errorf("not asked again an hour later: %v, %d requests", err, requests.Load())
	}
}

// TestPlacesAreAskedThroughTheProxy: with an HTTP proxy lists go through it, with its
// login, and names, which could only go past it, are not asked.
func TestPlacesAreAskedThroughTheProxy(t *testing.T) {
	signer, key := listKey(1)
	good := signedList(t, listOf(time.Now(), someServer), signer)
	var asked, login string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect { // the node's own
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		asked, login = r.RequestURI, r.Header.Get("Proxy-Authorization")
		w.Write(good)
	}))
	defer proxy.Close()
	r, questions := names(t, nil)
	dir := t.TempDir()
	n := quiet(t, node.Config{Dir: dir, LookupTXT: r.LookupTXT, NoDHT: true})
	if _, err := n.AddSigner(t.Context(), key, ""); err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{"dns:ours.example", "http://lists.invalid/servers"} {
		if _, err := n.AddSource(t.Context(), place); err != nil {
			t.Fatal(err)
		}
	}
	closeAll(t, n)
	n = quiet(t, node.Config{Dir: dir, LookupTXT: r.LookupTXT, NoDHT: true, Proxy: proxy.URL, ProxyLogin: "me:secret"})
	if err := n.AskSources(t.Context()); err != nil {
		t.Fatal(err)
	}
	if asked != "http://lists.invalid/servers" || login != "Basic bWU6c2VjcmV0" {
		t.Errorf("the proxy was asked for %q, with the login %q", asked, login)
	}
	got := sources(t, n)
	if s := got["http://lists.invalid/servers"]; s.Servers != 1 {
		t.Errorf("through the proxy: %+v", s)
	}
	if s := got["dns:ours.example"]; !strings.Contains(s.Problem, "the question would go past it") {
		t.Errorf("a name, with a proxy: %+v", s)
	}
	if _, err := n.AddSource(t.Context(), "dns:other.example"); err == nil || !strings.Contains(err.Error(), "through the proxy") {
		t.Errorf("a name was named: %v", err)
	}
	if len(questions) > 0 {
		t.Errorf("asked for %s", <-questions)
	}
}

// TestOnTheLANNoPlaceIsAsked: neither by the node itself nor when it is told to.
func TestOnTheLANNoPlaceIsAsked(t *testing.T) {
	r, questions := names(t, nil)
	n := quiet(t, node.Config{LookupTXT: r.LookupTXT, LANOnly: true})
	if _, err := n.AddSource(t.Context(), "dns:ours.example"); err != nil {
		t.Fatal(err)
	}
	if err := n.AskSources(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := sources(t, n)["dns:ours.example"]; !s.Asked.IsZero() || len(questions) > 0 {
		t.Errorf("it was asked: %+v, %d questions", s, len(questions))
	}
}

// TestPlacesAreChecked: one spelling of each, and nothing that is no place.
func TestPlacesAreChecked(t *testing.T) {
	n := quiet(t, node.Config{LANOnly: true})
	_, key := listKey(1)
	if _, err := n.AddSigner(t.Context(), key, ""); err != nil {
		t.Fatal(err)
	}
	for place, want := range map[string]string{
		"dns:Example.ORG.": "dns:example.org", "dns:xn--kln-sna.example": "dns:xn--kln-sna.example", "https://Example.org/a?b=c": "https://Example.org/a?b=c",
		"dns:": "", "dns:org": "", "dns:köln.example": "", "dns:192.0.2.1": "", "dns:a..b": "", "dns:-a.b": "", "dns:" + strings.Repeat("a", 64) + ".b": "", "dns:a b.c": "",
		"ftp://example.org/": "", "https:///x": "", "https://me:pw@example.org/": "", "https://example.org/#x": "", "https://example.org/" + strings.Repeat("a", 600): "",
		"http:example.org": "",
	} {
		got, err := n.AddSource(t.Context(), place)
		if got.Place != want || (want == "") != (err != nil) {
			t.Errorf("%q: %q, %v, want %q", place, got.Place, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "pw@") {
			t.Errorf("a password is repeated: %v", err)
		}
	}
	for i := range 20 {
		_, err := n.AddSource(t.Context(), fmt.Sprintf("https://example.org/%d", i))
		if err != nil && i < 13 {
			t.Error(err)
		} else if err == nil && i >= 13 {
			t.Errorf("%d places are named", i+4)
		}
	}
}
