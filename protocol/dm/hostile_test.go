package dm

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/protocol/wire"
)

func framed(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }

func write(s net.Conn, b []byte) { _, _ = s.Write(b) }

func drain(s net.Conn) { _, _ = io.Copy(io.Discard, s) }

// TestHostilePeers: each ends the stream with an error that says why, in
// bounded time.
func TestHostilePeers(t *testing.T) {
	cells := body(t, someCells())
	for _, tc := range []struct {
		name  string
		known bool
		play  func(s net.Conn)
		want  error
		after time.Duration
	}{
		{"says nothing", false, drain, ErrStranger, StrangerTimeout},
		{"web server", true, func(s net.Conn) {
			write(s, []byte("HTTP/1.1 400 Bad Request\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html></html>"))
			drain(s)
		}, ErrMalformed, 0},
		{"huge length", true, func(s net.Conn) { write(s, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}); drain(s) }, wire.ErrFrameSize, 0},
		{"length of MaxFrame + 1", true, func(s net.Conn) { write(s, binary.AppendUvarint(nil, wire.MaxFrame+1)); drain(s) }, wire.ErrFrameSize, 0},
		{"length spelled too long", true, func(s net.Conn) { write(s, []byte{0x85, 0x00}); drain(s) }, wire.ErrFrameVarint, 0},
		{"empty frame", true, func(s net.Conn) { write(s, []byte{0}); drain(s) }, wire.ErrFrameSize, 0},
		{"frame without an end", true, func(s net.Conn) { write(s, framed(cells)[:100]); drain(s) }, ErrSlow, FrameTimeout},
		{"one byte per second", true, func(s net.Conn) {
			for _, c := range framed(cells) {
				if _, err := s.Write([]byte{c}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, ErrSlow, FrameTimeout},
		{"hangs up", true, func(s net.Conn) { write(s, framed(cells)); _ = s.Close() }, ErrCut, 0},
		{"hangs up in a frame", true, func(s net.Conn) { write(s, framed(cells)[:9]); _ = s.Close() }, ErrCut, 0},
		{"goes on after Bye", true, func(s net.Conn) {
			write(s, append(framed(body(t, Bye{})), framed(cells)...))
			drain(s)
		}, nil, 0},
		{"stranger with cells that do not open", false, func(s net.Conn) {
			go drain(s)
			for range 10_000 {
				if _, err := s.Write(framed(cells)); err != nil {
					return
				}
			}
		}, ErrStranger, 0},
		{"contact that asks for 10,000 bundles", true, func(s net.Conn) {
			go drain(s)
			for range 10_000 {
				if _, err := s.Write(framed(body(t, WantBundle{}))); err != nil {
					return
				}
			}
		}, ErrFlood, 0},
		{"refuses what was never sent", true, func(s net.Conn) {
			write(s, framed(body(t, Nack{Cell: wire.CellID{1}, Code: 10})))
			drain(s)
		}, ErrUnsolicited, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			mine, theirs := net.Pipe()
			var wg sync.WaitGroup
			wg.Go(func() { tc.play(theirs) })
			h := &judge{}
			h.conn = New(pipe{mine, nil}, h, Config{Known: tc.known})
			begun := time.Now()
			err := h.conn.Run(t.Context())
			if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
				t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
			}
			if took := time.Since(begun); took != tc.after {
				t.Errorf("%s: ended after %v, want %v", tc.name, took, tc.after)
			}
			if h.tries > MaxTries {
				t.Errorf("%s: %d cells were tried, want %d at most", tc.name, h.tries, MaxTries)
			}
			_ = theirs.Close()
			wg.Wait()
		})
	}
}

// judge is a node that opens no cell, and says so at once.
type judge struct {
	node
	conn  *Conn
	tries int
}

func (j *judge) Cell(_ context.Context, c []byte) error {
	j.tries++
	_ = j.conn.Nack(wire.CellID(c[:32]), wire.CodeUnopened)
	return nil
}

// TestNeverReads: a peer that takes nothing ends the stream, and who waits in
// Send is told.
func TestNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mine, theirs := net.Pipe()
		defer theirs.Close()
		d := start(t.Context(), pipe{mine, nil}, &node{}, Config{Dialer: true, Known: true})
		begun := time.Now()
		var err error
		for err == nil {
			err = d.Send(t.Context(), [][]byte{cell(wire.CellSize, 1)})
		}
		if !errors.Is(err, ErrStalled) {
			t.Errorf("Send: %v, want ErrStalled", err)
		}
		if err := d.wait(); !errors.Is(err, ErrStalled) || time.Since(begun) != FrameTimeout {
			t.Errorf("Run after %v: %v, want ErrStalled after %v", time.Since(begun), err, FrameTimeout)
		}
	})
}

// TestNoAnswerToBye: the other side stays; the stream ends in time.
func TestNoAnswerToBye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mine, theirs := net.Pipe()
		go drain(theirs)
		d := start(t.Context(), pipe{mine, nil}, &node{}, Config{Dialer: true, Known: true})
		time.Sleep(time.Hour)
		begun := time.Now()
		d.Bye()
		if err := d.wait(); !errors.Is(err, ErrSlow) || time.Since(begun) != ByeTimeout {
			t.Errorf("Run ends %v after Bye with %v, want ErrSlow after %v", time.Since(begun), err, ByeTimeout)
		}
		_ = theirs.Close()
	})
}

// TestStrangerTurnsOutToBeAContact while the reader waits.
func TestStrangerTurnsOutToBeAContact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mine, theirs := net.Pipe()
		l := start(t.Context(), pipe{mine, nil}, &node{}, Config{})
		write(theirs, framed(body(t, someCells())))
		time.Sleep(StrangerTimeout / 2)
		l.Opened()
		time.Sleep(24 * time.Hour)
		if !l.Known() {
			t.Error("not known after a cell opened")
		}
		write(theirs, framed(body(t, someCells())))
		synctest.Wait()
		if l.count() != 4 {
			t.Errorf("%d cells, want 4", l.count())
		}
		_ = theirs.Close()
		if err := l.wait(); !errors.Is(err, ErrCut) {
			t.Errorf("Run = %v, want ErrCut", err)
		}
	})
}

// TestStrangerWaits: a stranger that sends a lot at once is not cut but waits
// for the verdict, and goes on when a cell has opened.
func TestStrangerWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		d := start(t.Context(), pipe{a, nil}, &node{}, Config{Dialer: true, Known: true})
		l := start(t.Context(), pipe{b, nil}, &node{}, Config{})
		for n := range 100 {
			if err := d.Send(t.Context(), [][]byte{cell(256, byte(n))}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if l.count() != MaxTries {
			t.Errorf("%d cells before the first verdict, want %d", l.count(), MaxTries)
		}
		l.Opened()
		synctest.Wait()
		if l.count() != 100 {
			t.Errorf("%d cells after it, want all 100", l.count())
		}
		d.Bye()
		if err := errors.Join(d.wait(), l.wait()); err != nil {
			t.Error(err)
		}
	})
}
