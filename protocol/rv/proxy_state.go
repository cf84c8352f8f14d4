package rv

import (
	"errors"
	"fmt"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/wire"
)

var (
	// ErrOver: a second request, or a reply without one.
	ErrOver = errors.New("one request and one reply are all that a look-up is")
	// ErrForged: the proxy answered with a record that the owner of the point
	// did not sign. Another proxy may tell the truth.
	ErrForged = errors.New("the look-up proxy answered with a record that its owner did not sign")
)

// Asker is the dialer's side of one request. Its zero value is ready.
type Asker struct {
	stage stage
	point Point
}

type stage uint8

const (
	stageStart stage = iota
	stagePut
	stageGet
	stageOver
)

// Put returns the request to put a record at point. The record is checked as by
// Verify: its time is for the proxy to judge, whose clock may be the better
// one.
func (a *Asker) Put(point Point, record []byte) ([]byte, error) {
	if _, err := Verify(point, record); err != nil {
		return nil, err
	}
	return a.ask(stagePut, Request{Point: point, Record: record})
}

// Get returns the request for the record at point.
func (a *Asker) Get(point Point) ([]byte, error) {
	if err := identity.CheckKey(point); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPoint, err)
	}
	return a.ask(stageGet, Request{Point: point})
}

func (a *Asker) ask(next stage, m Request) ([]byte, error) {
	if a.stage != stageStart {
		return nil, ErrOver
	}
	b, err := m.Append(nil)
	if err != nil {
		return nil, err
	}
	a.stage, a.point = next, m.Point
	return b, nil
}

// Handle takes the reply. With ErrForged there is a Reply too, without the
// record: its time was said all the same. Other errors: ErrProxy, ErrOver.
func (a *Asker) Handle(b []byte) (Reply, error) {
	asked := a.stage
	if asked != stagePut && asked != stageGet {
		return Reply{}, ErrOver
	}
	a.stage = stageOver
	m, err := ParseReply(b)
	if err != nil {
		return Reply{}, err
	}
	if m.Record == nil {
		return m, nil
	}
	if asked == stagePut {
		return Reply{}, fmt.Errorf("%w: a record as the answer to one", ErrProxy)
	}
	if _, err := Verify(a.point, m.Record); err != nil {
		m.Record = nil
		return m, fmt.Errorf("%w: %w", ErrForged, err)
	}
	return m, nil
}

// judge reads a request. With a code other than 0 that is the answer, and the
// host is not asked.
func judge(now time.Time, b []byte) (Request, wire.Code) {
	m, err := ParseRequest(b)
	if err != nil {
		return Request{}, wire.CodeMalformed
	}
	if m.Record == nil {
		if identity.CheckKey(m.Point) != nil {
			return Request{}, wire.CodeProof
		}
		return m, 0
	}
	_, err = Validate(now, m.Point, m.Record)
	switch {
	case err == nil:
		return m, 0
	case errors.Is(err, ErrVersion):
		return Request{}, wire.CodeVersion
	case errors.Is(err, ErrNotAfter):
		return Request{}, wire.CodeExpired
	case errors.Is(err, ErrPoint), errors.Is(err, ErrSignature):
		return Request{}, wire.CodeProof
	}
	return Request{}, wire.CodeMalformed
}
