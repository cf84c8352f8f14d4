package identity

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kinloom/kinloom/identity/enc"
)

// signEntry signs an entry as it stands, rules or no rules.
func signEntry(t testing.TB, sign func(Context, []byte) []byte, e entry) []byte {
	t.Helper()
	return signRaw(t, sign, ContextLog, e)
}

func TestLogStory(t *testing.T) {
	root := testRoot(1)
	w := begin(t, root, testLogKey(1)).add(1).add(2)
	w.at = day(60)
	w.renew(1)
	w.at = day(61)
	w.revoke(2).add(3)

	l, err := ParseLog(root.Person(), w.log.Entries())
	if err != nil || l.End() != nil {
		t.Fatal(err)
	}
	if l.Person() != root.Person() || l.Seq() != 6 || l.Head() != w.log.Head() || l.LogKey() != testLogKey(1).Public() {
		t.Errorf("person %v, seq %d, head %v: not what was written", l.Person(), l.Seq(), l.Head())
	}
	want := []DeviceState{
		{ID: testDevice(1).ID(), Added: day(0).Unix(), Renewed: day(60).Unix(), NotBefore: day(60).Unix(), Expiry: day(150).Unix()},
		{ID: testDevice(2).ID(), Added: day(0).Unix(), Revoked: true, NotBefore: day(0).Unix(), Expiry: day(90).Unix()},
		{ID: testDevice(3).ID(), Added: day(61).Unix(), NotBefore: day(61).Unix(), Expiry: day(151).Unix()},
	}
	for i := range want {
		want[i].Public = testDevice(i + 1).Public()
		want[i].RecordHash = l.Devices()[i].RecordHash
	}
	if d := cmp.Diff(want, l.Devices()); d != "" {
		t.Errorf("devices: (-want +got)\n%s", d)
	}
	for _, tt := range []struct {
		day  int
		want []DeviceID
	}{{-10, nil}, {57, nil}, {60, ids(1, 3)}, {149, ids(1, 3)}, {150, ids(3)}, {151, nil}} {
		if got := l.Live(day(tt.day)); !slices.Equal(got, tt.want) {
			t.Errorf("live on day %d: %v, want %v", tt.day, got, tt.want)
		}
	}
	for _, h := range l.heads {
		if !l.HasHead(h) {
			t.Errorf("an earlier head %v is not known", h)
		}
	}
	if l.HasHead(Head{}) || l.HasHead(begin(t, testRoot(2), testLogKey(1)).log.Head()) {
		t.Error("a head of nothing is known")
	}
	if _, ok := l.Device(testDevice(9).ID()); ok {
		t.Error("a device that is not in the log exists")
	}
	if rival, _ := l.Fork(); rival != nil {
		t.Error("forked")
	}
}

// TestLogIsAValue: what a Log hands out does not lead back into it.
func TestLogIsAValue(t *testing.T) {
	w := begin(t, testRoot(1), testLogKey(1)).add(1)
	head := w.log.Head()
	given := w.log.Entries()
	l, err := ParseLog(w.log.Person(), given)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range given {
		clear(b)
	}
	l.Devices()[0].Revoked = true
	for _, b := range l.Entries() {
		clear(b)
	}
	if _, err := ParseLog(l.Person(), l.Entries()); err != nil || l.Devices()[0].Revoked {
		t.Errorf("the log was changed from outside: %v", err)
	}
	// Two continuations of one log do not write into each other.
	branches := []*writer{w.branch(), w.branch()}
	for i := range 8 {
		branches[i%2].add(10 + i)
		for _, w := range branches {
			if again, err := ParseLog(w.log.Person(), w.log.Entries()); err != nil || again.Head() != w.log.Head() {
				t.Errorf("after %d entries: %v", i+1, err)
			}
		}
	}
	if w.log.Head() != head {
		t.Error("the common part was changed")
	}
	// What happens to a device later does not reach back.
	was := w.log.Devices()
	later := w.branch()
	later.at = day(60)
	later.renew(1).revoke(1)
	if d := cmp.Diff(was, w.log.Devices()); d != "" {
		t.Errorf("an older log changed: (-was +is)\n%s", d)
	}
}

func TestCertified(t *testing.T) {
	root := testRoot(1)
	w := begin(t, root, testLogKey(1)).add(1).add(2)
	old, oldHash, err := ParseDeviceRecord(signedRecord(t, root.Person(), 1, day(0)))
	if err != nil {
		t.Fatal(err)
	}
	if d, err := w.log.Certified(old, oldHash); err != nil || d.ID != testDevice(1).ID() {
		t.Errorf("certified record: %v, %v", d, err)
	}
	foreign, foreignHash, err := ParseDeviceRecord(signedRecord(t, testRoot(2).Person(), 1, day(0)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.log.Certified(foreign, foreignHash)
	wantErr(t, "record that names another person", err, ErrPerson)
	stranger := testRecord(root.Person(), 9, day(0))
	_, err = w.log.Certified(stranger, RecordHash{})
	wantErr(t, "device that nobody added", err, ErrNotInLog)
	longer := old
	longer.Expiry++
	_, err = w.log.Certified(longer, oldHash)
	wantErr(t, "record with other times", err, ErrOtherRecord)

	w.at = day(60)
	w.renew(1)
	_, err = w.log.Certified(old, oldHash)
	wantErr(t, "record before the renewal", err, ErrOtherRecord)
	w.revoke(1)
	_, err = w.log.Certified(old, oldHash)
	wantErr(t, "record of a revoked device", err, ErrRevoked)
}

// TestLogRefuses has one entry behind a sound log for each rule. The part
// before it stays usable and is named.
func TestLogRefuses(t *testing.T) {
	root, logKey := testRoot(1), testLogKey(1)
	w := begin(t, root, logKey).add(1).add(2).revoke(2)
	other := begin(t, testRoot(2), testLogKey(2)).add(1)
	sign := logKey.sign
	sound := deviceAddBody{
		Device: testDevice(3).Public(), Record: RecordHash{1}, NotBefore: day(0).Unix(), Expiry: day(90).Unix(),
	}
	copy(sound.Proof[:], testDevice(3).sign(ContextDeviceProof, proofInput(root.Person(), sound.Record)))
	adding := func(change func(*deviceAddBody)) deviceAddBody {
		b := sound
		change(&b)
		return b
	}
	renewing := func(n int, from, to time.Time) deviceRenewBody {
		return deviceRenewBody{Device: testDevice(n).ID(), Record: RecordHash{2}, NotBefore: from.Unix(), Expiry: to.Unix()}
	}
	make := func(typ EntryType, body any, change func(*entry)) []byte {
		return forge(t, w.log, sign, typ, body, change)
	}
	for _, tt := range []struct {
		name  string
		entry []byte
		want  error
	}{
		{"a sound device-add", make(EntryDeviceAdd, sound, nil), nil},
		{"a sound device-renew", make(EntryDeviceRenew, renewing(1, day(1), day(91)), nil), nil},
		{"a sound device-revoke", make(EntryDeviceRevoke, deviceRevokeBody{testDevice(1).ID()}, nil), nil},
		{"a sound log-key", forge(t, w.log, root.sign, EntryLogKey, logKeyBody{testLogKey(2).Public()}, nil), nil},
		{"unknown keys", make(EntryDeviceRevoke, map[int]any{1: testDevice(1).ID(), 9: "later"}, nil), nil},

		{"nothing", nil, enc.ErrTruncated},
		{"a signature alone", bytes.Repeat([]byte{1}, SignatureSize), enc.ErrTruncated},
		{"too large", append(make(EntryDeviceAdd, sound, nil), bytes.Repeat([]byte{0}, MaxEntry)...), ErrTooLarge},
		{"trailing byte", append(make(EntryDeviceAdd, sound, nil), 0), enc.ErrTrailing},
		{"suite 2", make(EntryDeviceAdd, sound, func(e *entry) { e.Suite = 2 }), ErrSuite},
		{"version 2", make(EntryDeviceAdd, sound, func(e *entry) { e.Version = 2 }), ErrVersion},
		{"another person", make(EntryDeviceAdd, sound, func(e *entry) { e.Person = testRoot(2).Person() }), ErrPerson},
		{"an entry of another log", other.log.entries[2], ErrPerson},
		{"seq again", make(EntryDeviceAdd, sound, func(e *entry) { e.Seq-- }), ErrChain},
		{"gap in seq", make(EntryDeviceAdd, sound, func(e *entry) { e.Seq++ }), ErrChain},
		{"seq 2^64-1", make(EntryDeviceAdd, sound, func(e *entry) { e.Seq = 1<<64 - 1 }), ErrChain},
		{"wrong prev", make(EntryDeviceAdd, sound, func(e *entry) { e.Prev[0] ^= 1 }), ErrChain},
		{"no prev", make(EntryDeviceAdd, sound, func(e *entry) { e.Prev = Head{} }), ErrChain},
		{"prev of an earlier entry", make(EntryDeviceAdd, sound, func(e *entry) { e.Prev = w.log.heads[1] }), ErrChain},
		{"the last entry again", w.log.entries[4], ErrChain},
		{"time before 1970", make(EntryDeviceAdd, sound, func(e *entry) { e.Time = -1 }), ErrEntry},
		{"time after 9999", make(EntryDeviceAdd, sound, func(e *entry) { e.Time = maxTime + 1 }), ErrEntry},
		{"time in the past is only a claim", make(EntryDeviceAdd, sound, func(e *entry) { e.Time = 0 }), nil},

		{"type 0", make(0, sound, nil), ErrUnknownEntry},
		{"recovery-policy", forge(t, w.log, root.sign, 6, map[int]int{1: 2}, nil), ErrUnknownEntry},
		{"root-rotate", forge(t, w.log, root.sign, 7, map[int]int{1: 2}, nil), ErrUnknownEntry},
		{"unknown type without a signature", forge(t, w.log, testDevice(9).sign, 99, map[int]int{}, nil), ErrUnknownEntry},

		{"device-add by the root", forge(t, w.log, root.sign, EntryDeviceAdd, sound, nil), ErrSignature},
		{"device-add by the device", forge(t, w.log, testDevice(3).sign, EntryDeviceAdd, sound, nil), ErrSignature},
		{"device-add by another log key", forge(t, w.log, testLogKey(2).sign, EntryDeviceAdd, sound, nil), ErrSignature},
		{"device-revoke by its device", forge(t, w.log, testDevice(1).sign, EntryDeviceRevoke, deviceRevokeBody{testDevice(1).ID()}, nil), ErrSignature},
		{"log-key by the log key", make(EntryLogKey, logKeyBody{testLogKey(2).Public()}, nil), ErrSignature},
		{"log-key by another root", forge(t, w.log, testRoot(2).sign, EntryLogKey, logKeyBody{testLogKey(2).Public()}, nil), ErrSignature},
		{"signed for another purpose", signRaw(t, sign, ContextBundle, mustEntry(t, make(EntryDeviceAdd, sound, nil))), ErrSignature},
		{"second genesis", forge(t, w.log, root.sign, EntryGenesis, genesisBody{}, nil), ErrEntry},

		{"the same log key again", forge(t, w.log, root.sign, EntryLogKey, logKeyBody{logKey.Public()}, nil), ErrEntry},
		{"the root as log key", forge(t, w.log, root.sign, EntryLogKey, logKeyBody{LogPublic(root.Person())}, nil), ErrEntry},
		{"a body of another type", make(EntryDeviceAdd, deviceRevokeBody{testDevice(1).ID()}, nil), enc.ErrMissing},
		{"a body with a key missing", make(EntryDeviceRenew, map[int]any{1: testDevice(1).ID()}, nil), enc.ErrMissing},
		{"device added twice", make(EntryDeviceAdd, adding(func(b *deviceAddBody) { b.Device = testDevice(1).Public() }), nil), ErrEntry},
		{"revoked device added again", make(EntryDeviceAdd, adding(func(b *deviceAddBody) { b.Device = testDevice(2).Public() }), nil), ErrEntry},
		{"certificate for 91 days", make(EntryDeviceAdd, adding(func(b *deviceAddBody) { b.Expiry = day(91).Unix() }), nil), ErrEntry},
		{"certificate for no time", make(EntryDeviceAdd, adding(func(b *deviceAddBody) { b.Expiry = b.NotBefore }), nil), ErrEntry},
		{"no proof", make(EntryDeviceAdd, adding(func(b *deviceAddBody) { b.Proof = [64]byte{} }), nil), ErrSignature},
		{"proof for another record", make(EntryDeviceAdd, adding(func(b *deviceAddBody) { b.Record[0] ^= 1 }), nil), ErrSignature},
		{"proof for another person", make(EntryDeviceAdd, adding(func(b *deviceAddBody) {
			copy(b.Proof[:], testDevice(3).sign(ContextDeviceProof, proofInput(testRoot(2).Person(), b.Record)))
		}), nil), ErrSignature},
		{"proof by another device", make(EntryDeviceAdd, adding(func(b *deviceAddBody) {
			copy(b.Proof[:], testDevice(4).sign(ContextDeviceProof, proofInput(root.Person(), b.Record)))
		}), nil), ErrSignature},

		{"renewal of nobody", make(EntryDeviceRenew, renewing(9, day(1), day(91)), nil), ErrNotInLog},
		{"renewal of a revoked device", make(EntryDeviceRenew, renewing(2, day(1), day(91)), nil), ErrRevoked},
		{"renewal for 91 days", make(EntryDeviceRenew, renewing(1, day(1), day(92)), nil), ErrEntry},
		{"revocation of nobody", make(EntryDeviceRevoke, deviceRevokeBody{testDevice(9).ID()}, nil), ErrNotInLog},
		{"revocation twice", make(EntryDeviceRevoke, deviceRevokeBody{testDevice(2).ID()}, nil), ErrRevoked},
		{"device key in place of its id", make(EntryDeviceRevoke, deviceRevokeBody{DeviceID(testDevice(1).Public())}, nil), ErrNotInLog},
	} {
		l, err := ParseLog(root.Person(), append(w.log.Entries(), tt.entry))
		wantErr(t, tt.name, err, tt.want)
		if l == nil {
			t.Errorf("%s: no log", tt.name)
			continue
		}
		if tt.want == nil {
			if l.Seq() != 5 || l.End() != nil {
				t.Errorf("%s: ends at %d, %v", tt.name, l.Seq(), l.End())
			}
			continue
		}
		if l.Head() != w.log.Head() || !slices.Equal(l.Live(day(1)), ids(1)) {
			t.Errorf("%s: the part before it is not what it was", tt.name)
		}
		at, ok := errors.AsType[*LogError](err)
		if !ok || at.Seq != 5 || !errors.Is(l.End(), tt.want) {
			t.Errorf("%s: %v does not name entry 5", tt.name, err)
		}
		// Nobody writes behind something unread: that would fork the log.
		_, err = l.RevokeDevice(logKey, testDevice(1).ID(), day(1))
		wantErr(t, "write behind "+tt.name, err, tt.want)
		_, err = l.SupersedeLogKey(root, testLogKey(5).Public(), 5, day(1))
		wantErr(t, "supersede behind "+tt.name, err, tt.want)
	}
}

func mustEntry(t testing.TB, b []byte) entry {
	t.Helper()
	e, _, _, err := parseEntry(b)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestLogBeginning: genesis, then a log key, or there is no log.
func TestLogBeginning(t *testing.T) {
	root, key := testRoot(1), testLogKey(1)
	w := begin(t, root, key).add(1)
	e := w.log.Entries()
	empty := &Log{person: root.Person()}
	half := &Log{person: root.Person(), entries: e[:1], heads: w.log.heads[:1]}
	for _, tt := range []struct {
		name    string
		entries [][]byte
		want    error
	}{
		{"nothing", nil, ErrIncomplete},
		{"genesis alone", e[:1], ErrIncomplete},
		{"no genesis", e[1:], ErrChain},
		{"log key first", [][]byte{forge(t, empty, root.sign, EntryLogKey, logKeyBody{key.Public()}, nil)}, ErrEntry},
		{"device first", [][]byte{forge(t, empty, key.sign, EntryDeviceRevoke, deviceRevokeBody{}, nil)}, ErrEntry},
		{"device second", [][]byte{e[0], forge(t, half, key.sign, EntryDeviceRevoke, deviceRevokeBody{}, nil)}, ErrEntry},
		{"unknown second", [][]byte{e[0], forge(t, half, root.sign, 50, deviceRevokeBody{}, nil)}, ErrUnknownEntry},
		{"genesis twice", [][]byte{e[0], forge(t, half, root.sign, EntryGenesis, genesisBody{}, nil)}, ErrEntry},
		{"genesis by another", [][]byte{forge(t, empty, testRoot(2).sign, EntryGenesis, genesisBody{}, nil)}, ErrSignature},
		{"genesis with a prev", [][]byte{forge(t, empty, root.sign, EntryGenesis, genesisBody{}, func(e *entry) { e.Prev[0] = 1 })}, ErrChain},
		{"genesis that is no map", [][]byte{forge(t, empty, root.sign, EntryGenesis, []int{}, nil)}, enc.ErrType},
	} {
		l, err := ParseLog(root.Person(), tt.entries)
		wantErr(t, tt.name, err, tt.want)
		if l != nil {
			t.Errorf("%s: a log came out", tt.name)
		}
	}
}

// TestLogChanges: an entry changed, left out, doubled or moved ends the
// verified part where it stands (H38).
func TestLogChanges(t *testing.T) {
	root := testRoot(1)
	w := begin(t, root, testLogKey(1)).add(1).add(2).renew(1).revoke(2).add(3)
	for i := range w.log.entries {
		for _, kind := range []string{"changed", "left out", "doubled", "swapped", "empty"} {
			e := w.log.Entries()
			ends := i // entries that hold
			switch kind {
			case "changed":
				e[i][len(e[i])/2] ^= 4
			case "left out":
				e = slices.Delete(e, i, i+1)
			case "doubled":
				e = slices.Insert(e, i+1, e[i])
				ends++
			case "swapped":
				if i+1 == len(e) {
					continue
				}
				e[i], e[i+1] = e[i+1], e[i]
			case "empty":
				e[i] = nil
			}
			l, err := ParseLog(root.Person(), e)
			if kind == "left out" && i == len(w.log.entries)-1 {
				if err != nil || l.Seq() != uint64(i-1) {
					t.Errorf("last entry left out: %v", err)
				}
				continue
			}
			at, ok := errors.AsType[*LogError](err)
			if !ok || at.Seq != uint64(ends) || (l == nil) != (ends < 2) || l != nil && l.Seq() != uint64(ends-1) {
				t.Errorf("entry %d %s: got %v, want an error at %d", i, kind, err, ends)
			}
		}
	}
}

// TestLogBounds: entries, devices, and what a hostile log costs (H38).
func TestLogBounds(t *testing.T) {
	root, key := testRoot(1), testLogKey(1)
	w := begin(t, root, key)
	for i := range MaxDevices {
		w.add(i)
	}
	_, err := w.log.AddDevice(key, signedRecord(t, root.Person(), MaxDevices, day0()), testDevice(MaxDevices), day0())
	wantErr(t, "one device more", err, ErrTooMany)
	w.revoke(0).add(MaxDevices) // a revoked one makes room

	// Up to the limit through the inner door, which is the same but cheaper.
	l := w.log.grow()
	for len(l.entries) < MaxEntries {
		b := deviceRenewBody{Device: testDevice(1).ID(), Record: RecordHash{byte(len(l.entries))}, NotBefore: 1, Expiry: 2}
		if err := l.add(key.sign, EntryDeviceRenew, b, day0()); err != nil {
			t.Fatal(err)
		}
	}
	_, err = l.RevokeDevice(key, testDevice(1).ID(), day0())
	wantErr(t, "one entry more", err, ErrTooMany)
	many := l.Entries()
	for len(many) < 100000 {
		many = append(many, many[len(many)-1])
	}
	got, err := ParseLog(root.Person(), many)
	wantErr(t, "100,000 entries", err, ErrTooMany)
	if got == nil || got.Head() != l.Head() {
		t.Error("the entries up to the limit are not there")
	}
}

func TestWriteRefuses(t *testing.T) {
	root, key := testRoot(1), testLogKey(1)
	w := begin(t, root, key).add(1)
	mine, yours := signedRecord(t, root.Person(), 2, day0()), signedRecord(t, testRoot(2).Person(), 2, day0())
	_, err := w.log.AddDevice(testLogKey(2), mine, testDevice(2), day0())
	wantErr(t, "add with another log key", err, ErrSignature)
	_, err = w.log.AddDevice(key, mine, testDevice(3), day0())
	wantErr(t, "add with another device key", err, ErrRecord)
	_, err = w.log.AddDevice(key, yours, testDevice(2), day0())
	wantErr(t, "add a record for another person", err, ErrPerson)
	_, err = w.log.AddDevice(key, mine[:100], testDevice(2), day0())
	wantErr(t, "add a cut record", err, enc.ErrTruncated)
	_, err = w.log.RenewDevice(key, mine, day0())
	wantErr(t, "renew what was not added", err, ErrNotInLog)
	_, err = w.log.RenewDevice(key, yours, day0())
	wantErr(t, "renew for another person", err, ErrPerson)
	_, err = w.log.RevokeDevice(testLogKey(2), testDevice(1).ID(), day0())
	wantErr(t, "revoke with another log key", err, ErrSignature)
	_, err = w.log.RevokeDevice(key, testDevice(1).ID(), time.Unix(-1, 0))
	wantErr(t, "revoke before 1970", err, ErrEntry)
	_, err = w.log.SupersedeLogKey(testRoot(2), testLogKey(2).Public(), 3, day0())
	wantErr(t, "supersede with another root", err, ErrPerson)
	_, err = w.log.SupersedeLogKey(root, key.Public(), 3, day0())
	wantErr(t, "supersede with the same key", err, ErrEntry)
	for from, want := range []error{ErrIncomplete, ErrIncomplete, nil, nil, ErrChain} {
		_, err = w.log.SupersedeLogKey(root, testLogKey(2).Public(), uint64(from), day0())
		wantErr(t, fmt.Sprintf("supersede from entry %d", from), err, want)
	}
	two := w.branch().supersede(root, testLogKey(2), 3)
	_, err = two.log.SupersedeLogKey(root, testLogKey(3).Public(), 3, day0())
	wantErr(t, "supersede from a log-key entry", err, ErrChain)
	_, err = NewLog(root, LogPublic(root.Person()), day0())
	wantErr(t, "root as log key", err, ErrEntry)
	_, err = NewLog(root, key.Public(), time.Unix(maxTime+1, 0))
	wantErr(t, "begin after 9999", err, ErrEntry)
	if _, err := w.log.RevokeDevice(key, testDevice(1).ID(), day0()); err != nil {
		t.Errorf("after all this the log does not go on: %v", err)
	}
}
