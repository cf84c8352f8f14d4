package identity

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// longLog is a log of n entries: one device, renewed again and again.
func longLog(t testing.TB, root RootKey, key LogKey, dev DeviceKey, n int) *Log {
	t.Helper()
	log, err := NewLog(root, key.Public(), time.Unix(1_800_000_000, 0))
	for i := 2; err == nil && i < n; i++ {
		at := time.Unix(1_800_000_000+int64(i), 0)
		var b []byte
		b, err = SignDeviceRecord(dev, DeviceRecord{
			Suite: Suite1, Version: RecordVersion, Person: root.Person(), Device: dev.Public(), Olm: NewOlmKey(seed("olm", 1)).Public(),
			Rendezvous: NewRendezvousKey(seed("rv", 1)).Public(), NotBefore: at.Unix(), Expiry: at.Unix() + 1000,
		})
		if err != nil {
			break
		}
		if i == 2 {
			log, err = log.AddDevice(key, b, dev, at)
		} else {
			log, err = log.RenewDevice(key, b, at)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// TestExtend: the end of a log, put behind what is known of it, gives the same as
// the whole one; what follows nothing known, or does not hold, is refused, and
// refusing it costs next to nothing.
func TestExtend(t *testing.T) {
	root, key, dev := testRoot(1), NewLogKey(seed("log", 1)), NewDeviceKey(seed("device", 1))
	whole := longLog(t, root, key, dev, 200)
	known, err := ParseLog(root.Person(), whole.Entries()[:150])
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []int{1, 2, 3, 100, 149, 150} {
		got, err := known.Extend(whole.Entries()[from:])
		if err != nil {
			t.Fatalf("from entry %d: %v", from, err)
		}
		if got.Head() != whole.Head() || !slices.Equal(got.Devices(), whole.Devices()) || got.LogKey() != whole.LogKey() || got.Seq() != whole.Seq() {
			t.Errorf("from entry %d: another log than the whole one", from)
		}
	}
	bent := slices.Clone(whole.Entries()[160])
	bent[len(bent)-1] ^= 1
	other := longLog(t, testRoot(2), key, dev, 160)
	for name, entries := range map[string][][]byte{
		"none":             nil,
		"a gap":            whole.Entries()[151:],
		"another person's": other.Entries()[150:],
		"no entry":         {[]byte("no entry")},
		"bent":             append(whole.Entries()[150:160:160], bent),
	} {
		if got, err := known.Extend(entries); err == nil {
			t.Errorf("%s: taken, with head %v", name, got.Head())
		}
	}
	if _, err := known.Extend(whole.Entries()[151:]); !errors.Is(err, ErrChain) {
		t.Errorf("a gap: %v, want ErrChain", err)
	}
}

// TestKnown: what was verified and stored is taken in again as it was, without
// its signatures; what is not in form or in order is refused all the same.
func TestKnown(t *testing.T) {
	root, key, dev := testRoot(1), NewLogKey(seed("log", 1)), NewDeviceKey(seed("device", 1))
	log := longLog(t, root, key, dev, 10)
	entries := log.Entries()
	got, err := KnownLog(root.Person(), entries)
	if err != nil || got.Head() != log.Head() || got.LogKey() != log.LogKey() || !slices.Equal(got.Devices(), log.Devices()) {
		t.Fatalf("got %v, %v", got, err)
	}
	entries[9][20] ^= 1 // of the signature
	if _, err := ParseLog(root.Person(), entries); err == nil {
		t.Error("a broken signature was verified")
	}
	if _, err := KnownLog(root.Person(), entries); err != nil {
		t.Errorf("a signature was looked at: %v", err)
	}
	for what, entries := range map[string][][]byte{
		"nothing": nil, "a genesis alone": entries[:1], "a gap": append(slices.Clone(entries[:4]), entries[5]), "half an entry": {entries[0], entries[1][:50]},
	} {
		if _, err := KnownLog(root.Person(), entries); err == nil {
			t.Errorf("%s was taken for a log", what)
		}
	}
	if _, err := KnownLog(testRoot(2).Person(), entries); !errors.Is(err, ErrPerson) {
		t.Errorf("the log of another: %v, want %v", err, ErrPerson)
	}

	at := time.Unix(1_800_000_000, 0)
	record := DeviceRecord{
		Suite: Suite1, Version: RecordVersion, Person: root.Person(), Device: dev.Public(), Olm: NewOlmKey(seed("olm", 1)).Public(),
		Rendezvous: NewRendezvousKey(seed("rv", 1)).Public(), NotBefore: at.Unix(), Expiry: at.Unix() + 1000,
	}
	b, err := SignDeviceRecord(dev, record)
	if err != nil {
		t.Fatal(err)
	}
	_, hash, err := ParseDeviceRecord(b)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := KnownDeviceRecord(b, hash); err != nil || got.Device != record.Device || got.Expiry != record.Expiry {
		t.Errorf("got %+v, %v", got, err)
	}
	b[70] ^= 1
	if _, err := KnownDeviceRecord(b, hash); !errors.Is(err, ErrRecord) {
		t.Errorf("another record: %v, want %v", err, ErrRecord)
	}
}
