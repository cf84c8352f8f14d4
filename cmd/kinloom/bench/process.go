package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kinloom/kinloom/node/client"
)

const (
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
	startPoll    = 500 * time.Microsecond
	// idleAfter is when an idle process is looked at, restAfter when one that had
	// work is.
	idleAfter = 8 * time.Second
	restAfter = 20 * time.Second
	senders   = 16 // requests at once of the one who hands in messages
)

// process is a kinloom that runs beside this one.
type process struct {
	command *exec.Cmd
	client  *client.Client
	ready   time.Duration // from its start until it answered
	ended   chan error
}

// run starts a node with a home and returns when it is ready to send.
func (b *bench) run(ctx context.Context, home string) (_ *process, err error) {
	p := &process{command: exec.Command(b.Program, "--home", home, "run"), ended: make(chan error, 1)}
	var said strings.Builder
	p.command.Stderr = &said
	usual := filepath.Join(home, "api.sock")
	begin := time.Now()
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start a node: %w", err)
	}
	go func() { p.ended <- p.command.Wait() }()
	defer func() {
		if err != nil {
			err = errors.Join(err, p.kill())
		}
	}()
	for {
		path := client.SocketPath(home, usual)
		if c, err := net.Dial("unix", path); err == nil {
			p.client = client.Dial(path)
			if err := c.Close(); err != nil {
				return nil, err
			}
			if _, err := p.client.Health(ctx); err != nil {
				return nil, err
			}
			p.ready = time.Since(begin)
			return p, nil
		}
		select {
		case err := <-p.ended:
			p.ended <- nil
			return nil, fmt.Errorf("the node ended: %w: %s", err, strings.TrimSpace(said.String()))
		default:
		}
		if time.Since(begin) > startTimeout {
			return nil, fmt.Errorf("the node was not ready after %v", startTimeout)
		}
		if err := rest(ctx, startPoll); err != nil {
			return nil, err
		}
	}
}

// stop ends the node in order.
func (p *process) stop(ctx context.Context) error {
	if err := p.client.Stop(ctx); err != nil {
		return errors.Join(err, p.kill())
	}
	p.client.Close()
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case err := <-p.ended:
		return err
	case <-timer.C:
		return errors.Join(fmt.Errorf("the node did not end within %v", stopTimeout), p.kill())
	}
}

// kill ends the process and waits for it.
func (p *process) kill() error {
	err := p.command.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-p.ended
	return err
}

// start measures a start of the program on the archive, until it answers.
func (b *bench) start(ctx context.Context) ([]Figure, error) {
	home, err := b.cached(ctx)
	if err != nil {
		return nil, err
	}
	var took []float64
	for range 1 + b.runs() { // the first one warms the caches of the disk
		p, err := b.run(ctx, home)
		if err != nil {
			return nil, err
		}
		took = append(took, float64(p.ready)/float64(time.Millisecond))
		if err := p.stop(ctx); err != nil {
			return nil, err
		}
		b.progress("ready after %.1f ms", took[len(took)-1])
	}
	return []Figure{figure("start", median(took[1:]), 0)}, nil
}

const megabyte = 1e6

// hostMemory gives the resident memory of a bare host, in MB.
func (b *bench) hostMemory(ctx context.Context) (float64, error) {
	command := exec.Command(b.Program, b.Host...)
	out, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		return 0, fmt.Errorf("start a bare host: %w", err)
	}
	var size int64
	if _, err = bufio.NewReader(out).ReadString('\n'); err == nil {
		if err = rest(ctx, idleAfter); err == nil {
			size, err = resident(command.Process.Pid)
		}
	}
	err = errors.Join(err, command.Process.Kill())
	_ = command.Wait() // it was killed
	return float64(size) / megabyte, err
}

// bareHosts is the median memory of some bare hosts.
func (b *bench) bareHosts(ctx context.Context) (float64, error) {
	var all []float64
	for range b.runs() {
		size, err := b.hostMemory(ctx)
		if err != nil {
			return 0, err
		}
		all = append(all, size)
		b.progress("a bare host has %.1f MB", size)
	}
	return median(all), nil
}

// memoryIdle measures a node that was just started, in a home without contacts.
func (b *bench) memoryIdle(ctx context.Context) ([]Figure, error) {
	raw, err := b.bareHosts(ctx)
	if err != nil {
		return nil, err
	}
	var all []float64
	for i := range b.runs() {
		p, err := b.run(ctx, b.home(fmt.Sprint("idle-", i)))
		if err != nil {
			return nil, err
		}
		err = rest(ctx, idleAfter)
		var size int64
		if err == nil {
			size, err = resident(p.command.Process.Pid)
		}
		if err := errors.Join(err, p.stop(ctx)); err != nil {
			return nil, err
		}
		all = append(all, float64(size)/megabyte)
		b.progress("an idle node has %.1f MB", all[i])
	}
	return []Figure{figure("memory-idle", median(all), raw)}, nil
}

// memoryAfter measures two nodes 20 s after the one has sent the other 10,000
// messages, and takes the larger.
func (b *bench) memoryAfter(ctx context.Context) ([]Figure, error) {
	raw, err := b.bareHosts(ctx)
	if err != nil {
		return nil, err
	}
	var all []float64
	for i := range b.runs() {
		size, err := b.memoryOnce(ctx, fmt.Sprint("memory-", i))
		if err != nil {
			return nil, err
		}
		all = append(all, size)
		b.progress("after %d messages a node has %.1f MB", manyWaited, size)
	}
	return []Figure{figure("memory-after", median(all), raw)}, nil
}

func (b *bench) memoryOnce(ctx context.Context, name string) (_ float64, err error) {
	var nodes [2]*process
	defer func() {
		for _, p := range nodes {
			if p != nil {
				err = errors.Join(err, p.stop(ctx))
			}
		}
	}()
	for i := range nodes {
		if nodes[i], err = b.run(ctx, b.home(fmt.Sprint(name, "-", i))); err != nil {
			return 0, err
		}
	}
	invite, err := nodes[1].client.Invite(ctx, client.NewInvite{})
	if err != nil {
		return 0, err
	}
	added, err := nodes[0].client.AddContact(ctx, client.AddContact{Link: invite.Link})
	if err != nil {
		return 0, err
	}
	if err := b.sendMany(ctx, nodes[0].client, added.ID); err != nil {
		return 0, err
	}
	if err := rest(ctx, restAfter); err != nil {
		return 0, err
	}
	var most int64
	for _, p := range nodes {
		size, err := resident(p.command.Process.Pid)
		if err != nil {
			return 0, err
		}
		most = max(most, size)
	}
	return float64(most) / megabyte, nil
}

// sendMany hands in the messages and waits until the last ones have arrived.
func (b *bench) sendMany(ctx context.Context, c *client.Client, to string) error {
	var group errgroup.Group
	for range senders {
		group.Go(func() error {
			var m client.Message
			for range manyWaited / senders {
				var err error
				if m, err = c.Send(ctx, client.Outgoing{To: to, Text: b.text()}); err != nil {
					return err
				}
			}
			w, err := c.Wait(ctx, m.ID, "delivered", startTimeout)
			if err == nil && w.TimedOut {
				err = fmt.Errorf("a message was not delivered within %v", startTimeout)
			}
			return err
		})
	}
	return group.Wait()
}
