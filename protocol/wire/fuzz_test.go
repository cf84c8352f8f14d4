package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"testing"
)

// FuzzParseFrame: what is accepted has one spelling, and a stream reader sees
// the same.
func FuzzParseFrame(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.bytes(f))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		body, rest, err := ParseFrame(b, MaxFrame)
		r := bufio.NewReader(bytes.NewReader(b))
		read, readErr := ReadFrame(r, MaxFrame)
		if err != nil {
			if readErr == nil {
				t.Fatalf("ParseFrame: %v, ReadFrame takes it", err)
			}
			return
		}
		if readErr != nil || !bytes.Equal(read, body) {
			t.Fatalf("ReadFrame: %d bytes, %v; ParseFrame: %d bytes", len(read), readErr, len(body))
		}
		if left, err := io.ReadAll(r); err != nil || !bytes.Equal(left, rest) {
			t.Fatalf("ReadFrame leaves %d bytes, %v; ParseFrame %d", len(left), err, len(rest))
		}
		if again := append(AppendFrame(nil, body), rest...); !bytes.Equal(again, b) {
			t.Fatal("a frame has a second spelling")
		}
		if _, _, err := ParseFrame(b, len(body)-1); !errors.Is(err, ErrFrameSize) {
			t.Fatalf("limit below its size: %v", err)
		}
	})
}

// FuzzParseCell: what is accepted is exactly what AppendCell makes.
func FuzzParseCell(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.bytes(f))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, sealed, err := ParseCell(b)
		if err != nil {
			// The same content with a right header and size passes.
			n := min(max(len(b), CellHeader), CellSize)
			sealed := append(bytes.Clone(b), make([]byte, CellSize)...)[:Padme(n)-CellHeader]
			if _, _, err := ParseCell(AppendCell(nil, sealed)); err != nil {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(AppendCell(nil, sealed), b) {
			t.Fatal("a cell has a second spelling")
		}
	})
}
