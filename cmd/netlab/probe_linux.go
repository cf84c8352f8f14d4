package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A probe agent is one UDP socket in a namespace, with which the lab tests itself. Lines on its input tell it what to do,
// and each is answered by one line of JSON (probeResult):
//
//	ask ADDR       the address that another agent sees this socket at
//	punch ADDR     sends to an address until something comes from it, as both sides of a hole punch do
//	blast ADDR N   sends N numbered packets
//	count          what came of the blasts since the last count
//	dial ADDR [P]  connects over TCP, through the HTTP proxy at P
//
// Every agent answers asks and punches of others at any time.
type agentState struct {
	socket *net.UDPConn

	mu      sync.Mutex // guards what follows
	seen    map[uint32]int
	damaged int
	told    chan netip.AddrPort // what an ask was answered
	punches map[netip.AddrPort]chan struct{}
}

// probeResult is the answer to any line.
type probeResult struct {
	Error   string `json:"error,omitempty"`
	Mapped  string `json:"mapped,omitempty"`
	Punched bool   `json:"punched,omitempty"`
	Got     int    `json:"got,omitempty"`     // different packets, whole
	Twice   int    `json:"twice,omitempty"`   // whole ones that came once more
	Damaged int    `json:"damaged,omitempty"` // that came with a wrong sum
	Dialled string `json:"dialled,omitempty"` // "yes", or why not
}

const (
	probeTry     = 100 * time.Millisecond // between two tries
	probePatient = 3 * time.Second
	blastSize    = 200
)

func probeCommand(ctx context.Context, args []string) error {
	set := flags("probe")
	listen := set.String("listen", ":0", "")
	if err := parseFlags(set, args); err != nil {
		return err
	}
	at, err := net.ResolveUDPAddr("udp", *listen)
	if err != nil {
		return fmt.Errorf("--listen: %w: %w", err, errUsage)
	}
	socket, err := net.ListenUDP("udp", at)
	if err != nil {
		return err
	}
	if err := roomy(socket); err != nil {
		return err
	}
	a := &agentState{socket: socket, seen: make(map[uint32]int), told: make(chan netip.AddrPort, 1), punches: make(map[netip.AddrPort]chan struct{})}
	var all sync.WaitGroup
	defer all.Wait()
	defer socket.Close()
	all.Go(a.read)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		result, err := a.obey(ctx, strings.Fields(lines.Text()))
		if err != nil {
			result.Error = err.Error()
		}
		b, err := json.Marshal(result)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", b)
	}
	return lines.Err()
}

// roomy gives a socket a buffer for every packet of a blast.
func roomy(socket *net.UDPConn) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, 16<<20)
	})
	return errors.Join(err, set)
}

func (a *agentState) obey(ctx context.Context, words []string) (probeResult, error) {
	if len(words) == 1 && words[0] == "count" {
		return a.count(), nil
	}
	if len(words) < 2 {
		return probeResult{}, errors.New("ask ADDR, punch ADDR, blast ADDR N, dial ADDR [PROXY], or count")
	}
	to, err := netip.ParseAddrPort(words[1])
	if err != nil {
		return probeResult{}, err
	}
	switch words[0] {
	case "ask":
		return a.ask(ctx, to)
	case "punch":
		return a.punch(ctx, to)
	case "dial":
		return dialTCP(ctx, words[1], words[2:])
	case "blast":
		n := 0
		if len(words) == 3 {
			_, err = fmt.Sscan(words[2], &n)
		}
		if err != nil || n < 1 {
			return probeResult{}, errors.Join(errors.New("how many?"), err)
		}
		return probeResult{}, a.blast(ctx, to, uint32(n))
	}
	return probeResult{}, fmt.Errorf("%q is nothing to do", words[0])
}

func (a *agentState) read() {
	buf := make([]byte, maxPacket)
	for {
		n, from, err := a.socket.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil { // else an ICMP error of an earlier packet
			a.take(buf[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
		}
	}
}

func (a *agentState) take(b []byte, from netip.AddrPort) {
	word, rest, _ := bytes.Cut(b, []byte(" "))
	switch string(word) {
	case "ask":
		_, _ = a.socket.WriteToUDPAddrPort([]byte("you "+from.String()), from)
	case "you":
		if at, err := netip.ParseAddrPort(string(rest)); err == nil {
			select {
			case a.told <- at:
			default:
			}
		}
	case "punch":
		a.mu.Lock()
		if waits := a.punches[from]; waits != nil {
			close(waits)
			delete(a.punches, from)
		}
		a.mu.Unlock()
		// Once more for each one that comes: the first ones of the other side may have come to a closed hole.
		_, _ = a.socket.WriteToUDPAddrPort([]byte("back "), from)
	case "back":
		a.mu.Lock()
		if waits := a.punches[from]; waits != nil {
			close(waits)
			delete(a.punches, from)
		}
		a.mu.Unlock()
	case "blast":
		a.mu.Lock()
		if len(rest) == blastSize && crc32.ChecksumIEEE(rest[4:]) == binary.BigEndian.Uint32(rest) {
			a.seen[binary.BigEndian.Uint32(rest[4:])]++
		} else {
			a.damaged++
		}
		a.mu.Unlock()
	default: // damage in the word itself
		a.mu.Lock()
		a.damaged++
		a.mu.Unlock()
	}
}

// ask learns the address that another agent sees.
func (a *agentState) ask(ctx context.Context, to netip.AddrPort) (probeResult, error) {
	for began := time.Now(); time.Since(began) < probePatient; {
		if _, err := a.socket.WriteToUDPAddrPort([]byte("ask "), to); err != nil {
			return probeResult{}, err
		}
		select {
		case at := <-a.told:
			return probeResult{Mapped: at.String()}, nil
		case <-time.After(probeTry):
		case <-ctx.Done():
			return probeResult{}, ctx.Err()
		}
	}
	return probeResult{}, nil // nobody answers: a result, too
}

// punch sends until something comes from there.
func (a *agentState) punch(ctx context.Context, to netip.AddrPort) (probeResult, error) {
	came := make(chan struct{})
	a.mu.Lock()
	a.punches[to] = came
	a.mu.Unlock()
	for began := time.Now(); time.Since(began) < probePatient; {
		if _, err := a.socket.WriteToUDPAddrPort([]byte("punch "), to); err != nil {
			return probeResult{}, err
		}
		select {
		case <-came:
			return probeResult{Punched: true}, nil
		case <-time.After(probeTry):
		case <-ctx.Done():
			return probeResult{}, ctx.Err()
		}
	}
	return probeResult{}, nil
}

// blast sends numbered packets, at most 10,000 a second.
func (a *agentState) blast(ctx context.Context, to netip.AddrPort, n uint32) error {
	packet := append([]byte("blast "), make([]byte, blastSize)...)
	rest := packet[len("blast "):]
	for i := range n {
		binary.BigEndian.PutUint32(rest[4:], i)
		binary.BigEndian.PutUint32(rest, crc32.ChecksumIEEE(rest[4:]))
		if _, err := a.socket.WriteToUDPAddrPort(packet, to); err != nil {
			return err
		}
		if i%20 == 19 {
			if err := pause(ctx, 2*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return pause(ctx, 500*time.Millisecond) // what is on its way arrives
}

// dialTCP connects, through a proxy if one is given, and hangs up.
func dialTCP(ctx context.Context, to string, proxy []string) (probeResult, error) {
	through := to
	if len(proxy) > 0 {
		through = proxy[0]
	}
	c, err := (&net.Dialer{Timeout: probePatient}).DialContext(ctx, "tcp", through)
	if err != nil {
		return probeResult{Dialled: "no way"}, nil // a result, too
	}
	defer c.Close()
	if len(proxy) == 0 {
		return probeResult{Dialled: "yes"}, nil
	}
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", to, to); err != nil {
		return probeResult{}, err
	}
	r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
	switch {
	case err != nil:
		return probeResult{}, err
	case r.StatusCode != http.StatusOK:
		return probeResult{Dialled: r.Status}, nil
	}
	return probeResult{Dialled: "yes"}, nil
}

// count tells and forgets what came.
func (a *agentState) count() probeResult {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := probeResult{Got: len(a.seen), Damaged: a.damaged}
	for _, times := range a.seen {
		r.Twice += times - 1
	}
	clear(a.seen)
	a.damaged = 0
	return r
}

// agent is a probe that runs on a host.
type agent struct {
	name    string
	process *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
}

// agent starts a probe on the host, with a socket at this port.
func (h *host) agent(listen string) *agent {
	self, err := os.Executable()
	h.lab.fail(err)
	a := &agent{name: h.name, process: exec.Command("ip", "netns", "exec", h.ns, self, "probe", "--listen", listen)}
	a.process.Stderr = os.Stderr
	in, errIn := a.process.StdinPipe()
	out, errOut := a.process.StdoutPipe()
	if err := errors.Join(errIn, errOut); err != nil {
		h.lab.fail(err)
		return a
	}
	a.in, a.out = in, bufio.NewReader(out)
	h.lab.fail(a.process.Start())
	h.lab.agents = append(h.lab.agents, a)
	return a
}

// do has the agent obey one line.
func (a *agent) do(words ...any) (probeResult, error) {
	var r probeResult
	_, err := fmt.Fprintln(a.in, words...)
	if err == nil {
		var line []byte
		if line, err = a.out.ReadBytes('\n'); err == nil {
			err = json.Unmarshal(line, &r)
		}
	}
	if err == nil && r.Error != "" {
		err = errors.New(r.Error)
	}
	if err != nil {
		err = fmt.Errorf("probe on %s: %v: %w", a.name, words, err)
	}
	return r, err
}

func (a *agent) kill() {
	_ = a.process.Process.Kill()
	_ = a.process.Wait() // the error says that it was killed
}
