package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// node is a kinloom with a home, which runs on a host from up to stop or kill.
type node struct {
	*host
	id        string // the person, from the first up on
	peer      string // the transport key, from the last up on, with where it listens
	listening []string
	home      string
	bulk      int // bytes of each text that say sends, beyond its number

	process *exec.Cmd
	began   time.Time     // of the last up
	invite  string        // what the last up printed
	ended   chan struct{} // closed when the process has ended
	result  error         // of its end, once ended is closed

	mu   sync.Mutex // guards said
	said []string
}

// node gives the host a home for a kinloom. Nothing runs yet.
func (h *host) node() *node {
	n := &node{host: h, home: filepath.Join(h.lab.folder, h.name)}
	h.lab.nodes = append(h.lab.nodes, n)
	return n
}

// environment is all that a kinloom sees of ours: no proxy, no home, no key.
func environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING=true"}
}

// up starts the node on its host and returns when it has printed its invite.
func (n *node) up(ctx context.Context, flags ...string) error {
	words := append([]string{"netns", "exec", n.ns, n.lab.kinloom, "--home", n.home, "--json", "up", "--name", n.name}, flags...)
	n.process = exec.Command("ip", words...)
	n.process.Env = environment()
	log, err := os.OpenFile(n.home+".log", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	n.process.Stderr = log
	out, err := n.process.StdoutPipe()
	if err != nil {
		return err
	}
	n.began, n.ended = time.Now(), make(chan struct{})
	if err := n.process.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	read := make(chan error, 1)
	ended := n.ended
	go func() {
		lines := bufio.NewReader(out)
		read <- n.readReady(lines)
		n.listen(lines) // ends with the process
		n.result = n.process.Wait()
		close(ended)
	}()
	select {
	case err = <-read:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		n.kill()
		return fmt.Errorf("%s did not come up: %w", n.name, errors.Join(err, n.result))
	}
	return nil
}

// listen keeps what up prints from then on.
func (n *node) listen(lines *bufio.Reader) {
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		n.mu.Lock()
		n.said = append(n.said, line)
		n.mu.Unlock()
	}
}

// notices returns the lines of all runs that came behind the first two.
func (n *node) notices() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.said)
}

// readReady reads the two lines that up prints first.
func (n *node) readReady(lines *bufio.Reader) error {
	for _, want := range []string{"ready", "invite"} {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return err
		}
		var said struct {
			Type, ID, Peer, Link string
			Listening            []string
		}
		if err := json.Unmarshal(line, &said); err != nil || said.Type != want {
			return errors.Join(fmt.Errorf("it printed %q", line), err)
		}
		if want == "ready" {
			n.id, n.peer, n.listening = said.ID, said.Peer, said.Listening
		} else {
			n.invite = said.Link
		}
	}
	return nil
}

// stop ends the node in order.
func (n *node) stop(ctx context.Context) error {
	if err := n.process.Process.Signal(os.Interrupt); err != nil {
		return fmt.Errorf("stop %s: %w", n.name, err)
	}
	select {
	case <-n.ended:
		return n.result
	case <-ctx.Done():
		return fmt.Errorf("%s does not stop: %w", n.name, ctx.Err())
	}
}

// kill ends the node without a warning, if it runs.
func (n *node) kill() {
	if n.ended == nil {
		return
	}
	_ = n.process.Process.Kill() // it may have ended by itself
	<-n.ended
}

// pause stops the process where it is, as a computer that sleeps does, and resume lets it go on.
func (n *node) pause() error  { return n.process.Process.Signal(syscall.SIGSTOP) }
func (n *node) resume() error { return n.process.Process.Signal(syscall.SIGCONT) }

// do runs one command of kinloom and returns the lines of JSON that it prints.
func (n *node) do(ctx context.Context, words ...string) ([][]byte, error) {
	cmd := exec.CommandContext(ctx, n.lab.kinloom, append([]string{"--home", n.home, "--json"}, words...)...)
	cmd.Env = environment()
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: kinloom %s: %w: %s%s", n.name, strings.Join(words, " "), errors.Join(err, ctx.Err()), out.Bytes(), said.Bytes())
	}
	return bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n")), nil
}

// ask runs one command that prints one object.
func (n *node) ask(ctx context.Context, into any, words ...string) error {
	lines, err := n.do(ctx, words...)
	if err == nil {
		err = json.Unmarshal(lines[0], into)
	}
	return err
}

// add answers an invite.
func (n *node) add(ctx context.Context, link string) error {
	_, err := n.do(ctx, "contact", "add", link)
	return err
}

// sent is what kinloom send prints.
type sent struct {
	State string `json:"state"`
	Route string `json:"route"`
}

// deliver sends a text and waits until the other one has it.
func (n *node) deliver(ctx context.Context, to *node, text string, timeout time.Duration) (sent, error) {
	var s sent
	return s, n.ask(ctx, &s, "send", to.id, text, "--wait", "delivered", "--timeout", timeout.String())
}

// found waits until the node is connected with so many devices of contacts.
func (n *node) found(ctx context.Context, devices int) error {
	for {
		var status struct{ Online int }
		if err := n.ask(ctx, &status, "status"); err != nil {
			return err
		}
		if status.Online >= devices {
			return nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("%s is connected with %d devices, not %d: %w", n.name, status.Online, devices, err)
		}
	}
}

// heard returns the first lines of the texts that the node has from another one, in the order that it shows.
func (n *node) heard(ctx context.Context, from *node) ([]string, error) {
	lines, err := n.do(ctx, "read", from.id, "--limit", "0")
	if err != nil {
		return nil, err
	}
	var texts []string
	for _, line := range lines {
		var m struct{ From, Type, Text string }
		if err := json.Unmarshal(line, &m); err != nil {
			return nil, err
		}
		if m.From == from.id && m.Type == "message" {
			number, _, _ := strings.Cut(m.Text, "\n")
			texts = append(texts, number)
		}
	}
	return texts, nil
}

// pause waits, or returns the error of ctx if that ends first.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
