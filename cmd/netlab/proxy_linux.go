package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

// proxyCommand is an HTTP proxy that knows CONNECT alone, to some ports: what is left of the Internet in some offices.
// It prints a line when it listens.
func proxyCommand(ctx context.Context, args []string) error {
	set := flags("proxy")
	listen := set.String("listen", "127.0.0.1:3128", "")
	var o proxyOptions
	ports := set.String("ports", "443", "")
	set.StringVar(&o.login, "login", "", "")
	set.DurationVar(&o.idle, "idle", 0, "")
	set.BoolVar(&o.page, "page", false, "")
	if err := parseFlags(set, args); err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", *listen)
	if err != nil {
		return err
	}
	fmt.Println("listening", l.Addr())
	o.ports = strings.Split(*ports, ",")
	return serveProxy(ctx, l, o)
}

// proxyOptions say what a proxy lets through.
type proxyOptions struct {
	ports []string
	login string        // user:password that is asked for; empty: none
	idle  time.Duration // after which a tunnel without a byte is cut; 0: never
	page  bool          // it is no proxy, but answers all with a page
}

// proxy starts a proxy on the host, which ends with the lab, and returns when it listens.
func (h *host) proxy(listen string, more ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command("ip", append([]string{"netns", "exec", h.ns, self, "proxy", "--listen", listen}, more...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the proxy on %s: %w", h.name, err)
	}
	h.lab.proxies = append(h.lab.proxies, cmd)
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return fmt.Errorf("the proxy on %s does not listen: %w", h.name, err)
	}
	return nil
}

// serveProxy serves until ctx ends.
func serveProxy(ctx context.Context, l net.Listener, o proxyOptions) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var all sync.WaitGroup
	defer all.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("proxy: %w", err)
		}
		all.Go(func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			if o.page {
				page(c)
				return
			}
			tunnel(ctx, c, o)
		})
	}
}

// tunnel serves one connection to its end.
func tunnel(ctx context.Context, c net.Conn, o proxyOptions) {
	in := bufio.NewReader(c)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second)) // a connection that is closed fails at the next read
	r, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	answer := func(code int) {
		fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", code, http.StatusText(code))
	}
	_, port, err := net.SplitHostPort(r.Host)
	switch {
	case r.Method != http.MethodConnect:
		answer(http.StatusMethodNotAllowed)
		return
	case o.login != "" && r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(o.login)):
		answer(http.StatusProxyAuthRequired)
		return
	case err != nil:
		answer(http.StatusBadRequest)
		return
	case !slices.Contains(o.ports, port):
		answer(http.StatusForbidden)
		return
	}
	to, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", r.Host)
	if err != nil {
		answer(http.StatusBadGateway)
		return
	}
	defer to.Close()
	defer context.AfterFunc(ctx, func() { to.Close() })()
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	var patience *time.Timer
	if o.idle > 0 {
		patience = time.AfterFunc(o.idle, func() {
			c.Close()
			to.Close()
		})
		defer patience.Stop()
	}
	var there sync.WaitGroup
	there.Go(func() {
		_, _ = io.Copy(to, busy{in, patience, o.idle})
		halfClose(to)
	})
	_, _ = io.Copy(c, busy{to, patience, o.idle})
	halfClose(c)
	there.Wait()
}

// busy is a reader that begins to wait anew with each byte.
type busy struct {
	io.Reader
	patience *time.Timer // nil: nobody waits
	idle     time.Duration
}

// Read implements io.Reader.
func (b busy) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if n > 0 && b.patience != nil {
		b.patience.Reset(b.idle)
	}
	return n, err
}

// page answers whatever comes.
func page(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second)) // a connection that is closed fails at the next read
	_, _ = c.Read(make([]byte, 4096))
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html><title>Guests</title>Please accept the terms to go on.</html>\n")
}

// halfClose tells the other end that no more is sent.
func halfClose(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
}
