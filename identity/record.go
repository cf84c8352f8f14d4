package identity

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kinloom/kinloom/identity/enc"
)

// Limits of a DeviceRecord.
const (
	MaxRecord       = 1024 // bytes, signature included
	MaxCapabilities = 16
	MaxCapability   = 32 // bytes of one capability

	// Lifetime is the longest time from NotBefore to Expiry. A revocation
	// that someone withholds bites within it.
	Lifetime = 90 * 24 * time.Hour
)

// ErrTooLarge means more bytes than the limit of that object allows.
var ErrTooLarge = errors.New("larger than allowed")

// RecordVersion is the only version of the format of device records.
const RecordVersion uint16 = 1

// maxTime is the last second of the year 9999: later ones have no RFC 3339.
const maxTime = 253402300799

var (
	// ErrRecord: a DeviceRecord that breaks a rule of SPEC 3.
	ErrRecord = errors.New("device record breaks the rules")
	// ErrSuite: made for a suite that this version does not know.
	ErrSuite = errors.New("unknown suite: a newer kinloom made this, update to read it")
	// ErrVersion: a format version that this version does not know.
	ErrVersion = errors.New("unknown format version: a newer kinloom made this, update to read it")
)

// DeviceRecord is what a device says of itself, signed with its device key.
// A log entry certifies its hash. Times are unix seconds.
type DeviceRecord struct {
	Suite        uint16       `cbor:"1,keyasint"`
	Version      uint16       `cbor:"2,keyasint"`
	Person       PersonID     `cbor:"3,keyasint"`
	Device       DevicePublic `cbor:"4,keyasint"`
	Olm          [32]byte     `cbor:"5,keyasint"` // Curve25519 identity
	Rendezvous   [32]byte     `cbor:"6,keyasint"` // Ed25519
	NotBefore    int64        `cbor:"7,keyasint"`
	Expiry       int64        `cbor:"8,keyasint"`
	Capabilities []string     `cbor:"9,keyasint,omitempty"` // ascending, of a-z 0-9 - . /
}

// SignDeviceRecord checks r and signs it. Suite and Version may be left zero;
// they become Suite1 and RecordVersion.
func SignDeviceRecord(k DeviceKey, r DeviceRecord) ([]byte, error) {
	if r.Suite == 0 {
		r.Suite = Suite1
	}
	if r.Version == 0 {
		r.Version = RecordVersion
	}
	if r.Device != k.Public() {
		return nil, fmt.Errorf("sign device record: %w: it names another device key", ErrRecord)
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("sign device record: %w", err)
	}
	body, err := enc.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("sign device record: %w", err)
	}
	b := append(k.sign(ContextDeviceRecord, body), body...)
	if len(b) > MaxRecord {
		return nil, fmt.Errorf("sign device record: %w: %d bytes", ErrTooLarge, len(b))
	}
	return b, nil
}

// ParseDeviceRecord checks the form, the rules and the signature by the
// device key that the record names. Whether a person certified it is in the
// person's log (Log.Check), and whether it is of today, in At.
func ParseDeviceRecord(b []byte) (DeviceRecord, RecordHash, error) {
	r, sig, body, err := readDeviceRecord(b)
	if err == nil {
		err = r.check()
	}
	if err == nil {
		err = r.Device.Verify(ContextDeviceRecord, body, sig)
	}
	if err != nil {
		return DeviceRecord{}, RecordHash{}, fmt.Errorf("device record: %w", err)
	}
	return r, sha256.Sum256(b), nil
}

// KnownDeviceRecord reads a record of which the hash is known, from a log that
// certifies it: what ParseDeviceRecord checked before it came there is not checked
// again. Another record is ErrRecord.
func KnownDeviceRecord(b []byte, known RecordHash) (DeviceRecord, error) {
	if sha256.Sum256(b) != known {
		return DeviceRecord{}, fmt.Errorf("device record: %w: it is not the one that is known", ErrRecord)
	}
	r, _, _, err := readDeviceRecord(b)
	if err != nil {
		return DeviceRecord{}, fmt.Errorf("device record: %w", err)
	}
	return r, nil
}

// readDeviceRecord reads a record and checks its form only.
func readDeviceRecord(b []byte) (r DeviceRecord, sig, body []byte, err error) {
	if len(b) > MaxRecord {
		return r, nil, nil, ErrTooLarge
	}
	if sig, body, err = splitSigned(b); err != nil {
		return r, nil, nil, err
	}
	if err := checkPreamble(body, RecordVersion); err != nil {
		return r, nil, nil, err
	}
	err = enc.Unmarshal(body, &r)
	return r, sig, body, err
}

func (r *DeviceRecord) check() error {
	switch {
	case r.Suite != Suite1:
		return ErrSuite
	case r.Version != RecordVersion:
		return ErrVersion
	}
	if err := checkInterval(r.NotBefore, r.Expiry); err != nil {
		return fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if len(r.Capabilities) > MaxCapabilities {
		return fmt.Errorf("%w: more than %d capabilities", ErrRecord, MaxCapabilities)
	}
	for i, c := range r.Capabilities {
		if !soundCapability(c) || i > 0 && r.Capabilities[i-1] >= c {
			return fmt.Errorf("%w: capability %d", ErrRecord, i+1)
		}
	}
	for _, key := range [][32]byte{r.Person, r.Device, r.Rendezvous} {
		if err := CheckKey(key); err != nil {
			return err
		}
	}
	return checkX25519(r.Olm)
}

// Can reports whether the device says that it is able to do c.
func (r DeviceRecord) Can(c string) bool { return slices.Contains(r.Capabilities, c) }

func soundCapability(c string) bool {
	for _, x := range []byte(c) {
		if (x < 'a' || x > 'z') && (x < '0' || x > '9') && x != '-' && x != '.' && x != '/' {
			return false
		}
	}
	return c != "" && len(c) <= MaxCapability
}

// checkInterval holds the certificate rule: at most Lifetime long.
func checkInterval(notBefore, expiry int64) error {
	if notBefore < 0 || expiry <= notBefore || expiry > maxTime {
		return errors.New("times out of range")
	}
	if expiry-notBefore > int64(Lifetime/time.Second) {
		return errors.New("valid for more than 90 days")
	}
	return nil
}

// splitSigned takes signed bytes apart: signature, then the signed body. There
// is no envelope round them, so nothing in them is unsigned.
func splitSigned(b []byte) (sig, body []byte, err error) {
	if len(b) <= SignatureSize {
		return nil, nil, enc.ErrTruncated
	}
	return b[:SignatureSize], b[SignatureSize:], nil
}
