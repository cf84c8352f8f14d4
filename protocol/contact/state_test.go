package contact

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/wire"
)

func TestExchange(t *testing.T) {
	a, b := newParty(t, 1), newParty(t, 2)
	a.Material.Name, b.Material.Name = "Ada", "Bob\u202e \u200b"
	sizes := make([]int, 5)
	gotB, gotA, err := newPair(t, a, b).play(func(n int, b []byte) []byte { sizes[n] = len(b); return b })
	if err != nil {
		t.Fatal(err)
	}
	if gotA.Words != gotB.Words || gotA.Words[0] == "" {
		t.Errorf("check words %v and %v, want the same three", gotA.Words, gotB.Words)
	}
	for _, c := range []struct {
		name      string
		got       Peer
		want      *party
		shownName string
	}{{"inviter", gotB.Peer, a, "Ada"}, {"invited", gotA.Peer, b, "Bob"}} {
		switch {
		case c.got.Person() != c.want.Person, c.got.Device() != c.want.Key.ID(), c.got.Transport != c.want.transport:
			t.Errorf("%s: not who took part", c.name)
		case c.got.Log.Head() != c.want.log.Head():
			t.Errorf("%s: log head %v, want %v", c.name, c.got.Log.Head(), c.want.log.Head())
		case string(c.got.Once) != "fresh bundle", string(c.got.Static) != "static bundle":
			t.Errorf("%s: bundles changed", c.name)
		case c.got.Name != c.shownName:
			t.Errorf("%s: name %q, want %q", c.name, c.got.Name, c.shownName)
		}
		if d := cmp.Diff(c.want.Material.Addresses, c.got.Addresses); d != "" {
			t.Errorf("%s: addresses %s", c.name, d)
		}
	}
	if sizes[1] > 96 || sizes[4] > 96 {
		t.Errorf("sizes of the messages are %v, want the short ones below 96", sizes[1:])
	}
}

func TestRequestIsSigned(t *testing.T) {
	a, b := newParty(t, 1), newParty(t, 2)
	p := newPair(t, a, b)
	_, _, err := p.play(func(n int, m []byte) []byte {
		if n == 4 { // a contact made to look like a request
			m = bytes.Replace(m, []byte{2, 0xf4}, []byte{2, 0xf5}, 1)
		}
		return m
	})
	if !errors.Is(err, ErrProof) {
		t.Errorf("Accept with another state: %v, want ErrProof", err)
	}
}

// TestFlippedBits: whatever bit of whichever message changes on the way, no
// side ends with a contact that the other does not have too.
func TestFlippedBits(t *testing.T) {
	a, b := newParty(t, 1), newParty(t, 2)
	lengths := make([]int, 5)
	if _, _, err := newPair(t, a, b).play(func(n int, m []byte) []byte { lengths[n] = len(m); return m }); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 4; n++ {
		for at := range lengths[n] {
			bit := byte(1) << (at % 8)
			gotB, gotA, err := newPair(t, a, b).play(func(m int, msg []byte) []byte {
				if m != n || at >= len(msg) {
					return msg
				}
				msg = bytes.Clone(msg)
				msg[at] ^= bit
				return msg
			})
			if err == nil || gotB != nil {
				t.Fatalf("message %d, byte %d, bit %#x: the exchange went on (%v)", n, at, bit, err)
			}
			if gotA != nil && n != 4 {
				t.Fatalf("message %d, byte %d, bit %#x: the inviter has a contact", n, at, bit)
			}
		}
	}
}

// TestOtherMessages puts every message, cut at every byte or whole, in the
// place of every other one.
func TestOtherMessages(t *testing.T) {
	a, b := newParty(t, 1), newParty(t, 2)
	var all [][]byte
	if _, _, err := newPair(t, a, b).play(func(_ int, m []byte) []byte { all = append(all, m); return m }); err != nil {
		t.Fatal(err)
	}
	hello, err := Answer{Versions: []uint16{1}}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, hello, []byte("GET / HTTP/1.1\r\n\r\n"), nil, []byte{0xff})
	for n := 1; n <= 4; n++ {
		for which, other := range all {
			if which == n-1 {
				continue
			}
			_, _, err := newPair(t, a, b).play(func(m int, msg []byte) []byte {
				if m == n {
					return other
				}
				return msg
			})
			if !errors.Is(err, ErrOrder) && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrLimit) {
				t.Errorf("message %d in place of %d: %v, want ErrOrder or ErrMalformed", which+1, n, err)
			}
		}
		for cut := range len(all[n-1]) {
			_, _, err := newPair(t, a, b).play(func(m int, msg []byte) []byte {
				if m == n {
					return msg[:cut]
				}
				return msg
			})
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("message %d cut at byte %d: %v, want ErrMalformed", n, cut, err)
			}
		}
	}
}

// TestRepeatedMessages: a second copy of any message ends the exchange, and
// nothing is taken after the end.
func TestRepeatedMessages(t *testing.T) {
	a, b := newParty(t, 1), newParty(t, 2)
	p := newPair(t, a, b)
	ask, _ := p.i.Start()
	if _, err := p.i.Start(); !errors.Is(err, ErrOver) {
		t.Errorf("second Start: %v, want ErrOver", err)
	}
	if _, err := p.r.Handle(epoch, ask); err != nil {
		t.Fatal(err)
	}
	step, err := p.r.Handle(epoch, ask)
	if !errors.Is(err, ErrOrder) || step.Send == nil {
		t.Errorf("second Ask: %v, want ErrOrder and a refusal", err)
	}
	if _, err := p.r.Admit(0, a.Material); !errors.Is(err, ErrOver) {
		t.Errorf("Admit after the end: %v, want ErrOver", err)
	}
	if _, err := p.r.Settle(0, false); !errors.Is(err, ErrOver) {
		t.Errorf("Settle before its time: %v, want ErrOver", err)
	}
	if _, err := p.i.Handle(epoch, step.Send); !errors.Is(err, Refused{wire.CodeOrder}) {
		t.Errorf("the other side hears %v, want Refused{order}", err)
	}
	if _, err := p.i.Handle(epoch, step.Send); !errors.Is(err, ErrOver) {
		t.Errorf("message after the end: %v, want ErrOver", err)
	}
}

// TestReplayToAnotherTransport: what was recorded between two hosts proves
// nothing to a third.
func TestReplayToAnotherTransport(t *testing.T) {
	a, b := newParty(t, 1), newParty(t, 2)
	// b talks to a through a relay of the stream that has its own key.
	p := newPair(t, a, b)
	p.r = NewResponder(a.Self, Channel{Local: a.transport, Remote: Transport{9}}, a.random)
	if _, _, err := p.play(straight); !errors.Is(err, ErrProof) {
		t.Errorf("exchange passed on from another host: %v, want ErrProof", err)
	}
	// The same, seen from b: the responder signed for another connection.
	p = newPair(t, a, b)
	p.i.channel.Local = Transport{9}
	if _, _, err := p.play(straight); !errors.Is(err, ErrProof) {
		t.Errorf("exchange with another channel at the initiator: %v, want ErrProof", err)
	}
}

func TestWhoAnswers(t *testing.T) {
	a, b, c := newParty(t, 1), newParty(t, 2), newParty(t, 3)
	other := func(p *party, change func(*Material)) Material {
		m := p.Material
		m.Entries = slices.Clone(m.Entries)
		change(&m)
		return m
	}
	revoked, err := a.log.RevokeDevice(a.logKey, a.Key.ID(), epoch)
	if err != nil {
		t.Fatal(err)
	}
	later := epoch.Add(24 * time.Hour)
	renewal := a.record(t, later)
	renewed, err := a.log.RenewDevice(a.logKey, renewal, later)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name     string
		material Material
		now      time.Time
		want     error
		says     string
	}{
		{"the inviter", a.Material, epoch, nil, ""},
		{"another person", c.Material, epoch, ErrPerson, ""},
		{"the invited person", b.Material, epoch, ErrOwnInvite, ""},
		{"revoked device", other(a, func(m *Material) { m.Entries = revoked.Entries() }), epoch, ErrMaterial, "revoked"},
		{"log of someone else", other(a, func(m *Material) { m.Entries = c.Material.Entries }), epoch, ErrMaterial, "another person"},
		{"record of someone else", other(a, func(m *Material) { m.Record = c.Material.Record }), epoch, ErrMaterial, "another person"},
		{"older record than the log's", other(a, func(m *Material) { m.Entries = renewed.Entries() }), epoch, ErrMaterial, "another record"},
		{"renewed record", other(a, func(m *Material) { m.Entries, m.Record = renewed.Entries(), renewal }), later, nil, ""},
		{"device not in the log", other(a, func(m *Material) { m.Entries = m.Entries[:2] }), epoch, ErrMaterial, "not in its person's log"},
		{"no device at all", other(a, func(m *Material) { m.Entries = m.Entries[:1] }), epoch, ErrMaterial, "without genesis"},
		{"log with a gap", other(a, func(m *Material) { m.Entries = slices.Delete(m.Entries, 1, 2) }), epoch, ErrMaterial, "log entry"},
		{"damaged entry at the end", other(a, func(m *Material) {
			m.Entries = append(m.Entries, flip(m.Entries[2], 70))
		}), epoch, ErrMaterial, "log entry 3"},
		{"flipped record", other(a, func(m *Material) { m.Record = flip(m.Record, 3) }), epoch, ErrMaterial, "signature"},
		{"certificate of 90 days ago", a.Material, epoch.Add(90 * 24 * time.Hour), ErrMaterial, "expired"},
		{"a clock three days behind", a.Material, epoch.Add(-72 * time.Hour), ErrMaterial, "early"},
		{"a clock one day behind", a.Material, epoch.Add(-24 * time.Hour), nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPair(t, a, b)
			ask, _ := p.i.Start()
			if _, err := p.r.Handle(tc.now, ask); err != nil {
				t.Fatal(err)
			}
			step, err := p.r.Admit(0, tc.material)
			if err != nil {
				t.Fatal(err)
			}
			step, err = p.i.Handle(tc.now, step.Send)
			if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if err == nil {
				return
			}
			if !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %q, want it to say %q", err, tc.says)
			}
			if _, err := p.r.Handle(tc.now, step.Send); err == nil {
				t.Error("the other side was not told")
			}
		})
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

// TestStolenDevice: a device record and log are public among contacts; without
// the device's key they are worth nothing.
func TestStolenDevice(t *testing.T) {
	a, b, thief := newParty(t, 1), newParty(t, 2), newParty(t, 3)
	thief.Material, thief.Person = b.Material, b.Person
	if _, _, err := newPair(t, a, thief).play(straight); !errors.Is(err, ErrProof) {
		t.Errorf("someone else's material: %v, want ErrProof", err)
	}
	thief = newParty(t, 4)
	thief.Material = a.Material
	p := newPair(t, a, b)
	p.r.self.Key = thief.Key // the host of the invite, but not the device
	if _, _, err := p.play(straight); !errors.Is(err, ErrProof) {
		t.Errorf("responder without the device key: %v, want ErrProof", err)
	}
}

// TestRoles: the signature of one side is never taken for the other's.
func TestRoles(t *testing.T) {
	a := newParty(t, 1)
	sum := [32]byte{1}
	asInitiator := a.Key.Sign(identity.ContextContact, signedByInitiator(sum))
	for _, request := range []bool{false, true} {
		if a.Key.Public().Verify(identity.ContextContact, signedByResponder(sum, request), asInitiator) == nil {
			t.Errorf("initiator's signature passes for the responder's (request %v)", request)
		}
	}
	if a.Key.Public().Verify(identity.ContextBundle, signedByInitiator(sum), asInitiator) == nil {
		t.Error("signature of an exchange passes for one of a bundle")
	}
}

func TestBeforeDialling(t *testing.T) {
	a, b := newParty(t, 1), newParty(t, 2)
	channel := Channel{Local: b.transport, Remote: a.transport}
	for _, tc := range []struct {
		name    string
		now     time.Time
		self    Self
		channel Channel
		want    error
	}{
		{"own invite", epoch, a.Self, channel, ErrOwnInvite},
		{"expired", epoch.Add(14 * 24 * time.Hour), b.Self, channel, ErrInviteExpired},
		{"one second before", epoch.Add(14*24*time.Hour - time.Second), b.Self, channel, nil},
		{"another host", epoch, b.Self, Channel{Local: b.transport, Remote: b.transport}, ErrTransport},
		{"no log of one's own", epoch, Self{Key: b.Key, Person: b.Person}, channel, ErrLimit},
	} {
		if _, err := NewInitiator(tc.now, tc.self, a.invite(), tc.channel, random(1)); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

// TestRefusals: each reason reaches the other side, and says what to do.
func TestRefusals(t *testing.T) {
	a, b := newParty(t, 1), newParty(t, 2)
	for _, tc := range []struct {
		code   wire.Code
		settle bool
		says   string
	}{
		{CodeTokenUnknown, false, "ask for a new one"},
		{CodeTokenRevoked, false, "taken back"},
		{wire.CodeExpired, false, "expired"},
		{wire.CodeUsed, false, "used before"},
		{wire.CodeUsed, true, "used before"},
		{wire.CodeBusy, true, "try again later"},
		{wire.CodeStorage, true, "try again later"},
		{wire.CodeRefused, false, "does not know this invite"},
		{CodeOwnInvite, true, "your own"},
		{wire.CodeVersion, false, "update"},
		{wire.CodeProof, true, "in between"},
		{999, false, "code 999"},
	} {
		p := newPair(t, a, b)
		ask, _ := p.i.Start()
		if _, err := p.r.Handle(epoch, ask); err != nil {
			t.Fatal(err)
		}
		var step Step
		var err error
		if tc.settle {
			if step, err = p.r.Admit(0, a.Material); err == nil {
				step, err = p.i.Handle(epoch, step.Send)
			}
			if err == nil {
				_, err = p.r.Handle(epoch, step.Send)
			}
			if err != nil {
				t.Fatal(err)
			}
			step, err = p.r.Settle(tc.code, false)
		} else {
			step, err = p.r.Admit(tc.code, Material{})
		}
		if !errors.Is(err, Declined{tc.code}) || !strings.Contains(err.Error(), tc.code.String()) {
			t.Errorf("%v: this side gets %v, want Declined", tc.code, err)
		}
		if len(step.Send) > 16 {
			t.Errorf("%v: refusal of %d bytes tells more than a code", tc.code, len(step.Send))
		}
		_, err = p.i.Handle(epoch, step.Send)
		if !errors.Is(err, Refused{tc.code}) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%v: other side gets %v, want Refused that says %q", tc.code, err, tc.says)
		}
	}
}

// TestSuites: no suite in common ends the exchange, and so does one that was
// not offered; nothing falls back.
func TestSuites(t *testing.T) {
	a, b := newParty(t, 1), newParty(t, 2)
	ask, err := Ask{Suites: []uint16{2, 3}}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := newPair(t, a, b)
	step, err := p.r.Handle(epoch, ask)
	if !errors.Is(err, ErrSuite) {
		t.Errorf("unknown suites: %v, want ErrSuite", err)
	}
	if _, err := p.i.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.i.Handle(epoch, step.Send); !errors.Is(err, Refused{wire.CodeVersion}) {
		t.Errorf("the other side hears %v, want Refused{version}", err)
	}
	_, _, err = newPair(t, a, b).play(func(n int, m []byte) []byte {
		if n == 2 {
			m = bytes.Replace(m, []byte{2, 1, 3}, []byte{2, 2, 3}, 1)
		}
		return m
	})
	if !errors.Is(err, ErrSuite) {
		t.Errorf("suite that was not offered: %v, want ErrSuite", err)
	}
}

func TestNothingForStrangers(t *testing.T) {
	a, b := newParty(t, 1), newParty(t, 2)
	p := newPair(t, a, b)
	ask, _ := p.i.Start()
	if n := p.r.Limit(); n != MaxShort {
		t.Errorf("a stranger may send %d bytes, want %d", n, MaxShort)
	}
	step, err := p.r.Handle(epoch, ask)
	if err != nil || step.Token == nil || *step.Token != p.i.invite.Token || step.Send != nil {
		t.Fatalf("Ask gives %+v, %v; want the token and nothing sent", step, err)
	}
	if p.r.ask == nil || p.r.offer != nil {
		t.Error("an offer was made before the token was looked at")
	}
}
