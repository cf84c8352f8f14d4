package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxPacket bounds what one read of a tap gives; the MTU of the taps is below it.
const maxPacket = 4096

// port is one node at the wire. Its tap gives and takes one IP packet a call.
type port struct {
	name string
	tap  io.ReadWriteCloser
	nets []netip.Prefix // what is sent here
}

type pair struct{ from, to string }

// wire carries IP packets between ports by their destination address, as the qualities of its links have it. Packets
// to nobody vanish.
type wire struct {
	seed uint64
	wake chan struct{} // one slot: an earlier packet is in the queue
	all  sync.WaitGroup

	mu    sync.Mutex // guards what follows
	ports []*port
	links map[pair]*link
	fresh quality // of links that nobody has set yet
	queue queue
	ended bool
}

func newWire(seed uint64, fresh quality) *wire {
	return &wire{seed: seed, fresh: fresh, wake: make(chan struct{}, 1), links: make(map[pair]*link)}
}

// attach adds a port and begins to read its tap, until the tap is closed.
func (w *wire) attach(name string, tap io.ReadWriteCloser, nets ...netip.Prefix) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended || name == "" || strings.ContainsAny(name, "*> \n") || slices.ContainsFunc(w.ports, func(p *port) bool { return p.name == name }) {
		return fmt.Errorf("bug: port %q", name)
	}
	p := &port{name: name, tap: tap, nets: nets}
	w.ports = append(w.ports, p)
	w.all.Go(func() { w.read(p) })
	return nil
}

func (w *wire) read(p *port) {
	buf := make([]byte, maxPacket)
	for {
		n, err := p.tap.Read(buf)
		if err != nil {
			return // closed, or gone with its namespace
		}
		w.take(p, buf[:n], time.Now())
	}
}

// take decides what becomes of a packet that came in at a port.
func (w *wire) take(from *port, packet []byte, now time.Time) {
	h, err := parseHeader(packet)
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	to := w.owner(h.dst)
	if to == nil || to == from || w.ended {
		return
	}
	before, waiting := w.queue.next()
	for _, f := range w.link(from.name, to.name).fates(now, len(packet)) {
		copied := slices.Clone(packet)
		if f.damaged {
			damage(copied, f.dice, f.mend)
		}
		w.queue.push(f.due, to, copied)
	}
	if first, ok := w.queue.next(); ok && (!waiting || first.Before(before)) {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// owner returns the port with the longest prefix that holds an address, or nil. It is called with the lock held.
func (w *wire) owner(a netip.Addr) *port {
	var best *port
	bits := -1
	for _, p := range w.ports {
		for _, n := range p.nets {
			if n.Bits() > bits && n.Contains(a) {
				best, bits = p, n.Bits()
			}
		}
	}
	return best
}

// link returns the link of a direction. It is called with the lock held.
func (w *wire) link(from, to string) *link {
	l := w.links[pair{from, to}]
	if l == nil {
		l = newLink(w.seed, from, to, w.fresh)
		w.links[pair{from, to}] = l
	}
	return l
}

// set changes links by a line such as "ada bob loss=10%": both directions. "ada>bob" is one of them, and "*" every other
// port. Only what is named changes. With all other words in order, an unknown port is the one error left.
func (w *wire) set(line string) error {
	words := strings.Fields(line)
	if len(words) == 0 {
		return errors.New("nothing to set")
	}
	from, to, oneWay := strings.Cut(words[0], ">")
	words = words[1:]
	if !oneWay {
		if len(words) == 0 {
			return errors.New("the other end is missing")
		}
		to, words = words[0], words[1:]
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	froms, err := w.match(from)
	if err != nil {
		return err
	}
	tos, err := w.match(to)
	if err != nil {
		return err
	}
	if _, err := parseQuality(quality{}, words); err != nil {
		return err
	}
	for _, f := range froms {
		for _, t := range tos {
			if f == t {
				continue
			}
			directions := []*link{w.link(f, t)}
			if !oneWay {
				directions = append(directions, w.link(t, f))
			}
			for _, l := range directions {
				l.quality, _ = parseQuality(l.quality, words) // checked above
			}
		}
	}
	return nil
}

// match returns the ports that a name stands for.
func (w *wire) match(name string) ([]string, error) {
	var names []string
	for _, p := range w.ports {
		if name == "*" || name == p.name {
			names = append(names, p.name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("there is no port %q", name)
	}
	return names, nil
}

// show tells the ports with their addresses, then the links, one a line, as set takes them.
func (w *wire) show() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out, links []string
	for _, p := range w.ports {
		words := []string{"port", p.name}
		for _, n := range p.nets {
			words = append(words, n.String())
		}
		out = append(out, strings.Join(words, " "))
	}
	for k, l := range w.links {
		links = append(links, k.from+">"+k.to+" "+l.String())
	}
	slices.Sort(links)
	return append(out, links...)
}

// run delivers packets when they are due, until ctx ends. Then it closes all taps.
func (w *wire) run(ctx context.Context) {
	defer w.close()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait := w.deliver(time.Now())
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-w.wake:
		}
	}
}

// deliver writes what is due and returns the time until the next packet is.
func (w *wire) deliver(now time.Time) time.Duration {
	for {
		w.mu.Lock()
		f, ok := w.queue.pop(now)
		due, more := w.queue.next()
		w.mu.Unlock()
		if ok {
			_, _ = f.to.tap.Write(f.packet) // an interface that is down takes nothing: lost, as on any wire
			continue
		}
		if !more {
			return time.Hour
		}
		return due.Sub(now)
	}
}

func (w *wire) close() {
	w.mu.Lock()
	w.ended = true
	ports := slices.Clone(w.ports)
	w.mu.Unlock()
	for _, p := range ports {
		p.tap.Close()
	}
	w.all.Wait()
}
