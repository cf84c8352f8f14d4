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
