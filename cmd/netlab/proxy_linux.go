package main

import (
	"bufio"
	"context"
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
	ports := set.String("ports", "443", "")
	if err := parseFlags(set, args); err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", *listen)
	if err != nil {
		return err
	}
	fmt.Println("listening", l.Addr())
	return serveProxy(ctx, l, strings.Split(*ports, ","))
}

// proxy starts a proxy on the host, which ends with the lab, and returns when it listens.
func (h *host) proxy(listen string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command("ip", "netns", "exec", h.ns, self, "proxy", "--listen", listen)
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
func serveProxy(ctx context.Context, l net.Listener, ports []string) error {
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
			tunnel(ctx, c, ports)
		})
	}
}

// tunnel serves one connection to its end.
func tunnel(ctx context.Context, c net.Conn, ports []string) {
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
	case err != nil:
		answer(http.StatusBadRequest)
		return
	case !slices.Contains(ports, port):
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
	var there sync.WaitGroup
	there.Go(func() {
		_, _ = io.Copy(to, in)
		halfClose(to)
	})
	_, _ = io.Copy(c, to)
	halfClose(c)
	there.Wait()
}

// halfClose tells the other end that no more is sent.
func halfClose(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
}
