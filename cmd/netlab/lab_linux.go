package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// lab is the network of one scenario. What builds it remembers the first error, which ready gives.
type lab struct {
	name    string
	folder  string
	kinloom string
	long    bool // the long form is asked for
	soak    time.Duration
	wire    *wire
	tuns    *atomic.Int64 // made so far by all labs: names in the wire's namespace
	err     error
	made    []string // namespaces
	nodes   []*node
	agents  []*agent
	proxies []*exec.Cmd
	all     sync.WaitGroup
	end     context.CancelFunc
}

// host is one network namespace.
type host struct {
	lab  *lab
	name string
	ns   string
}

// openLab starts the wire of a scenario. Packets take 5 ms, until the scenario says otherwise.
func openLab(ctx context.Context, l *lab, seed uint64) error {
	if err := os.MkdirAll(l.folder, 0o700); err != nil {
		return err
	}
	l.wire = newWire(seed, quality{delay: 5 * time.Millisecond})
	ctx, l.end = context.WithCancel(ctx)
	socket, err := new(net.ListenConfig).Listen(ctx, "unix", filepath.Join(l.folder, "wire.sock"))
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	l.all.Go(func() { l.wire.run(ctx) })
	l.all.Go(func() { _ = serveControl(ctx, socket, l.wire) }) // its user sees that it is gone
	return nil
}

// close ends all processes of the lab and takes its network down.
func (l *lab) close() error {
	for _, n := range l.nodes {
		n.kill()
	}
	for _, a := range l.agents {
		a.kill()
	}
	for _, p := range l.proxies {
		_ = p.Process.Kill()
		_ = p.Wait() // the error says that it was killed
	}
	l.end()
	l.all.Wait()
	var batch strings.Builder
	for _, ns := range l.made {
		fmt.Fprintln(&batch, "netns del", ns)
	}
	return command(batch.String(), "ip", "-batch", "-")
}

// ready tells whether the network stands.
func (l *lab) ready() error { return l.err }

func (l *lab) fail(err error) {
	if l.err == nil && err != nil {
		l.err = fmt.Errorf("build the network: %w", err)
	}
}

// command runs a program in the wire's namespace.
func command(input string, words ...string) error {
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s%s", strings.Join(words, " "), err, input, out)
	}
	return nil
}

// namespace makes a host without any network but its loopback.
func (l *lab) namespace(name string) *host {
	h := &host{lab: l, name: name, ns: l.name + "-" + name}
	l.fail(command("", "ip", "netns", "add", h.ns))
	l.made = append(l.made, h.ns)
	h.ip("link set lo up")
	// Containers may come without IPv6, and new namespaces take that over.
	h.sysctl("net/ipv6/conf/all/disable_ipv6", "0")
	h.sysctl("net/ipv6/conf/default/disable_ipv6", "0")
	return h
}

// ip runs lines of the ip command in the host's namespace.
func (h *host) ip(lines ...string) {
	h.lab.fail(command(strings.Join(lines, "\n")+"\n", "ip", "-n", h.ns, "-batch", "-"))
}

func (h *host) sysctl(name, value string) {
	h.lab.fail(command(value+"\n", "ip", "netns", "exec", h.ns, "sh", "-c", "cat >/proc/sys/"+name))
}

// public makes a host on the wire, with addresses of its own.
func (l *lab) public(name string, addrs ...string) *host {
	h := l.namespace(name)
	h.plug(name, "wan0", addrs...)
	return h
}

// plug gives the host a device on the wire, a port with these addresses, and the default routes over it. In front of an
// address, "via " makes it a network that the host is the router of.
func (h *host) plug(port, device string, addrs ...string) {
	tun := fmt.Sprintf("t%d", h.lab.tuns.Add(1))
	tap, err := openTUN(tun)
	if err != nil {
		h.lab.fail(err)
		return
	}
	h.lab.fail(command("", "ip", "link", "set", "dev", tun, "netns", h.ns, "name", device))
	// What is lost is decided by the wire, not by a queue that is full while others have the processor.
	h.ip("link set " + device + " txqueuelen 10000 up")
	var nets []netip.Prefix
	for _, a := range addrs {
		network, routed := strings.CutPrefix(a, "via ")
		if !routed {
			network = h.address(device, a)
		}
		p, err := netip.ParsePrefix(network)
		h.lab.fail(err)
		nets = append(nets, p)
	}
	h.lab.fail(h.lab.wire.attach(port, tap, nets...))
}

// address gives a device on the wire an address and the default route of its family, and returns it as a network.
func (h *host) address(device, addr string) string {
	a, err := netip.ParseAddr(addr)
	h.lab.fail(err)
	if a.Is4() {
		h.ip("addr add "+addr+"/32 dev "+device, "route replace 0.0.0.0/0 dev "+device)
		return addr + "/32"
	}
	h.ip("addr add "+addr+"/128 dev "+device+" nodad", "route replace ::/0 dev "+device)
	return addr + "/128"
}

// segment is one link layer, a bridge: what is sent to all reaches all.
type segment struct {
	switching *host
	next      int // of the hosts on it, and of their addresses
}

// lan makes a segment that leads nowhere.
func (l *lab) lan(name string) *segment {
	h := l.namespace(name)
	h.ip("link add lan0 type bridge", "link set lan0 up")
	return &segment{switching: h}
}

// attach connects a device of a host to the segment.
func (s *segment) attach(h *host, device string, addrs ...string) {
	s.next++
	end := fmt.Sprintf("p%d", s.next)
	s.switching.ip(fmt.Sprintf("link add %s type veth peer name %s netns %s", end, device, h.ns), "link set "+end+" master lan0 up")
	h.ip("link set " + device + " up")
	for _, a := range addrs {
		h.ip("addr add " + a + " dev " + device + " nodad")
	}
}

// host makes a host on the segment, with addresses such as 192.168.7.10/24.
func (s *segment) host(name string, addrs ...string) *host {
	h := s.switching.lab.namespace(name)
	s.attach(h, "eth0", addrs...)
	return h
}
