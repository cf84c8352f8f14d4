package event

import (
	"fmt"

	"github.com/kinloom/kinloom/identity"
)

// MaxRefused bounds the ids of one Refused.
const MaxRefused = 128

// Refused is the body of Refusal: events of a device that the author of this
// one did not keep, as it holds others under their numbers. They come again,
// under numbers that were never used.
type Refused struct {
	Device identity.DeviceID
	// Upto is the number up to which all are closed: no event of the device that
	// is not held already is kept under one of them, now or later.
	Upto uint64
	// Held is the highest number of the device under which one is held, at most
	// Upto.
	Held uint64
	// IDs are 1 to MaxRefused.
	IDs []ID
}

// Append returns the bytes of r. Errors: ErrCount, ErrSeq.
func (r Refused) Append() ([]byte, error) {
	if n := len(r.IDs); n == 0 || n > MaxRefused {
		return nil, fmt.Errorf("%w: %d refused events", ErrCount, n)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	b := make([]byte, 0, 64+len(r.IDs)*(len(ID{})+2))
	b = appendItem(appendField(append(b, majorMap<<5|4), 1), r.Device[:])
	b = appendUint(appendUint(b, 2, r.Upto), 3, r.Held)
	b = appendHead(appendField(b, 4), majorArray, uint64(len(r.IDs)))
	for i := range r.IDs {
		b = appendItem(b, r.IDs[i][:])
	}
	return b, nil
}

func (r Refused) check() error {
	if r.Held == 0 || r.Held > r.Upto || r.Upto > MaxSeq {
		return fmt.Errorf("%w: %d held, %d closed", ErrSeq, r.Held, r.Upto)
	}
	return nil
}

// ParseRefused reads the body of Refusal. Errors: those of Append, ErrMalformed,
// ErrUTF8, ErrSize.
func ParseRefused(b []byte) (Refused, error) {
	f, err := readFields(b, MaxBody)
	if err != nil {
		return Refused{}, err
	}
	var r Refused
	for key := f.next(); key > 0; key = f.next() {
		switch key {
		case 1:
			r.Device = f.hash()
		case 2:
			r.Upto = f.uint()
		case 3:
			r.Held = f.uint()
		case 4:
			r.IDs = make([]ID, f.array(MaxRefused, ErrCount))
			for i := range r.IDs {
				r.IDs[i] = f.hash()
			}
		default:
			f.pass()
		}
	}
	if err := f.end(1, 2, 3, 4); err != nil {
		return Refused{}, err
	}
	if err := r.check(); err != nil {
		return Refused{}, err
	}
	return r, nil
}

// Wanted is the body of Want: events of a device that the author of this one
// lacks, as a later one shows. The device sends again what of them it once sent
// there.
type Wanted struct {
	Device   identity.DeviceID
	From, To uint64 // both included
}

// Append returns the bytes of w. Error: ErrSeq.
func (w Wanted) Append() ([]byte, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	b := appendItem(appendField([]byte{majorMap<<5 | 3}, 1), w.Device[:])
	return appendUint(appendUint(b, 2, w.From), 3, w.To), nil
}

func (w Wanted) check() error {
	if w.From == 0 || w.From > w.To || w.To > MaxSeq {
		return fmt.Errorf("%w: from %d to %d", ErrSeq, w.From, w.To)
	}
	return nil
}

// ParseWanted reads the body of Want. Errors: those of Append, ErrMalformed,
// ErrUTF8, ErrSize.
func ParseWanted(b []byte) (Wanted, error) {
	f, err := readFields(b, MaxBody)
	if err != nil {
		return Wanted{}, err
	}
	var w Wanted
	for key := f.next(); key > 0; key = f.next() {
		switch key {
		case 1:
			w.Device = f.hash()
		case 2:
			w.From = f.uint()
		case 3:
			w.To = f.uint()
		default:
			f.pass()
		}
	}
	if err := f.end(1, 2, 3); err != nil {
		return Wanted{}, err
	}
	if err := w.check(); err != nil {
		return Wanted{}, err
	}
	return w, nil
}
