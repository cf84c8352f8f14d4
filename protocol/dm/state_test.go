package dm

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/kinloom/kinloom/protocol/wire"
)

var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func body(tb testing.TB, f Frame) []byte {
	tb.Helper()
	b, err := f.Append(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func cell(size int, fill byte) []byte { return bytes.Repeat([]byte{fill}, size) }

func someCells() Cells { return Cells{[][]byte{cell(256, 1), cell(300, 2)}} }

// step is one event of a script: what this side sends, or what comes in.
type step struct {
	send Frame
	take Frame
	want error
}

func TestOrder(t *testing.T) {
	nack := Nack{Cell: wire.CellID{1}, Code: wire.CodeUnopened}
	for _, tc := range []struct {
		name   string
		dialer bool
		steps  []step
	}{
		{"dialer writes first", true, []step{{send: someCells()}, {take: someCells()}}},
		{"listener speaks first", true, []step{{take: someCells(), want: ErrOrder}}},
		{"listener is quiet until spoken to", false, []step{{send: someCells(), want: ErrOrder}, {take: someCells()}, {send: someCells()}}},
		{"Bye at once", true, []step{{send: Bye{}}, {take: Bye{}}}},
		{"after our Bye", true, []step{{send: Bye{}}, {send: someCells(), want: ErrOrder}, {take: someCells()}}},
		{"after their Bye", false, []step{{take: Bye{}}, {send: someCells()}, {send: Bye{}}, {take: someCells(), want: ErrOrder}}},
		{"Bye twice", false, []step{{take: Bye{}}, {take: Bye{}, want: ErrOrder}}},
		{"refusal of nothing", false, []step{{take: nack, want: ErrUnsolicited}}},
		{"one refusal a cell", true, []step{{send: someCells()}, {take: nack}, {take: nack}, {take: nack, want: ErrUnsolicited}}},
		{"bundle that nobody asked for", true, []step{{send: someCells()}, {take: Bundle{Bundle: []byte{1}}, want: ErrUnsolicited}}},
		{"first frame is a refusal", false, []step{{take: nack, want: ErrUnsolicited}}},
	} {
		m := NewMachine(Config{Dialer: tc.dialer, Known: true})
		for i, s := range tc.steps {
			var err error
			if s.send != nil {
				err = m.Send(s.send)
			} else {
				_, err = m.Handle(epoch, body(t, s.take))
			}
			if !errors.Is(err, s.want) {
				t.Errorf("%s: step %d: %v, want %v", tc.name, i, err, s.want)
			}
		}
	}
}

func TestBundles(t *testing.T) {
	m := NewMachine(Config{Dialer: true, Known: true})
	if err := m.Want(); err != nil {
		t.Fatal(err)
	}
	if err := m.Want(); !errors.Is(err, ErrOrder) {
		t.Errorf("second question: %v, want ErrOrder", err)
	}
	if err := m.Send(WantBundle{}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{nil, ErrUnsolicited} {
		if _, err := m.Handle(epoch, body(t, Bundle{Bundle: []byte("signed")})); !errors.Is(err, want) {
			t.Errorf("answer %d: %v, want %v", i+1, err, want)
		}
	}
}

// TestBundleRates: 10,000 questions cost a contact's device Bundles fresh key
// pairs and then one each BundleEvery, and a stranger none (H15).
func TestBundleRates(t *testing.T) {
	ask := body(t, WantBundle{})
	for _, tc := range []struct {
		name  string
		known bool
		every time.Duration
		asked int
		given int
		want  error
	}{
		{"stranger", false, time.Second, 10_000, 0, ErrFlood},
		{"stranger, slowly", false, time.Hour, 10_000, 0, ErrFlood},
		{"contact at once", true, 0, 10_000, Bundles, ErrFlood},
		{"contact within reason", true, BundleEvery, 1000, 1000, nil},
	} {
		m := NewMachine(Config{Known: tc.known})
		now, given, refused := epoch, 0, 0
		var err error
		for range tc.asked {
			var e Event
			if e, err = m.Handle(now, ask); err != nil {
				break
			}
			if e.Deny {
				refused++
			} else {
				given++
			}
			now = now.Add(tc.every)
		}
		if given != tc.given || refused > MaxRefusals || !errors.Is(err, tc.want) {
			t.Errorf("%s: %d given, %d refused, %v; want %d given, %v", tc.name, given, refused, err, tc.given, tc.want)
		}
	}
}

// TestRecognised: a device whose cells do not open gets a bundle once it is
// recognised in another way.
func TestRecognised(t *testing.T) {
	m := NewMachine(Config{})
	for range MaxTries {
		m.Give()
	}
	if e, err := m.Handle(epoch, body(t, WantBundle{})); err != nil || !e.Deny || !m.Paused() {
		t.Fatalf("a stranger asks: %+v, %v, paused %v; want to be denied and paused", e, err, m.Paused())
	}
	m.Recognised()
	if e, err := m.Handle(epoch, body(t, WantBundle{})); err != nil || e.Deny || m.Paused() {
		t.Errorf("a contact asks: %+v, %v, paused %v; want a bundle", e, err, m.Paused())
	}
}

// TestStranger: whoever is not known has MaxTries cells, given in any way, and
// then nothing more is read until one of them has opened.
func TestStranger(t *testing.T) {
	m := NewMachine(Config{})
	for n := range MaxTries {
		if m.Paused() {
			t.Fatalf("paused after %d cells, want %d", n, MaxTries)
		}
		m.Give()
	}
	if !m.Paused() {
		t.Errorf("not paused after %d cells", MaxTries)
	}
	for n := range MaxTries - 1 {
		if err := m.Refused(epoch, wire.CodeUnopened); err != nil {
			t.Fatalf("cell %d: %v", n+1, err)
		}
		if !m.Paused() {
			t.Fatal("a cell that did not open makes room for another")
		}
	}
	if err := m.Refused(epoch, wire.CodeUnopened); !errors.Is(err, ErrStranger) {
		t.Errorf("cell %d that does not open: %v, want ErrStranger", MaxTries, err)
	}

	m = NewMachine(Config{})
	for range MaxTries {
		m.Give()
	}
	m.Opened()
	if m.Paused() || !m.Known() {
		t.Error("a cell opened, and the other side is still a stranger")
	}
}

func TestOurOwnTroubleIsNotTheirs(t *testing.T) {
	m := NewMachine(Config{})
	for _, code := range []wire.Code{wire.CodeStorage, wire.CodeBusy, wire.CodeClosing} {
		for range 2 * MaxTries {
			m.Give()
			if err := m.Refused(epoch, code); err != nil {
				t.Fatalf("%v: %v", code, err)
			}
		}
	}
	if m.Paused() {
		t.Error("paused by trouble of our own")
	}
}

func TestKnownDeviceThatLostItsState(t *testing.T) {
	m := NewMachine(Config{Known: true})
	now := epoch
	for n := range KnownTries {
		m.Give()
		if err := m.Refused(now, wire.CodeUnopened); err != nil {
			t.Fatalf("cell %d: %v", n+1, err)
		}
	}
	if err := m.Refused(now, wire.CodeUnopened); !errors.Is(err, ErrFlood) {
		t.Errorf("cell %d: %v, want ErrFlood", KnownTries+1, err)
	}
	if err := m.Refused(now.Add(TryEvery), wire.CodeUnopened); err != nil {
		t.Errorf("one more after %v: %v", TryEvery, err)
	}
}

func TestVerdictsWithoutCells(t *testing.T) {
	m := NewMachine(Config{})
	for range 3 {
		m.Opened()
	}
	m.known = false
	for range MaxTries {
		m.Give()
	}
	if !m.Paused() {
		t.Error("verdicts without cells made room for more")
	}
}

func TestBucket(t *testing.T) {
	b := bucket{size: 3, every: time.Minute}
	for _, tc := range []struct {
		at   time.Duration
		want bool
	}{
		{0, true},
		{0, true},
		{0, true},
		{0, false},
		{59 * time.Second, false},
		{time.Minute, true},
		{time.Minute, false},
		{time.Hour, true},
		{time.Hour, true},
		{time.Hour, true},
		{time.Hour, false},
		{0, false},          // the clock jumped back: empty, but
		{time.Minute, true}, // not for the hour that it jumped
	} {
		if got := b.take(epoch.Add(tc.at)); got != tc.want {
			t.Errorf("at %v: %v, want %v", tc.at, got, tc.want)
		}
	}
}

func TestHandleRefusesAndStays(t *testing.T) {
	m := NewMachine(Config{Dialer: true, Known: true})
	if err := m.Send(someCells()); err != nil {
		t.Fatal(err)
	}
	before := *m
	for _, b := range [][]byte{nil, {0xa0}, {0xa1, 1, 9}, []byte("GET / HTTP/1.1"), cell(wire.MaxFrame+1, 0xa1)} {
		if _, err := m.Handle(epoch, b); err == nil {
			t.Errorf("frame %.20x passes", b)
		}
		if *m != before {
			t.Fatalf("frame %.20x was refused and changed the machine", b)
		}
	}
}
