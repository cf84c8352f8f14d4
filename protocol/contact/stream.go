package contact

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/kinloom/kinloom/protocol/wire"
)

const (
	// Timeout bounds a whole exchange on both sides, however slowly the bytes
	// come: it is enough for the four messages over the worst link that
	// carries a call.
	Timeout = 30 * time.Second
	// HelloTimeout bounds a hello.
	HelloTimeout = 10 * time.Second
	// Memory is what one exchange holds at most, HelloMemory what one hello
	// does, in bytes: the router reserves it before the stream is served.
	Memory      = 2*MaxMessage + readBuffer
	HelloMemory = 3*MaxHello + readBuffer
	// readBuffer is what a stream may hold before it was read, in bytes.
	readBuffer = 4096
	// farewell is how long a refusal may take to leave.
	farewell = 2 * time.Second
)

var (
	// ErrSlow: the other side did not speak, read or finish in time.
	ErrSlow = errors.New("the other side was too slow; check the connection and try again")
	// ErrCut: the connection ended in the middle.
	ErrCut = errors.New("the connection ended in the middle; try again")
)

// Stream is what an exchange runs over; network.Stream satisfies it.
type Stream interface {
	io.Reader
	io.Writer
	Close() error
	Reset() error
	SetDeadline(time.Time) error
}

// Host is the node behind a responder. Both methods are called once at most,
// one after the other.
type Host interface {
	// Admit says whether the token is good at this moment and, with code 0,
	// what to tell about this device. It does not use the token up.
	Admit(ctx context.Context, token Token, from Transport) (wire.Code, Material, error)
	// Store stores the other side and the use of the token in one
	// transaction, and returns after it is on disk. Whoever comes second with
	// a single-use token gets CodeUsed.
	Store(ctx context.Context, token Token, met Met) (code wire.Code, request bool, err error)
}

// StreamChannel returns the ends of the connection under s. Error:
// ErrTransport for keys that are not Ed25519 keys.
func StreamChannel(s network.Stream) (Channel, error) {
	local, err := ParseTransport([]byte(s.Conn().LocalPeer()))
	if err != nil {
		return Channel{}, err
	}
	remote, err := ParseTransport([]byte(s.Conn().RemotePeer()))
	return Channel{Local: local, Remote: remote}, err
}

// Exchange runs the initiator's side over s and closes s. met, which may be
// nil, is called when the other side is verified and the last message of this
// side has left: from then on it may be written to. Errors are those of
// Initiator, Refused, ErrSlow, ErrCut, the cause of ctx, and what met
// returned.
func Exchange(ctx context.Context, s Stream, i *Initiator, met func(Met) error) (Result, error) {
	var result Result
	err := converse(ctx, s, Timeout, func(c *conversation) error {
		ask, err := i.Start()
		if err != nil {
			return err
		}
		if err := c.send(ask); err != nil {
			return err
		}
		for {
			b, err := c.receive(i.Limit())
			if err != nil {
				return err
			}
			step, err := i.Handle(time.Now(), b)
			if sendErr := c.sendStep(step, err); sendErr != nil {
				if err == nil {
					sendErr = c.refusal(i, sendErr)
				}
				return sendErr
			}
			if step.Met != nil && met != nil {
				if err := met(*step.Met); err != nil {
					return err
				}
			}
			if step.Result != nil {
				result = *step.Result
				return nil
			}
		}
	})
	if err != nil {
		return Result{}, fmt.Errorf("answer invite: %w", err)
	}
	return result, nil
}

// Serve runs the responder's side over s and closes s. When it returns without
// an error, the other side is stored and has been told so. Errors are those of
// Responder, Declined, Refused, ErrSlow, ErrCut and the cause of ctx; after
// Store the other side may be stored in spite of one.
func Serve(ctx context.Context, s Stream, r *Responder, h Host) (Result, error) {
	var result Result
	err := converse(ctx, s, Timeout, func(c *conversation) error {
		var token Token
		for {
			b, err := c.receive(r.Limit())
			if err != nil {
				return err
			}
			step, err := r.Handle(time.Now(), b)
			if step.Token != nil {
				token = *step.Token
				step, err = admit(ctx, r, h, token)
			} else if step.Met != nil {
				step, err = settle(ctx, r, h, token, *step.Met)
			}
			if err := c.sendStep(step, err); err != nil {
				return err
			}
			if step.Result != nil {
				result = *step.Result
				return nil
			}
		}
	})
	if err != nil {
		return Result{}, fmt.Errorf("serve contact: %w", err)
	}
	return result, nil
}

func admit(ctx context.Context, r *Responder, h Host, token Token) (Step, error) {
	code, material, err := h.Admit(ctx, token, r.channel.Remote)
	if err != nil {
		step, _ := r.Admit(wire.CodeStorage, Material{})
		return step, err
	}
	return r.Admit(code, material)
}

func settle(ctx context.Context, r *Responder, h Host, token Token, met Met) (Step, error) {
	code, request, err := h.Store(ctx, token, met)
	if err != nil {
		step, _ := r.Settle(wire.CodeStorage, false)
		return step, err
	}
	return r.Settle(code, request)
}

// conversation is one stream under one deadline.
type conversation struct {
	s Stream
	r *bufio.Reader
}

// converse sets the one deadline of the stream, runs talk and closes the
// stream: softly if both sides know how it ended, else by a reset.
func converse(ctx context.Context, s Stream, timeout time.Duration, talk func(*conversation) error) error {
	at := time.Now().Add(timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(at) {
		at = d
	}
	if err := s.SetDeadline(at); err != nil {
		_ = s.Reset() // the first error is the one that tells something
		return fmt.Errorf("set deadline: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	err := talk(&conversation{s: s, r: bufio.NewReaderSize(s, readBuffer)})
	if !stop() && err != nil {
		return context.Cause(ctx)
	}
	if err != nil && !isSaid(err) {
		_ = s.Reset()
		return explain(err)
	}
	// Both sides know how it ended. The other one may have closed first, which
	// QUIC reports as an error of our own close.
	_ = s.Close()
	return err
}

// refusal is what the other side said before it stopped reading, which tells
// more than that our own message did not get through. QUIC can report a stream
// that the other side has closed to a write that had arrived.
func (c *conversation) refusal(i *Initiator, broken error) error {
	b, err := c.receive(i.Limit())
	if err != nil {
		return broken
	}
	_, err = i.Handle(time.Now(), b)
	if refused, ok := errors.AsType[Refused](err); ok {
		return said{refused}
	}
	return broken
}

// said marks an error that the other side was told of, or told us.
type said struct{ error }

func (s said) Unwrap() error { return s.error }

func isSaid(err error) bool {
	_, ok := errors.AsType[said](err)
	return ok
}

// sendStep sends what a step wants sent. After an error that is the reason
// for it, and little time is spent on it.
func (c *conversation) sendStep(step Step, err error) error {
	if err == nil && step.Send == nil {
		return nil
	}
	if err == nil {
		return c.send(step.Send)
	}
	if _, ok := errors.AsType[Refused](err); ok {
		return said{err}
	}
	if step.Send == nil || c.s.SetDeadline(time.Now().Add(farewell)) != nil || c.send(step.Send) != nil {
		return err
	}
	return said{err}
}

func (c *conversation) send(b []byte) error {
	out := binary.AppendUvarint(make([]byte, 0, len(b)+4), uint64(len(b)))
	_, err := c.s.Write(append(out, b...))
	return err
}

func (c *conversation) receive(limit int) ([]byte, error) {
	b, err := wire.ReadFrame(c.r, limit)
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
