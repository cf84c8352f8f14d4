package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/node/store"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
)

// Node is a running node. Its methods may be called from any goroutine.
type Node struct {
	cfg     Config
	home    *home
	store   *store.Store
	hub     *hub
	loop    *loop
	net     *p2p.Net              // nil: offline
	edge    *edge                 // nil: offline
	usual   []multiaddr.Multiaddr // listened at by the last run
	me      identity.PersonID
	device  identity.DeviceID
	started time.Time
	book    atomic.Pointer[book] // of contacts, kept from view to view

	closing chan struct{} // closed when Close begins
	ended   chan struct{} // closed when the loop has ended
	once    sync.Once
	stop    context.CancelFunc
	group   *errgroup.Group
	closed  error
}

// Open opens the home of c, makes one if there is none, starts the node and
// returns when it is ready to send. ctx bounds the start only; Close ends the
// node.
func Open(ctx context.Context, c Config) (*Node, error) {
	return open(ctx, c, true, true)
}

// OpenOffline opens an existing home without any network: for reading, and for
// putting into the outbox what a running node sends later.
func OpenOffline(ctx context.Context, c Config) (*Node, error) {
	return open(ctx, c, false, false)
}

// Init makes a home and starts nothing. A home that exists is ErrHomeExists.
func Init(ctx context.Context, c Config) (Status, error) {
	if c.Dir != "" {
		if _, err := os.Stat(filepath.Join(c.Dir, keysFile)); err == nil {
			return Status{}, &Error{Kind: KindRefused, Err: ErrHomeExists, Text: "nothing was made in " + c.Dir, Next: "Start it: kinloom up."}
		}
	}
	n, err := open(ctx, c, true, false)
	if err != nil {
		return Status{}, err
	}
	s, err := n.Status(ctx)
	return s, errors.Join(err, n.Close())
}

func open(ctx context.Context, c Config, create, online bool) (_ *Node, err error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	h, err := openHome(&c, create)
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg: c, home: h, hub: newHub(), me: h.secrets.Person, started: c.Now(),
		device:  identity.NewDeviceKey(h.secrets.Device).ID(),
		closing: make(chan struct{}), ended: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.release())
		}
	}()
	n.store, err = store.Open(ctx, store.Options{
		Dir: c.Dir, Key: func(file string) [32]byte { return h.secrets.SubKey(file) }, IDs: h.secrets.Files, Log: c.Log, Now: c.Now,
	})
	if err != nil {
		return nil, openError(c.Dir, err)
	}
	if err := n.prepare(ctx); err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	n.stop = stop
	n.group, run = errgroup.WithContext(run)
	n.group.Go(func() error {
		defer close(n.ended)
		return n.loop.run(run)
	})
	if online {
		err = n.connect(ctx, run)
	}
	if err != nil {
		stop()
		return nil, errors.Join(err, n.group.Wait())
	}
	return n, nil
}

// prepare fills a new account and loads it.
func (n *Node) prepare(ctx context.Context) error {
	n.loop = &loop{
		st: n.store, write: n.store.Write, secrets: n.home.secrets, cfg: &n.cfg, log: n.cfg.Log, in: make(chan input, inputQueue), hub: n.hub,
		touched: map[*device]bool{}, spoken: map[*conversation]bool{}, links: map[*link]bool{}, given: map[identity.DeviceID]time.Time{}, parting: map[identity.PersonID]uint64{},
	}
	now := n.cfg.Now()
	err := n.store.Write(ctx, func(tx *store.Tx) error {
		self, err := selfContact(tx)
		if isNotFound(err) {
			return fill(tx, n.home.secrets, n.cfg.Name, now)
		}
		if err == nil && self.Name == "" && n.cfg.Name != "" {
			self.Name = n.cfg.Name
			err = tx.PutContact(&self)
		}
		return err
	})
	if err != nil {
		return openError(n.cfg.Dir, err)
	}
	if err := n.loop.reload(ctx); err != nil {
		return openError(n.cfg.Dir, fmt.Errorf("load the account: %w", err))
	}
	n.loop.acct.sessions.Doubt() // the home may have been set back to an older copy
	return nil
}

// openError puts a failure to open the store into words.
func openError(dir string, err error) error {
	e := &Error{Kind: KindError, Err: err, Text: "cannot open the store in " + dir, Next: "Nothing was changed."}
	newer, isNewer := errors.AsType[*store.NewerSchemaError](err)
	switch {
	case isNewer:
		e.Text = fmt.Sprintf("the store in %s was written by a newer kinloom (schema %d, this program knows %d)", dir, newer.Have, newer.Known)
		e.Err, e.Next = nil, "Install that version; nothing was changed."
	case errors.Is(err, store.ErrForeign):
		e.Text, e.Next = filesOf(err)+" in "+dir+" belongs to another home", "Put back the databases and the key file that belong together."
	case errors.Is(err, store.ErrDamaged):
		e.Text, e.Next = filesOf(err)+" in "+dir+" is damaged", "Keep a copy of the folder, then put back your own backup. It was not started empty."
	case errors.Is(err, store.ErrDiskFull):
		e.Text, e.Next = "the disk is full", "Free some space and try again."
	case errors.Is(err, store.ErrReadOnly):
		e.Text, e.Next = "the home "+dir+" is read-only", "Make it writable and try again."
	default:
		return e
	}
	e.Quiet = true // it says the same again, in the words of the store and of SQLite
	return e
}

// filesOf gives the database that an error of the store is about.
func filesOf(err error) string {
	for _, name := range databases {
		if strings.Contains(err.Error(), name) {
			return name
		}
	}
	return "the store"
}

// Close stops the node: new work is refused, what was handed in is committed,
// and every goroutine has ended when it returns. It may be called twice.
func (n *Node) Close() error {
	n.once.Do(func() {
		close(n.closing)
		n.stop()
		err := n.group.Wait()
		if errors.Is(err, context.Canceled) {
			err = nil
		}
		n.closed = errors.Join(err, n.release())
	})
	return n.closed
}

// Done is closed when the node has ended, by Close or by a failure that Close
// then returns.
func (n *Node) Done() <-chan struct{} { return n.ended }

func (n *Node) release() error {
	var err error
	if n.store != nil {
		err = n.store.Close()
	}
	return errors.Join(err, n.home.close())
}

// Handle gives streams of an app's own protocol to h, on every host of the node,
// until the node is closed. Contacts who may reach it by relays only are not among them.
func (n *Node) Handle(id protocol.ID, h func(network.Stream)) error {
	if n.net == nil {
		return ErrClosed
	}
	n.net.Handle(id, p2p.Limits{}, h)
	return nil
}

// ask runs f on the loop, to read what only the loop knows, and waits for it.
func (n *Node) ask(ctx context.Context, f func(*loop)) error {
	ch := make(chan error, 1)
	err := n.post(ctx, change{
		apply: func(l *loop, _ *store.Tx) error { f(l); return nil },
		reply: func(err error) { ch <- err },
	})
	if err != nil {
		return err
	}
	select {
	case err := <-ch:
		return err
	case <-n.ended:
		return ErrClosed
	}
}

// Status is how the node is.
type Status struct {
	Person        identity.PersonID
	Device        identity.DeviceID
	Name          string
	Dir           string
	Version       string
	Started       time.Time
	Ready         bool   // a running node that can send
	KeyProtection string // how the key file is protected
	Listening     []string
	PeerID        string // of the main host; not the identity
	LANPeerID     string
	Reach         string // "internet" once somebody outside has reached it or a relay is held, "lan", or "" without a network
	ReachText     string // the same in words
	ReachNext     string // what to do where something is missing
	Profile       string
	Contacts      int
	Requests      int
	Online        int // contacts' devices with a live route
	Unread        int
	Queued        int // messages not yet delivered
	Sent          uint64
	Received      uint64 // messages since the start, like Sent
	LastCrash     string
	Warnings      []string
}

// Status tells how the node is.
func (n *Node) Status(ctx context.Context) (Status, error) {
	s := Status{
		Person: n.me, Device: n.device, Dir: n.cfg.Dir, Version: n.cfg.Version, Started: n.started,
		Ready: n.net != nil, KeyProtection: n.home.protected, Profile: n.cfg.Profile,
	}
	if n.net != nil {
		reach := n.Reach()
		s.Listening, s.Reach, s.ReachText, s.ReachNext = n.edge.listening(), reach.Reach, reach.Text, reach.Next
		s.PeerID, s.LANPeerID = n.edge.ids()
	}
	if s.KeyProtection == ProtectedByMode {
		s.Warnings = append(s.Warnings, "The key file has no passphrase: who can read your files can read everything.")
	}
	if n.cfg.Dir != "" && modeOf(n.cfg.Dir) != 0 {
		s.Warnings = append(s.Warnings, "Others who use this computer can see names and sizes of the files in "+n.cfg.Dir+": chmod 700 it.")
	}
	own := len(s.Warnings)
	err := n.readSettled(ctx, func(v *view) error {
		contacts, err := v.tx.Contacts()
		if err != nil {
			return err
		}
		for _, c := range contacts {
			switch {
			case c.State == store.Self:
				s.Name = c.Name
			case c.State == store.Accepted:
				s.Contacts++
			case c.State == store.Request && c.Trust != store.Blocked:
				s.Requests++
			}
		}
		convs, err := v.tx.Conversations()
		for _, c := range convs {
			s.Unread += c.Unread
		}
		if err == nil {
			s.Queued, err = v.tx.Queued()
		}
		return err
	})
	if err != nil {
		return s, err
	}
	err = n.ask(ctx, func(l *loop) { // may run again, where another input of its batch failed
		s.Online, s.Warnings = 0, s.Warnings[:own:own]
		for _, d := range l.acct.devices {
			if d.queue.link != nil {
				s.Online++
			}
		}
		if trouble := n.veilTrouble(); trouble != "" && l.needsVeil() {
			s.Warnings = append(s.Warnings, "For contacts who may reach this node by relays only: "+trouble+".")
		}
		if len(l.parting) > 0 {
			s.Warnings = append(s.Warnings, "Who may reach this node by relays only since a moment is not parted from it yet: "+notParted+".")
		}
		s.Warnings = append(append(s.Warnings, l.warnings...), l.alarms...)
	})
	s.LastCrash = lastCrash(n.cfg.Dir)
	s.Sent, s.Received = n.hub.sent.Load(), n.hub.received.Load()
	return s, err
}

// lastCrash gives the line to look at of the last crash of a node with this home.
func lastCrash(dir string) string {
	for _, name := range crashFiles {
		if b, err := os.ReadFile(filepath.Join(dir, name)); dir != "" && err == nil && len(b) > 0 {
			return firstLine(b)
		}
	}
	return ""
}

func firstLine(b []byte) string {
	for i, c := range b {
		if c == '\n' || i == 200 {
			return string(b[:i])
		}
	}
	return string(b)
}
