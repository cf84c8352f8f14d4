package p2p

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// box is something on the way that takes every TCP connection itself.
type box struct {
	addr ma.Multiaddr
	mu   sync.Mutex // guards seen
	seen bytes.Buffer
}

// Write implements io.Writer: what the box could read.
func (b *box) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seen.Write(p)
}

func (b *box) read() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seen.String()
}

// newBox serves each connection, behind TLS of its own if it intercepts that.
func newBox(t *testing.T, intercepts bool, serve func(*box, net.Conn)) *box {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := manet.FromNetAddr(l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if intercepts {
		cert, err := newCert(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*cert}})
		addr = ma.Join(addr, tlsWS)
	}
	b := &box{addr: addr}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				defer context.AfterFunc(t.Context(), func() { c.Close() })()
				serve(b, c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return b
}

// page is what a login portal answers, whatever it is asked.
func page(b *box, c net.Conn) {
	first := make([]byte, 4096)
	n, _ := c.Read(first)
	_, _ = b.Write(first[:n])
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>please log in</html>")
}

// TestTLSIntercepted covers H149: a box ends the TLS of wss and opens its own to the
// server. What is inside is encrypted once more, to the server's key: the box reads
// nothing, and who it is, is known by that key alone.
func TestTLSIntercepted(t *testing.T) {
	server := start(t, Config{Profile: Server, Listen: []ma.Multiaddr{loopTCP}})
	id, _ := server.PeerIDs()
	to := hostOf(t, addrOf(t, server, "wss"))
	b := newBox(t, true, func(b *box, c net.Conn) {
		out, err := tls.Dial("tcp", to, insecureTLS())
		if err != nil {
			return
		}
		defer out.Close()
		var there sync.WaitGroup
		there.Go(func() {
			_, _ = io.Copy(io.MultiWriter(out, b), c)
			out.Close()
		})
		_, _ = io.Copy(io.MultiWriter(c, b), out)
		c.Close()
		there.Wait()
	})
	n := start(t, Config{Listen: []ma.Multiaddr{loopTCP}})
	path, err := n.Dial(t.Context(), id, []ma.Multiaddr{b.addr})
	if err != nil || path.Transport != "wss" {
		t.Fatalf("%+v, %v", path, err)
	}
	const words = "nobody reads this on the way"
	if err := say(t.Context(), n, id, words); err != nil {
		t.Fatal(err)
	}
	if seen := b.read(); strings.Contains(seen, words) || !strings.Contains(seen, "Upgrade: websocket") {
		t.Errorf("the box has read %d bytes, the words among them: %v", len(seen), strings.Contains(seen, words))
	}
	if got := n.Tried().Strange; got != 0 {
		t.Errorf("%d strange answers, where all came from the server", got)
	}
}

// TestCaptivePortal: what answers every connection with a page is nobody, over TCP, over
// TLS, and to a look-up; nothing of it is kept, and whoever explains the network knows.
func TestCaptivePortal(t *testing.T) {
	for _, intercepts := range []bool{false, true} {
		b := newBox(t, intercepts, page)
		id := newID(t)
		n := start(t, Config{Listen: []ma.Multiaddr{loopTCP}})
		if path, err := n.Dial(t.Context(), id, []ma.Multiaddr{b.addr}); err == nil {
			t.Errorf("a page is taken for a peer: %+v", path)
		} else if de, ok := errors.AsType[*DialError](err); !ok || !errors.Is(de.Attempts[0].Err, ErrStrange) {
			t.Errorf("%s: %v", b.addr, de.Details())
		}
		if got := n.Tried().Strange; got == 0 {
			t.Errorf("%s: nobody is told of the page", b.addr)
		}
		if b.read() == "" {
			t.Error("the portal was not asked")
		}
		n.AddBootstrap(FromUser, infoOf(id, b.addr))
		if _, err := n.FindRecord(t.Context(), Point{ID: [32]byte{1}}, func(record []byte, _ time.Time) { t.Errorf("a page is a record: %q", record) }); err == nil {
			t.Error("a look-up got an answer")
		}
		if peers := n.Peers(); len(peers) != 0 {
			t.Errorf("%+v", peers)
		}
		for _, k := range n.Book() {
			if !k.Success.IsZero() {
				t.Errorf("the portal is noted as one that worked: %+v", k)
			}
		}
	}
}

// TestDNSLies: a resolver that lies, as a captive portal's does, is never asked: what is
// dialled has an IP, and what has a name is no address here.
func TestDNSLies(t *testing.T) {
	n := start(t, Config{Listen: []ma.Multiaddr{loopTCP}})
	id := newID(t)
	for _, a := range []string{"/dns4/example.org/tcp/443", "/dns/example.org/udp/443/quic-v1", "/dns6/example.org/tcp/443/tls/ws", "/dnsaddr/example.org"} {
		addr := ma.StringCast(a)
		if Dialable(id, addr) || len(n.Clean([]ma.Multiaddr{addr})) != 0 {
			t.Errorf("%s is taken for an address", a)
		}
		if _, err := n.Dial(t.Context(), id, []ma.Multiaddr{addr}); !errors.Is(err, ErrNoAddress) {
			t.Errorf("%s: %v", a, err)
		}
	}
}
