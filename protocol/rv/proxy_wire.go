package rv

import (
	"errors"
	"fmt"
	"time"

	"github.com/kinloom/kinloom/protocol/wire"
)

// ProxyID is the protocol by which records are put and fetched through another
// node.
const ProxyID = wire.DHTProxy

// ProxySize is the only size of a request and of a reply, in bytes: both have
// room for a record, so neither tells which of them has one.
const ProxySize = 1200

// Types of messages.
const (
	typePut   = 1
	typeGet   = 2
	typeReply = 3
)

// ErrProxy means not a message of dhtproxy, or not of the one size that it has.
var ErrProxy = errors.New("not a message of the look-up proxy")

// Request asks to put a record, or to fetch one.
type Request struct {
	Type   uint8  `cbor:"1,keyasint"` // set by Append
	Point  Point  `cbor:"2,keyasint"`
	Record []byte `cbor:"3,keyasint,omitempty"` // to put; nil to fetch
}

// Append appends the padded request, ProxySize bytes. Error: ErrProxy.
func (m Request) Append(dst []byte) ([]byte, error) {
	m.Type = typeGet
	if m.Record != nil {
		m.Type = typePut
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return appendPadded(dst, m, ProxySize, ErrProxy)
}

// ParseRequest reads what a dialer asked for. It looks at the size of a record
// and no further. Error: ErrProxy.
func ParseRequest(b []byte) (Request, error) {
	if len(b) != ProxySize {
		return Request{}, fmt.Errorf("%w: %d bytes", ErrProxy, len(b))
	}
	m, err := unpad[Request](b, ErrProxy)
	if err == nil {
		err = m.check()
	}
	if err != nil {
		return Request{}, err
	}
	return m, nil
}

func (m Request) check() error {
	switch {
	case m.Type == typePut && len(m.Record) == RecordSize, m.Type == typeGet && m.Record == nil:
		return nil
	}
	return fmt.Errorf("%w: type %d with a record of %d bytes", ErrProxy, m.Type, len(m.Record))
}

// answer is a Reply as it stands on the wire.
type answer struct {
	Type   uint8     `cbor:"1,keyasint"`
	Code   wire.Code `cbor:"2,keyasint,omitempty"`
	At     uint32    `cbor:"3,keyasint"`
	Record []byte    `cbor:"4,keyasint,omitempty"`
}

// Reply is what the proxy says.
type Reply struct {
	// Code is 0 if it did what it was asked for: the record was put with
	// others, or searched for.
	Code wire.Code
	// At is the proxy's time, in whole seconds, for a look at one's own clock.
	// One proxy alone is no proof of anything.
	At time.Time
	// Record is what was found, nil if there was none.
	Record []byte
}

// Append appends the padded reply, ProxySize bytes. Error: ErrProxy.
func (m Reply) Append(dst []byte) ([]byte, error) {
	at := min(max(m.At.Unix(), 0), 1<<32-1)
	a := answer{Type: typeReply, Code: m.Code, At: uint32(at), Record: m.Record}
	if err := a.check(); err != nil {
		return nil, err
	}
	return appendPadded(dst, a, ProxySize, ErrProxy)
}

// ParseReply reads what a proxy said. It looks at the size of a record and no
// further. Error: ErrProxy.
func ParseReply(b []byte) (Reply, error) {
	if len(b) != ProxySize {
		return Reply{}, fmt.Errorf("%w: %d bytes", ErrProxy, len(b))
	}
	a, err := unpad[answer](b, ErrProxy)
	if err == nil {
		err = a.check()
	}
	if err != nil {
		return Reply{}, err
	}
	return Reply{Code: a.Code, At: time.Unix(int64(a.At), 0).UTC(), Record: a.Record}, nil
}

func (a answer) check() error {
	switch {
	case a.Type != typeReply:
		return fmt.Errorf("%w: type %d", ErrProxy, a.Type)
	case a.Record != nil && (len(a.Record) != RecordSize || a.Code != 0):
		return fmt.Errorf("%w: code %d with a record of %d bytes", ErrProxy, a.Code, len(a.Record))
	}
	return nil
}
