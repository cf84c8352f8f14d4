package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/keyfile"
	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/rv"
	"github.com/kinloom/kinloom/protocol/session"
)

// DropSessions deletes every row of session state from a closed home: sessions,
// bundles, and what is known of the peers.
func DropSessions(ctx context.Context, c Config) (err error) {
	n, err := OpenOffline(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	return n.change(ctx, func(_ *loop, tx *store.Tx) error {
		rows, err := tx.Records()
		if err != nil {
			return err
		}
		for i := range rows {
			rows[i].Value = nil
		}
		return tx.PutRecords(rows)
	})
}

// Rows runs f on the store of a closed home without a passphrase, in a transaction
// and without a node.
func Rows(ctx context.Context, dir string, f func(*store.Tx) error) error {
	b, err := os.ReadFile(filepath.Join(dir, keysFile))
	if err != nil {
		return err
	}
	secrets, err := keyfile.Open(b, keyfile.Lock{})
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, store.Options{Dir: dir, Key: secrets.SubKey, IDs: secrets.Files})
	if err != nil {
		return err
	}
	return errors.Join(st.Write(ctx, f), st.Close())
}

// Faults are commits that fail as a test wants.
type Faults struct {
	Nth   int           // the first that fails, from 1; commits that have nothing to write do not count
	For   time.Duration // all others fail too until then; zero: just the one
	Kept  bool          // the disk has all of it although it reports a failure
	Cause error
}

// FailCommits lets commits fail from now on, and tells how many there were and how
// many of them failed. Calling it with the zero value ends that.
func (n *Node) FailCommits(ctx context.Context, f Faults) (stats func() (commits, failed int), err error) {
	var commits, failed atomic.Int64
	stats = func() (int, int) { return int(commits.Load()), int(failed.Load()) }
	var until time.Time
	return stats, n.ask(ctx, func(l *loop) {
		l.write = func(ctx context.Context, do func(*store.Tx) error) error {
			hit := false
			err := l.st.Write(ctx, func(tx *store.Tx) error {
				if err := do(tx); err != nil || !tx.Wrote() {
					return err
				}
				if commits.Add(1) == int64(f.Nth) {
					hit, until = true, time.Now().Add(f.For)
				}
				if hit = hit || time.Now().Before(until); hit && !f.Kept {
					return f.Cause
				}
				return nil
			})
			if hit {
				failed.Add(1)
				return f.Cause
			}
			return err
		}
	})
}

// Watch collects notices from now on; the function gives those that came.
func (n *Node) Watch() func() []Notice {
	ch, _ := n.hub.watch()
	var all []Notice
	return func() []Notice {
		for {
			select {
			case notice := <-ch:
				all = append(all, notice)
			default:
				return all
			}
		}
	}
}

// Differences compares what the loop has in memory with the disk. It is for a
// moment of rest.
func (n *Node) Differences(ctx context.Context) (out []string, err error) {
	if err := n.change(ctx, func(*loop, *store.Tx) error { return nil }); err != nil {
		return nil, err
	}
	err = n.change(ctx, func(l *loop, tx *store.Tx) error {
		disk, err := loadAccount(tx, l.secrets, l.cfg.Random, l.now())
		if err != nil {
			return err
		}
		have, want := l.acct.outline(l.now()), disk.outline(l.now())
		for _, line := range have {
			if !slices.Contains(want, line) {
				out = append(out, "only in memory: "+line)
			}
		}
		for _, line := range want {
			if !slices.Contains(have, line) {
				out = append(out, "only on disk: "+line)
			}
		}
		return nil
	})
	return out, err
}

// outline writes down what an account holds.
func (a *account) outline(now time.Time) []string {
	out := []string{fmt.Sprintf("self %x %x", a.self.RecordHash, a.self.Head)}
	for p, c := range a.contacts {
		out = append(out, fmt.Sprintf("contact %s %q %q %d %d %q", p, c.Name, c.Petname, c.Trust, c.State, c.Words))
	}
	for p, log := range a.logs {
		out = append(out, fmt.Sprintf("log %s %x", p, log.Head()))
	}
	for id, c := range a.convs {
		line := fmt.Sprintf("conversation %s next %d clock %d heads %v unread %d", id, c.graph.Seq(), c.graph.Clock(), c.graph.Heads(), c.Unread)
		var seen []string
		for d := range a.devices {
			seen = append(seen, fmt.Sprintf("%s %d/%d", d.Short(), c.graph.Latest(d).Seq, c.graph.Closed(d)))
		}
		slices.Sort(seen)
		out = append(out, line+fmt.Sprint(seen))
	}
	for id, d := range a.devices {
		var line strings.Builder
		fmt.Fprintf(&line, "device %s %x %x %d addresses, queue", id, d.Record, d.Transport, len(d.Addrs))
		for _, i := range d.queue.items {
			fmt.Fprintf(&line, " %d:%d:%x:%d", i.row, i.seq, i.s.Session, i.s.Seq)
		}
		info, ok := a.sessions.Current(now, id)
		info.Due = false // whether it is in doubt is of this process
		receipts := a.sessions.Receipts(id)
		slices.SortFunc(receipts, func(a, b session.Receipt) int { return slices.Compare(a.Session[:], b.Session[:]) })
		out = append(out, line.String(), fmt.Sprintf("session %s %v %+v %+v", id, ok, info, receipts))
	}
	return out
}

// Hold makes the loop wait, so that all that is handed to it meanwhile becomes one
// batch. With an error the next two batches, of which one may be a tick, fail with
// it before anything of them was handled.
func (n *Node) Hold(ctx context.Context) (release func(error), err error) {
	held, ch := make(chan struct{}), make(chan error)
	err = n.post(ctx, change{apply: func(l *loop, _ *store.Tx) error {
		close(held)
		cause, left := <-ch, 2
		if cause == nil {
			return nil
		}
		l.write = func(ctx context.Context, do func(*store.Tx) error) error {
			if left--; left >= 0 {
				return cause
			}
			return l.st.Write(ctx, do)
		}
		return nil
	}, reply: func(error) {}})
	if err == nil {
		<-held
	}
	return func(err error) { ch <- err }, err
}

// Poison hands in something that cannot be stored.
func (n *Node) Poison(ctx context.Context, cause error) error {
	return n.change(ctx, func(_ *loop, tx *store.Tx) error {
		if cause != nil {
			return cause
		}
		return tx.Exec("UPDATE contact SET person = NULL")
	})
}

// Placed gives the contact secret and transport key of this device, and what it
// knows of the devices of others.
func (n *Node) Placed(ctx context.Context) (secret, transport [32]byte, others map[identity.PersonID]store.Device, err error) {
	others = map[identity.PersonID]store.Device{}
	err = n.ask(ctx, func(l *loop) {
		secret, transport = l.acct.secret, l.acct.transport
		for id, d := range l.acct.devices {
			if id != l.acct.device {
				others[d.Person] = d.Device
			}
		}
	})
	return secret, transport, others, err
}

// PairSecrets gives the contact secrets that this device and one of each other person
// have in common without having told each other one.
func (n *Node) PairSecrets(ctx context.Context) (out map[identity.PersonID]rv.Secret, err error) {
	out = map[identity.PersonID]rv.Secret{}
	err = n.ask(ctx, func(l *loop) {
		for id, d := range l.acct.devices {
			if secret, err := l.pairOf(d); err == nil && id != l.acct.device {
				out[d.Person] = secret
			}
		}
	})
	return out, err
}

// DefaultNow is the time by the clock of a node that is given none.
func DefaultNow() (time.Time, error) {
	var c Config
	err := c.check()
	return c.Now(), err
}

// Pairs gives what this device says hello with.
func (n *Node) Pairs(ctx context.Context) ([]contact.Pair, error) { return n.pairs(ctx) }

// LookUp asks servers for the record at a point, and gives those that were found.
func (n *Node) LookUp(ctx context.Context, point rv.Point) (found [][]byte, err error) {
	_, err = n.net.FindRecord(ctx, p2p.Point{ID: point, Period: rv.PeriodAt(n.cfg.Now())}, func(record []byte, _ time.Time) {
		if record != nil {
			found = append(found, record)
		}
	})
	return found, err
}

// Find looks for the record of another person's device as the edge does, as if none
// had been seen, and gives the hint in it.
func (n *Node) Find(ctx context.Context, p identity.PersonID) (rv.Hint, error) {
	var look *lookup
	err := n.ask(ctx, func(l *loop) {
		for id, d := range l.acct.devices {
			if d.Person == p && id != l.acct.device {
				d.queue.findAt = time.Time{}
				look = l.lookupOf(d)
			}
		}
	})
	if err != nil || look == nil {
		return rv.Hint{}, errors.Join(err, errors.New("nothing to look for"))
	}
	for i := range look.tiers {
		look.tiers[i].seen = rv.Seen{}
	}
	hint, _, err := n.edge.find(ctx, *look)
	return hint, err
}

// Servers is the address book of the network.
func (n *Node) Servers() []p2p.Known { return n.net.Book() }

// AskSources asks the places for servers now, as if no known one answered.
func (n *Node) AskSources(ctx context.Context) error { return n.askSources(ctx) }

// Teach has this node believe that the devices of a person are found at an address,
// with a transport key: as somebody would who looked for it by himself.
func (n *Node) Teach(ctx context.Context, p identity.PersonID, transport, addr []byte) error {
	return n.ask(ctx, func(l *loop) {
		for _, d := range l.acct.devicesOf(p) {
			d.Transport, d.Addrs = transport, []store.Address{{Addr: addr, Source: sourceTold}}
			d.queue.tryAt, d.queue.fails = time.Time{}, 0
			l.touch(d)
		}
	})
}

// Carriers are the nodes that may carry for the veil.
func (n *Node) Carriers() (out []peer.ID) {
	for _, c := range n.edge.veilRelays() {
		out = append(out, c.ID)
	}
	return out
}

// VeilRelays are the relays by which contacts of relays only reach a node.
func VeilRelays(n *Node) []p2p.Relay {
	if under := n.edge.under.Load(); under != nil {
		return under.Reachability().Relays
	}
	return nil
}

// StillCarrying is what chooseCarriers keeps while this machine's address is not known.
func StillCarrying(before, all []peer.AddrInfo) []peer.AddrInfo { return stillCarrying(before, all) }

// Watched has this node believe that it was at a place when somebody was to find it no
// more.
func (n *Node) Watched(ctx context.Context, place string) error {
	return n.change(ctx, func(l *loop, tx *store.Tx) error { return l.watch(tx, []netip.Prefix{netip.MustParsePrefix(place)}) })
}

// Elsewhere says whether a node that was at some places has left them all.
func Elsewhere(before, now []netip.Prefix) bool { return elsewhere(before, now) }

// FillFormer has a person have had as many transport keys as are noted.
func (n *Node) FillFormer(ctx context.Context, p identity.PersonID) error {
	return n.change(ctx, func(l *loop, tx *store.Tx) error {
		for range formerMax {
			key, _, err := crypto.GenerateEd25519Key(l.cfg.Random)
			if err != nil {
				return err
			}
			id, err := peer.IDFromPrivateKey(key)
			if err != nil {
				return err
			}
			if err := l.leaves(tx, &store.Device{Person: p, Transport: []byte(id)}, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// Hides says whether a transport is known as that of a contact who may reach this node
// by relays only.
func (n *Node) Hides(id peer.ID) bool { return n.edge.known.Load().hidden[id] }

// Busy has a node take each device for one that is being dialled, until it is freed.
func (n *Node) Busy(ctx context.Context) (free func() error, err error) {
	set := func(on bool) error {
		return n.ask(ctx, func(l *loop) {
			for _, d := range l.acct.devices {
				d.queue.dialing = on
			}
		})
	}
	return func() error { return set(false) }, set(true)
}

// With adds to the places at which a node was those that have become known.
func With(before, now []netip.Prefix) []netip.Prefix { return with(before, now) }
