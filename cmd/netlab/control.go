package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
)

// serveControl lets others change a running wire: each line of a connection is "show" or what wire.set takes, and is
// answered by lines of which the last one is "ok" or begins with "error: ". It ends with ctx.
func serveControl(ctx context.Context, l net.Listener, w *wire) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("control socket: %w", err)
		}
		go func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			lines := bufio.NewScanner(c)
			for lines.Scan() {
				if _, err := c.Write([]byte(control(w, lines.Text()))); err != nil {
					return
				}
			}
		}()
	}
}

// control carries out one line.
func control(w *wire, line string) string {
	line = strings.TrimSpace(line)
	if line == "show" {
		return strings.Join(append(w.show(), "ok"), "\n") + "\n"
	}
	if err := w.set(line); err != nil {
		return "error: " + strings.ReplaceAll(err.Error(), "\n", " ") + "\n"
	}
	return "ok\n"
}

// askControl sends one line to a wire's control socket and returns what it answers before "ok".
func askControl(ctx context.Context, socket, line string) ([]string, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("reach the wire: %w", err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if _, err := fmt.Fprintln(c, line); err != nil {
		return nil, fmt.Errorf("ask the wire: %w", err)
	}
	var out []string
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		text := lines.Text()
		if text == "ok" {
			return out, nil
		}
		if cause, ok := strings.CutPrefix(text, "error: "); ok {
			return nil, errors.New(cause)
		}
		out = append(out, text)
	}
	return nil, errors.Join(errors.New("the wire ended before it answered"), lines.Err())
}
