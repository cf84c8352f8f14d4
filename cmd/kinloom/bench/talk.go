package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
)

// warmMessages are said before anything is measured: by then the session is
// confirmed and every statement prepared.
const warmMessages = 200

// windows are how many messages wait for their receipt at once.
var windows = [...]int{64, 256}

// couple is two nodes of this process that are contacts of each other.
type couple struct {
	bench *bench
	nodes [2]*node.Node // the first one sends
	dirs  [2]string
	conv  event.ConversationID
	said  atomic.Int64
}

// newCouple starts two nodes on loopback, over TCP, and has the first one say
// a few messages.
func (b *bench) newCouple(ctx context.Context, name string, network func(*p2p.Config)) (_ *couple, err error) {
	c := &couple{bench: b}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	for i, who := range []string{"Ada", "Bob"} {
		c.dirs[i] = b.home(name + "-" + who)
		c.nodes[i], err = node.Open(ctx, node.Config{
			Dir: c.dirs[i], Name: who, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoLAN: true, Network: network, Version: b.Version,
		})
		if err != nil {
			return c, err
		}
	}
	link, err := c.nodes[1].Invite(ctx)
	if err != nil {
		return c, err
	}
	added, err := c.nodes[0].AddContact(ctx, link, node.AddOptions{})
	if err != nil {
		return c, err
	}
	c.conv = added.Contact.Conversation
	for range warmMessages {
		if err := c.say(ctx); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (c *couple) close() error {
	var err error
	for _, n := range c.nodes {
		if n != nil {
			err = errors.Join(err, n.Close())
		}
	}
	return err
}

// say sends one message and returns when the other side has it on disk.
func (c *couple) say(ctx context.Context) error {
	m, err := c.nodes[0].Send(ctx, c.conv, node.Text(c.bench.text()))
	if err != nil {
		return err
	}
	c.said.Add(1)
	if m, err = c.nodes[0].Wait(ctx, m.ID, "delivered"); err != nil {
		return err
	}
	if m.State != "delivered" {
		return fmt.Errorf("a message is %s, want delivered", m.State)
	}
	return nil
}

// both runs f for either node, at once: they stand for two machines.
func (c *couple) both(ctx context.Context, f func(*node.Node, context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, n := range c.nodes {
		group.Go(func() error { return f(n, ctx) })
	}
	return group.Wait()
}

// window keeps size messages on their way for d, and drains the indexes. It
// gives the messages of a second, and the processor time of both ends for each in
// us. Merges come after that, as in the raw store.
func (c *couple) window(ctx context.Context, size int, d time.Duration) (rate, cpu float64, err error) {
	before := c.said.Load()
	begin := readClock()
	group, inner := errgroup.WithContext(ctx)
	for range size {
		group.Go(func() error {
			for time.Since(begin.at) < d {
				if err := c.say(inner); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, 0, err
	}
	if err := c.both(ctx, (*node.Node).IndexDrain); err != nil {
		return 0, 0, err
	}
	end := readClock()
	n := float64(c.said.Load() - before)
	return n / end.at.Sub(begin.at).Seconds(), microseconds(end.own-begin.own) / n, c.both(ctx, (*node.Node).IndexMerge)
}

// latency measures messages one at a time: from the call to the receipt that the
// other side has stored and decrypted it.
func (b *bench) latency(ctx context.Context) (_ []Figure, err error) {
	net, err := newRawNet(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, net.close()) }()
	raw, err := b.newRawStore(ctx, "latency")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, raw.close()) }()
	c, err := b.newCouple(ctx, "latency", nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	var requests, commits, messages []float64
	for i := range b.runs() {
		e, w, r, err := raw.turns(ctx, b.runTime(), net)
		if err != nil {
			return nil, fmt.Errorf("raw commit and request: %w", err)
		}
		m, err := timed(ctx, b.runTime(), func() error { return c.say(ctx) })
		if err == nil {
			err = c.both(ctx, (*node.Node).IndexMerge)
		}
		if err != nil {
			return nil, err
		}
		requests, commits, messages = append(requests, median(r)), append(commits, median(w)), append(messages, median(m))
		b.progress("run %d: raw request %.0f us, raw event %.0f us, with its index row %.0f us; message %.0f us, p99 %.0f us",
			i+1, median(r), median(e), median(w), median(m), percentile(m, 0.99))
	}
	return []Figure{figure("one-at-a-time", median(messages), median(requests)+2*median(commits))}, nil
}

// pipeline measures many messages at once.
func (b *bench) pipeline(ctx context.Context) (_ []Figure, err error) {
	raw, err := b.newRawStore(ctx, "pipeline")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, raw.close()) }()
	c, err := b.newCouple(ctx, "pipeline", nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	var rawRates, rawCPUs, rates, cpus [len(windows)][]float64
	for i := range b.runs() {
		for w, size := range windows {
			rate, cpu, err := raw.groups(ctx, size, b.runTime())
			if err != nil {
				return nil, fmt.Errorf("raw store: %w", err)
			}
			rawRates[w], rawCPUs[w] = append(rawRates[w], rate), append(rawCPUs[w], cpu)
			b.progress("run %d: raw store in groups of %d: %.0f rows/s, %.0f us of CPU each", i+1, size, rate, cpu)
			rate, cpu, err = c.window(ctx, size, b.runTime())
			if err != nil {
				return nil, err
			}
			rates[w], cpus[w] = append(rates[w], rate), append(cpus[w], cpu)
			b.progress("run %d: window %d: %.0f messages/s, %.0f us of CPU each", i+1, size, rate, cpu)
		}
	}
	if err := c.close(); err != nil {
		return nil, err
	}
	size, err := c.disk()
	return []Figure{
		figure("window-64", median(rates[0]), median(rawRates[0])),
		figure("window-256", median(rates[1]), median(rawRates[1])),
		figure("cpu", median(cpus[1]), median(rawCPUs[1])),
		figure("disk", size, 0),
	}, err
}

// disk gives the bytes that a message takes in the larger home, its index rows
// included. The nodes are closed.
func (c *couple) disk() (float64, error) {
	var most int64
	for _, dir := range c.dirs {
		var size int64
		for _, name := range []string{store.AccountFile, store.IndexFile} {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				return 0, err
			}
			size += info.Size()
		}
		most = max(most, size)
	}
	return float64(most) / float64(c.said.Load()), nil
}
