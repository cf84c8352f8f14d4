package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// tap is a wiretap: a UDP socket on this computer that passes on every packet to a node and back, and keeps a copy. Who
// dials its front talks to the node behind it.
type tap struct {
	front  *net.UDPConn
	behind netip.AddrPort

	mu    sync.Mutex // guards all below
	lines map[netip.AddrPort]*net.UDPConn
	in    seen // to the node
	out   seen // from it
}

// seen is what a tap has seen of one direction.
type seen struct {
	packets int
	bytes   []byte
}

func (s *seen) add(packet []byte) {
	s.packets++
	s.bytes = append(s.bytes, packet...)
}

// openTap opens a tap in front of a node that listens at behind.
func openTap(behind netip.AddrPort) (*tap, error) {
	front, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(behind.Addr(), 0)))
	if err != nil {
		return nil, fmt.Errorf("open the wiretap's socket: %w", err)
	}
	return &tap{front: front, behind: behind, lines: map[netip.AddrPort]*net.UDPConn{}}, nil
}

// addr is where the tap listens.
func (t *tap) addr() netip.AddrPort { return portOf(t.front) }

func portOf(c *net.UDPConn) netip.AddrPort {
	at, _ := netip.ParseAddrPort(c.LocalAddr().String()) // of an open socket it always parses
	return at
}

// run passes packets on until ctx ends, and closes the sockets.
func (t *tap) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		return t.close()
	})
	g.Go(func() error { return t.inward(ctx, g) })
	return g.Wait()
}

// inward passes on what comes to the front. Each sender gets a socket of its own towards the node, so that answers find
// back.
func (t *tap) inward(ctx context.Context, g *errgroup.Group) error {
	packet := make([]byte, 64<<10)
	for {
		n, from, err := t.front.ReadFromUDPAddrPort(packet)
		if err != nil {
			return endOf(ctx, err)
		}
		line, fresh, err := t.line(from)
		if err != nil {
			return endOf(ctx, err)
		}
		if fresh {
			g.Go(func() error { return t.outward(ctx, line, from) })
		}
		t.mu.Lock()
		t.in.add(packet[:n])
		t.mu.Unlock()
		if _, err := line.Write(packet[:n]); err != nil && ctx.Err() != nil {
			return nil
		}
	}
}

// outward passes the node's answers on to one sender.
func (t *tap) outward(ctx context.Context, line *net.UDPConn, to netip.AddrPort) error {
	packet := make([]byte, 64<<10)
	for {
		n, err := line.Read(packet)
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			continue // the node is not there: QUIC finds out by itself
		}
		t.mu.Lock()
		t.out.add(packet[:n])
		t.mu.Unlock()
		if _, err := t.front.WriteToUDPAddrPort(packet[:n], to); err != nil {
			return endOf(ctx, err)
		}
	}
}

// endOf tells the end of a tap from a failure of it.
func endOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("pass a packet on: %w", err)
}

// line gives the socket for a sender.
func (t *tap) line(from netip.AddrPort) (line *net.UDPConn, fresh bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if line, ok := t.lines[from]; ok {
		return line, false, nil
	}
	line, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(t.behind))
	if err == nil {
		t.lines[from] = line
	}
	return line, true, err
}

func (t *tap) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.front.Close()
	for _, line := range t.lines {
		err = errors.Join(err, line.Close())
	}
	return err
}

// carries reports whether an address is one of the tap's own sockets.
func (t *tap) carries(at netip.AddrPort) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at == portOf(t.front) {
		return true
	}
	for _, line := range t.lines {
		if at == portOf(line) {
			return true
		}
	}
	return false
}

// copies gives what was seen so far.
func (t *tap) copies() (in, out seen) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return seen{t.in.packets, slices.Clone(t.in.bytes)}, seen{t.out.packets, slices.Clone(t.out.bytes)}
}

// secret is something that a wiretap must not see.
type secret struct {
	what  string // "text", "name", "identity", "key"
	value []byte
}

// shortest is the least size of a secret in bytes: shorter ones turn up in encrypted bytes by chance.
const shortest = 8

// spellings gives the ways to write a secret that are searched for: as it is, in hex of both cases, and in base64 of both
// alphabets, wherever in a longer base64 text it begins.
func (s secret) spellings() []string {
	lower := hex.EncodeToString(s.value)
	out := []string{string(s.value), lower, strings.ToUpper(lower)}
	for _, alphabet := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			text := alphabet.EncodeToString(append(make([]byte, before), s.value...))
			first, after := (before*8+5)/6, (before+len(s.value))*8/6 // characters that depend on the secret alone
			out = append(out, text[first:after])
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// spellingsSearched is in how many ways each secret is searched for: raw, two of hex, three of base64. The two alphabets
// of base64 are counted once.
const spellingsSearched = 6

// find gives the secrets that occur in the bytes.
func find(in []byte, secrets []secret) []secret {
	var found []secret
	text := string(in)
	for _, s := range secrets {
		if slices.ContainsFunc(s.spellings(), func(spelling string) bool { return strings.Contains(text, spelling) }) {
			found = append(found, s)
		}
	}
	return found
}
