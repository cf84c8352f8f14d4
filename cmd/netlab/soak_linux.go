package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// soakScenarios take an hour, so they run in the long form only, or when they are named.
func soakScenarios() []scenario {
	return []scenario{{
		name: "soak", what: "12 nodes, 4 behind cones and 2 behind symmetric NATs; kills, loss, partitions", long: true, alone: true,
		bar: ">= 41.7 msg/s, 0.19 kills/s, 0 lost, twice, disorder; RSS x 1.1", run: soak,
	}}
}

const (
	soakLoss      = "* * delay=50ms jitter=10ms loss=5%"
	soakKillEvery = 5 * time.Second
	soakCutEvery  = 2 * time.Minute
	soakCut       = 20 * time.Second
	soakRate      = 150000.0 / 3600 // messages a second, at least
	soakPace      = 1.4             // so much more is tried
	soakSettle    = time.Minute     // after the last fault
)

// direction is what one node of the soak says to another one.
type direction struct {
	from, to *node
	said     int // acknowledged by from, which has to deliver it whatever happens
}

// soak lets nodes talk while any of them may be killed at any moment, all but the first one, which is watched for what
// it uses up.
func soak(ctx context.Context, l *lab) (outcome, error) {
	nodes, ports := soakNodes(l)
	if err := l.ready(); err != nil {
		return outcome{}, err
	}
	if err := together(nodes, func(n *node) error { return n.up(ctx) }); err != nil {
		return outcome{}, err
	}
	ways, err := soakContacts(ctx, nodes)
	if err != nil {
		return outcome{}, err
	}
	if err := l.wire.set(soakLoss); err != nil {
		return outcome{}, err
	}

	busy, stop := context.WithTimeout(ctx, l.soak)
	defer stop()
	var all sync.WaitGroup
	var early footprint
	var kills atomic.Int64
	errs := make([]error, 3)
	all.Go(func() {
		if pause(busy, l.soak/6) == nil {
			early, errs[0] = nodes[0].footprint()
		}
	})
	all.Go(func() { errs[1] = soakKills(busy, l, nodes[1:], &kills) })
	all.Go(func() { errs[2] = soakCuts(busy, l, ports) })
	for _, w := range ways {
		all.Go(func() {
			w.chatter(ctx, busy.Done(), time.Duration(float64(len(ways))/soakRate/soakPace*float64(time.Second)))
		})
	}
	all.Wait()
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return outcome{}, err
	}

	calm, cancel := context.WithTimeout(ctx, soakSettle)
	defer cancel()
	if err := together(nodes, func(n *node) error { return n.settled(calm) }); err != nil {
		return outcome{}, err
	}
	late, err := nodes[0].footprint()
	if err != nil {
		return outcome{}, err
	}
	var sum tally
	total := 0
	for _, w := range ways {
		heard, err := w.to.heard(ctx, w.from)
		if err != nil {
			return outcome{}, err
		}
		sum = sum.add(count(heard, w.from.name, w.said))
		total += w.said
	}
	growth := float64(late.rss) / float64(early.rss)
	return outcome{
		figure: fmt.Sprintf("%d messages, %d kills: %s; RSS %d MiB x %.2f, descriptors %d -> %d", total, kills.Load(), sum, late.rss>>20, growth, early.files, late.files),
		ok: sum == tally{} && float64(total) >= soakRate*l.soak.Seconds() && float64(kills.Load()) >= l.soak.Seconds()/soakKillEvery.Seconds()*0.97-1 &&
			growth <= 1.1 && late.files <= early.files+early.files/4,
	}, nil
}

// soakNodes makes six public nodes and six homes, in turn, and the ports on the wire that they are behind.
func soakNodes(l *lab) (nodes []*node, ports []string) {
	for i := range 6 {
		open := fmt.Sprintf("open%d", i)
		nodes, ports = append(nodes, l.public(open, fmt.Sprintf("45.%d.0.1", 10+i)).node()), append(ports, open)
		nat := cone
		if i >= 4 {
			nat = symmetric
		}
		router := fmt.Sprintf("r%d", i)
		home := l.router(router, routing{nat: nat, inside: homeNet}, fmt.Sprintf("45.%d.0.1", 30+i)).host(fmt.Sprintf("home%d", i)).node()
		nodes, ports = append(nodes, home), append(ports, router)
	}
	return nodes, ports
}

// soakContacts makes a ring of contacts, in which every home is between two public nodes, and gives its directions.
func soakContacts(ctx context.Context, nodes []*node) ([]*direction, error) {
	var ways []*direction
	for i, a := range nodes {
		b := nodes[(i+1)%len(nodes)]
		open, home := a, b
		if i%2 == 1 {
			open, home = b, a
		}
		var invite struct{ Link string }
		if err := open.ask(ctx, &invite, "invite"); err != nil {
			return nil, err
		}
		if err := home.add(ctx, invite.Link); err != nil {
			return nil, err
		}
		ways = append(ways, &direction{from: a, to: b}, &direction{from: b, to: a})
	}
	return ways, nil
}

// chatter says one numbered text after another until stop is closed. One that was not acknowledged is said again with the same
// key until it is: the node may have been killed on either side of its commit.
func (d *direction) chatter(ctx context.Context, stop <-chan struct{}, every time.Duration) {
	client := d.from.api()
	defer client.CloseIdleConnections()
	clock := time.NewTicker(every)
	defer clock.Stop()
	for {
		words := text(d.from.name, d.said)
		for d.from.post(ctx, client, d.to.id, words) != nil {
			if pause(ctx, 200*time.Millisecond) != nil {
				return
			}
		}
		d.said++
		select {
		case <-stop:
			return
		case <-clock.C:
		}
	}
}

// api gives a client of the node's socket: hundreds of thousands of messages are too many for a command each.
func (n *node) api() *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(n.home, "api.sock"))
		},
	}}
}

// post has the node say a text, once, however often it is called with it.
func (n *node) post(ctx context.Context, client *http.Client, to, words string) error {
	b, err := json.Marshal(map[string]string{"to": to, "text": words})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost/v1/messages", bytes.NewReader(b))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", to[max(0, len(to)-8):]+" "+words)
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	return nil
}

// soakKills kills a node and starts it again, every few seconds.
func soakKills(ctx context.Context, l *lab, nodes []*node, kills *atomic.Int64) error {
	dice := rand.New(rand.NewPCG(l.wire.seed, 1))
	clock := time.NewTicker(soakKillEvery)
	defer clock.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-clock.C:
		}
		n := nodes[dice.IntN(len(nodes))]
		n.kill()
		kills.Add(1)
		if err := n.up(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
}

// soakCuts parts the network into two random halves for a while, again and again.
func soakCuts(ctx context.Context, l *lab, ports []string) error {
	dice := rand.New(rand.NewPCG(l.wire.seed, 2))
	for {
		if pause(ctx, min(soakCutEvery, l.soak/3)-soakCut) != nil {
			return nil
		}
		order := dice.Perm(len(ports))
		for _, state := range []string{"yes", "no"} {
			for _, i := range order[:len(order)/2] {
				for _, j := range order[len(order)/2:] {
					if err := l.wire.set(ports[i] + " " + ports[j] + " cut=" + state); err != nil {
						return err
					}
				}
			}
			if state == "yes" {
				_ = pause(ctx, soakCut) // mended at the end, too
			}
		}
	}
}

// footprint is what a running node takes of its machine.
type footprint struct{ rss, files int }

func (n *node) footprint() (footprint, error) {
	process := fmt.Sprintf("/proc/%d/", n.process.Process.Pid)
	files, err := os.ReadDir(process + "fd")
	if err != nil {
		return footprint{}, err
	}
	status, err := os.ReadFile(process + "status")
	if err != nil {
		return footprint{}, err
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kib := 0
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return footprint{}, fmt.Errorf("memory of %s: %w", n.name, err)
	}
	return footprint{rss: kib << 10, files: len(files)}, nil
}
