package dm

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/protocol/wire"
)

// clogged is a stream whose Reset waits, as that of a connection does that takes
// nothing any more.
type clogged struct {
	pipe
	free chan struct{}
}

func (c clogged) Reset() error {
	<-c.free
	return c.pipe.Reset()
}

// TestNackNeverWaits: the one who refuses is the account loop, and a peer that
// sends what does not open and reads nothing must not stop it.
func TestNackNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		s := clogged{pipe{Conn: a}, make(chan struct{})}
		e := start(t.Context(), s, &node{}, Config{Dialer: true})
		synctest.Wait()
		begin := time.Now()
		time.AfterFunc(10*time.Second, func() { close(s.free) })
		var err error
		for range MaxTries {
			err = e.Conn.Nack(wire.CellID{}, wire.CodeUnopened)
		}
		if took := time.Since(begin); took > 0 || !errors.Is(err, ErrStranger) {
			t.Errorf("Nack took %v: %v", took, err)
		}
		if err := e.wait(); !errors.Is(err, ErrStranger) || errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v, want ErrStranger", err)
		}
	})
}
