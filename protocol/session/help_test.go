package session

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/wire"
)

// epoch0 is the time at which every test begins.
var epoch0 = time.Unix(1_800_000_000, 0)

// side is one device of a test, with the rows that its disk holds.
type side struct {
	t    testing.TB
	name string
	self Self
	rnd  io.Reader
	m    *Machine
	disk map[string][]byte
}

func seed32(name string) [32]byte { return sha256.Sum256([]byte(name)) }

// newSide makes the device of the person of that name.
func newSide(t testing.TB, person, device string) *side {
	t.Helper()
	key := identity.NewDeviceKey(seed32(person + device + " device"))
	record := identity.DeviceRecord{
		Suite: identity.Suite1, Version: identity.RecordVersion,
		Person: identity.NewRootKey(seed32(person + " root")).Person(), Device: key.Public(),
		Olm:        identity.NewOlmKey(seed32(person + device + " olm")).Public(),
		Rendezvous: identity.NewRendezvousKey(seed32(person + device + " rv")).Public(),
		NotBefore:  epoch0.Unix() - 1000, Expiry: epoch0.Unix() + 1_000_000,
	}
	b, err := identity.SignDeviceRecord(key, record)
	if err != nil {
		t.Fatal(err)
	}
	s := &side{
		t: t, name: person + device,
		self: Self{
			Key: key, Record: record, RecordHash: sha256.Sum256(b), OlmSeed: seed32(person + device + " olm"),
			Head: identity.Head(seed32(person + " head")),
		},
		rnd: rand.NewChaCha8(seed32(person + device + " chance")), disk: map[string][]byte{},
	}
	s.m = New(s.self, s.rnd)
	return s
}

func (s *side) dev() identity.DeviceID { return s.self.Key.ID() }

func (s *side) remote() Remote {
	return Remote{Device: s.dev(), Record: s.self.Record, RecordHash: s.self.RecordHash, Head: s.self.Head}
}

// save writes what changed to the disk.
func (s *side) save() {
	for _, r := range s.m.Dirty() {
		if r.Value == nil {
			delete(s.disk, r.Key)
		} else {
			s.disk[r.Key] = slices.Clone(r.Value)
		}
	}
}

// rows copies the disk, in random order of rows.
func (s *side) rows() []Record {
	var out []Record
	for k, v := range s.disk {
		out = append(out, Record{k, slices.Clone(v)})
	}
	return out
}

// restart loads the machine from the disk: what was not saved is gone.
func (s *side) restart() {
	s.t.Helper()
	m, err := Load(s.self, s.rnd, s.rows())
	if err != nil {
		s.t.Fatalf("%s: load: %v", s.name, err)
	}
	s.m = m
}

func (s *side) bundle(now time.Time, once bool) []byte {
	s.t.Helper()
	b, err := s.m.Bundle(now, once)
	if err != nil {
		s.t.Fatal(err)
	}
	s.save()
	return b
}

// meet tells two sides of each other.
func meet(a, b *side) {
	a.t.Helper()
	for _, err := range []error{a.m.SetRemote(b.remote()), b.m.SetRemote(a.remote())} {
		if err != nil {
			a.t.Fatal(err)
		}
	}
}

// start begins a session from a to b.
func start(now time.Time, a, b *side, once bool) {
	a.t.Helper()
	meet(a, b)
	if err := a.m.Start(now, b.remote(), b.bundle(now, once)); err != nil {
		a.t.Fatal(err)
	}
	a.save()
	b.save()
}

func conv(a, b *side) event.ConversationID {
	return event.PairID(a.self.Record.Person, b.self.Record.Person)
}

func (s *side) seal(now time.Time, to *side, text string) Sealed {
	s.t.Helper()
	x, err := s.m.Seal(now, to.dev(), conv(s, to), []byte(text))
	if err != nil {
		s.t.Fatalf("%s: seal: %v", s.name, err)
	}
	return x
}

// prepare is what a node does before its commit, and the commit.
func (s *side) prepare(now time.Time, to *side) {
	s.t.Helper()
	if _, err := s.m.Prepare(now, to.dev()); err != nil {
		s.t.Fatalf("%s: %v", s.name, err)
	}
	s.save()
}

// cell packs items of one session into one cell.
func (s *side) cell(now time.Time, to *side, items ...Sealed) []byte {
	s.t.Helper()
	id := ID{}
	if len(items) > 0 {
		id = items[0].Session
	} else {
		i, ok := s.m.Current(now, to.dev())
		if !ok {
			s.t.Fatalf("%s: no session", s.name)
		}
		id = i.Session
	}
	s.prepare(now, to)
	c, n, err := s.m.Pack(now, to.dev(), id, items, wire.Padme)
	if err != nil || n != len(items) {
		s.t.Fatalf("%s: pack: %d of %d, %v", s.name, n, len(items), err)
	}
	s.save()
	return c
}

func (s *side) say(now time.Time, to *side, text string) []byte {
	s.t.Helper()
	return s.cell(now, to, s.seal(now, to, text))
}

// open opens a cell that must open.
func (s *side) open(now time.Time, cell []byte) Opened {
	s.t.Helper()
	o, err := s.m.Open(now, cell)
	if err != nil {
		s.t.Fatalf("%s: open: %v", s.name, err)
	}
	s.save()
	return o
}

func texts(os ...Opened) []string {
	var out []string
	for _, o := range os {
		for _, m := range o.Messages {
			out = append(out, string(m.Payload))
		}
	}
	return out
}

func wantTexts(t testing.TB, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: got %q, want %q", what, got, want)
	}
}

// settle lets both sides say what they owe, until both are silent. It returns
// the number of cells.
func settle(now time.Time, a, b *side) int {
	n := 0
	for range 20 {
		quiet := true
		for _, x := range [][2]*side{{a, b}, {b, a}} {
			x[0].prepare(now, x[1])
			for _, owed := range x[0].m.Owing() {
				if owed.Device != x[1].dev() {
					continue
				}
				c, _, err := x[0].m.Pack(now, owed.Device, owed.Session, nil, wire.Padme)
				if err != nil {
					a.t.Fatal(err)
				}
				x[1].open(now, c)
				n++
				quiet = false
			}
		}
		if quiet {
			return n
		}
	}
	a.t.Fatal("both sides never fall silent")
	return n
}

func numbered(prefix string, n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("%s%d", prefix, i+1))
	}
	return out
}

// snapshot is all that a machine would write, so that two of them are equal
// exactly if nothing changed.
func (m *Machine) snapshot() []byte {
	out := fmt.Appendf(nil, "%v %v %d %d %d\n", m.me, len(m.bundles), len(m.starts), len(m.sessions), m.held)
	ids := make([]ID, 0, len(m.sessions))
	for id := range m.sessions {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b ID) int { return slices.Compare(a[:], b[:]) })
	for _, b := range m.bundles {
		out = fmt.Appendf(out, "%+v\n", *b)
	}
	for _, id := range ids {
		s := m.sessions[id]
		out = fmt.Appendf(out, "%+v %+v %x %x %v %v %v\n", s.fixed, s.moving, s.olm.pickle(), s.Header, s.PeerAdvert != nil, s.Control, s.prints)
		for _, seq := range slices.Sorted(maps.Keys(s.held)) {
			out = fmt.Appendf(out, "%d %x\n", seq, s.held[seq])
		}
	}
	return out
}

func hexBytes(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
