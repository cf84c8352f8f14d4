package contact

import (
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kinloom/kinloom/identity"
)

// epoch is the time of all tests that have no clock of their own. synctest
// starts there too.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// random returns a stream of bytes drawn from seed.
func random(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

func draw32(r io.Reader) (b [32]byte) {
	if _, err := io.ReadFull(r, b[:]); err != nil {
		panic(err)
	}
	return b
}

// party is a person with one device.
type party struct {
	Self
	root      identity.RootKey
	logKey    identity.LogKey
	log       *identity.Log
	transport Transport
	random    io.Reader
}

func newParty(tb testing.TB, seed byte) *party {
	tb.Helper()
	r := random(seed)
	p := &party{
		root: identity.NewRootKey(draw32(r)), logKey: identity.NewLogKey(draw32(r)),
		transport: Transport(draw32(r)), random: r,
	}
	p.Key = identity.NewDeviceKey(draw32(r))
	p.Person = p.root.Person()
	record := p.record(tb, epoch)
	var err error
	if p.log, err = identity.NewLog(p.root, p.logKey.Public(), epoch); err != nil {
		tb.Fatal(err)
	}
	if p.log, err = p.log.AddDevice(p.logKey, record, p.Key, epoch); err != nil {
		tb.Fatal(err)
	}
	p.Material = Material{
		Entries: p.log.Entries(), Record: record,
		Static: []byte("static bundle"), Once: []byte("fresh bundle"),
		Name: "party", Addresses: [][]byte{{4, 127, 0, 0, 1}},
	}
	return p
}

// record makes a device record that begins at from.
func (p *party) record(tb testing.TB, from time.Time) []byte {
	tb.Helper()
	b, err := identity.SignDeviceRecord(p.Key, identity.DeviceRecord{
		Person: p.Person, Device: p.Key.Public(),
		Olm:        identity.NewOlmKey([32]byte{1, p.Person[0]}).Public(),
		Rendezvous: identity.NewRendezvousKey([32]byte{2, p.Person[0]}).Public(),
		NotBefore:  from.Unix(), Expiry: from.Add(identity.Lifetime).Unix(),
	})
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// invite of the party, good for two weeks.
func (p *party) invite() Invite {
	return Invite{
		Person: p.Person.Hash16(), Transport: p.transport, Token: Token{1, 2, 3},
		Expiry:    ExpiryHours(epoch.Add(14 * 24 * time.Hour)),
		Addresses: [][]byte{{4, 192, 0, 2, 1, 0x91, 0x02, 0x1f, 0x40, 0xcd, 0x03}},
	}
}

// pair is an exchange about to begin.
type pair struct {
	a, b *party // a invited b
	i    *Initiator
	r    *Responder
}

func newPair(tb testing.TB, a, b *party) *pair {
	tb.Helper()
	i, err := NewInitiator(epoch, b.Self, a.invite(), Channel{Local: b.transport, Remote: a.transport}, b.random)
	if err != nil {
		tb.Fatal(err)
	}
	return &pair{a, b, i, NewResponder(a.Self, Channel{Local: a.transport, Remote: b.transport}, a.random)}
}

// play runs the exchange, with every message passed through wire, which gets
// its number from 1 to 4. It returns the results of both sides, nil where a
// side did not get to the end, and the first error.
func (p *pair) play(wire func(n int, b []byte) []byte) (initiator, responder *Result, err error) {
	ask, err := p.i.Start()
	if err != nil {
		return nil, nil, err
	}
	step, err := p.r.Handle(epoch, wire(1, ask))
	if err != nil {
		return nil, nil, err
	}
	if step, err = p.r.Admit(0, p.a.Material); err != nil {
		return nil, nil, err
	}
	if step, err = p.i.Handle(epoch, wire(2, step.Send)); err != nil {
		return nil, nil, err
	}
	if _, err = p.r.Handle(epoch, wire(3, step.Send)); err != nil {
		return nil, nil, err
	}
	if step, err = p.r.Settle(0, false); err != nil {
		return nil, nil, err
	}
	responder = step.Result
	step, err = p.i.Handle(epoch, wire(4, step.Send))
	return step.Result, responder, err
}

func straight(_ int, b []byte) []byte { return b }
