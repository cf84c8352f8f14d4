package node

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
)

// Doctor looks at everything that this node can see of itself and its computer. It
// reads every page of the databases.
func (n *Node) Doctor(ctx context.Context) ([]Finding, error) {
	c := Checkup{Home: LookAtHome(n.cfg.Dir), Machine: LookAtMachine(), Holder: &HolderFacts{}, Clock: &ClockFacts{Now: n.cfg.Now()}}
	if n.net != nil {
		*c.Holder = HolderFacts{PID: os.Getpid(), Held: true, Answers: true}
		c.Clock.Offset, c.Clock.Voices = -n.net.Skew(), n.net.Clocks()
		c.Net, c.Ports = n.netFacts(), n.portFacts()
	}
	health := n.store.Health()
	c.Store = &StoreFacts{FailedSyncs: health.FailedSyncs, Stuck: health.FailedCheckpoints}
	if err := n.store.Check(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		*c.Store = *LookFailed(openError(n.cfg.Dir, err))
	}
	account := &AccountFacts{}
	var waiting []queued
	err := n.ask(ctx, func(l *loop) {
		*account = AccountFacts{Now: n.cfg.Now(), Copies: slices.Clone(l.alarms)}
		c.Store.Paused = l.paused()
		c.Clock.NotBy = l.certificates(account)
		waiting = l.waiting()
	})
	if err == nil {
		c.Account = account
		err = n.read(ctx, func(v *view) error {
			last, err := v.lastWritten()
			if err == nil {
				err = v.messages(account, waiting)
			}
			if last.After(c.Clock.NotBy) {
				c.Clock.NotBy = last
			}
			return err
		})
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil && c.Store.Problem == "" {
		*c.Store = *LookFailed(openError(n.cfg.Dir, err))
	}
	return c.Findings(), nil
}

// certificates fills in how those stand that the account rests on, and gives a time
// that the clock must not be before: when this device's certificate began.
func (l *loop) certificates(a *AccountFacts) (notBy time.Time) {
	if state, ok := l.acct.logs[l.acct.me].Device(l.acct.device); ok {
		a.Expires, a.Renews = time.Unix(state.Expiry, 0), l.secrets.Log != nil
		notBy = time.Unix(state.NotBefore, 0)
	}
	for _, d := range l.acct.devices {
		if name := l.acct.shown(d.Person); d.Person != l.acct.me && !l.shutOut(d) && l.acct.expired(d, a.Now) && !slices.Contains(a.Expired, name) {
			a.Expired = append(a.Expired, name)
		}
	}
	slices.Sort(a.Expired)
	return notBy
}

// lastWritten is when the newest event was stored, by the clock of then.
func (v *view) lastWritten() (time.Time, error) {
	row, err := v.tx.LastEvent()
	if err != nil || row == 0 {
		return time.Time{}, err
	}
	e, err := v.tx.EventByRow(row)
	if isNotFound(err) {
		err = nil
	}
	return e.At, err
}

// queuedMost bounds how much of one device's queue is looked at.
const queuedMost = 256

// queued is what waits for one device, with the reason of the first of it.
type queued struct {
	WaitingFacts
	items []store.Row
}

// waiting gives what waits for devices, what has waited longest first.
func (l *loop) waiting() (out []queued) {
	for _, d := range l.acct.devices {
		items := d.queue.items
		if len(items) == 0 || l.shutOut(d) {
			continue
		}
		name := l.acct.shown(d.Person)
		s := d.waiting(items[0], d.queue.sent > 0, name)
		w := queued{WaitingFacts: WaitingFacts{Name: name, Since: items[0].at, Reason: s.Reason, Next: s.Next, More: d.queue.tail || len(items) > queuedMost}}
		for _, i := range items[:min(len(items), queuedMost)] {
			w.items = append(w.items, i.event)
		}
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b queued) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Name, b.Name)) })
	return out
}

// messages counts the messages in what waits: the rest is what nodes tell each other.
func (v *view) messages(a *AccountFacts, all []queued) error {
	for _, w := range all {
		for _, row := range w.items {
			e, err := v.tx.EventByRow(row)
			if isNotFound(err) {
				continue // delivered meanwhile
			}
			if err != nil {
				return err
			}
			if e.Type.Class() == event.Content {
				w.Count++
			}
		}
		if w.Count > 0 {
			a.Waiting = append(a.Waiting, w.WaitingFacts)
		}
	}
	return nil
}

// netFacts are what the hosts can tell.
func (n *Node) netFacts() *NetFacts {
	tried := n.net.Tried()
	f := &NetFacts{
		LANOnly: n.cfg.LANOnly, NoDHT: n.cfg.NoDHT, UDP: tried.UDP, TCP: tried.TCP, Skipped: tried.Skipped, Strange: tried.Strange,
		LANOff: n.cfg.NoLAN, LANProblem: tried.LAN, Neighbours: tried.Found,
	}
	if proxy, err := n.cfg.proxy(); err == nil && proxy != nil {
		f.Proxy = proxy.Host
		if trouble := n.net.ProxyTrouble(); trouble != nil {
			f.ProxyProblem = trouble.Error()
		}
	}
	for _, a := range n.net.ListenAddrs() {
		f.QUIC = f.QUIC || isQUIC(a)
	}
	reach := n.net.Reachability()
	if !reach.Forced && reach.Verdict != p2p.Unknown {
		f.Verdict = string(reach.Verdict)
	}
	f.Direct, f.Relays, f.Mapped, f.Symmetric = len(reach.Direct), len(reach.Relays), len(reach.Mapped), reach.Symmetric
	f.Claimed = reach.Forced && reach.Verdict == p2p.Public && f.Direct == 0
	f.Asked = f.Relays
	for _, t := range n.net.RelayTries() {
		if errors.Is(t.Err, p2p.ErrNotSupported) {
			continue // it is no relay
		}
		f.Asked++
		if errors.Is(t.Err, p2p.ErrRelayRefused) {
			f.Refused++
		}
	}
	f.Known, f.Servers, f.Answers, f.False = len(n.net.Book()), n.net.DHTPeers(), tried.Answers, tried.False
	return f
}

// portFacts compare where the node listens with the run before.
func (n *Node) portFacts() *PortFacts {
	p := &PortFacts{}
	if len(n.cfg.Listen) > 0 {
		return p // it listens there, or would not have started
	}
	now := n.net.ListenAddrs()
	for _, usual := range n.usual {
		if !multiaddr.Contains(now, usual) {
			p.Moved = append(p.Moved, usual.String())
		}
	}
	return p
}
