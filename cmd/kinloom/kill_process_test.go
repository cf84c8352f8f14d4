package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/kinloom/kinloom/node/client"
)

// loopbackListen is where the nodes of these tests listen: any port at first, the same one after a restart.
const loopbackListen = "/ip4/127.0.0.1/udp/0/quic-v1"

// process is a node as a real process of its own, started with kinloom up.
type process struct {
	command *exec.Cmd
	ready   client.Status // what it printed when it was ready
	took    time.Duration // from its start to that line
	ended   chan struct{} // closed when it has ended
	result  error         // of its end, once ended is closed
}

// upCommand is the command line of a node with this home.
func upCommand(t *testing.T, home string) []string {
	t.Helper()
	path, err := exec.LookPath("kinloom")
	if err != nil {
		t.Fatal(err)
	}
	return []string{path, "--home", home, "--json", "up", "--name", filepath.Base(home), "--listen", loopbackListen}
}

// startProcess starts a node and returns when it is ready, or has ended: then with an error.
func startProcess(t *testing.T, home string) (*process, error) {
	t.Helper()
	words := upCommand(t, home)
	return startCommand(t, home, exec.Command(words[0], words[1:]...))
}

// startCommand is startProcess for a command that in the end runs a node. What it says on stderr is appended to a file
// beside the home.
func startCommand(t *testing.T, home string, command *exec.Cmd) (*process, error) {
	t.Helper()
	log, err := os.OpenFile(home+".stderr", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p := &process{command: command, ended: make(chan struct{})}
	p.command.Stderr = log
	p.command.Env = append(p.command.Environ(), "QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING=true")
	out, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	lines := bufio.NewReader(out)
	line, err := lines.ReadBytes('\n')
	p.took = time.Since(began)
	go func() {
		_, _ = io.Copy(io.Discard, lines) // ends with the process
		p.result = p.command.Wait()
		close(p.ended)
	}()
	if err == nil {
		err = json.Unmarshal(line, &p.ready)
	}
	if err != nil {
		p.kill()
		return nil, fmt.Errorf("the node ended before it was ready: %w", errors.Join(p.result, err))
	}
	return p, nil
}

// kill ends the process with SIGKILL and waits for its end.
func (p *process) kill() {
	_ = p.command.Process.Kill() // it may have ended by itself
	<-p.ended
}

// stopProcess ends a node in order.
func stopProcess(ctx context.Context, t *testing.T, p *process, home string) {
	t.Helper()
	if err := p.command.Process.Signal(os.Interrupt); err != nil {
		t.Errorf("stop %s: %v", filepath.Base(home), err)
	}
	select {
	case <-p.ended:
	case <-ctx.Done():
		t.Errorf("%s does not stop", filepath.Base(home))
		p.kill()
	}
	if p.result != nil {
		said, err := os.ReadFile(home + ".stderr")
		t.Errorf("%s ended with %v and said %q, %v", filepath.Base(home), p.result, said[max(0, len(said)-1000):], err)
	}
}

// dialHome gives a client of the node with this home, which need not run.
func dialHome(home string) *client.Client {
	return client.Dial(client.SocketPath(home, filepath.Join(home, "api.sock")))
}

// shortFolder gives a folder whose path leaves room for a socket's name.
func shortFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// lookForPanic fails the test if a node has left a stack trace.
func lookForPanic(t *testing.T, home string) {
	t.Helper()
	for _, path := range []string{home + ".stderr", filepath.Join(home, "crash.log"), filepath.Join(home, "crash.old.log")} {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		if at := bytes.Index(b, []byte("goroutine ")); at >= 0 {
			t.Errorf("%s has a stack trace:\n%s", filepath.Base(path), b[max(0, at-500):min(len(b), at+3000)])
		}
	}
}

// meet makes the nodes of two homes contacts of each other and gives the persons.
func meet(ctx context.Context, ada, bob *client.Client) (adas, bobs string, err error) {
	invite, err := ada.Invite(ctx, client.NewInvite{})
	if err != nil {
		return "", "", err
	}
	added, err := bob.AddContact(ctx, client.AddContact{Link: invite.Link})
	if err != nil {
		return "", "", err
	}
	me, err := bob.Identity(ctx)
	return added.ID, me.ID, err
}
