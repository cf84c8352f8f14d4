package rv

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/kinloom/kinloom/identity"
)

// Sizes of a record in bytes (SPEC 3).
const (
	// RecordSize is the only size of a record.
	RecordSize = headSize + sealedSize + ed25519.SignatureSize
	// HintSize is the only size of a padded hint.
	HintSize = 1008

	nonceSize  = 24
	tagSize    = 16
	headSize   = 1 + 4 + 8 + nonceSize // version, notAfter, seq, nonce
	sealedSize = HintSize + tagSize
)

const (
	// Version is the first byte of every record.
	Version = 1
	// MaxSeq is the highest seq: the minutes of two days.
	MaxSeq = 2 * 24 * 60
	// Ahead is how far from now notAfter may lie: the day itself, the one
	// behind it, one that is published before its time, and a clock that is
	// 26 h fast.
	Ahead = 78 * time.Hour

	day = 24 * 60 * 60 // seconds

	// lastPeriod is the last one whose notAfter fits its 32 bits.
	lastPeriod = math.MaxUint32/day - 2
	dhtPrefix  = "/rv/"
	signPrefix = "rv1"
)

// Errors of a record, in the order in which they are looked for.
var (
	// ErrSize: not RecordSize bytes.
	ErrSize = errors.New("record has a wrong size")
	// ErrVersion: a version that this code does not know.
	ErrVersion = errors.New("record of an unknown version")
	// ErrNotAfter: it does not end with a day, or has ended, or would be good
	// for longer than any clock explains.
	ErrNotAfter = errors.New("record outside its time")
	// ErrSeq: more than MaxSeq.
	ErrSeq = errors.New("record with an impossible seq")
	// ErrPoint: a point that is not in its only encoding or of low order, or a
	// rendezvous key that leads to none.
	ErrPoint = errors.New("not a point of a record")
	// ErrSignature: not signed by the key of the point.
	ErrSignature = errors.New("signature of the record does not match")
	// ErrDHTKey: not the key of a record in the DHT.
	ErrDHTKey = errors.New("not the key of a record")
)

// Secret is the contact secret of one device. Who has it, and the device's
// rendezvous key, finds and reads its records; all zeros is the open tier, in
// which the key alone is enough.
type Secret [32]byte

const secretText = "<secret>"

// String hides the secret, as the next three methods do.
func (Secret) String() string { return secretText }

// GoString hides the secret.
func (Secret) GoString() string { return secretText }

// Format hides the secret.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(secretText)) }

// MarshalText hides the secret, so that it gets into no JSON.
func (Secret) MarshalText() ([]byte, error) { return []byte(secretText), nil }

// Point is where a record lies and the key that verifies it. It tells nothing
// of the device to whoever lacks its secret.
type Point [32]byte

// Period is a day: whole days since 1970, UTC. All points change with it.
type Period uint32

// PeriodAt is the period that t lies in. Times that have none are put into the
// first or last one.
func PeriodAt(t time.Time) Period {
	return Period(min(max(t.Unix(), 0)/day, lastPeriod))
}

// Start is the moment when the period begins.
func (p Period) Start() time.Time { return time.Unix(int64(p)*day, 0).UTC() }

// NotAfter is the moment when its records end: a whole period after its own
// end.
func (p Period) NotAfter() time.Time { return time.Unix((int64(p)+2)*day, 0).UTC() }

// Stamp says which of two records of a device is newer. Its publisher claims
// it.
type Stamp struct {
	Period Period
	Seq    uint64 // minutes since Period began, 0 before it
}

// At is the minute of publication that the stamp claims. Of one that was
// published before its period it is the period's beginning.
func (s Stamp) At() time.Time {
	return s.Period.Start().Add(time.Duration(min(s.Seq, MaxSeq)) * time.Minute)
}

// Compare orders stamps by period, then by seq.
func (s Stamp) Compare(t Stamp) int {
	switch {
	case s.Period != t.Period:
		return int(int64(s.Period) - int64(t.Period))
	case s.Seq < t.Seq:
		return -1
	case s.Seq > t.Seq:
		return 1
	}
	return 0
}

// DHTKey is the name of a point in a DHT whose keys begin with what kind of
// value they have.
func DHTKey(p Point) string { return dhtPrefix + string(p[:]) }

// ParseDHTKey undoes DHTKey. It does not ask whether the point is sound, as
// Validate does. Error: ErrDHTKey.
func ParseDHTKey(key string) (Point, error) {
	raw, ok := strings.CutPrefix(key, dhtPrefix)
	if !ok || len(raw) != len(Point{}) {
		return Point{}, ErrDHTKey
	}
	return Point([]byte(raw)), nil
}

// parts are a record taken apart. Slices share memory with its bytes.
type parts struct {
	notAfter uint32
	seq      uint64
	nonce    []byte
	sealed   []byte
	signed   []byte // everything but the signature
	sig      []byte
}

// split takes a record apart and checks what the bytes alone can tell.
func split(b []byte) (parts, error) {
	if len(b) != RecordSize {
		return parts{}, fmt.Errorf("%w: %d bytes", ErrSize, len(b))
	}
	if b[0] != Version {
		return parts{}, fmt.Errorf("%w: %d", ErrVersion, b[0])
	}
	r := parts{
		notAfter: binary.BigEndian.Uint32(b[1:]), seq: binary.BigEndian.Uint64(b[5:]),
		nonce: b[headSize-nonceSize : headSize], sealed: b[headSize : headSize+sealedSize],
		signed: b[:headSize+sealedSize], sig: b[headSize+sealedSize:],
	}
	if r.notAfter%day != 0 || r.notAfter < 2*day {
		return parts{}, fmt.Errorf("%w: not after the end of a day", ErrNotAfter)
	}
	if r.seq > MaxSeq {
		return parts{}, fmt.Errorf("%w: %d", ErrSeq, r.seq)
	}
	return r, nil
}

func (r parts) stamp() Stamp { return Stamp{Period: Period(r.notAfter/day - 2), Seq: r.seq} }

// verify checks point and signature, the dear ones.
func (r parts) verify(point Point) error {
	if err := identity.CheckKey(point); err != nil {
		return fmt.Errorf("%w: %w", ErrPoint, err)
	}
	if !ed25519.Verify(point[:], signInput(point, r.signed), r.sig) {
		return ErrSignature
	}
	return nil
}

// signInput is what a record's signature is made over.
func signInput(point Point, signed []byte) []byte {
	b := make([]byte, 0, len(signPrefix)+len(point)+headSize+sealedSize)
	b = append(b, signPrefix...)
	b = append(b, point[:]...)
	return append(b, signed...)
}

// Validate checks a record as anybody can who knows no secret: size, version,
// time, seq, point and signature, the cheap ones first. Errors: ErrSize,
// ErrVersion, ErrNotAfter, ErrSeq, ErrPoint, ErrSignature.
func Validate(now time.Time, point Point, record []byte) (Stamp, error) {
	r, err := split(record)
	if err != nil {
		return Stamp{}, err
	}
	left := time.Unix(int64(r.notAfter), 0).Sub(now)
	if left <= 0 || left > Ahead {
		return Stamp{}, fmt.Errorf("%w: ends in %v", ErrNotAfter, left.Round(time.Second))
	}
	if err := r.verify(point); err != nil {
		return Stamp{}, err
	}
	return r.stamp(), nil
}

// Verify is Validate without a clock: what a reader asks of an answer, whose
// own clock may be wrong. It knows the period that it asked for.
func Verify(point Point, record []byte) (Stamp, error) {
	r, err := split(record)
	if err != nil {
		return Stamp{}, err
	}
	if err := r.verify(point); err != nil {
		return Stamp{}, err
	}
	return r.stamp(), nil
}

// Select returns the index of the best of several records of one point, which
// were validated: the highest seq, and of those the lowest SHA-256. Records of
// a wrong size are passed over; -1 means that there is no other.
func Select(records [][]byte) int {
	best, bestSeq := -1, uint64(0)
	var bestHash [sha256.Size]byte
	for i, b := range records {
		if len(b) != RecordSize {
			continue
		}
		seq := binary.BigEndian.Uint64(b[5:])
		if best >= 0 && seq < bestSeq {
			continue
		}
		hash := sha256.Sum256(b)
		if best < 0 || seq > bestSeq || bytes.Compare(hash[:], bestHash[:]) < 0 {
			best, bestSeq, bestHash = i, seq, hash
		}
	}
	return best
}

// Validator checks and chooses records for a DHT, by its keys. It satisfies
// the Validator of go-libp2p-record.
type Validator struct {
	Now func() time.Time // required
}

// Validate is rv.Validate for a key of the DHT. Errors are its and ErrDHTKey.
func (v Validator) Validate(key string, value []byte) error {
	point, err := ParseDHTKey(key)
	if err != nil {
		return err
	}
	_, err = Validate(v.Now(), point, value)
	return err
}

// Select is rv.Select. Error: ErrSize if none has the size of a record.
func (v Validator) Select(_ string, values [][]byte) (int, error) {
	i := Select(values)
	if i < 0 {
		return 0, fmt.Errorf("%w: none of %d can be chosen", ErrSize, len(values))
	}
	return i, nil
}
