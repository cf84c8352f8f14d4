package identity

import (
	"errors"
	"testing"
	"time"
)

// day0 is when everything in these tests begins.
func day0() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

func day(n int) time.Time { return day0().AddDate(0, 0, n) }

// seed makes one seed per purpose and number.
func seed(purpose string, n int) [32]byte {
	var s [32]byte
	copy(s[:], purpose)
	s[31] = byte(n)
	s[30] = byte(n >> 8)
	return s
}

func testRoot(n int) RootKey     { return NewRootKey(seed("root", n)) }
func testLogKey(n int) LogKey    { return NewLogKey(seed("log", n)) }
func testDevice(n int) DeviceKey { return NewDeviceKey(seed("device", n)) }

func testRecord(p PersonID, n int, from time.Time) DeviceRecord {
	return DeviceRecord{
		Suite: Suite1, Version: RecordVersion, Person: p, Device: testDevice(n).Public(),
		Olm: NewOlmKey(seed("olm", n)).Public(), Rendezvous: NewRendezvousKey(seed("rendezvous", n)).Public(),
		NotBefore: from.Unix(), Expiry: from.Add(Lifetime).Unix(), Capabilities: []string{"dm/1"},
	}
}

func signedRecord(t testing.TB, p PersonID, n int, from time.Time) []byte {
	t.Helper()
	b, err := SignDeviceRecord(testDevice(n), testRecord(p, n, from))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// writer writes one branch of a log and stops the test at the first error.
type writer struct {
	t   testing.TB
	log *Log
	key LogKey
	at  time.Time
}

func begin(t testing.TB, root RootKey, key LogKey) *writer {
	t.Helper()
	l, err := NewLog(root, key.Public(), day0())
	if err != nil {
		t.Fatal(err)
	}
	return &writer{t: t, log: l, key: key, at: day0()}
}

// branch goes on from the same log by itself.
func (w *writer) branch() *writer {
	c := *w
	return &c
}

func (w *writer) take(l *Log, err error) *writer {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	w.log = l
	return w
}

func (w *writer) add(n int) *writer {
	w.t.Helper()
	return w.take(w.log.AddDevice(w.key, signedRecord(w.t, w.log.Person(), n, w.at), testDevice(n), w.at))
}

func (w *writer) renew(n int) *writer {
	w.t.Helper()
	return w.take(w.log.RenewDevice(w.key, signedRecord(w.t, w.log.Person(), n, w.at), w.at))
}

func (w *writer) revoke(n int) *writer {
	w.t.Helper()
	return w.take(w.log.RevokeDevice(w.key, testDevice(n).ID(), w.at))
}

func (w *writer) supersede(root RootKey, key LogKey, from uint64) *writer {
	w.t.Helper()
	w.take(w.log.SupersedeLogKey(root, key.Public(), from, w.at))
	w.key = key
	return w
}

func ids(ns ...int) []DeviceID {
	var out []DeviceID
	for _, n := range ns {
		out = append(out, testDevice(n).ID())
	}
	return out
}

// forge signs an entry that the API would not write.
func forge(t testing.TB, l *Log, sign func(Context, []byte) []byte, typ EntryType, body any, change func(*entry)) []byte {
	t.Helper()
	var e entry
	b, err := l.makeEntry(sign, typ, body, day0())
	if err != nil {
		t.Fatal(err)
	}
	if change == nil {
		return b
	}
	if e, _, _, err = parseEntry(b); err != nil {
		t.Fatal(err)
	}
	change(&e)
	return signEntry(t, sign, e)
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) || got != nil && want == nil {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
