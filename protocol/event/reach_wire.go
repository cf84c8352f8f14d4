package event

import "fmt"

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

// Whereabouts is the body of Reach: where the device that says it is found, now
// and later. The latest of a device replaces all that it said before. It is said
// only inside a session that is confirmed.
type Whereabouts struct {
	// Transport is the Ed25519 key of the libp2p host that answers at Addrs.
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
}

// Append returns the bytes of w. Errors: ErrCount, ErrTooLong.
func (w Whereabouts) Append() ([]byte, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	n, size := byte(1), 2*(len(w.Transport)+headSize)+2*headSize
	for _, there := range []bool{w.Secret != [32]byte{}, len(w.Addrs) > 0, w.Offers > 0} {
		if there {
			n++
		}
	}
	for _, a := range w.Addrs {
		size += len(a) + headSize
	}
	b := append(make([]byte, 0, size), majorMap<<5|n)
	b = appendItem(appendField(b, 1), w.Transport[:])
	if w.Secret != [32]byte{} {
		b = appendItem(appendField(b, 2), w.Secret[:])
	}
	if len(w.Addrs) > 0 {
		b = appendList(b, 3, w.Addrs)
	}
	if w.Offers > 0 {
		b = appendUint(b, 4, w.Offers)
	}
	return b, nil
}

func (w Whereabouts) check() error {
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
			w.Transport = f.hash()
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
		default:
			f.pass()
		}
	}
	if err := f.end(1); err != nil {
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
