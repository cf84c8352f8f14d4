package event

import (
	"errors"
	"fmt"

	"github.com/kinloom/kinloom/identity"
)

// Limits of a Whereabouts.
const (
	// MaxPlaces bounds the addresses of one Whereabouts.
	MaxPlaces = 8
	// MaxPlace bounds one address, in bytes of its multiaddr.
	MaxPlace = 127
)

// What a device offers, as bits of Whereabouts.Offers. Unknown bits are kept
// and mean nothing.
const (
	// OffersRecords: it stores and fetches look-up records for others
	// (protocol/rv), so it is a way into the network.
	OffersRecords = 1 << 0
	// OffersRelay: it relays for its contacts.
	OffersRelay = 1 << 1
	// OffersAlways: it is meant to run all the time.
	OffersAlways = 1 << 2
	// OffersDoze: it keeps no connection without traffic, to save its battery. Who
	// has nothing for it leaves it alone.
	OffersDoze = 1 << 3
)

// ErrProof means that the transport key of a Whereabouts is not shown to be that of the
// device.
var ErrProof = errors.New("transport key without proof of whose it is")

// Whereabouts is the body of Reach: where the device that says it is found, now
// and later. The latest of a device replaces all that it said before. It is said
// only inside a session that is confirmed.
type Whereabouts struct {
	// Transport is the Ed25519 key of the libp2p host that answers at Addrs, all zero
	// for one who is not to know it; then there are no Addrs and no Proof either.
	Transport [32]byte
	// Secret is what the device's look-up records are made with (protocol/rv),
	// all zero if it publishes none.
	Secret [32]byte
	// Addrs are at most MaxPlaces multiaddrs in their binary form, each of 1 to
	// MaxPlace bytes, best first, without the /p2p part of the device itself.
	// They are a stranger's text: whoever dials them looks at them first.
	Addrs [][]byte
	// Offers are the bits above.
	Offers uint64
	// Proof is the signature of Transport over identity.ReachInput of the device.
	// Parse takes it unread: see Proved.
	Proof [identity.SignatureSize]byte
}

// Proved returns ErrProof unless d, which says w, has the key that w names: a device
// that names the key of another one would be taken for whoever answers there.
func Proved(w Whereabouts, d identity.DeviceID) error {
	if err := identity.VerifyReach(w.Transport, d, w.Proof); err != nil {
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	return nil
}

// Append returns the bytes of w. Errors: ErrCount, ErrTooLong, ErrMalformed for
// addresses or a proof without a transport key, or that without a proof.
func (w Whereabouts) Append() ([]byte, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	n, size := byte(0), 2*(len(w.Transport)+headSize)+len(w.Proof)+3*headSize
	if w.Transport != [32]byte{} {
		n += 2 // and the proof
	}
	for _, there := range []bool{w.Secret != [32]byte{}, len(w.Addrs) > 0, w.Offers > 0} {
		if there {
			n++
		}
	}
	for _, a := range w.Addrs {
		size += len(a) + headSize
	}
	b := append(make([]byte, 0, size), majorMap<<5|n)
	if w.Transport != [32]byte{} {
		b = appendItem(appendField(b, 1), w.Transport[:])
	}
	if w.Secret != [32]byte{} {
		b = appendItem(appendField(b, 2), w.Secret[:])
	}
	if len(w.Addrs) > 0 {
		b = appendList(b, 3, w.Addrs)
	}
	if w.Offers > 0 {
		b = appendUint(b, 4, w.Offers)
	}
	if w.Transport != [32]byte{} {
		b = appendItem(appendField(b, 5), w.Proof[:])
	}
	return b, nil
}

func (w Whereabouts) check() error {
	named, proved := w.Transport != [32]byte{}, w.Proof != [identity.SignatureSize]byte{}
	if named != proved || !named && len(w.Addrs) > 0 {
		return fmt.Errorf("%w: a transport key goes with a proof, and addresses with a transport key", ErrMalformed)
	}
	if len(w.Addrs) > MaxPlaces {
		return fmt.Errorf("%w: %d addresses", ErrCount, len(w.Addrs))
	}
	for _, a := range w.Addrs {
		switch {
		case len(a) == 0:
			return fmt.Errorf("%w: an empty address", ErrCount)
		case len(a) > MaxPlace:
			return fmt.Errorf("%w: an address of %d bytes", ErrTooLong, len(a))
		}
	}
	return nil
}

// ParseWhereabouts reads the body of Reach. The addresses share memory with b.
// Errors: those of Append, ErrMalformed, ErrUTF8, ErrSize.
func ParseWhereabouts(b []byte) (Whereabouts, error) {
	f, err := readFields(b, MaxBody)
	if err != nil {
		return Whereabouts{}, err
	}
	var w Whereabouts
	for key := f.next(); key > 0; key = f.next() {
		switch key {
		case 1:
			w.Transport = f.spelled()
		case 2:
			w.Secret = f.spelled()
		case 3:
			w.Addrs = make([][]byte, f.array(MaxPlaces, ErrCount))
			for i := range w.Addrs {
				w.Addrs[i] = f.bytes()
			}
		case 4:
			if w.Offers = f.uint(); f.err == nil && w.Offers == 0 {
				f.err = fmt.Errorf("%w: nothing, written out", ErrMalformed)
			}
		case 5:
			b := f.bytes()
			if f.err == nil && (len(b) != len(w.Proof) || [identity.SignatureSize]byte(b) == [identity.SignatureSize]byte{}) {
				f.err = fmt.Errorf("%w: no proof of %d bytes", ErrMalformed, len(b))
			}
			copy(w.Proof[:], b)
		default:
			f.pass()
		}
	}
	if err := f.end(); err != nil {
		return Whereabouts{}, err
	}
	if err := w.check(); err != nil {
		return Whereabouts{}, err
	}
	return w, nil
}

// spelled takes a byte string of 32 bytes that is left out where it is all zero.
func (f *fields) spelled() [32]byte {
	h := f.hash()
	if f.err == nil && h == [32]byte{} {
		f.err = fmt.Errorf("%w: 32 zero bytes, written out", ErrMalformed)
	}
	return h
}
