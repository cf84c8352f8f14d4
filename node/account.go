package node

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/keyfile"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/session"
)

// account is what the loop keeps in memory of account.db. It belongs to the
// loop's goroutine; after a failed commit it is thrown away and loaded anew.
type account struct {
	me       identity.PersonID
	device   identity.DeviceID
	self     session.Self
	sessions *session.Machine
	logs     map[identity.PersonID]*identity.Log
	contacts map[identity.PersonID]*store.Contact
	devices  map[identity.DeviceID]*device
	byRow    map[store.Row]*device
	convs    map[event.ConversationID]*conversation
	convRows map[store.Row]*conversation
	recalled []*conversation               // whose rows were behind their events when they were loaded
	offered  map[[32]byte]*share           // how often invites were answered, by hash of the token
	former   map[peer.ID]identity.PersonID // transport keys that devices of others had

	secret    [32]byte // what this device's look-up records are made with; zero before the first start with a network
	transport [32]byte // public key of the main host
	proof     [64]byte // by that key, that it is this device's (identity.ReachInput)
	veil      [32]byte // public key of the veil; zero: there is none
	veilProof [64]byte // as proof

	watched []netip.Prefix // where the transport key of now can be seen by who is not to know it; nil: nowhere
}

// device is another device: a contact's, or an own one.
type device struct {
	store.Device
	queue             queue
	blamed            time.Time // when it was last complained of in the log
	copied, copiedOwn time.Time // when the owner was told of a copy of it, and of one of this device
	wanted            share     // numbers that were looked up for its questions for gaps
	lost              share     // sessions that it lost
	told              share     // device lists that it asked for
	pairOlm, pair     [32]byte  // its Olm key, and the secret of a hello that was derived of it
}

// share is what a device has used up in a period of what it may cause.
type share struct {
	since time.Time
	used  int
}

// of gives what was used up in the current period.
func (s *share) of(now time.Time, period time.Duration) *int {
	if now.Sub(s.since).Abs() >= period {
		*s = share{since: now}
	}
	return &s.used
}

// conversation is one conversation and the pure state of its event graph.
type conversation struct {
	store.Conversation
	graph  *event.Machine
	heard  int  // events of a request that were stored since the account was loaded
	placed bool // the other person was told where this device is, or cannot be
}

// loadAccount reads the account from tx. secrets are those of the key file.
func loadAccount(tx *store.Tx, secrets *keyfile.Secrets, random io.Reader, now time.Time) (*account, error) {
	a := &account{
		me:       secrets.Person,
		logs:     map[identity.PersonID]*identity.Log{},
		contacts: map[identity.PersonID]*store.Contact{},
		devices:  map[identity.DeviceID]*device{},
		byRow:    map[store.Row]*device{},
		convs:    map[event.ConversationID]*conversation{},
		convRows: map[store.Row]*conversation{},
	}
	key := identity.NewDeviceKey(secrets.Device)
	a.device = key.ID()
	contacts, err := tx.Contacts()
	if err != nil {
		return nil, err
	}
	for i := range contacts {
		c := &contacts[i]
		a.contacts[c.Person] = c
		log, err := loadLog(tx, c.Person)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		a.logs[c.Person] = log
		devices, err := tx.Devices(c.Person)
		if err != nil {
			return nil, err
		}
		for _, d := range devices {
			a.addDevice(d)
		}
	}
	if err := a.loadConversations(tx); err != nil {
		return nil, err
	}
	if err := a.loadClosed(tx); err != nil {
		return nil, err
	}
	if err := a.loadFormer(tx); err != nil {
		return nil, err
	}
	if err := a.loadPlace(tx); err != nil {
		return nil, err
	}
	if err := a.loadWatched(tx); err != nil {
		return nil, err
	}
	self, ok := a.devices[a.device]
	if !ok {
		return a, nil // a home that was created but not yet filled
	}
	record, hash, err := identity.ParseDeviceRecord(self.Record)
	if err != nil {
		return nil, fmt.Errorf("own device record: %w", err)
	}
	a.self = session.Self{
		Key: key, Record: record, RecordHash: hash, OlmSeed: secrets.Olm, Head: a.logs[a.me].Head(),
	}
	rows, err := tx.Records()
	if err != nil {
		return nil, err
	}
	a.sessions, err = session.Load(a.self, random, rows)
	if err != nil {
		return nil, fmt.Errorf("sessions: %w", err)
	}
	for id, d := range a.devices {
		if remote, ok := a.remote(id); ok && id != a.device {
			if err := a.sessions.SetRemote(remote); err != nil {
				return nil, err
			}
			if err := d.queue.load(tx, d.Row); err != nil {
				return nil, err
			}
		}
	}
	return a, nil
}

// loadConversations reads every conversation. The rows of those that were busy
// when the process ended may be behind their events: all are written at once, so
// it is the events above the highest number of a row that they lack.
func (a *account) loadConversations(tx *store.Tx) error {
	convs, err := tx.Conversations()
	if err != nil {
		return err
	}
	var upto store.Row
	for i := range convs {
		upto = max(upto, store.Row(convs[i].Changed))
	}
	for i := range convs {
		latest, err := tx.Latest(convs[i].Row, upto)
		if err != nil {
			return err
		}
		a.addConversation(convs[i], latest)
	}
	events, err := tx.EventsAfter(upto)
	if err != nil {
		return err
	}
	for _, e := range events {
		if c, ok := a.convRows[e.Conversation]; ok {
			a.recall(c, e)
		}
	}
	return nil
}

// recall has a conversation take in an event that it lacks.
func (a *account) recall(c *conversation, e store.Event) {
	id := a.device
	if e.Device != 0 {
		d, ok := a.byRow[e.Device]
		if !ok {
			return
		}
		id = d.ID
	}
	ev, err := event.Parse(e.Raw)
	if err != nil {
		return // deleted since, in a commit that wrote all rows
	}
	c.graph.Recall(e.At, id, e.ID, ev)
	c.count(e)
	if !slices.Contains(a.recalled, c) {
		a.recalled = append(a.recalled, c)
	}
}

// count notes what an event does to what is shown of its conversation.
func (c *conversation) count(e store.Event) {
	if e.Type.Class() != event.Content {
		return
	}
	c.LastAt = e.At
	if !e.Own {
		c.Unread++
	}
}

func (a *account) addDevice(d store.Device) *device {
	known, ok := a.devices[d.ID]
	if ok {
		known.Device = d
		return known
	}
	known = &device{Device: d}
	a.devices[d.ID], a.byRow[d.Row] = known, known
	return known
}

// addConversation takes a conversation into memory; latest is what is held of
// each device in it.
func (a *account) addConversation(c store.Conversation, latest []store.Event) *conversation {
	var held []event.Latest
	for _, h := range latest {
		id := a.device
		if h.Device != 0 {
			d, ok := a.byRow[h.Device]
			if !ok {
				continue
			}
			id = d.ID
		}
		held = append(held, event.Latest{Device: id, Seq: h.Seq, ID: h.ID, Clock: h.Clock})
	}
	self := event.Context{Conversation: c.ID, Author: a.me, Device: a.device}
	known := &conversation{Conversation: c, graph: event.LoadMachine(self, c.Clock, c.Heads, held)}
	a.convs[c.ID], a.convRows[c.Row] = known, known
	return known
}

// remote is what the session machine needs to know of a device, from the
// verified log. False: the log does not certify the device.
func (a *account) remote(id identity.DeviceID) (session.Remote, bool) {
	d, ok := a.devices[id]
	if !ok {
		return session.Remote{}, false
	}
	log, ok := a.logs[d.Person]
	if !ok {
		return session.Remote{}, false
	}
	state, ok := log.Device(id)
	if !ok || state.Revoked {
		return session.Remote{}, false
	}
	record, err := identity.KnownDeviceRecord(d.Record, state.RecordHash)
	if err != nil {
		return session.Remote{}, false
	}
	return session.Remote{Device: id, Record: record, RecordHash: state.RecordHash, Head: log.Head()}, true
}

// expired says whether the certificate of a device has ended, as far as is known
// here.
func (a *account) expired(d *device, now time.Time) bool {
	log, ok := a.logs[d.Person]
	if !ok {
		return false
	}
	state, ok := log.Device(d.ID)
	return ok && state.At(now) == identity.StandingExpired
}

// targets are the devices that an event of the conversation goes to: all live
// devices of its persons but this one. Expired ones are left out by name.
func (a *account) targets(c *conversation, now time.Time) (to, expired []*device) {
	persons := []identity.PersonID{a.me}
	if c.Kind == event.Pair {
		persons = append(persons, c.Person)
	}
	for _, p := range persons {
		log, ok := a.logs[p]
		if !ok {
			continue
		}
		rival, _ := log.Fork()
		for _, state := range log.Devices() {
			d, ok := a.devices[state.ID]
			switch {
			case !ok || d.Person != p || d.ID == a.device:
			case rival == nil && state.At(now).Live():
				to = append(to, d)
			case !state.Revoked:
				expired = append(expired, d)
			}
		}
	}
	return to, expired
}

// pair gives the pair or self conversation with a person.
func (a *account) pair(p identity.PersonID) (*conversation, bool) {
	id := event.PairID(a.me, p)
	if p == a.me {
		id = event.SelfID(p)
	}
	c, ok := a.convs[id]
	return c, ok
}

// fill makes the account of a new home: the person's log with this device in
// it, the own contact and the self conversation. It runs again after a crash
// between the key file and the first commit.
func fill(tx *store.Tx, secrets *keyfile.Secrets, name string, now time.Time) error {
	if secrets.Root == nil || secrets.Log == nil {
		return errors.New("the key file holds no root key to make the identity with")
	}
	root, logKey, key := identity.NewRootKey(*secrets.Root), identity.NewLogKey(*secrets.Log), identity.NewDeviceKey(secrets.Device)
	record, err := identity.SignDeviceRecord(key, identity.DeviceRecord{
		Suite: identity.Suite1, Version: 1, Person: root.Person(), Device: key.Public(),
		Olm: identity.NewOlmKey(secrets.Olm).Public(), Rendezvous: identity.NewRendezvousKey(secrets.Rendezvous).Public(),
		NotBefore: now.Unix(), Expiry: now.Add(identity.Lifetime).Unix(),
	})
	if err != nil {
		return err
	}
	log, err := identity.NewLog(root, logKey.Public(), now)
	if err != nil {
		return err
	}
	if log, err = log.AddDevice(logKey, record, key, now); err != nil {
		return err
	}
	self := store.Contact{Person: root.Person(), Name: name, Trust: store.Verified, State: store.Self, Since: now}
	if err := tx.PutContact(&self); err != nil {
		return err
	}
	if err := tx.PutLog(root.Person(), log.Entries()); err != nil {
		return err
	}
	d := store.Device{ID: key.ID(), Person: root.Person(), Record: record, Seen: now}
	if err := tx.PutDevice(&d); err != nil {
		return err
	}
	c := store.Conversation{ID: event.SelfID(root.Person()), Kind: event.Self, Person: root.Person(), LastAt: now}
	return tx.PutConversation(&c)
}
