package dm

import (
	"bytes"
	"context"
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/kinloom/kinloom/identity/enc"
	"github.com/kinloom/kinloom/protocol/wire"
)

// FuzzParseFrame: what is accepted is written again with the same value and,
// without unknown keys, in the very same bytes; no cut of it is accepted too.
// The reader of Cells frames, which is written by hand, agrees with the
// decoder.
func FuzzParseFrame(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.bytes(f))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := ParseFrame(b)
		var plain struct {
			Type  uint8    `cbor:"1,keyasint"`
			Cells [][]byte `cbor:"2,keyasint"`
		}
		sound := len(b) <= wire.MaxFrame && enc.Unmarshal(b, &plain) == nil && plain.Type == typeCells && b[1] == 1 &&
			checkCells(plain.Cells) == nil
		if _, ok := frame.(Cells); ok != sound {
			t.Fatalf("ParseFrame says %T, %v; the decoder %v", frame, err, sound)
		}
		if err != nil {
			if frame != nil {
				t.Fatalf("refused (%v), yet there is a value: %+v", err, frame)
			}
			return
		}
		if c, ok := frame.(Cells); ok && !reflect.DeepEqual(c.Cells, plain.Cells) {
			t.Fatal("ParseFrame and the decoder differ")
		}
		again, err := frame.Append(nil)
		if err != nil {
			t.Fatalf("parsed, but Append says %v", err)
		}
		if len(again) > len(b) || len(again) == len(b) && !bytes.Equal(again, b) {
			t.Fatalf("another spelling:\n%x\n%x", b, again)
		}
		for _, n := range []int{0, 1, len(b) / 2, len(b) - 1} {
			if _, err := ParseFrame(b[:n]); err == nil {
				t.Fatalf("its first %d bytes pass too", n)
			}
		}
	})
}

// FuzzMachine feeds frames in any order to both roles. Nothing panics, and
// what is refused changes nothing.
func FuzzMachine(f *testing.F) {
	f.Add([]byte{1, 0, 2, 5, 3, 4, 6, 7, 8}, true, false)
	f.Add([]byte{0, 0, 3, 3, 3, 3, 3, 3}, false, true)
	f.Fuzz(func(t *testing.T, script []byte, dialer, known bool) {
		m := NewMachine(Config{Dialer: dialer, Known: known})
		frames := []Frame{someCells(), Nack{Cell: wire.CellID{1}, Code: 1}, WantBundle{}, Bundle{Bundle: []byte{1}, News: []byte{2}}, Bye{}}
		now := epoch
		for _, c := range script {
			now = now.Add(time.Duration(c) * time.Second)
			before := *m
			var err error
			switch what := int(c) % 13; {
			case what < 5:
				_, err = m.Handle(now, body(t, frames[what]))
				before.bundles = m.bundles // where the last one was given stands there
			case what < 10:
				err = m.Send(frames[what-5])
			case what == 10:
				m.Give()
			case what == 11:
				m.Opened()
			default:
				if m.Refused(now, wire.CodeUnopened) != nil {
					return
				}
			}
			if err != nil && *m != before {
				t.Fatalf("step %d was refused (%v) and changed the machine", c, err)
			}
			if m.open < 0 || m.sent < 0 || m.failed >= MaxTries || m.refusals > MaxRefusals {
				t.Fatalf("machine out of its bounds: %+v", m)
			}
		}
	})
}

// FuzzStream gives a peer's bytes to a running Conn: it ends with an error or
// a Bye, and never hangs or panics.
func FuzzStream(f *testing.F) {
	for _, v := range vectors(f) {
		if b := v.bytes(f); len(b) < 1000 {
			f.Add(framed(b), true)
			f.Add(append(framed(b), framed([]byte{0xa1, 1, 5})...), false)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, known bool) {
		mine, theirs := net.Pipe()
		c := New(pipe{mine, nil}, &node{}, Config{Known: known})
		done := make(chan struct{})
		go func() { defer close(done); drain(theirs) }()
		go func() {
			_ = theirs.SetWriteDeadline(time.Now().Add(time.Second))
			write(theirs, b)
			_ = theirs.Close()
		}()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = c.Run(ctx)
		if ctx.Err() != nil {
			t.Fatal("the stream hangs")
		}
		<-done
	})
}
