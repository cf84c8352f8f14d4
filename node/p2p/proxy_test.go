package p2p

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/transport/tcpreuse"
	libp2pws "github.com/libp2p/go-libp2p/p2p/transport/websocket"
	ma "github.com/multiformats/go-multiaddr"
)

func libraryWSS(u transport.Upgrader, rm network.ResourceManager, shared *tcpreuse.ConnMgr) (*libp2pws.WebsocketTransport, error) {
	return libp2pws.New(u, rm, shared, libp2pws.WithTLSClientConfig(insecureTLS()))
}

func infoOf(id peer.ID, addrs ...ma.Multiaddr) peer.AddrInfo {
	return peer.AddrInfo{ID: id, Addrs: addrs}
}

// connectProxy is an HTTP proxy on the loopback. It leads every public address to
// where targets says.
type connectProxy struct {
	t       *testing.T
	l       net.Listener
	targets map[string]string // host:port asked for -> where it is

	mu     sync.Mutex
	asked  map[string]int
	auth   string // wanted; empty: none
	answer string // instead of a tunnel
	tunnel []net.Conn
}

func newConnectProxy(t *testing.T) *connectProxy {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &connectProxy{t: t, l: l, targets: make(map[string]string), asked: make(map[string]int)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.cut()
		wg.Wait()
	})
	return p
}

// url returns the setting, with a user and password if there is one.
func (p *connectProxy) url(user, password string) *url.URL {
	u := &url.URL{Scheme: "http", Host: p.l.Addr().String()}
	if user != "" {
		u.User = url.UserPassword(user, password)
	}
	return u
}

// cut ends every tunnel, as proxies do with idle ones.
func (p *connectProxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.tunnel {
		c.Close()
	}
	p.tunnel = nil
}

func (p *connectProxy) set(auth, answer string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.auth, p.answer = auth, answer
}

func (p *connectProxy) times(host string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[host]
}

func (p *connectProxy) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	req, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.asked[req.Host]++
	auth, answer := p.auth, p.answer
	p.mu.Unlock()
	if auth != "" && req.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(auth)) {
		io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n")
		return
	}
	if answer != "" {
		io.WriteString(c, answer)
		return
	}
	_, port, _ := net.SplitHostPort(req.Host)
	if req.Method != http.MethodConnect || port != "443" {
		io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
		return
	}
	to, err := net.Dial("tcp", p.targets[req.Host])
	if err != nil {
		io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	defer to.Close()
	p.mu.Lock()
	p.tunnel = append(p.tunnel, c, to)
	p.mu.Unlock()
	io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	var wg sync.WaitGroup
	wg.Go(func() {
		io.Copy(to, r)
		to.Close()
	})
	io.Copy(c, to)
	c.Close()
	wg.Wait()
}

// behind starts a node behind the proxy, and a server that stands at 8.8.8.8:443 as
// the proxy sees it.
func behind(t *testing.T, p *connectProxy, u *url.URL, h Handler) (n *Net, server *Net, log *bytes.Buffer) {
	t.Helper()
	server = start(t, Config{Profile: Server, Listen: []ma.Multiaddr{loopTCP}})
	p.targets["8.8.8.8:443"] = hostOf(t, addrOf(t, server, "tcp"))
	log = new(bytes.Buffer)
	var mu sync.Mutex
	n = start(t, Config{Proxy: u, Handler: h, Log: slog.New(slog.NewTextHandler(lockedWriter{&mu, log}, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	return n, server, log
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

var (
	proxied443 = ma.StringCast("/ip4/8.8.8.8/tcp/443")
	proxiedWSS = ma.StringCast("/ip4/8.8.8.8/tcp/443/tls/ws")
	proxied99  = ma.StringCast("/ip4/8.8.8.8/tcp/4001")
	quic443    = ma.StringCast("/ip4/8.8.8.8/udp/443/quic-v1")
)

// TestThroughProxy covers H149: TCP and wss go through a proxy that lets 443 pass
// and asks for a password; it cuts the tunnel, and a new one works.
func TestThroughProxy(t *testing.T) {
	const user, password = "ada", "correct horse"
	for _, addr := range []ma.Multiaddr{proxied443, proxiedWSS} {
		_, name := transportOf(addr)
		t.Run(name, func(t *testing.T) {
			p := newConnectProxy(t)
			p.set(user+":"+password, "")
			rec := newRecorder()
			n, server, log := behind(t, p, p.url(user, password), rec)
			id, _ := server.PeerIDs()
			for _, a := range n.ListenAddrs() {
				if _, kind := direct(a); kind == "quic" {
					t.Errorf("behind a proxy, and listening on %v", a)
				}
			}
			if _, err := n.Dial(t.Context(), id, []ma.Multiaddr{quic443}); err == nil {
				t.Error("UDP beside the proxy")
			}
			for round := range 2 {
				path, err := n.Dial(t.Context(), id, []ma.Multiaddr{proxied99, addr})
				if err != nil {
					t.Fatalf("round %d: %v", round, err.(*DialError).Details())
				}
				if path.Transport != name || path.Route != Direct || !path.Addr.Equal(addr) {
					t.Errorf("path %+v, want the target and not the proxy", path)
				}
				if err := say(t.Context(), n, id, "through the proxy"); err != nil {
					t.Error(err)
				}
				if up := await(t, "Connected", rec.conn); !up.up {
					t.Errorf("event %+v, want that it is connected", up)
				}
				p.cut() // no earlier: what comes and goes before it is told is not told
				if down := await(t, "Disconnected", rec.conn); down.up {
					t.Errorf("event %+v, want that it is not", down)
				}
			}
			if asked := p.times("8.8.8.8:4001"); asked > 1 {
				t.Errorf("port 4001 was tried %d times, want once", asked)
			}
			if r := n.Reachability(); r.Verdict != Private || !r.Forced {
				t.Errorf("%+v", r)
			}
			if err := n.ProxyTrouble(); err != nil {
				t.Errorf("trouble: %v", err)
			}
			encoded := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
			if text := log.String(); strings.Contains(text, password) || strings.Contains(text, encoded) || strings.Contains(text, user) {
				t.Errorf("the password is in the log: %s", text)
			}
		})
	}
}

// TestThrowawaysThroughProxy: what looks records up has no way beside the proxy either.
func TestThrowawaysThroughProxy(t *testing.T) {
	p := newConnectProxy(t)
	n, server, _ := behind(t, p, p.url("", ""), nil)
	id, _ := server.PeerIDs()
	for _, addr := range []ma.Multiaddr{proxied443, proxiedWSS} {
		before := p.times("8.8.8.8:443")
		err := n.throwaway(t.Context(), infoOf(id, quic443, addr), false, echoID, func(s network.Stream) error {
			if _, err := io.WriteString(s, "hello\n"); err != nil {
				return err
			}
			_, err := io.ReadFull(s, make([]byte, 6))
			return err
		})
		if err != nil || p.times("8.8.8.8:443") != before+1 {
			t.Errorf("%v: %v, asked %d times", addr, details(err), p.times("8.8.8.8:443")-before)
		}
	}
}

// TestProxyTrouble: each way in which a proxy is none has its words, nothing that it
// sent is taken for a peer's, and nothing in the error gives the password away.
func TestProxyTrouble(t *testing.T) {
	p := newConnectProxy(t)
	n, server, _ := behind(t, p, p.url("ada", "wrong"), nil)
	id, _ := server.PeerIDs()
	page := "<html>please log in at http://portal.example/</html>"
	for _, tc := range []struct {
		name, auth, answer string
		want               error
		trouble            bool
	}{
		{"password", "ada:right", "", ErrProxyPassword, true},
		{"page", "", "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 52\r\n\r\n" + page, ErrProxyAnswer, true},
		{"page without a head", "", page, ErrProxyAnswer, true},
		{"redirect", "", "HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\n\r\n", ErrProxyAnswer, true},
		{"endless head", "", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 100_000), ErrProxyAnswer, true},
		{"nothing", "", "\r\n", ErrProxyAnswer, true},
		{"unreachable", "", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", ErrProxyFailed, false},
		{"refused", "", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", ErrProxyRefused, false},
	} {
		p.set(tc.auth, tc.answer)
		_, err := n.Dial(t.Context(), id, []ma.Multiaddr{proxied443})
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, details(err), tc.want)
		}
		if strings.Contains(details(err), "wrong") || strings.Contains(details(err), "portal.example") {
			t.Errorf("%s: the error tells too much: %s", tc.name, details(err))
		}
		if got := n.ProxyTrouble(); (got != nil) != tc.trouble {
			t.Errorf("%s: trouble %v", tc.name, got)
		}
	}
	// A page behind a proper answer is no peer either.
	n2, _, _ := behind(t, p, p.url("", ""), nil)
	p.set("", "HTTP/1.1 200 Connection established\r\n\r\n"+page)
	if _, err := n2.Dial(t.Context(), id, []ma.Multiaddr{proxied443}); err == nil {
		t.Error("a page taken for a peer")
	}
	p.l.Close()
	if _, err := n2.Dial(t.Context(), id, []ma.Multiaddr{proxied443}); !errors.Is(err, ErrProxyDown) || !errors.Is(n2.ProxyTrouble(), ErrProxyDown) {
		t.Errorf("proxy gone: %v", details(err))
	}
	// The local network needs no proxy.
	if _, err := n2.Dial(t.Context(), id, []ma.Multiaddr{addrOf(t, server, "tcp")}); err != nil {
		t.Errorf("local: %v", details(err))
	}
}

func details(err error) string {
	if de, ok := errors.AsType[*DialError](err); ok {
		return de.Details()
	}
	if err == nil {
		return "no error"
	}
	return err.Error()
}

func TestProxySetting(t *testing.T) {
	for _, bad := range []string{"https://proxy:1", "socks5://proxy:1", "http://", "http://proxy/path", "proxy:3128"} {
		u, err := url.Parse(bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := New(Config{Key: newKey(t), Proxy: u}); err == nil {
			t.Errorf("%s: accepted", bad)
		}
	}
	u, err := url.Parse("http://ada:secret@proxy.example/path")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Key: newKey(t), Proxy: u}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
	u.Path = ""
	if _, err := New(Config{Key: newKey(t), Proxy: u, Profile: Server}); err == nil {
		t.Error("a server behind a proxy")
	}
	if p := newProxy(u); p.host != "proxy.example:80" {
		t.Errorf("proxy at %s", p.host)
	}
}
