package identity

import (
	"fmt"
	"time"
)

// NewLog begins the log of the person whose root key this is: genesis, then
// the first log key.
func NewLog(root RootKey, log LogPublic, at time.Time) (*Log, error) {
	l := &Log{person: root.Person()}
	if err := l.add(root.sign, EntryGenesis, genesisBody{}, at); err != nil {
		return nil, fmt.Errorf("begin log: %w", err)
	}
	if err := l.add(root.sign, EntryLogKey, logKeyBody{Key: log}, at); err != nil {
		return nil, fmt.Errorf("begin log: %w", err)
	}
	return l, nil
}

// AddDevice certifies a device by its signed record. The device key signs
// that it agrees. It fails for a fork (ErrFork), for a log key that is no
// longer or not yet the one (ErrSignature), and for what ParseLog would refuse.
func (l *Log) AddDevice(log LogKey, record []byte, dev DeviceKey, at time.Time) (*Log, error) {
	r, h, err := l.ownRecord(record)
	if err != nil {
		return nil, fmt.Errorf("add device: %w", err)
	}
	if r.Device != dev.Public() {
		return nil, fmt.Errorf("add device: %w: it names another device key", ErrRecord)
	}
	b := deviceAddBody{Device: r.Device, Record: h, NotBefore: r.NotBefore, Expiry: r.Expiry}
	copy(b.Proof[:], dev.sign(ContextDeviceProof, proofInput(l.person, h)))
	return l.continued("add device", log, EntryDeviceAdd, b, at)
}

// RenewDevice certifies the next record of a device. The record is signed by
// the device, which is its consent. Errors as in AddDevice.
func (l *Log) RenewDevice(log LogKey, record []byte, at time.Time) (*Log, error) {
	r, h, err := l.ownRecord(record)
	if err != nil {
		return nil, fmt.Errorf("renew device: %w", err)
	}
	b := deviceRenewBody{Device: r.Device.ID(), Record: h, NotBefore: r.NotBefore, Expiry: r.Expiry}
	return l.continued("renew device", log, EntryDeviceRenew, b, at)
}

// RevokeDevice takes a device back, for good: a revoked device key is never
// added again. Errors as in AddDevice.
func (l *Log) RevokeDevice(log LogKey, id DeviceID, at time.Time) (*Log, error) {
	return l.continued("revoke device", log, EntryDeviceRevoke, deviceRevokeBody{Device: id}, at)
}

// SupersedeLogKey makes log the log key from entry number from on and voids
// what the older key signed from there on; Seq()+1 voids nothing that l holds.
// It must lie behind the last log-key entry. This is the answer to a stolen
// log key and the end of a fork: the side that l is on stays, up to from.
func (l *Log) SupersedeLogKey(root RootKey, log LogPublic, from uint64, at time.Time) (*Log, error) {
	if root.Person() != l.person {
		return nil, fmt.Errorf("supersede log key: %w", ErrPerson)
	}
	if l.end != nil {
		return nil, fmt.Errorf("supersede log key: %w", l.end)
	}
	if from > uint64(len(l.entries)) {
		return nil, fmt.Errorf("supersede log key: %w: entry %d is not there yet", ErrChain, from)
	}
	kept, err := ParseLog(l.person, l.entries[:from])
	if err != nil {
		return nil, fmt.Errorf("supersede log key: %w", err)
	}
	if len(kept.logKeys) != len(l.logKeys) {
		return nil, fmt.Errorf("supersede log key: %w: entry %d is not behind the last log key", ErrChain, from)
	}
	if err := kept.add(root.sign, EntryLogKey, logKeyBody{Key: log}, at); err != nil {
		return nil, fmt.Errorf("supersede log key: %w", err)
	}
	return kept, nil
}

// ownRecord reads a record that is to be certified in l.
func (l *Log) ownRecord(record []byte) (DeviceRecord, RecordHash, error) {
	r, h, err := ParseDeviceRecord(record)
	if err != nil {
		return r, h, err
	}
	if r.Person != l.person {
		return r, h, ErrPerson
	}
	return r, h, nil
}

// continued returns l with one more entry of the log key.
func (l *Log) continued(what string, log LogKey, typ EntryType, body any, at time.Time) (*Log, error) {
	if l.rival != nil {
		return nil, fmt.Errorf("%s: %w", what, ErrFork)
	}
	if l.end != nil {
		return nil, fmt.Errorf("%s: %w", what, l.end)
	}
	next := l.grow()
	if err := next.add(log.sign, typ, body, at); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return next, nil
}

// add signs an entry and takes it in through the same door as a received one.
func (l *Log) add(sign func(Context, []byte) []byte, typ EntryType, body any, at time.Time) error {
	b, err := l.makeEntry(sign, typ, body, at)
	if err != nil {
		return err
	}
	return l.apply(b)
}
