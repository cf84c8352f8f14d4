package rv

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/kinloom/kinloom/protocol/wire"
)

// Times and limits of the proxy (SPEC 8.3).
const (
	// ProxyTimeout bounds a whole request on the dialer's side.
	ProxyTimeout = 30 * time.Second
	// RequestTimeout is how long the listener waits for the request, HostTimeout
	// how long its DHT may take, ReplyTimeout how long the reply may take to
	// leave.
	RequestTimeout = 10 * time.Second
	HostTimeout    = 15 * time.Second
	ReplyTimeout   = 5 * time.Second
	// ProxyStreams is how many requests are served at once, ProxyPerPeer how
	// many of them for one peer.
	ProxyStreams = 64
	ProxyPerPeer = 2
	// ProxyMemory is what one stream holds at most, in bytes: the router
	// reserves it before the stream is served.
	ProxyMemory = 4*ProxySize + proxyBuffer
	proxyBuffer = 2048
	// ProxyPuts and ProxyGets are how many requests one address block (IPv4
	// /24, IPv6 /48) may make at once, and ProxyPutEvery and ProxyGetEvery when
	// it may make one more; the host counts. Dialers are hosts of a moment, so
	// a count for each peer bounds nothing.
	ProxyPuts     = 32
	ProxyPutEvery = time.Minute
	ProxyGets     = 256
	ProxyGetEvery = 2 * time.Second
)

var (
	// ErrBusy is what a host returns that has too much to do, or was asked too
	// often: the dialer is told wire.CodeBusy.
	ErrBusy = errors.New("too many look-ups at the moment")
	// ErrSlow: the other side did not speak, read or finish in time.
	ErrSlow = errors.New("the look-up proxy was too slow; another one may be faster")
	// ErrCut: the connection ended in the middle.
	ErrCut = errors.New("the connection to the look-up proxy ended in the middle")
)

// Stream is what a request runs over; network.Stream satisfies it.
type Stream interface {
	io.Reader
	io.Writer
	Close() error
	Reset() error
	SetDeadline(time.Time) error
}

// ProxyHost is the node behind a proxy. Its calls end with their ctx.
type ProxyHost interface {
	// PutRecord puts a valid record with those who are nearest to its point.
	PutRecord(ctx context.Context, point Point, record []byte) error
	// GetRecord searches for the best record of a point; nil means none.
	GetRecord(ctx context.Context, point Point) ([]byte, error)
}

// Put asks the node behind s to put a record, and closes s. A refusal is no
// error but a Code in the Reply. Errors are those of Asker, ErrSlow, ErrCut and
// the cause of ctx.
func Put(ctx context.Context, s Stream, record []byte, point Point) (Reply, error) {
	var a Asker
	return ask(ctx, s, &a, "put a record", func() ([]byte, error) { return a.Put(point, record) })
}

// Get asks the node behind s for the record at point, and closes s. A refusal
// is no error but a Code in the Reply. Errors are those of Asker, ErrSlow,
// ErrCut and the cause of ctx; with ErrForged the Reply has its time.
func Get(ctx context.Context, s Stream, point Point) (Reply, error) {
	var a Asker
	return ask(ctx, s, &a, "fetch a record", func() ([]byte, error) { return a.Get(point) })
}

func ask(ctx context.Context, s Stream, a *Asker, what string, request func() ([]byte, error)) (Reply, error) {
	var reply Reply
	err := converse(ctx, s, ProxyTimeout, func() error {
		b, err := request()
		if err != nil {
			return err
		}
		if err := send(s, b); err != nil {
			return err
		}
		if b, err = receive(s); err != nil {
			return err
		}
		reply, err = a.Handle(b)
		return err
	})
	if err != nil {
		return reply, fmt.Errorf("%s: %w", what, err)
	}
	return reply, nil
}

// ServeProxy answers one request over s and closes s. The host is asked only
// about what is valid by now. Errors are those of the host, which the other
// side was told of by a code, ErrSlow, ErrCut, ErrProxy for what was no
// request, and the cause of ctx; a refused record is none.
func ServeProxy(ctx context.Context, s Stream, h ProxyHost, now func() time.Time) error {
	var told error
	err := converse(ctx, s, RequestTimeout, func() error {
		b, err := receive(s)
		if err != nil {
			return err
		}
		var reply Reply
		reply, told = serve(ctx, h, now, b)
		b, err = reply.Append(nil)
		if err != nil {
			return err
		}
		if err := s.SetDeadline(time.Now().Add(ReplyTimeout)); err != nil {
			return err
		}
		return send(s, b)
	})
	if err == nil {
		err = told
	}
	if err != nil {
		return fmt.Errorf("serve look-up: %w", err)
	}
	return nil
}

// serve makes the reply to a request, and tells what it is to be logged as.
func serve(ctx context.Context, h ProxyHost, now func() time.Time, b []byte) (Reply, error) {
	m, code := judge(now(), b)
	if code != 0 {
		if code == wire.CodeMalformed {
			return Reply{Code: code, At: now()}, ErrProxy
		}
		return Reply{Code: code, At: now()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, HostTimeout)
	defer cancel()
	var found []byte
	var err error
	if m.Record != nil {
		err = h.PutRecord(ctx, m.Point, m.Record)
	} else {
		found, err = h.GetRecord(ctx, m.Point)
	}
	switch {
	case errors.Is(err, ErrBusy):
		return Reply{Code: wire.CodeBusy, At: now()}, nil
	case err != nil:
		return Reply{Code: wire.CodeStorage, At: now()}, err
	}
	// What is not valid is not passed on, whoever stored it.
	if _, err := Validate(now(), m.Point, found); found != nil && err != nil {
		return Reply{At: now()}, fmt.Errorf("record from the host: %w", err)
	}
	return Reply{At: now(), Record: found}, nil
}

// converse sets the deadline of the stream, runs talk and closes the stream:
// softly if it came to its end, else by a reset.
func converse(ctx context.Context, s Stream, timeout time.Duration, talk func() error) error {
	at := time.Now().Add(timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(at) {
		at = d
	}
	if err := s.SetDeadline(at); err != nil {
		_ = s.Reset() // the first error is the one that tells something
		return fmt.Errorf("set deadline: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	err := talk()
	if !stop() && err != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		_ = s.Reset()
		return explain(err)
	}
	// The other side may have closed first, which QUIC reports as an error of
	// our own close.
	_ = s.Close()
	return nil
}

func send(s Stream, b []byte) error {
	_, err := s.Write(wire.AppendFrame(make([]byte, 0, len(b)+2), b))
	return err
}

func receive(s Stream) ([]byte, error) {
	b, err := wire.ReadFrame(bufio.NewReaderSize(s, proxyBuffer), ProxySize)
	if errors.Is(err, io.EOF) || errors.Is(err, wire.ErrFrameCut) {
		return nil, fmt.Errorf("%w: %w", ErrCut, err)
	}
	return b, err
}

// explain names the two ends that a connection can come to.
func explain(err error) error {
	if t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && t.Timeout() {
		return fmt.Errorf("%w: %w", ErrSlow, err)
	}
	if errors.Is(err, network.ErrReset) {
		return fmt.Errorf("%w: %w", ErrCut, err)
	}
	return err
}
