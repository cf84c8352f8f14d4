package identity

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/kinloom/kinloom/identity/enc"
)

// Limits of a log. A person with ten devices, each renewed every 60 days,
// writes 61 entries a year of about 250 bytes.
const (
	MaxEntry   = 1024 // bytes of one entry, signature included
	MaxEntries = 2048 // entries of one log
	MaxDevices = 32   // devices of one person that are not revoked
)

// EntryVersion is the only version of the format of log entries.
const EntryVersion uint16 = 1

// EntryType says what an entry does, and by that which key must have signed
// it. Numbers 6 (recovery-policy) and 7 (root-rotate) are reserved.
type EntryType uint16

// All entry types of this version.
const (
	EntryGenesis      EntryType = 1 // root: the log of this person begins
	EntryLogKey       EntryType = 2 // root: from here on this log key signs
	EntryDeviceAdd    EntryType = 3 // log key, and the device itself
	EntryDeviceRenew  EntryType = 4 // log key
	EntryDeviceRevoke EntryType = 5 // log key
)

// Errors of log entries. A LogError says which entry.
var (
	// ErrChain: seq or prev does not continue the entry before it.
	ErrChain = errors.New("log entry does not continue the chain")
	// ErrPerson: belongs to another person.
	ErrPerson = errors.New("belongs to another person")
	// ErrUnknownEntry: an entry type of a later version.
	ErrUnknownEntry = errors.New("unknown log entry type: a newer kinloom made this, update to read it")
	// ErrEntry: soundly signed, but it breaks a rule of SPEC 4.
	ErrEntry = errors.New("log entry breaks the rules")
	// ErrTooMany: more entries or devices than one person may have.
	ErrTooMany = errors.New("more than one person may have")
	// ErrIncomplete: not even the genesis and the first log key are there.
	ErrIncomplete = errors.New("log without genesis and log key")
)

// LogError says at which entry the verified part of a log ended, and why. The
// entries before it stand.
type LogError struct {
	Seq uint64
	Err error
}

func (e *LogError) Error() string { return fmt.Sprintf("log entry %d: %v", e.Seq, e.Err) }

func (e *LogError) Unwrap() error { return e.Err }

// preamble is read first: of what a later suite or version says behind it,
// nothing can be assumed.
type preamble struct {
	Suite   uint16 `cbor:"1,keyasint"`
	Version uint16 `cbor:"2,keyasint"`
}

// entry is the signed part of a log entry (SPEC 4.1).
type entry struct {
	Suite   uint16    `cbor:"1,keyasint"`
	Version uint16    `cbor:"2,keyasint"`
	Person  PersonID  `cbor:"3,keyasint"`
	Seq     uint64    `cbor:"4,keyasint"`
	Prev    Head      `cbor:"5,keyasint"`
	Time    int64     `cbor:"6,keyasint"` // claimed, orders nothing
	Type    EntryType `cbor:"7,keyasint"`
	Body    enc.Raw   `cbor:"8,keyasint"`
}

type genesisBody struct{}

type logKeyBody struct {
	Key LogPublic `cbor:"1,keyasint"`
}

type deviceAddBody struct {
	Device    DevicePublic        `cbor:"1,keyasint"`
	Record    RecordHash          `cbor:"2,keyasint"`
	NotBefore int64               `cbor:"3,keyasint"`
	Expiry    int64               `cbor:"4,keyasint"`
	Proof     [SignatureSize]byte `cbor:"5,keyasint"`
}

type deviceRenewBody struct {
	Device    DeviceID   `cbor:"1,keyasint"`
	Record    RecordHash `cbor:"2,keyasint"`
	NotBefore int64      `cbor:"3,keyasint"`
	Expiry    int64      `cbor:"4,keyasint"`
}

type deviceRevokeBody struct {
	Device DeviceID `cbor:"1,keyasint"`
}

// parseEntry checks the form of an entry and hands back its parts. The
// signature is left to the log, which knows the keys.
func parseEntry(b []byte) (e entry, sig, signed []byte, err error) {
	if len(b) > MaxEntry {
		return e, nil, nil, ErrTooLarge
	}
	if sig, signed, err = splitSigned(b); err != nil {
		return e, nil, nil, err
	}
	if err := checkPreamble(signed, EntryVersion); err != nil {
		return e, nil, nil, err
	}
	if err := enc.Unmarshal(signed, &e); err != nil {
		return e, nil, nil, err
	}
	if e.Time < 0 || e.Time > maxTime {
		return e, nil, nil, fmt.Errorf("%w: time out of range", ErrEntry)
	}
	return e, sig, signed, nil
}

// makeEntry encodes and signs the entry that continues l.
func (l *Log) makeEntry(sign func(Context, []byte) []byte, typ EntryType, body any, at time.Time) ([]byte, error) {
	raw, err := enc.Marshal(body)
	if err != nil {
		return nil, err
	}
	e := entry{
		Suite: Suite1, Version: EntryVersion, Person: l.person, Seq: uint64(len(l.entries)),
		Time: at.Unix(), Type: typ, Body: raw,
	}
	if len(l.heads) > 0 {
		e.Prev = l.Head()
	}
	signed, err := enc.Marshal(e)
	if err != nil {
		return nil, err
	}
	return append(sign(ContextLog, signed), signed...), nil
}

// proofInput is what a device signs to be added: that this person may list it
// with this record.
func proofInput(p PersonID, h RecordHash) []byte { return append(p[:], h[:]...) }

func hashEntry(b []byte) Head { return sha256.Sum256(b) }

func checkPreamble(b []byte, version uint16) error {
	var p preamble
	if err := enc.Unmarshal(b, &p); err != nil {
		return err
	}
	switch {
	case p.Suite != Suite1:
		return ErrSuite
	case p.Version != version:
		return ErrVersion
	}
	return nil
}
