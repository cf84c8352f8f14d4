package testnet

import (
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/marcopolo/simnet"
)

// Options say how bad the network is. The zero value is a good one.
type Options struct {
	Latency       time.Duration // one way; default 50 ms
	Jitter        time.Duration // added to Latency, uniform in [0, Jitter): reorders
	Loss          float64       // share of packets lost, each direction
	Duplicate     float64       // share of packets that arrive twice
	BitsPerSecond int           // of each host, up and down; default 20 Mbit/s
}

// Net is a simulated network. Its methods may be called from any goroutine.
type Net struct {
	sim   *simnet.Simnet
	links simnet.NodeBiDiLinkSettings
	seed  uint64

	mu      sync.Mutex // guards all below
	opt     Options
	jitter  *rand.Rand
	dice    map[pair]*rand.Rand
	counts  map[pair]Count
	cuts    map[pair]bool
	walls   map[int]map[flow]time.Time // of firewalled hosts: when a flow was last seen
	taps    []func(Packet)
	hosts   map[int]*Host
	byIP    map[netip.Addr]int
	lan     map[int]*neighbour
	lastLAN int
}

// pair is a direction: from a host to a host.
type pair struct{ from, to int }

// flow is a socket behind a firewall, and an address outside.
type flow struct{ in, out netip.AddrPort }

// natTime is how long a firewall remembers a flow without packets.
const natTime = 2 * time.Minute

// blocked lets a packet through the firewalls of both ends, and reports whether one
// of them stops it. The caller holds mu.
func (n *Net) blocked(dir pair, src, dst netip.AddrPort) bool {
	now := time.Now()
	if w := n.walls[dir.from]; w != nil {
		w[flow{src, dst}] = now
	}
	w := n.walls[dir.to]
	if w == nil {
		return false
	}
	f := flow{dst, src}
	if seen, ok := w[f]; !ok || now.Sub(seen) > natTime {
		return true
	}
	w[f] = now
	return false
}

// Count is what went from one host to another.
type Count struct {
	Packets, Bytes int // handed over by the sender, UDP payload
	Lost           int // packets of them that the dice took
	Cut            int // packets of them that ran into a cut or a firewall
	Doubled        int // packets of them that arrived twice
}

// Packet is what somebody on the line sees.
type Packet struct {
	At       time.Time
	From, To int            // hosts; To is -1 if nobody has that address
	Src, Dst netip.AddrPort // addresses
	Data     []byte         // UDP payload; not to be kept or changed
	Lost     bool           // lost or cut: seen near the sender only
}

// linger is how long libp2p's AutoNAT service goes on after its host was closed: it
// answers a failed dial only when the time for it is over.
const linger = 30 * time.Second

// New makes a network for the bubble of the calling test, and closes it when the
// test ends.
func New(t testing.TB, seed uint64, o Options) *Net {
	t.Helper()
	if o.Latency == 0 {
		o.Latency = 50 * time.Millisecond
	}
	if o.BitsPerSecond == 0 {
		o.BitsPerSecond = 20_000_000
	}
	link := simnet.LinkSettings{BitsPerSecond: o.BitsPerSecond}
	n := &Net{
		seed: seed, opt: o,
		links:  simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link},
		jitter: rand.New(rand.NewPCG(seed, 0)),
		dice:   make(map[pair]*rand.Rand),
		counts: make(map[pair]Count),
		cuts:   make(map[pair]bool),
		walls:  make(map[int]map[flow]time.Time),
		hosts:  make(map[int]*Host),
		byIP:   make(map[netip.Addr]int),
		lan:    make(map[int]*neighbour),
	}
	// A packet to a host that is not up is no error here.
	n.sim = &simnet.Simnet{LatencyFunc: n.latency, Logger: slog.New(slog.DiscardHandler)}
	n.sim.Start()
	t.Cleanup(func() {
		<-time.After(linger)
		n.sim.Close()
	})
	t.Logf("testnet: seed %d, %+v", seed, o)
	return n
}

func (n *Net) latency(*simnet.Packet) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.opt.Latency
	if n.opt.Jitter > 0 {
		d += time.Duration(n.jitter.Int64N(int64(n.opt.Jitter)))
	}
	return d
}

// SetLoss changes the share of packets lost from now on.
func (n *Net) SetLoss(share float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.opt.Loss = share
}

// SetLatency changes the delay and its jitter from now on.
func (n *Net) SetLatency(latency, jitter time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.opt.Latency, n.opt.Jitter = latency, jitter
}

// Cut lets nothing pass between hosts of a and hosts of b, in both directions.
func (n *Net) Cut(a, b []int) {
	n.CutOneWay(a, b)
	n.CutOneWay(b, a)
}

// CutOneWay lets nothing pass from hosts of a to hosts of b.
func (n *Net) CutOneWay(a, b []int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, from := range a {
		for _, to := range b {
			n.cuts[pair{from, to}] = true
		}
	}
}

// Heal takes all cuts back.
func (n *Net) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cuts)
}

// Traffic returns what went from one host to another so far.
func (n *Net) Traffic(from, to int) Count {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.counts[pair{from, to}]
}

// Total returns what went from anybody to anybody so far.
func (n *Net) Total() Count {
	n.mu.Lock()
	defer n.mu.Unlock()
	var sum Count
	for _, c := range n.counts {
		sum.Packets += c.Packets
		sum.Bytes += c.Bytes
		sum.Lost += c.Lost
		sum.Cut += c.Cut
		sum.Doubled += c.Doubled
	}
	return sum
}

// Tap shows every packet from now on to f, in the goroutine that sends it and
// one at a time. f must not call the Net.
func (n *Net) Tap(f func(Packet)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.taps = append(n.taps, f)
}

// pass decides how often a packet goes on: 0, 1 or 2 times.
func (n *Net) pass(from int, src, dst netip.AddrPort, data []byte) int {
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	n.mu.Lock()
	defer n.mu.Unlock()
	to, ok := n.byIP[dst.Addr()]
	if !ok {
		to = -1
	}
	dir := pair{from, to}
	c := n.counts[dir]
	c.Packets++
	c.Bytes += len(data)
	times := 1
	dice := n.diceOf(dir)
	// Both are always drawn, so that a cut does not shift the dice after it.
	lost, doubled := dice.Float64() < n.opt.Loss, dice.Float64() < n.opt.Duplicate
	switch {
	case n.cuts[dir], n.blocked(dir, src, dst):
		c.Cut++
		times = 0
	case lost:
		c.Lost++
		times = 0
	case doubled:
		c.Doubled++
		times = 2
	}
	n.counts[dir] = c
	for _, tap := range n.taps {
		tap(Packet{At: time.Now(), From: from, To: to, Src: src, Dst: dst, Data: data, Lost: times == 0})
	}
	return times
}

// diceOf returns the generator of a direction. The caller holds mu.
func (n *Net) diceOf(dir pair) *rand.Rand {
	d := n.dice[dir]
	if d == nil {
		h := fnv.New64a()
		fmt.Fprintf(h, "%d>%d", dir.from, dir.to)
		d = rand.New(rand.NewPCG(n.seed, h.Sum64()))
		n.dice[dir] = d
	}
	return d
}

// conn is a host's socket: simnet's, with the Net in front of it.
type conn struct {
	*simnet.SimConn
	net  *Net
	host int
	addr netip.AddrPort
}

// WriteTo hands a packet to the network; what is lost is sent all the same.
func (c *conn) WriteTo(p []byte, to net.Addr) (int, error) {
	udp, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("bug: packet to a %T", to)
	}
	for range c.net.pass(c.host, c.addr, udp.AddrPort(), p) {
		if _, err := c.SimConn.WriteTo(p, to); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// listen opens a socket of a host.
func (n *Net) listen(host int, addr *net.UDPAddr) (net.PacketConn, error) {
	ap := addr.AddrPort()
	ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	n.mu.Lock()
	defer n.mu.Unlock() // simnet's own list of links has no lock
	n.byIP[ap.Addr()] = host
	return &conn{SimConn: n.sim.NewEndpoint(addr, n.links), net: n, host: host, addr: ap}, nil
}
