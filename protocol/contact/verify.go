package contact

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/kinloom/kinloom/identity"
)

// ErrMaterial means that what the other side says about itself does not hold:
// its log, its device record, or the way the two fit each other.
var ErrMaterial = errors.New("the other side's identity does not verify")

// Peer is the other side of an exchange, after every signature was checked.
// Only the bundles are as they came.
type Peer struct {
	// Log is the verified log; where it ends early, Log.End says why.
	Log        *identity.Log
	Record     identity.DeviceRecord
	RecordHash identity.RecordHash
	// RecordBytes are the signed record as received.
	RecordBytes []byte
	// Static and Once are signed bundles, unread; nil if none came.
	Static, Once []byte
	// Name is the profile name after CleanName, "" if none is left.
	Name string
	// Addresses are claims: binary multiaddrs, unread.
	Addresses [][]byte
	// Transport is the host that the peer spoke from.
	Transport Transport
}

// Person is who the peer is.
func (p Peer) Person() identity.PersonID { return p.Record.Person }

// Device is the device of that person that took part.
func (p Peer) Device() identity.DeviceID { return p.Record.Device.ID() }

// verify reads a material and checks that the person's log stands behind the
// device that speaks. Whether the device has the key is shown by a signature
// later, and whether it is the expected person is for the caller.
func verify(now time.Time, material []byte, transport Transport) (Peer, error) {
	m, err := ParseMaterial(material)
	if err != nil {
		return Peer{}, err
	}
	record, hash, err := identity.ParseDeviceRecord(m.Record)
	switch {
	case errors.Is(err, identity.ErrSuite), errors.Is(err, identity.ErrVersion):
		return Peer{}, fmt.Errorf("%w: %w", ErrSuite, err)
	case err != nil:
		return Peer{}, fmt.Errorf("%w: %w", ErrMaterial, err)
	}
	// A log that goes on with an entry of a later version is good as far as it
	// can be read: the device has to stand in that part.
	log, err := identity.ParseLog(record.Person, m.Entries)
	if err != nil && (log == nil || !fromLater(err)) {
		return Peer{}, fmt.Errorf("%w: %w", ErrMaterial, err)
	}
	state, err := log.Certified(record, hash)
	if err != nil {
		return Peer{}, fmt.Errorf("%w: %w", ErrMaterial, err)
	}
	if standing := state.At(now); !standing.Live() {
		return Peer{}, fmt.Errorf("%w: device certificate is %v (if a clock is wrong, set it and try again)", ErrMaterial, standing)
	}
	return Peer{
		Log: log, Record: record, RecordHash: hash, RecordBytes: bytes.Clone(m.Record),
		Static: m.Static, Once: m.Once,
		Name: CleanName(m.Name), Addresses: m.Addresses, Transport: transport,
	}, nil
}

// fromLater tells whether a log ended early at something that a later version
// of kinloom wrote, and not at a wrong one.
func fromLater(err error) bool {
	return errors.Is(err, identity.ErrUnknownEntry) || errors.Is(err, identity.ErrVersion) ||
		errors.Is(err, identity.ErrSuite)
}
