package identity

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/kinloom/kinloom/identity/enc"
)

// Log is the verified log of one person: a value that never changes. Every
// method that changes something returns another Log. It is safe for use by
// several goroutines.
type Log struct {
	person  PersonID
	entries [][]byte // as received
	heads   []Head   // hash of each entry
	logKeys []LogPublic
	devices []DeviceState // in the order they were added
	end     error         // why the verified part ended, a *LogError
	rival   *Log          // the other side of a fork, without one of its own
}

// ParseLog verifies entries, oldest first, as the log of p. Where an entry
// does not hold, the verified part ends: the Log of the entries before it is
// returned together with a *LogError that says where and why, and End says it
// again later. The Log is nil if not even genesis and first log key hold.
func ParseLog(p PersonID, entries [][]byte) (*Log, error) {
	if err := CheckKey(p); err != nil {
		return nil, fmt.Errorf("parse log: %w", err)
	}
	l := &Log{person: p}
	for i, b := range entries {
		if err := l.apply(b); err != nil {
			l.end = &LogError{Seq: uint64(i), Err: err}
			break
		}
	}
	if len(l.logKeys) == 0 {
		if l.end == nil {
			l.end = &LogError{Seq: uint64(len(l.entries)), Err: ErrIncomplete}
		}
		return nil, fmt.Errorf("parse log: %w", l.end)
	}
	if l.end != nil {
		return l, fmt.Errorf("parse log: %w", l.end)
	}
	return l, nil
}

// KnownLog takes in entries of p that ParseLog or a writer of this package found
// to hold before they were stored, without a look at the signatures: they are
// most of what a start costs. The form and the chain are checked all the same.
func KnownLog(p PersonID, entries [][]byte) (*Log, error) {
	l := &Log{person: p}
	if err := l.takeKnown(entries); err != nil {
		return nil, fmt.Errorf("known log: %w", err)
	}
	if len(l.logKeys) == 0 {
		return nil, fmt.Errorf("known log: %w", ErrIncomplete)
	}
	return l, nil
}

// takeKnown takes in entries that are known to hold.
func (l *Log) takeKnown(entries [][]byte) error {
	for _, b := range entries {
		e, _, _, err := l.next(b)
		if err == nil {
			err = l.take(e, b, true)
		}
		if err != nil {
			return fmt.Errorf("known entry %d: %w", len(l.entries), err)
		}
	}
	return nil
}

// Extend verifies entries that continue the log anywhere behind its genesis: those
// that follow one of its own entries. It costs one signature an entry
// given, however long the log is. Entries that follow none, or of which the first
// does not hold, are an error; where a later one does not, the verified part ends
// there, as in ParseLog.
func (l *Log) Extend(entries [][]byte) (*Log, error) {
	if len(entries) == 0 {
		return nil, fmt.Errorf("extend log: %w: no entries", ErrChain)
	}
	first, _, _, err := parseEntry(entries[0])
	if err != nil {
		return nil, fmt.Errorf("extend log: %w", err)
	}
	at := slices.Index(l.heads, first.Prev)
	if at < 0 {
		return nil, fmt.Errorf("extend log: %w: it follows no entry that is known", ErrChain)
	}
	// What the entries before say is known to hold: it is taken in without a look
	// at the signatures.
	next := &Log{person: l.person}
	if err := next.takeKnown(l.entries[:at+1]); err != nil {
		return nil, fmt.Errorf("extend log: %w", err)
	}
	for i, b := range entries {
		if err := next.apply(b); err != nil {
			next.end = &LogError{Seq: uint64(at + 1 + i), Err: err}
			if i == 0 {
				return nil, fmt.Errorf("extend log: %w", next.end)
			}
			return next, fmt.Errorf("extend log: %w", next.end)
		}
	}
	return next, nil
}

// Person is whose log this is.
func (l *Log) Person() PersonID { return l.person }

// Head is the hash of the last verified entry.
func (l *Log) Head() Head { return l.heads[len(l.heads)-1] }

// Seq is the number of the last verified entry; the genesis has 0.
func (l *Log) Seq() uint64 { return uint64(len(l.entries) - 1) }

// LogKey is the key that signs the next entry.
func (l *Log) LogKey() LogPublic { return l.logKeys[len(l.logKeys)-1] }

// Entries returns copies of the verified entries as received, for ParseLog on
// another device or after a restart. The rival of a fork is kept beside.
func (l *Log) Entries() [][]byte {
	out := make([][]byte, len(l.entries))
	for i, b := range l.entries {
		out[i] = bytes.Clone(b)
	}
	return out
}

// HasHead reports whether h is the state of this log now or was before.
func (l *Log) HasHead(h Head) bool { return slices.Contains(l.heads, h) }

// End says why the verified part ends before the log did, as a *LogError, or
// nil if all entries that were given hold.
func (l *Log) End() error { return l.end }

// Fork returns the other side of an unresolved fork and the number of the
// first entry in which the two differ, or nil. Both logs are soundly signed:
// somebody else has the key that signed, or a copy of the device runs. Only a
// root-signed log-key entry ends it.
func (l *Log) Fork() (rival *Log, seq uint64) {
	if l.rival == nil {
		return nil, 0
	}
	return l.rival, uint64(l.common(l.rival))
}

// Device returns what the log says of a device, revoked ones included.
func (l *Log) Device(id DeviceID) (DeviceState, bool) {
	i := l.find(id)
	if i < 0 {
		return DeviceState{}, false
	}
	return l.devices[i], true
}

// Devices returns all devices that were ever added, oldest first.
func (l *Log) Devices() []DeviceState { return slices.Clone(l.devices) }

// Live returns the devices that may be sent to at a time: certified, not
// revoked, not expired, in the order they were added. While the log is forked
// there are none, as nobody can tell whose devices they are.
func (l *Log) Live(now time.Time) []DeviceID {
	if l.rival != nil {
		return nil
	}
	var out []DeviceID
	for _, d := range l.devices {
		if d.At(now).Live() {
			out = append(out, d.ID)
		}
	}
	return out
}

// Certified checks that the log stands behind a record at its head: the
// device is in it, not revoked, and this is its latest record. Whether it has
// expired is not looked at, see DeviceState.At. Errors: ErrPerson,
// ErrNotInLog, ErrRevoked, ErrOtherRecord.
func (l *Log) Certified(r DeviceRecord, h RecordHash) (DeviceState, error) {
	d, ok := l.Device(r.Device.ID())
	switch {
	case r.Person != l.person:
		return DeviceState{}, ErrPerson
	case !ok:
		return DeviceState{}, ErrNotInLog
	case d.Revoked:
		return d, ErrRevoked
	case d.RecordHash != h || d.NotBefore != r.NotBefore || d.Expiry != r.Expiry:
		return d, ErrOtherRecord
	}
	return d, nil
}

func (l *Log) find(id DeviceID) int {
	return slices.IndexFunc(l.devices, func(d DeviceState) bool { return d.ID == id })
}

// grow returns a copy of l that an entry can be applied to.
func (l *Log) grow() *Log {
	return &Log{
		person: l.person, entries: slices.Clip(l.entries), heads: slices.Clip(l.heads),
		logKeys: slices.Clip(l.logKeys), devices: slices.Clone(l.devices),
	}
}

// apply verifies the entry that continues l and takes it in. On an error l is
// as before.
func (l *Log) apply(b []byte) error {
	e, sig, signed, err := l.next(b)
	if err != nil {
		return err
	}
	if err := l.checkSignature(e, sig, signed); err != nil {
		return err
	}
	return l.take(e, b, false)
}

// next parses an entry that follows the last one.
func (l *Log) next(b []byte) (e entry, sig, signed []byte, err error) {
	if len(l.entries) >= MaxEntries {
		return e, nil, nil, fmt.Errorf("%w: %d log entries", ErrTooMany, MaxEntries)
	}
	if e, sig, signed, err = parseEntry(b); err != nil {
		return e, nil, nil, err
	}
	if e.Person != l.person {
		return e, nil, nil, ErrPerson
	}
	if e.Seq != uint64(len(l.entries)) {
		return e, nil, nil, fmt.Errorf("%w: it says it is entry %d", ErrChain, e.Seq)
	}
	prev := Head{}
	if e.Seq > 0 {
		prev = l.Head()
	}
	if e.Prev != prev {
		return e, nil, nil, fmt.Errorf("%w: it follows another entry", ErrChain)
	}
	return e, sig, signed, nil
}

// take takes in what an entry says. verified: the proof inside it was looked at
// before.
func (l *Log) take(e entry, b []byte, verified bool) error {
	if err := l.applyBody(e, verified); err != nil {
		return err
	}
	l.entries = append(l.entries, bytes.Clone(b))
	l.heads = append(l.heads, hashEntry(b))
	return nil
}

// checkSignature also holds the order of the first two entries: genesis,
// then a log key, and no genesis later.
func (l *Log) checkSignature(e entry, sig, signed []byte) error {
	switch e.Type {
	case EntryGenesis, EntryLogKey:
		if (e.Type == EntryGenesis) != (e.Seq == 0) {
			return fmt.Errorf("%w: genesis is entry 0 and no other", ErrEntry)
		}
		return verify(l.person, ContextLog, signed, sig)
	case EntryDeviceAdd, EntryDeviceRenew, EntryDeviceRevoke:
		if len(l.logKeys) == 0 {
			return fmt.Errorf("%w: before the first log key", ErrEntry)
		}
		return verify(l.LogKey(), ContextLog, signed, sig)
	default:
		return fmt.Errorf("%w (type %d)", ErrUnknownEntry, e.Type)
	}
}

func (l *Log) applyBody(e entry, verified bool) error {
	switch e.Type {
	case EntryGenesis:
		var b genesisBody
		return enc.Unmarshal(e.Body, &b)
	case EntryLogKey:
		var b logKeyBody
		if err := enc.Unmarshal(e.Body, &b); err != nil {
			return err
		}
		return l.applyLogKey(b)
	case EntryDeviceAdd:
		var b deviceAddBody
		if err := enc.Unmarshal(e.Body, &b); err != nil {
			return err
		}
		return l.applyAdd(b, e.Time, verified)
	case EntryDeviceRenew:
		var b deviceRenewBody
		if err := enc.Unmarshal(e.Body, &b); err != nil {
			return err
		}
		return l.applyRenew(b, e.Time)
	default: // EntryDeviceRevoke: checkSignature let no other type pass
		var b deviceRevokeBody
		if err := enc.Unmarshal(e.Body, &b); err != nil {
			return err
		}
		return l.applyRevoke(b)
	}
}

func (l *Log) applyLogKey(b logKeyBody) error {
	if err := CheckKey(b.Key); err != nil {
		return err
	}
	if slices.Contains(l.logKeys, b.Key) || PersonID(b.Key) == l.person {
		return fmt.Errorf("%w: a key that had its turn cannot become log key again", ErrEntry)
	}
	l.logKeys = append(l.logKeys, b.Key)
	return nil
}

func (l *Log) applyAdd(b deviceAddBody, at int64, verified bool) error {
	if err := CheckKey(b.Device); err != nil {
		return err
	}
	if err := checkInterval(b.NotBefore, b.Expiry); err != nil {
		return fmt.Errorf("%w: %w", ErrEntry, err)
	}
	if l.find(b.Device.ID()) >= 0 {
		return fmt.Errorf("%w: a device is added once", ErrEntry)
	}
	active := 0
	for _, d := range l.devices {
		if !d.Revoked {
			active++
		}
	}
	if active >= MaxDevices {
		return fmt.Errorf("%w: %d devices", ErrTooMany, MaxDevices)
	}
	if !verified {
		if err := b.Device.Verify(ContextDeviceProof, proofInput(l.person, b.Record), b.Proof[:]); err != nil {
			return fmt.Errorf("%w: the device did not agree to be added", err)
		}
	}
	l.devices = append(l.devices, DeviceState{
		ID: b.Device.ID(), Public: b.Device, RecordHash: b.Record,
		NotBefore: b.NotBefore, Expiry: b.Expiry, Added: at,
	})
	return nil
}

func (l *Log) applyRenew(b deviceRenewBody, at int64) error {
	d, err := l.active(b.Device)
	if err != nil {
		return err
	}
	if err := checkInterval(b.NotBefore, b.Expiry); err != nil {
		return fmt.Errorf("%w: %w", ErrEntry, err)
	}
	d.RecordHash, d.NotBefore, d.Expiry, d.Renewed = b.Record, b.NotBefore, b.Expiry, at
	return nil
}

func (l *Log) applyRevoke(b deviceRevokeBody) error {
	d, err := l.active(b.Device)
	if err != nil {
		return err
	}
	d.Revoked = true
	return nil
}

// active finds a device that can still be renewed or revoked.
func (l *Log) active(id DeviceID) (*DeviceState, error) {
	i := l.find(id)
	if i < 0 {
		return nil, fmt.Errorf("%w: %w", ErrEntry, ErrNotInLog)
	}
	if l.devices[i].Revoked {
		return nil, fmt.Errorf("%w: %w", ErrEntry, ErrRevoked)
	}
	return &l.devices[i], nil
}
