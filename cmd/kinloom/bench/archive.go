package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/keyfile"
	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/corpus"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
)

const (
	// archiveForm is the form of archives: another number makes cached ones anew.
	archiveForm = 3
	// archiveGroup is how many messages one commit takes, the same as of a node's
	// loop; archiveDrain is how many of them enter the index at once.
	archiveGroup = 256
	archiveDrain = 7 * archiveGroup
	people       = 50
)

// archiveEnd is when the last message of an archive was written.
var archiveEnd = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// archive is a home of which the store is open and no node runs: the raw store
// of a figure, or the many messages that are searched.
type archive struct {
	lock  *store.Lock
	store *store.Store
	me    identity.PersonID
	own   identity.DeviceID
	pairs []pair
}

// pair is a contact with one device, and the conversation with it.
type pair struct {
	contact      store.Contact
	device       store.Device
	conversation store.Conversation
	sent, heard  uint64 // last numbers of either side
}

// newArchive makes a home with some contacts in it and opens its store.
func newArchive(ctx context.Context, dir string, contacts int) (_ *archive, err error) {
	s, err := node.Init(ctx, node.Config{Dir: dir, Name: "Archive"})
	if err != nil {
		return nil, err
	}
	a := &archive{me: s.Person, own: s.Device}
	if a.lock, err = store.AcquireLock(dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	b, err := os.ReadFile(filepath.Join(dir, "keys"))
	if err != nil {
		return nil, err
	}
	secrets, err := keyfile.Open(b, keyfile.Lock{})
	if err != nil {
		return nil, err
	}
	a.store, err = store.Open(ctx, store.Options{Dir: dir, Key: secrets.SubKey, IDs: secrets.Files})
	if err != nil {
		return nil, err
	}
	return a, a.store.Write(ctx, func(tx *store.Tx) error {
		for i := range contacts {
			p, err := a.befriend(tx, i)
			if err != nil {
				return err
			}
			a.pairs = append(a.pairs, p)
		}
		return nil
	})
}

func (a *archive) close() error {
	var err error
	if a.store != nil {
		err = a.store.Close()
	}
	return errors.Join(err, a.lock.Release())
}

// befriend stores contact i: a person with a log and one certified device.
func (a *archive) befriend(tx *store.Tx, i int) (p pair, err error) {
	seed := func(kind byte) (s [32]byte) {
		s[0] = kind
		binary.LittleEndian.PutUint64(s[1:], uint64(i))
		return s
	}
	root, logKey, key := identity.NewRootKey(seed('r')), identity.NewLogKey(seed('l')), identity.NewDeviceKey(seed('d'))
	now := time.Now()
	record, err := identity.SignDeviceRecord(key, identity.DeviceRecord{
		Person: root.Person(), Device: key.Public(), Olm: identity.NewOlmKey(seed('o')).Public(),
		Rendezvous: identity.NewRendezvousKey(seed('v')).Public(), NotBefore: now.Unix(), Expiry: now.Add(identity.Lifetime).Unix(),
	})
	if err != nil {
		return p, err
	}
	log, err := identity.NewLog(root, logKey.Public(), now)
	if err == nil {
		log, err = log.AddDevice(logKey, record, key, now)
	}
	if err != nil {
		return p, err
	}
	p.contact = store.Contact{Person: root.Person(), Name: contactName(i), State: store.Accepted, Since: archiveEnd}
	if err := tx.PutContact(&p.contact); err != nil {
		return p, err
	}
	if err := tx.PutLog(root.Person(), log.Entries()); err != nil {
		return p, err
	}
	p.device = store.Device{ID: key.ID(), Person: root.Person(), Record: record}
	if err := tx.PutDevice(&p.device); err != nil {
		return p, err
	}
	p.conversation = store.Conversation{ID: event.PairID(a.me, root.Person()), Kind: event.Pair, Person: root.Person(), LastAt: archiveEnd}
	return p, tx.PutConversation(&p.conversation)
}

func contactName(i int) string { return fmt.Sprintf("Contact %d", i) }

// message makes the next message of a pair.
func (a *archive) message(p *pair, own bool, at time.Time, text string) (store.Event, error) {
	e := store.Event{
		Conversation: p.conversation.Row, Type: event.Message, Clock: event.Clock(at.UnixMilli()) << 16, At: at,
		Own: own, Protection: node.ProtectionDirect,
	}
	author := event.Context{Conversation: p.conversation.ID, Author: a.me, Device: a.own}
	if own {
		p.sent++
		e.Seq, e.Targets = p.sent, 1
	} else {
		p.heard++
		e.Seq, e.Device, e.Route = p.heard, p.device.Row, node.RouteDirect
		author.Author, author.Device = p.contact.Person, p.device.ID
	}
	body, err := event.Text{Text: text}.Append()
	if err != nil {
		return e, err
	}
	ev := event.Event{Seq: e.Seq, Clock: e.Clock, Type: e.Type, Body: body}
	if e.Raw, err = ev.Append(); err == nil {
		e.ID = event.IDOf(author, e.Raw)
	}
	return e, err
}

// put commits a group of messages.
func (a *archive) put(ctx context.Context, events []store.Event) error {
	return a.store.Write(ctx, func(tx *store.Tx) error {
		for i := range events {
			if _, err := tx.InsertEvent(&events[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// fill stores n messages of four years with all contacts, of whom some write
// much more than others. The index is drained when it returns.
func (a *archive) fill(ctx context.Context, n int, seed uint64, progress func(string, ...any)) error {
	r := rand.New(rand.NewPCG(seed, 1))
	c := corpus.New(seed)
	step := 4 * 365 * 24 * time.Hour / time.Duration(n)
	start := archiveEnd.Add(-step * time.Duration(n))
	group := make([]store.Event, 0, archiveGroup)
	for i := 0; i < n; {
		group = group[:0]
		for ; len(group) < archiveGroup && i < n; i++ {
			p := &a.pairs[frequent(r, len(a.pairs))]
			e, err := a.message(p, r.IntN(2) == 0, start.Add(step*time.Duration(i)), c.Text(TextSize))
			if err != nil {
				return err
			}
			group = append(group, e)
		}
		if err := a.put(ctx, group); err != nil {
			return err
		}
		if i/archiveGroup%(archiveDrain/archiveGroup) != 0 && i < n {
			continue
		}
		if err := a.store.IndexDrain(ctx); err != nil {
			return err
		}
		if i/archiveDrain%32 == 0 {
			progress("making an archive of %d messages, once: %d %%", n, 100*i/n)
		}
	}
	return a.settle(ctx)
}

// settle notes what a node would know of these messages: that the own ones were
// delivered, and where each conversation stands.
func (a *archive) settle(ctx context.Context) error {
	err := a.store.Write(ctx, func(tx *store.Tx) error {
		for i := range a.pairs {
			p := &a.pairs[i]
			c := &p.conversation
			c.OwnSeq, c.Clock = p.sent+1, event.Clock(archiveEnd.UnixMilli())<<16
			if err := tx.PutConversation(c); err != nil {
				return err
			}
			if p.sent == 0 {
				continue
			}
			d := store.Delivery{
				Device: p.device.Row, Conversation: c.Row, From: 1, To: p.sent, Sent: archiveEnd, At: archiveEnd, Route: node.RouteDirect,
			}
			if err := tx.AddDelivery(d); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	// A node that rests merges its index by itself; this one gets no rest.
	if err := a.store.IndexMerge(ctx); err != nil {
		return err
	}
	return a.store.Checkpoint(ctx)
}

// frequent draws a number below n, low ones more often.
func frequent(r *rand.Rand, n int) int { return int(float64(n) * r.Float64() * r.Float64()) }

// cached gives the folder of the archive with the many messages, and makes it if
// the cache does not have it.
func (b *bench) cached(ctx context.Context) (dir string, err error) {
	n := Messages
	if b.Quick {
		n = QuickMessages
	}
	dir = filepath.Join(b.Cache, fmt.Sprintf("archive-%d-%d-%d", archiveForm, b.Seed, n))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	unfinished := b.home("archive")
	a, err := newArchive(ctx, unfinished, people)
	if err != nil {
		return "", err
	}
	if err := errors.Join(a.fill(ctx, n, b.Seed, b.progress), a.close()); err != nil {
		return "", err
	}
	return dir, os.Rename(unfinished, dir)
}
