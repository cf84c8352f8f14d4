package node_test

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/enc"
	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/dm"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/session"
	"github.com/kinloom/kinloom/protocol/wire"
)

// revoked has mallory's device taken back: the news of it reach the victim by the
// device itself, as they could by any other of the person.
func (m *mallory) revoked() {
	m.t.Helper()
	log, err := m.log.RevokeDevice(m.logKey, m.key.ID(), time.Now())
	m.fatal("revoke", err)
	news, err := event.Entries{Entries: log.Entries()}.Append()
	m.fatal("news", err)
	log1, behind := m.seal(m.conv, m.event(event.Log, news)), m.seal(m.conv, m.text("right behind"))
	m.fatal("send", m.send(dm.Cells{Cells: [][]byte{m.pack(log1, behind)}}))
	m.receipts()
}

// TestRevokedDeviceIsNotHeard: once a person's log says that a device is no longer
// theirs, nothing that it says is shown or receipted, in the sessions that there
// are or in new ones, and what waits for it fails.
func TestRevokedDeviceIsNotHeard(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, _ *node.Node, m *mallory) {
		invite := link(ctx, t, ada, false)
		m.meet(ctx, invite)
		m.say(m.text("before"))
		m.receipts()
		m.fatal("ask", m.send(dm.WantBundle{}))
		f, err := m.next(5 * time.Second)
		m.fatal("bundle", err)
		bundle, ok := f.(dm.Bundle)
		if !ok {
			t.Fatalf("got %T, want a bundle", f)
		}
		queued := say(ctx, t, ada, "Mallory", "to the thief")
		m.revoked()
		for _, how := range []string{"the old session", "a new session"} {
			m.reopen(ctx, invite)
			m.fatal("send", m.send(dm.Cells{Cells: [][]byte{m.pack(m.seal(m.conv, m.text("in "+how)))}}))
			if upto, got := m.receipts(); upto > 0 {
				t.Errorf("what a revoked device said in %s was receipted up to %d (%v)", how, upto, got)
			}
			m.sessions.Forget(m.victim.Device)
			m.fatal("start", m.sessions.Start(time.Now(), m.victim, bundle.Bundle))
		}
		if got := texts(ctx, t, ada, "Mallory"); got != "before|to the thief" {
			t.Errorf("Ada reads %q", got)
		}
		if got, err := ada.Wait(ctx, queued.ID, "delivered"); err != nil || got.State != "failed" {
			t.Errorf("what waited for a revoked device is %q (%v), want failed", got.State, err)
		}
	})
}

// TestRevocationBeforeWhatIsNotKnown: a later kinloom has written an entry of a type
// that is not known here behind a revocation. The entries before it stand: the
// device is not heard any more, whether the news are the whole log or its end.
func TestRevocationBeforeWhatIsNotKnown(t *testing.T) {
	for name, from := range map[string]int{"the whole log": 0, "the end of it": 3} {
		t.Run(name, func(t *testing.T) {
			attacked(t, func(ctx context.Context, t *testing.T, ada, _ *node.Node, m *mallory) {
				m.meet(ctx, link(ctx, t, ada, false))
				m.say(m.text("before"))
				m.receipts()
				log, err := m.log.RevokeDevice(m.logKey, m.key.ID(), time.Now())
				m.fatal("revoke", err)
				person, head := log.Person(), log.Head()
				later, err := enc.Marshal(map[int]any{
					1: 1, 2: 1, 3: person[:], 4: log.Seq() + 1, 5: head[:], 6: time.Now().Unix(), 7: 6, 8: map[int]any{},
				})
				m.fatal("entry of a later version", err)
				entries := append(log.Entries(), append(make([]byte, identity.SignatureSize), later...))
				if read, err := identity.ParseLog(person, entries); !errors.Is(err, identity.ErrUnknownEntry) || read.Seq() != log.Seq() {
					t.Fatalf("the log is read up to %d: %v", read.Seq(), err)
				}
				news, err := event.Entries{Entries: entries[from:]}.Append()
				m.fatal("news", err)
				told, behind := m.seal(m.conv, m.event(event.Log, news)), m.seal(m.conv, m.text("right behind"))
				m.fatal("send", m.send(dm.Cells{Cells: [][]byte{m.pack(told, behind)}}))
				m.receipts()
				if got := texts(ctx, t, ada, "Mallory"); got != "before" {
					t.Errorf("Ada reads %q of a revoked device, want %q", got, "before")
				}
			})
		})
	}
}

// TestRevokedDeviceAnswersAnInvite: a thief who shows the log of before the
// revocation does not become the person again: not on the inviter's side, and not
// on the side that answers the thief's own invite.
func TestRevokedDeviceAnswersAnInvite(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, _ *node.Node, m *mallory) {
		m.meet(ctx, link(ctx, t, ada, false))
		m.say(m.text("before"))
		m.receipts()
		m.revoked()
		if _, err := ada.RemoveContact(ctx, "Mallory", false); err != nil {
			t.Fatal(err)
		}
		m.name = "Thief"
		_, err := m.exchange(ctx, link(ctx, t, ada, false), nil)
		if refused, ok := errors.AsType[contact.Refused](err); !ok || refused.Code != wire.CodeProof {
			t.Errorf("a revoked device answers an invite: %v, want %v", err, wire.CodeProof)
		}
		c, err := ada.Contact(ctx, m.root.Person().String())
		if err != nil || c.State != "removed" || c.ProfileName == "Thief" {
			t.Errorf("the person is a %s called %q (%v), want one that was removed", c.State, c.ProfileName, err)
		}
		if _, err := ada.AddContact(ctx, m.invites(ctx), node.AddOptions{}); err == nil || !strings.Contains(err.Error(), "no longer this person's") {
			t.Errorf("Ada adds the revoked device as the person: %v", err)
		}
		if c, err := ada.Contact(ctx, m.root.Person().String()); err != nil || c.State != "removed" {
			t.Errorf("the person is a %s (%v), want one that was removed", c.State, err)
		}
	})
}

// invites makes an invite of mallory's own and serves whoever answers it.
func (m *mallory) invites(ctx context.Context) string {
	m.t.Helper()
	record, hash, err := identity.ParseDeviceRecord(m.record)
	m.fatal("own record", err)
	sessions := session.New(session.Self{Key: m.key, Record: record, RecordHash: hash, OlmSeed: m.olm, Head: m.log.Head()}, rand.Reader)
	bundle, err := sessions.Bundle(time.Now(), true)
	m.fatal("bundle", err)
	told := admits{contact.Material{Entries: m.log.Entries(), Record: m.record, Once: bundle, Name: m.name}}
	m.host.SetStreamHandler(wire.Contact, func(s network.Stream) {
		channel, err := contact.StreamChannel(s)
		if err == nil {
			_, err = contact.Serve(ctx, s, contact.NewResponder(contact.Self{Key: m.key, Person: m.root.Person()}, channel, rand.Reader), told)
		}
		if err != nil {
			m.t.Logf("mallory serves: %v", err)
		}
	})
	transport, err := contact.ParseTransport([]byte(m.host.ID()))
	m.fatal("transport", err)
	invite := contact.Invite{Person: m.root.Person().Hash16(), Transport: transport, Addresses: [][]byte{m.host.Addrs()[0].Bytes()}}
	text, err := invite.Link()
	m.fatal("invite", err)
	return text
}

// admits lets everybody in.
type admits struct{ material contact.Material }

func (a admits) Admit(context.Context, contact.Token, contact.Transport) (wire.Code, contact.Material, error) {
	return 0, a.material, nil
}

func (a admits) Store(context.Context, contact.Token, contact.Met) (wire.Code, bool, error) {
	return 0, false, nil
}
