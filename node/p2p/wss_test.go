package p2p

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// addrOf returns the address of n with that transport.
func addrOf(t *testing.T, n *Net, transport string) ma.Multiaddr {
	t.Helper()
	for _, a := range n.Addrs() {
		if _, kind := transportOf(a); kind == transport {
			return a
		}
	}
	t.Fatalf("no %s address among %v", transport, n.Addrs())
	return nil
}

// TestServerSharesItsTCPPort: QUIC, TCP and wss of a server are all reached, the last
// two at one port, and a message goes over each.
func TestServerSharesItsTCPPort(t *testing.T) {
	server := start(t, Config{Profile: Server, Listen: []ma.Multiaddr{loopQUIC, loopTCP}})
	id, _ := server.PeerIDs()
	if len(server.ListenAddrs()) != 2 {
		t.Errorf("listening on %v, want QUIC and TCP", server.ListenAddrs())
	}
	tcp, wss := addrOf(t, server, "tcp"), addrOf(t, server, "wss")
	if want := ma.Join(tcp, tlsWS); !wss.Equal(want) {
		t.Errorf("wss at %v, want %v", wss, want)
	}
	for _, transport := range []string{"quic", "tcp", "wss"} {
		addr := addrOf(t, server, transport)
		for _, profile := range []Profile{Home, Client} {
			n := start(t, Config{Profile: profile, Listen: []ma.Multiaddr{loopTCP}})
			path, err := n.Dial(t.Context(), id, []ma.Multiaddr{addr})
			if err != nil {
				t.Fatalf("%s: %v", transport, errors.Unwrap(err))
			}
			if path.Transport != transport || path.Route != LAN || !path.Addr.Equal(addr) {
				t.Errorf("%s: path %+v", transport, path)
			}
			for _, text := range []string{"hello", strings.Repeat("x", 200_000)} {
				if err := say(t.Context(), n, id, text); err != nil {
					t.Errorf("%s: %v", transport, err)
				}
			}
			me, _ := n.PeerIDs()
			back, ok := server.Connected(me)
			if !ok || back.Transport != transport {
				t.Errorf("%s: the server sees %+v", transport, back)
			}
		}
	}
}

// TestServerLooksLikeAnyOther: who looks at the port with a browser sees a web server
// without a page, and a certificate without a name.
func TestServerLooksLikeAnyOther(t *testing.T) {
	server := start(t, Config{Profile: Server, Listen: []ma.Multiaddr{loopTCP}})
	host := hostOf(t, addrOf(t, server, "tcp"))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	answer, err := client.Get("https://" + host + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusNotFound {
		t.Errorf("status %d", answer.StatusCode)
	}
	if cert := answer.TLS.PeerCertificates[0]; cert.Subject.String() != "" || len(cert.DNSNames)+len(cert.IPAddresses) > 0 {
		t.Errorf("the certificate says %q %v %v", cert.Subject, cert.DNSNames, cert.IPAddresses)
	}
}

func hostOf(t *testing.T, a ma.Multiaddr) string {
	t.Helper()
	_, host, err := manet.DialArgs(a[:2])
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// TestSharedPortTaken: the sharing of libp2p would let a second server, or any other
// program, take half of the connections.
func TestSharedPortTaken(t *testing.T) {
	first := start(t, Config{Profile: Server, Listen: []ma.Multiaddr{loopTCP}})
	taken := first.ListenAddrs()[0]
	second, err := New(Config{Key: newKey(t), Profile: Server, Listen: []ma.Multiaddr{taken}})
	if err != nil {
		t.Fatal(err)
	}
	err = second.Open(t.Context())
	if got, ok := errors.AsType[*ErrPortTaken](err); !ok || !got.Addr.Equal(taken) {
		t.Errorf("got %v, want ErrPortTaken", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

// TestServerWithoutTheRight: ports below 1024 need a right, which is asked for in
// words. The test has it where it runs as root, and then another program's port is
// in the way or nothing is.
func TestServerWithoutTheRight(t *testing.T) {
	n, err := New(Config{Key: newKey(t), Profile: Server})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	err = n.Open(t.Context())
	if err == nil {
		if len(n.ListenAddrs()) < 2 {
			t.Errorf("listening on %v only", n.ListenAddrs())
		}
		for _, a := range n.ListenAddrs() {
			if a[1].Value() != "443" {
				t.Errorf("listening on %v", a)
			}
		}
		return
	}
	if _, ok := errors.AsType[*ErrPortTaken](err); ok {
		return
	}
	if !strings.Contains(err.Error(), "setcap") {
		t.Errorf("got %q, want what to do", err)
	}
}

// TestPageInsteadOfWSS covers H117: what answers with a page is no peer.
func TestPageInsteadOfWSS(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := newCert(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "<html>please log in</html>")
	})}
	done := make(chan error, 1)
	go func() {
		done <- srv.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*cert}}))
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	addr, err := manet.FromNetAddr(l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	n := start(t, Config{Listen: []ma.Multiaddr{loopTCP}})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = n.Dial(ctx, newID(t), []ma.Multiaddr{ma.Join(addr, tlsWS)})
	de, ok := errors.AsType[*DialError](err)
	if !ok || !strings.Contains(de.Details(), "HTTP status 200") {
		t.Errorf("got %v", err)
	}
}

// TestWSSInterceptorIsRefused: an interceptor has a certificate that nobody checks,
// and not the key of the peer.
func TestWSSInterceptorIsRefused(t *testing.T) {
	evil := start(t, Config{Profile: Server, Listen: []ma.Multiaddr{loopTCP}})
	n := start(t, Config{Listen: []ma.Multiaddr{loopTCP}})
	_, err := n.Dial(t.Context(), newID(t), []ma.Multiaddr{addrOf(t, evil, "wss")})
	if de, ok := errors.AsType[*DialError](err); !ok || !strings.Contains(de.Details(), "peer id mismatch") {
		t.Errorf("got %v, want a refusal of the other key", err)
	}
}

// TestLibrarysWSS: libp2p's own dialler reaches the server too.
func TestLibrarysWSS(t *testing.T) {
	server := start(t, Config{Profile: Server, Listen: []ma.Multiaddr{loopTCP}})
	id, _ := server.PeerIDs()
	h := rawHost(t, libp2p.NoListenAddrs, libp2p.Transport(libraryWSS))
	if err := h.Connect(t.Context(), infoOf(id, addrOf(t, server, "wss"))); err != nil {
		t.Error(err)
	}
}

func insecureTLS() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

// TestCircuitOverWSS: a relay is reached as any peer is, and the path says both.
func TestCircuitOverWSS(t *testing.T) {
	relay := start(t, Config{Profile: Server, Listen: []ma.Multiaddr{loopQUIC, loopTCP}})
	relayID, _ := relay.PeerIDs()
	b := start(t, Config{Profile: Client, Listen: []ma.Multiaddr{loopTCP}})
	id, _ := b.PeerIDs()
	// The relay has no public address here, so nothing is announced; the slot is there.
	if _, err := b.reserve(t.Context(), infoOf(relayID, addrOf(t, relay, "tcp"))); err == nil || !strings.Contains(err.Error(), "no public address") {
		t.Fatal(err)
	}
	over := addrOf(t, relay, "wss").Encapsulate(ma.StringCast("/p2p/" + relayID.String() + "/p2p-circuit"))
	a := start(t, Config{Profile: Client, Listen: []ma.Multiaddr{loopTCP}})
	if _, err := a.Dial(t.Context(), id, []ma.Multiaddr{over}); err == nil {
		t.Error("b lets others in over a relay that it does not hold")
	}
	b.guard.relay(relayID, true)
	path, err := a.Dial(t.Context(), id, []ma.Multiaddr{over})
	if err != nil {
		t.Fatal(details(err))
	}
	if path.Route != Relayed || path.Relay != relayID || path.Transport != "wss" || !path.Addr.Equal(over) {
		t.Errorf("path %+v", path)
	}
	if err := say(t.Context(), a, id, "over wss and a relay"); err != nil {
		t.Error(err)
	}
	me, _ := a.PeerIDs()
	if back, ok := b.Connected(me); !ok || back.Route != Relayed || back.Transport != "tcp" || back.Relay != relayID || !back.Inbound {
		t.Errorf("the other side: %+v", back)
	}
}
