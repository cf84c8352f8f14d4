package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"golang.org/x/sync/errgroup"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/p2p"
)

// Pong is what a ping of one device came to.
type Pong struct {
	Device    string
	Name      string // of the person
	Answered  bool
	RTT       time.Duration // of one round trip on the way below, once connected
	Route     string
	Transport string
	Address   string
	Reason    string // why nobody answered
	Next      string
}

// callee is a device that is to be pinged.
type callee struct {
	id   identity.DeviceID
	name string
}

// Ping measures a round trip to each device of a person. One that is not connected
// is tried once, now, at all that is known of it, until ctx ends at the latest;
// who does not answer has a reason in its Pong.
func (n *Node) Ping(ctx context.Context, who string) ([]Pong, error) {
	if n.net == nil {
		return nil, errNoNetwork
	}
	c, err := n.Contact(ctx, who)
	if err != nil {
		return nil, err
	}
	var all []callee
	var refusal error
	err = n.ask(ctx, func(l *loop) { all, refusal = l.callees(c.ID) })
	if err = errors.Join(err, refusal); err != nil {
		return nil, err
	}
	if len(all) == 0 && c.ID == n.me {
		return nil, notFound("Name a contact: kinloom contact list.", "you have no other device")
	}
	if len(all) == 0 {
		return nil, notFound("It comes with their first message.", "no device of %s is known yet", c.Name)
	}
	out := make([]Pong, len(all))
	var pings errgroup.Group
	for i, to := range all {
		pings.Go(func() (err error) {
			out[i], err = n.ping(ctx, to)
			return err
		})
	}
	return out, pings.Wait()
}

// callees gives the devices of a person. Whom nothing may be said to is not called
// either.
func (l *loop) callees(p identity.PersonID) (out []callee, err error) {
	if c, ok := l.acct.pair(p); ok {
		if err := l.maySay(c); err != nil {
			return nil, err
		}
	}
	for _, d := range l.acct.devicesOf(p) {
		if _, certified := l.acct.remote(d.ID); !certified || d.ID == l.acct.device {
			continue
		}
		out = append(out, callee{d.ID, l.acct.shown(p)})
	}
	return out, nil
}

// ping waits for a route to one device, and measures it.
func (n *Node) ping(ctx context.Context, to callee) (Pong, error) {
	pong := Pong{Device: to.id.Short(), Name: to.name}
	for tried := false; ; {
		turned := n.hub.turns()
		var at network.Conn // that of the link: beside a relayed one there may be a direct one
		var wait, try bool
		err := n.ask(ctx, func(l *loop) {
			at, wait, try, pong.Reason, pong.Next = nil, false, false, "", ""
			d, ok := l.acct.devices[to.id]
			switch {
			case !ok:
				pong.Reason = "this device is not known any more"
			case d.queue.link != nil:
				at = d.queue.link.stream.Conn()
			case !d.queue.dialing && !tried:
				d.queue.tryAt, d.queue.fails = time.Time{}, 0
				d.queue.findAt, d.queue.finds = time.Time{}, 0
				d.queue.ring = true
				l.touch(d)
				wait, try = true, true
			default:
				wait = d.queue.dialing
				pong.Reason, pong.Next = d.unreached(to.name)
			}
		})
		tried = tried || try
		switch {
		case ctx.Err() != nil:
			return late(pong), nil
		case err != nil:
			return pong, err
		case at != nil && n.measure(ctx, at, &pong), at == nil && !wait:
			return pong, nil
		}
		select {
		case <-turned:
		case <-ctx.Done():
			return late(pong), nil
		case <-n.ended:
			return pong, ErrClosed
		}
	}
}

// late is a pong for whom there was no time left.
func late(p Pong) Pong {
	p.Reason = "nobody answered in time"
	p.Next = "Their node must be running. Give it longer with --timeout, or see what was tried: kinloom route " + quoteName(p.Name) + "."
	return p
}

// unreached says why a device that was tried is not connected.
func (d *device) unreached(name string) (reason, next string) {
	switch len(d.Addrs) {
	case 0:
		return "no address of " + name + "'s device is known", "It is found when that device comes to this one, or on the local network."
	case 1:
		reason = "nobody answered at the one address known of " + name + "'s device"
	default:
		reason = fmt.Sprintf("nobody answered at the %d addresses known of %s's device", len(d.Addrs), name)
	}
	return reason, "Their node must be running; see what was tried: kinloom route " + quoteName(name) + "."
}

// measure pings over the connection there is. False: it has just gone.
func (n *Node) measure(ctx context.Context, at network.Conn, pong *Pong) bool {
	took, path, err := n.net.PingOn(ctx, at)
	if errors.Is(err, p2p.ErrNotConnected) {
		return false
	}
	if path.Addr != nil {
		pong.Route, pong.Transport, pong.Address = string(path.Route), path.Transport, path.Addr.String()
	}
	switch {
	case err == nil:
		pong.Answered, pong.RTT, pong.Reason, pong.Next = true, took, "", ""
	case errors.Is(err, p2p.ErrNotSupported):
		pong.Reason, pong.Next = "connected, but its kinloom is too old to answer pings", "Messages go all the same."
	case errors.Is(err, context.DeadlineExceeded):
		pong.Reason, pong.Next = "connected, but nothing came back in time", "The connection may have just broken; try again in a moment."
	default:
		pong.Reason, pong.Next = "connected, but the answer did not come: "+shortError(err), "Try again in a moment."
	}
	return true
}
