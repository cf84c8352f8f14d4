package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// watchedMain is the program, and what its runtime says, written to a file four times a second.
func watchedMain() {
	go func() {
		for range time.Tick(250 * time.Millisecond) {
			_ = os.WriteFile(os.Getenv("KINLOOM_TEST_WATCH"), []byte(strconv.Itoa(runtime.NumGoroutine())), 0o600)
		}
	}()
	main()
}

// hostileMain is a program that attacks the node at the addresses of its arguments until
// it is interrupted, as fast as it can, and then tells what it did.
func hostileMain() {
	phase := flag.String("phase", "", "what to do: streams, frames, records, connections; empty: all of it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	a := &attacker{counts: map[string]*tally{}}
	for _, s := range flag.Args() {
		info, err := peer.AddrInfoFromString(s)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		a.victim = info.ID
		a.addrs = append(a.addrs, info.Addrs...)
	}
	a.run(ctx, *phase)
	line, err := json.Marshal(a.report())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(string(line))
}

// attacker is the machine of somebody who wants a node to go down.
type attacker struct {
	victim peer.ID
	addrs  []ma.Multiaddr
	turn   atomic.Int64

	mu     sync.Mutex // guards counts
	counts map[string]*tally
}

// tally counts one kind of attack: what the victim let through, and what failed.
type tally struct{ done, failed atomic.Int64 }

// assault is one kind of attack. It works on one connection, until that fails.
type assault struct {
	phase, name string
	workers     int
	run         func(ctx context.Context, a *attacker, n *tally)
}

func (a *attacker) run(ctx context.Context, phase string) {
	var wg sync.WaitGroup
	for _, s := range append(assaults(), connectionAssaults()...) {
		if phase != "" && s.phase != phase {
			continue
		}
		n := new(tally)
		a.mu.Lock()
		a.counts[s.phase+" "+s.name] = n
		a.mu.Unlock()
		for range s.workers {
			wg.Go(func() {
				for ctx.Err() == nil {
					s.run(ctx, a, n)
				}
			})
		}
	}
	wg.Wait()
}

func (a *attacker) report() map[string][2]int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[string][2]int64{}
	for name, n := range a.counts {
		out[name] = [2]int64{n.done.Load(), n.failed.Load()}
	}
	return out
}

// addr gives QUIC and TCP in turn.
func (a *attacker) addr() ma.Multiaddr { return a.addrs[a.turn.Add(1)%int64(len(a.addrs))] }

// stranger is somebody whom the victim has never met, and may have banned for nothing.
func stranger(listen ...string) (host.Host, error) {
	return libp2p.New(libp2p.ListenAddrStrings(listen...), libp2p.DisableMetrics(), libp2p.DisableRelay(),
		libp2p.DisableIdentifyAddressDiscovery(), libp2p.ForceReachabilityPrivate(),
		libp2p.UDPBlackHoleSuccessCounter(nil), libp2p.IPv6BlackHoleSuccessCounter(nil),
		libp2p.ResourceManager(&network.NullResourceManager{}))
}

// connected runs f on a connection of a stranger.
func (a *attacker) connected(ctx context.Context, n *tally, f func(h host.Host, c network.Conn)) {
	h, err := stranger()
	if err != nil {
		n.failed.Add(1)
		return
	}
	defer h.Close()
	dial, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := h.Connect(dial, peer.AddrInfo{ID: a.victim, Addrs: []ma.Multiaddr{a.addr()}}); err != nil {
		n.failed.Add(1)
		return
	}
	if conns := h.Network().ConnsToPeer(a.victim); len(conns) > 0 {
		f(h, conns[0])
	}
}

// onConn makes an attack of what is done again and again on one connection, until it
// fails a few times in a row: then it is a ban, and somebody else comes.
func onConn(f func(ctx context.Context, h host.Host, c network.Conn) error) func(context.Context, *attacker, *tally) {
	return func(ctx context.Context, a *attacker, n *tally) {
		a.connected(ctx, n, func(h host.Host, c network.Conn) {
			for failures := 0; failures < 20 && ctx.Err() == nil && !c.IsClosed(); {
				if err := f(ctx, h, c); err != nil {
					n.failed.Add(1)
					failures++
					continue
				}
				n.done.Add(1)
				failures = 0
			}
		})
	}
}

// named are the bytes that open a protocol, sent without waiting for a yes.
func named(protocol string) []byte {
	out := []byte("\x13/multistream/1.0.0\n")
	out = binary.AppendUvarint(out, uint64(len(protocol)+1))
	return append(append(out, protocol...), '\n')
}

// served are the protocols that strangers find at a node with the profile server.
var served = []string{
	"/kinloom/dm/1", "/kinloom/contact/1", "/kinloom/hello/1", "/ipfs/ping/1.0.0", "/kinloom/dhtproxy/1", "/kinloom/kad/1.0.0",
	"/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/libp2p/circuit/relay/0.2.0/hop", "/libp2p/circuit/relay/0.2.0/stop",
	"/libp2p/dcutr", "/libp2p/autonat/1.0.0", "/libp2p/autonat/2/dial-request", "/libp2p/autonat/2/dial-back",
}

// open opens a stream and sends b on it.
func open(ctx context.Context, c network.Conn, b ...[]byte) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s, err := c.NewStream(ctx)
	if err != nil {
		return nil, err
	}
	_ = s.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := s.Write(bytes.Join(b, nil)); err != nil {
		_ = s.Reset()
		return nil, err
	}
	return s, nil
}

// drain reads to the end of a stream, or until its deadline.
func drain(s network.Stream) {
	_ = s.CloseWrite()
	buf := make([]byte, 4096)
	for {
		if _, err := s.Read(buf); err != nil {
			_ = s.Reset()
			return
		}
	}
}

// noise are 64 KiB of nothing.
var noise = func() []byte {
	b := make([]byte, 64<<10)
	r := mrand.New(mrand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}()

// frames are what somebody sends who wants a parser to fail: noise, a length prefix of
// 2^63, of 16 MiB, of all that a frame may have and then noise, a frame of zeros.
var frames = [][]byte{
	noise,
	append(binary.AppendUvarint(nil, 1<<63), noise...),
	append(binary.AppendUvarint(nil, 16<<20), noise...),
	append(binary.AppendUvarint(nil, 32<<10), noise[:32<<10]...),
	append(binary.AppendUvarint(nil, 1000), noise[:1000]...),
	append(binary.AppendUvarint(nil, 4000), make([]byte, 4000)...),
	bytes.Repeat([]byte{0xff}, 4096),
	bytes.Repeat([]byte{0x00}, 4096),
}

func assaults() []assault {
	var protocol, frame atomic.Int64
	next := func() string { return served[protocol.Add(1)%int64(len(served))] }
	return append([]assault{
		{"streams", "opened and reset", 4, onConn(func(ctx context.Context, _ host.Host, c network.Conn) error {
			s, err := open(ctx, c, []byte{19})
			if err != nil {
				return err
			}
			return s.Reset()
		})},
		{"streams", "named and reset", 4, onConn(func(ctx context.Context, _ host.Host, c network.Conn) error {
			s, err := open(ctx, c, named(next()))
			if err != nil {
				return err
			}
			return s.Reset()
		})},
		{"streams", "held", 4, func(ctx context.Context, a *attacker, n *tally) {
			a.connected(ctx, n, func(_ host.Host, c network.Conn) {
				for range 48 { // the share of one peer
					if _, err := open(ctx, c, named(next())); err != nil {
						n.failed.Add(1)
						return
					}
					n.done.Add(1)
				}
				rest(ctx, 5*time.Second)
			})
		}},
		{"frames", "garbage", 8, onConn(func(ctx context.Context, _ host.Host, c network.Conn) error {
			s, err := open(ctx, c, named(next()), frames[frame.Add(1)%int64(len(frames))])
			if err != nil {
				return err
			}
			return s.CloseWrite()
		})},
		{"frames", "and waited for", 8, onConn(func(ctx context.Context, _ host.Host, c network.Conn) error {
			s, err := open(ctx, c, named(next()), frames[frame.Add(1)%int64(len(frames))])
			if err != nil {
				return err
			}
			drain(s)
			return nil
		})},
		{"frames", "byte by byte", 4, func(ctx context.Context, a *attacker, n *tally) {
			a.connected(ctx, n, func(_ host.Host, c network.Conn) {
				var held []network.Stream
				for _, p := range served {
					if s, err := open(ctx, c, named(p), []byte{0x80}); err == nil {
						held = append(held, s)
					}
				}
				for i := range 5 {
					for _, s := range held {
						if _, err := s.Write([]byte{0x80 | byte(i)}); err != nil {
							n.failed.Add(1)
						} else {
							n.done.Add(1)
						}
					}
					rest(ctx, time.Second)
				}
			})
		}},
	}, recordAssaults()...)
}

// connectionAssaults are connections made and dropped: bare ones, half-made ones, whole
// ones, and packets of none.
func connectionAssaults() []assault {
	bare := func(hold time.Duration, first []byte) func(context.Context, *attacker, *tally) {
		return func(ctx context.Context, a *attacker, n *tally) {
			for _, addr := range a.addrs {
				if ctx.Err() != nil || !strings.Contains(addr.String(), "/tcp/") {
					continue
				}
				c, err := net.DialTimeout("tcp", target(addr), time.Second)
				if err != nil {
					n.failed.Add(1)
					rest(ctx, 10*time.Millisecond)
					continue
				}
				_, err = c.Write(first)
				rest(ctx, hold)
				if err = errors.Join(err, c.Close()); err != nil {
					n.failed.Add(1)
				} else {
					n.done.Add(1)
				}
			}
		}
	}
	return []assault{
		{"connections", "bare", 4, bare(0, nil)},
		{"connections", "half a handshake", 32, bare(2*time.Second, []byte("\x13/multistream/1.0.0\n\x07/noise\n\x00\x20"))},
		{"connections", "garbage", 4, bare(0, noise[:1500])},
		{"connections", "made and dropped", 8, func(ctx context.Context, a *attacker, n *tally) {
			a.connected(ctx, n, func(host.Host, network.Conn) { n.done.Add(1) })
		}},
		{"connections", "made and dropped by one", 4, func(ctx context.Context, a *attacker, n *tally) {
			h, err := stranger()
			if err != nil {
				n.failed.Add(1)
				return
			}
			defer h.Close()
			for failures := 0; failures < 20 && ctx.Err() == nil; {
				dial, cancel := context.WithTimeout(network.WithForceDirectDial(ctx, "attack"), 2*time.Second)
				err := h.Connect(dial, peer.AddrInfo{ID: a.victim, Addrs: []ma.Multiaddr{a.addr()}})
				cancel()
				if err != nil {
					n.failed.Add(1)
					failures++
				} else {
					n.done.Add(1)
					failures = 0
				}
				_ = h.Network().ClosePeer(a.victim)
			}
		}},
		{"connections", "made and kept", 8, func(ctx context.Context, a *attacker, n *tally) {
			a.connected(ctx, n, func(host.Host, network.Conn) {
				n.done.Add(1)
				rest(ctx, 5*time.Second)
			})
		}},
		{"connections", "packets of none", 2, func(ctx context.Context, a *attacker, n *tally) {
			for _, addr := range a.addrs {
				if !strings.Contains(addr.String(), "/udp/") {
					continue
				}
				c, err := net.Dial("udp", target(addr))
				if err != nil {
					n.failed.Add(1)
					continue
				}
				b := make([]byte, 1252)
				for i := 0; i < 1000 && ctx.Err() == nil; i++ {
					copy(b, noise[i:])
					b[0] |= 0xc0 // a long header of version 1: an Initial that does not open
					copy(b[1:], []byte{0, 0, 0, 1, 8})
					if _, err := c.Write(b); err != nil {
						n.failed.Add(1)
					} else {
						n.done.Add(1)
					}
				}
				_ = c.Close()
			}
		}},
	}
}

// target is the address as package net writes it.
func target(a ma.Multiaddr) string {
	_, rest := ma.SplitFirst(a)
	transport, _ := ma.SplitFirst(rest)
	first, _ := ma.SplitFirst(a)
	got, err := manet.ToNetAddr(ma.Multiaddr{*first, *transport})
	if err != nil {
		return ""
	}
	return got.String()
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
