package p2p

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Errors of a dial through Config.Proxy, in the Attempts of a DialError. None of them
// contains what the proxy sent.
var (
	ErrProxyDown     = errors.New("the HTTP proxy does not answer: check its address")
	ErrProxyPassword = errors.New("the HTTP proxy asks for a user name and a password, or refuses those that it was given")
	ErrProxyRefused  = errors.New("not through this HTTP proxy: it refuses this address; many let only port 443 pass")
	ErrProxyAnswer   = errors.New("the HTTP proxy did not open a tunnel: its answer is not a proxy's, or is a page of a login portal")
	ErrProxyFailed   = errors.New("the HTTP proxy could not reach the address")
)

const (
	// proxyTime bounds reaching the proxy and its answer. libp2p gives a TCP dial 5 s.
	proxyTime = 5 * time.Second
	// proxyHead bounds the head of an answer.
	proxyHead = 16 << 10
	// refusedTime is how long an address is not tried again that the proxy refused.
	refusedTime = time.Hour
	// maxRefused bounds the table of these.
	maxRefused = 1024
)

// proxy dials TCP by HTTP CONNECT. UDP there is none. The local network is dialled
// without it: the proxy has no way there.
type proxy struct {
	host   string // with port
	auth   string // value of Proxy-Authorization, empty: none
	direct net.Dialer

	mu      sync.Mutex // guards all below
	refused map[string]time.Time
	trouble error
}

func checkProxy(u *url.URL) error {
	if u.Scheme != "http" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
		// The URL itself may hold a password.
		return errors.New("proxy: an address like http://proxy.example:3128 is needed")
	}
	return nil
}

func newProxy(u *url.URL) *proxy {
	p := &proxy{host: u.Host, refused: make(map[string]time.Time)}
	if u.Port() == "" {
		p.host = net.JoinHostPort(u.Hostname(), "80")
	}
	if u.User != nil {
		password, _ := u.User.Password()
		p.auth = "Basic " + base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password))
	}
	return p
}

// ProxyTrouble returns what is wrong with the proxy itself, by the last dial through
// it: ErrProxyDown, ErrProxyPassword or ErrProxyAnswer. Nil: nothing, or no proxy.
func (n *Net) ProxyTrouble() error {
	if n.proxy == nil {
		return nil
	}
	n.proxy.mu.Lock()
	defer n.proxy.mu.Unlock()
	return n.proxy.trouble
}

// forAddr is the dialer for libp2p's TCP.
func (p *proxy) forAddr(ma.Multiaddr) (tcp.ContextDialer, error) { return p, nil }

// DialContext opens a connection with an IP address and port through the proxy.
func (p *proxy) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("address for the proxy: %w", err)
	}
	target := net.TCPAddrFromAddrPort(to)
	if a, err := manet.FromNetAddr(target); err == nil && isLocal(a) {
		return p.direct.DialContext(ctx, network, addr)
	}
	if p.isRefused(addr, time.Now()) {
		return nil, ErrProxyRefused
	}
	c, err := p.connect(ctx, addr, target)
	p.note(addr, err, time.Now())
	return c, err
}

func (p *proxy) isRefused(addr string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Before(p.refused[addr])
}

// note remembers what a dial showed.
func (p *proxy) note(addr string, err error, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case errors.Is(err, ErrProxyRefused):
		if len(p.refused) >= maxRefused {
			clear(p.refused)
		}
		p.refused[addr] = now.Add(refusedTime)
		p.trouble = nil
	case err == nil || errors.Is(err, ErrProxyFailed):
		p.trouble = nil
	case errors.Is(err, ErrProxyDown) || errors.Is(err, ErrProxyPassword) || errors.Is(err, ErrProxyAnswer):
		p.trouble = err
	}
}

func (p *proxy) connect(ctx context.Context, addr string, target *net.TCPAddr) (net.Conn, error) {
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, proxyTime)
	defer cancel()
	c, err := p.direct.DialContext(ctx, "tcp", p.host)
	if err != nil {
		if parent.Err() != nil {
			return nil, parent.Err()
		}
		return nil, ErrProxyDown // the cause would name the proxy's address
	}
	out, err := p.ask(ctx, c, addr, target)
	if err != nil {
		if cerr := parent.Err(); cerr != nil {
			err = cerr
		}
		c.Close()
		return nil, err
	}
	return out, nil
}

// ask sends CONNECT and reads the answer.
func (p *proxy) ask(ctx context.Context, c net.Conn, addr string, target *net.TCPAddr) (net.Conn, error) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil, fmt.Errorf("bug: %T from a TCP dialer", c)
	}
	if d, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(d); err != nil {
			return nil, fmt.Errorf("proxy: %w", err)
		}
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var req strings.Builder
	fmt.Fprintf(&req, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", addr, addr)
	if p.auth != "" {
		fmt.Fprintf(&req, "Proxy-Authorization: %s\r\n", p.auth)
	}
	req.WriteString("\r\n")
	if _, err := io.WriteString(c, req.String()); err != nil {
		return nil, ErrProxyDown
	}
	limited := &io.LimitedReader{R: c, N: proxyHead}
	r := bufio.NewReaderSize(limited, 4096)
	answer, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return nil, ErrProxyAnswer
	}
	switch code := answer.StatusCode; {
	case code == http.StatusOK && (answer.ContentLength > 0 || answer.Header.Get("Content-Type") != ""):
		return nil, ErrProxyAnswer // a page
	case code == http.StatusOK:
	case code == http.StatusProxyAuthRequired || code == http.StatusUnauthorized:
		return nil, ErrProxyPassword
	case code == http.StatusForbidden || code == http.StatusMethodNotAllowed || code == http.StatusBadRequest || code == http.StatusNotImplemented:
		return nil, ErrProxyRefused
	case code >= 500:
		return nil, ErrProxyFailed
	default:
		return nil, ErrProxyAnswer
	}
	if !stop() { // the context ended just now
		return nil, ErrProxyFailed
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	head := make([]byte, r.Buffered())
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, ErrProxyAnswer
	}
	return &tunnel{TCPConn: tcp, target: target, head: head}, nil
}

// tunnel is a connection through the proxy that shows the address behind it.
type tunnel struct {
	*net.TCPConn
	target *net.TCPAddr
	head   []byte // read with the proxy's answer
}

// RemoteAddr implements net.Conn.
func (t *tunnel) RemoteAddr() net.Addr { return t.target }

// Read implements net.Conn.
func (t *tunnel) Read(b []byte) (int, error) {
	if len(t.head) > 0 {
		n := copy(b, t.head)
		t.head = t.head[n:]
		return n, nil
	}
	return t.TCPConn.Read(b)
}

// ReadFrom and WriteTo of net.TCPConn would pass by Read.
func (t *tunnel) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{t})
}
