package node_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/dm"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/session"
	"github.com/kinloom/kinloom/protocol/wire"
)

// mallory is a peer that keeps to no rule: a bare libp2p host with the keys of a
// person, who may have become a contact. It knows every protocol and does with
// them what a test says.
type mallory struct {
	t      *testing.T
	net    *testnet.Net
	moves  int
	name   string
	host   host.Host
	root   identity.RootKey
	logKey identity.LogKey
	key    identity.DeviceKey
	log    *identity.Log
	record []byte
	olm    [32]byte

	// After meet.
	victim   session.Remote
	sessions *session.Machine
	conv     event.ConversationID
	said     *event.Machine
	stream   network.Stream
	frames   *bufio.Reader
}

// newMallory puts one on machine i.
func newMallory(t *testing.T, net *testnet.Net, i int) *mallory {
	t.Helper()
	m := &mallory{t: t, net: net, name: "Mallory"}
	var err error
	if m.host, err = bare(net.Host(i)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.host.Close() })
	m.become()
	return m
}

// become makes it another person, at the same place.
func (m *mallory) become() {
	m.t.Helper()
	m.root, m.logKey, m.key, m.olm = identity.NewRootKey(seed()), identity.NewLogKey(seed()), identity.NewDeviceKey(seed()), seed()
	now := time.Now()
	var err error
	m.record, err = identity.SignDeviceRecord(m.key, m.describe(m.key, now))
	m.fatal("sign a record", err)
	m.log, err = identity.NewLog(m.root, m.logKey.Public(), now)
	m.fatal("begin a log", err)
	m.log, err = m.log.AddDevice(m.logKey, m.record, m.key, now)
	m.fatal("add a device", err)
}

// bare starts libp2p with nothing of ours in it.
func bare(h *testnet.Host) (host.Host, error) {
	return libp2p.New(append(h.Options(),
		libp2p.ListenAddrs(h.Addr), libp2p.DisableIdentifyAddressDiscovery(), libp2p.DisableMetrics(),
		libp2p.DisableRelay(), libp2p.UDPBlackHoleSuccessCounter(nil), libp2p.ResourceManager(&network.NullResourceManager{}))...)
}

func seed() (s [32]byte) {
	_, _ = rand.Read(s[:]) // never fails
	return s
}

func (m *mallory) describe(k identity.DeviceKey, now time.Time) identity.DeviceRecord {
	return identity.DeviceRecord{
		Suite: identity.Suite1, Version: 1, Person: m.root.Person(), Device: k.Public(), Olm: identity.NewOlmKey(m.olm).Public(),
		Rendezvous: identity.NewRendezvousKey(seed()).Public(), NotBefore: now.Unix(), Expiry: now.Add(identity.Lifetime).Unix(),
	}
}

func (m *mallory) fatal(what string, err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatalf("%s: %v", what, err)
	}
}

// dial connects with the node that an invite names.
func (m *mallory) dial(ctx context.Context, link string) (peer.ID, error) {
	invite, err := contact.ParseInvite(link)
	if err != nil {
		return "", err
	}
	to := peer.AddrInfo{ID: peer.ID(contact.Transport(invite.Transport).PeerID())}
	for _, b := range invite.Addresses {
		if a, err := multiaddr.NewMultiaddrBytes(b); err == nil {
			to.Addrs = append(to.Addrs, a)
		}
	}
	return to.ID, m.host.Connect(network.WithForceDirectDial(ctx, "test"), to)
}

func (m *mallory) open(ctx context.Context, to peer.ID, id protocol.ID) network.Stream {
	m.t.Helper()
	s, err := m.host.NewStream(ctx, to, id)
	m.fatal("open "+string(id), err)
	return s
}

// exchange answers an invite up to the last message. material changes what is
// told; nil: the truth.
func (m *mallory) exchange(ctx context.Context, link string, change func(*contact.Invite)) (contact.Result, error) {
	invite, err := contact.ParseInvite(link)
	if err != nil {
		return contact.Result{}, err
	}
	if change != nil {
		change(&invite)
	}
	to, err := m.dial(ctx, link)
	if err != nil {
		return contact.Result{}, err
	}
	s, err := m.host.NewStream(ctx, to, wire.Contact)
	if err != nil {
		return contact.Result{}, err
	}
	channel, err := contact.StreamChannel(s)
	if err != nil {
		return contact.Result{}, err
	}
	self := contact.Self{Key: m.key, Person: m.root.Person(), Material: contact.Material{Entries: m.log.Entries(), Record: m.record, Name: m.name}}
	i, err := contact.NewInitiator(time.Now(), self, invite, channel, rand.Reader)
	if err != nil {
		return contact.Result{}, err
	}
	return contact.Exchange(ctx, s, i, nil)
}

// meet answers an invite of a node, starts a session and opens a message stream.
func (m *mallory) meet(ctx context.Context, link string) {
	m.t.Helper()
	met, err := m.exchange(ctx, link, nil)
	m.fatal("exchange", err)
	record, hash, err := identity.ParseDeviceRecord(m.record)
	m.fatal("own record", err)
	m.sessions = session.New(session.Self{Key: m.key, Record: record, RecordHash: hash, OlmSeed: m.olm, Head: m.log.Head()}, rand.Reader)
	m.victim = session.Remote{Device: met.Peer.Device(), Record: met.Peer.Record, RecordHash: met.Peer.RecordHash, Head: met.Peer.Log.Head()}
	bundle := met.Peer.Once
	if bundle == nil {
		bundle = met.Peer.Static
	}
	m.fatal("start", m.sessions.Start(time.Now(), m.victim, bundle))
	m.conv = event.PairID(m.root.Person(), met.Peer.Person())
	m.said = event.NewMachine(event.Context{Conversation: m.conv, Author: m.root.Person(), Device: m.key.ID()})
	m.reopen(ctx, link)
}

// reopen opens another message stream, and ends the one before.
func (m *mallory) reopen(ctx context.Context, link string) {
	m.t.Helper()
	if m.stream != nil {
		_ = m.stream.Reset()
	}
	to, err := m.dial(ctx, link)
	m.fatal("dial", err)
	m.stream = m.open(ctx, to, wire.DM)
	m.frames = bufio.NewReaderSize(m.stream, wire.MaxFrame)
}

// fresh asks for a bundle on a new stream and reports whether it is one for a
// single start.
func (m *mallory) fresh(ctx context.Context, link string) bool {
	m.t.Helper()
	m.reopen(ctx, link)
	m.fatal("greet", m.send(dm.Cells{Cells: [][]byte{m.pack(m.seal(m.conv, m.text("hello")))}}))
	m.receipts()
	m.fatal("ask", m.send(dm.WantBundle{}))
	for {
		f, err := m.next(5 * time.Second)
		m.fatal("no bundle", err)
		given, ok := f.(dm.Bundle)
		if !ok {
			continue
		}
		b, err := session.ParseBundle(given.Bundle, m.victim.Record.Device, time.Now())
		m.fatal("bundle", err)
		return b.Once
	}
}

// event makes the next event of mallory's conversation with the victim.
func (m *mallory) event(t event.Type, body []byte) []byte {
	m.t.Helper()
	made, err := m.said.Next(time.Now(), t, "", body)
	m.fatal("make an event", err)
	return made.Raw
}

func (m *mallory) text(s string) []byte {
	m.t.Helper()
	body, err := event.Text{Text: s}.Append()
	m.fatal("text", err)
	return m.event(event.Message, body)
}

// seal seals an event for the victim in the name of a conversation.
func (m *mallory) seal(conv event.ConversationID, payload []byte) session.Sealed {
	m.t.Helper()
	s, err := m.sessions.Seal(time.Now(), m.victim.Device, conv, payload)
	m.fatal("seal", err)
	m.sessions.Dirty()
	return s
}

// pack puts sealed events into one cell.
func (m *mallory) pack(items ...session.Sealed) []byte {
	m.t.Helper()
	cell, n, err := m.sessions.Pack(time.Now(), m.victim.Device, items[0].Session, items, wire.Padme)
	if err != nil || n != len(items) {
		m.t.Fatalf("packed %d of %d: %v", n, len(items), err)
	}
	return cell
}

// say sends events of the pair conversation, each in a cell of its own.
func (m *mallory) say(events ...[]byte) {
	m.t.Helper()
	for _, e := range events {
		m.fatal("send", m.send(dm.Cells{Cells: [][]byte{m.pack(m.seal(m.conv, e))}}))
	}
}

// send writes one frame.
func (m *mallory) send(f dm.Frame) error {
	b, err := f.Append(nil)
	m.fatal("frame", err)
	_ = m.stream.SetWriteDeadline(time.Now().Add(10 * time.Second))
	_, err = m.stream.Write(wire.AppendFrame(nil, b))
	return err
}

// next reads the next frame.
func (m *mallory) next(wait time.Duration) (dm.Frame, error) {
	_ = m.stream.SetReadDeadline(time.Now().Add(wait))
	b, err := wire.ReadFrame(m.frames, wire.MaxFrame)
	if err != nil {
		return nil, err
	}
	return dm.ParseFrame(b)
}

// receipts reads until the stream has been quiet for a second or ended, opens
// what comes and gives the highest message number that was receipted.
func (m *mallory) receipts() (upto uint64, got []string) {
	m.t.Helper()
	for {
		f, err := m.next(time.Second)
		if err != nil {
			return upto, got
		}
		switch f := f.(type) {
		case dm.Cells:
			for _, cell := range f.Cells {
				o, err := m.sessions.Open(time.Now(), cell)
				if err != nil {
					got = append(got, "unopened: "+err.Error())
					continue
				}
				m.sessions.Dirty()
				if o.Mark != nil {
					upto = max(upto, o.Mark.Upto)
				}
				for _, msg := range o.Messages {
					if e, err := event.Parse(msg.Payload); err == nil {
						got = append(got, e.Type.String())
					}
				}
			}
		default:
			got = append(got, fmt.Sprintf("%T", f))
		}
	}
}

// ended tells whether the other side ends the stream within a time.
func (m *mallory) ended(wait time.Duration) bool {
	deadline := time.Now().Add(wait)
	for time.Now().Before(deadline) {
		if _, err := m.next(time.Until(deadline)); err != nil {
			var slow interface{ Timeout() bool }
			return !errors.As(err, &slow) || !slow.Timeout()
		}
	}
	return false
}

func link(ctx context.Context, t *testing.T, n *node.Node, many bool) string {
	t.Helper()
	v, err := n.NewInvite(ctx, node.InviteRequest{Many: many})
	if err != nil {
		t.Fatal(err)
	}
	return v.Link
}

// move goes on from another machine, with another transport key.
func (m *mallory) move(ctx context.Context) {
	m.t.Helper()
	m.moves++
	h := m.net.Host(100 + m.moves)
	moved, err := bare(h)
	m.fatal("move", err)
	m.t.Cleanup(func() { moved.Close() })
	m.host.Close()
	m.host, m.stream = moved, nil
}

// half takes part in an exchange until the other side has told about itself.
func (m *mallory) half(ctx context.Context, link string) error {
	invite, err := contact.ParseInvite(link)
	if err != nil {
		return err
	}
	to, err := m.dial(ctx, link)
	if err != nil {
		return err
	}
	s := m.open(ctx, to, wire.Contact)
	defer s.Reset()
	channel, err := contact.StreamChannel(s)
	if err != nil {
		return err
	}
	self := contact.Self{Key: m.key, Person: m.root.Person(), Material: contact.Material{Entries: m.log.Entries(), Record: m.record}}
	i, err := contact.NewInitiator(time.Now(), self, invite, channel, rand.Reader)
	if err != nil {
		return err
	}
	ask, err := i.Start()
	if err != nil {
		return err
	}
	if _, err := s.Write(wire.AppendFrame(nil, ask)); err != nil {
		return err
	}
	b, err := wire.ReadFrame(bufio.NewReader(s), contact.MaxMessage)
	if err != nil {
		return err
	}
	answer, err := contact.ParseMessage(b)
	if refuse, ok := answer.(contact.Refuse); ok {
		return contact.Refused{Code: refuse.Code}
	}
	return err
}

// ask gives the first message of an exchange, framed.
func (m *mallory) ask(to peer.ID, link string) ([]byte, error) {
	invite, err := contact.ParseInvite(link)
	if err != nil {
		return nil, err
	}
	local, err := contact.ParseTransport([]byte(m.host.ID()))
	if err != nil {
		return nil, err
	}
	remote, err := contact.ParseTransport([]byte(to))
	if err != nil {
		return nil, err
	}
	self := contact.Self{Key: m.key, Person: m.root.Person(), Material: contact.Material{Entries: m.log.Entries(), Record: m.record}}
	i, err := contact.NewInitiator(time.Now(), self, invite, contact.Channel{Local: local, Remote: remote}, rand.Reader)
	if err != nil {
		return nil, err
	}
	b, err := i.Start()
	return wire.AppendFrame(nil, b), err
}

// alive counts the streams that the other side has not ended.
func alive(streams []network.Stream) int {
	n := 0
	for _, s := range streams {
		_ = s.SetReadDeadline(time.Now().Add(time.Second))
		var slow interface{ Timeout() bool }
		if _, err := io.Copy(io.Discard, s); errors.As(err, &slow) && slow.Timeout() {
			n++
		}
	}
	return n
}

// foreignCell is a sound cell that nobody here can open.
func (m *mallory) foreignCell() []byte {
	b := make([]byte, wire.MinCell-wire.CellHeader)
	_, _ = rand.Read(b) // never fails
	return wire.AppendCell(nil, b)
}

// take hears all that comes and gives receipts for it.
func (m *mallory) take() int {
	m.t.Helper()
	_, heard := m.receipts()
	_, err := m.sessions.Prepare(time.Now(), m.victim.Device)
	m.fatal("prepare", err)
	m.sessions.Dirty()
	for _, o := range m.sessions.Owing() {
		cell, _, err := m.sessions.Pack(time.Now(), o.Device, o.Session, nil, wire.Padme)
		m.fatal("pack", err)
		m.fatal("send", m.send(dm.Cells{Cells: [][]byte{cell}}))
	}
	return len(heard)
}
