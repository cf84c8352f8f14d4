package identity

import (
	"errors"
	"time"
)

// Certificate times.
const (
	// RenewAfter is the part of Lifetime after which a certificate is due for
	// renewal. A shorter certificate is due after the same share of its time.
	RenewAfter = 60 * 24 * time.Hour
	// ClockTolerance is how far ahead of ours the clock of whoever made a
	// record may be. A record from further ahead counts as not begun, or it
	// would outlive the 90 days that bound a withheld revocation.
	ClockTolerance = 48 * time.Hour
)

// Errors of a device against its person's log.
var (
	// ErrNotInLog: the log does not list the device (at this head).
	ErrNotInLog = errors.New("device is not in its person's log")
	// ErrRevoked: the log took the device back.
	ErrRevoked = errors.New("device was revoked by its person")
	// ErrOtherRecord: the log certifies another record of this device, an
	// older or a newer one.
	ErrOtherRecord = errors.New("log certifies another record of this device")
)

// DeviceState is what a log says of one device at its head. Times are unix
// seconds.
type DeviceState struct {
	ID         DeviceID
	Public     DevicePublic
	RecordHash RecordHash // the latest certified record
	NotBefore  int64      // of that certificate
	Expiry     int64
	Added      int64 // claimed time of the device-add
	Renewed    int64 // claimed time of the latest device-renew, 0 if none
	Revoked    bool
}

// Standing is how a certificate stands at a given time.
type Standing uint8

// All standings. The zero value is none of them.
const (
	StandingEarly   Standing = iota + 1 // begins more than ClockTolerance from now
	StandingValid                       // in force
	StandingDue                         // in force, and to be renewed now (from day 60)
	StandingExpired                     // warned about; received from, not sent to
	StandingRevoked
)

// Live reports whether the device gets new messages and secrets.
func (s Standing) Live() bool { return s == StandingValid || s == StandingDue }

// String returns one lower-case word.
func (s Standing) String() string {
	switch s {
	case StandingEarly:
		return "early"
	case StandingValid:
		return "valid"
	case StandingDue:
		return "due"
	case StandingExpired:
		return "expired"
	case StandingRevoked:
		return "revoked"
	default:
		return "unknown"
	}
}

// At says how the certificate of d stands at a time.
func (d DeviceState) At(now time.Time) Standing {
	if d.Revoked {
		return StandingRevoked
	}
	return standing(d.NotBefore, d.Expiry, now)
}

// At says how the record stands at a time, by its own word.
func (r DeviceRecord) At(now time.Time) Standing { return standing(r.NotBefore, r.Expiry, now) }

func standing(notBefore, expiry int64, now time.Time) Standing {
	at := now.Unix()
	due := notBefore + (expiry-notBefore)*int64(RenewAfter/time.Hour)/int64(Lifetime/time.Hour)
	switch {
	case at < notBefore-int64(ClockTolerance/time.Second):
		return StandingEarly
	case at >= expiry:
		return StandingExpired
	case at >= due:
		return StandingDue
	default:
		return StandingValid
	}
}
