package p2p

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/transport/tcpreuse"
	libp2pws "github.com/libp2p/go-libp2p/p2p/transport/websocket"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// wssTime bounds the TCP, TLS and HTTP handshakes of one dial, as libp2p's TCP does
// its own.
const wssTime = 5 * time.Second

// wss is WebSocket over TLS: what passes where only the web is let through. Noise
// runs inside, so the outer certificate authenticates nobody: it is not checked, and
// one that was put in by an interceptor does no harm. Listening is libp2p's. Dialling
// is not, which takes its proxy from the environment.
type wss struct {
	*libp2pws.WebsocketTransport
	upgrader transport.Upgrader
	rm       network.ResourceManager
	dialer   websocket.Dialer
}

// newWSS returns the constructor for libp2p. cert is nil where nobody listens; dial
// opens TCP connections.
func newWSS(cert *tls.Certificate, dial func(ctx context.Context, network, addr string) (net.Conn, error)) func(transport.Upgrader, network.ResourceManager, *tcpreuse.ConnMgr) (*wss, error) {
	return func(u transport.Upgrader, rm network.ResourceManager, shared *tcpreuse.ConnMgr) (*wss, error) {
		var opts []libp2pws.Option
		if cert != nil {
			opts = append(opts, libp2pws.WithTLSConfig(&tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12}))
		}
		inner, err := libp2pws.New(u, rm, shared, opts...)
		if err != nil {
			return nil, fmt.Errorf("wss: %w", err)
		}
		return &wss{WebsocketTransport: inner, upgrader: u, rm: rm, dialer: websocket.Dialer{
			NetDialContext:   dial,
			HandshakeTimeout: wssTime,
			TLSClientConfig:  &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
		}}, nil
	}
}

// CanDial implements transport.Transport.
func (t *wss) CanDial(a ma.Multiaddr) bool {
	_, kind := direct(a)
	return kind == "wss"
}

// Dial implements transport.Transport.
func (t *wss) Dial(ctx context.Context, a ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	scope, err := t.rm.OpenConnection(network.DirOutbound, true, a)
	if err != nil {
		return nil, err
	}
	c, err := t.dial(ctx, a)
	if err != nil {
		scope.Done()
		return nil, err
	}
	out, err := t.upgrader.Upgrade(ctx, t, c, network.DirOutbound, p, scope)
	if err != nil {
		scope.Done()
		return nil, err
	}
	return &wssCapable{out}, nil
}

// wssCapable names the transport.
type wssCapable struct{ transport.CapableConn }

// ConnState implements network.ConnSecurity.
func (c *wssCapable) ConnState() network.ConnectionState {
	s := c.CapableConn.ConnState()
	s.Transport = "websocket"
	return s
}

func (t *wss) dial(ctx context.Context, a ma.Multiaddr) (manet.Conn, error) {
	_, host, err := manet.DialArgs(a[:2])
	if err != nil {
		return nil, fmt.Errorf("wss: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, wssTime)
	defer cancel()
	c, answer, err := t.dialer.DialContext(ctx, "wss://"+host, nil)
	switch {
	case errors.Is(err, websocket.ErrBadHandshake) && answer != nil:
		return nil, fmt.Errorf("wss: %w: HTTP status %d", ErrStrange, answer.StatusCode)
	case err != nil:
		return nil, fmt.Errorf("wss: %w", err)
	}
	local, err := manet.FromNetAddr(c.LocalAddr())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("wss: %w", err), c.Close())
	}
	return &wssConn{Conn: c, local: ma.Join(local, tlsWS), remote: a}, nil
}

// wssConn is a WebSocket as a stream of bytes. One goroutine reads and one writes at
// a time, as libp2p's handshakes and muxer do.
type wssConn struct {
	*websocket.Conn
	local, remote ma.Multiaddr
	reader        io.Reader // of the message under way
	writing       sync.Mutex
}

// LocalMultiaddr implements manet.Conn.
func (c *wssConn) LocalMultiaddr() ma.Multiaddr { return c.local }

// RemoteMultiaddr implements manet.Conn.
func (c *wssConn) RemoteMultiaddr() ma.Multiaddr { return c.remote }

// Read implements net.Conn.
func (c *wssConn) Read(b []byte) (int, error) {
	for {
		if c.reader == nil {
			kind, r, err := c.NextReader()
			if err != nil {
				if _, ok := errors.AsType[*websocket.CloseError](err); ok {
					err = io.EOF
				}
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errors.New("wss: a text message")
			}
			c.reader = r
		}
		n, err := c.reader.Read(b)
		if errors.Is(err, io.EOF) {
			c.reader, err = nil, nil
		}
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
	}
}

// Write implements net.Conn.
func (c *wssConn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.WriteMessage(websocket.BinaryMessage, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// SetDeadline implements net.Conn.
func (c *wssConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetWriteDeadline implements net.Conn.
func (c *wssConn) SetWriteDeadline(t time.Time) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.Conn.SetWriteDeadline(t)
}

// certTime is how long the certificate is valid; it is a new one at each start.
const certTime = 365 * 24 * time.Hour

// newCert makes a certificate that says nothing about anybody.
func newCert(now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("key of the certificate: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("number of the certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(certTime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
