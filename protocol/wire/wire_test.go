package wire

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// vector is one object of testdata/vectors, as protocol/README.md says.
type vector struct {
	Name    string
	Message string
	Hex     string
	With    struct{ Limit int }
	Expect  any
}

func (v vector) bytes(tb testing.TB) []byte {
	tb.Helper()
	b, err := hex.DecodeString(v.Hex)
	if err != nil {
		tb.Fatalf("vector %q: %v", v.Name, err)
	}
	return b
}

// vectors reads all vectors of this folder.
func vectors(tb testing.TB) []vector {
	tb.Helper()
	files, err := filepath.Glob("testdata/vectors/*.json")
	if err != nil || len(files) == 0 {
		tb.Fatalf("no vectors: %v", err)
	}
	var all []vector
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		var some []vector
		if err := json.Unmarshal(b, &some); err != nil {
			tb.Fatalf("%s: %v", file, err)
		}
		all = append(all, some...)
	}
	return all
}

var namedErrors = map[string]error{
	"ErrFrameVarint": ErrFrameVarint,
	"ErrFrameSize":   ErrFrameSize,
	"ErrFrameCut":    ErrFrameCut,
	"ErrCellSize":    ErrCellSize,
	"ErrCellVersion": ErrCellVersion,
	"ErrCellID":      ErrCellID,
}

// run parses b as the message of v and returns the value and what Append makes
// of it; that is nil for a function that only derives something.
func (v vector) run(b []byte) (value map[string]any, again []byte, err error) {
	switch v.Message {
	case "Frame":
		limit := v.With.Limit
		if limit == 0 {
			limit = MaxFrame
		}
		body, rest, err := ParseFrame(b, limit)
		if err != nil {
			return nil, nil, err
		}
		if len(rest) > 0 {
			return nil, nil, errors.New("bytes behind the frame")
		}
		return map[string]any{"Body": hex.EncodeToString(body)}, AppendFrame(nil, body), nil
	case "Cell":
		id, sealed, err := ParseCell(b)
		if err != nil {
			return nil, nil, err
		}
		return map[string]any{"ID": hex.EncodeToString(id[:]), "Sealed": hex.EncodeToString(sealed)}, AppendCell(nil, sealed), nil
	case "Padme":
		return map[string]any{"Size": float64(Padme(int(binary.BigEndian.Uint32(b))))}, nil, nil
	}
	return nil, nil, errors.New("unknown message " + v.Message)
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		b := v.bytes(t)
		value, again, err := v.run(b)
		if name, ok := v.Expect.(string); ok {
			if want := namedErrors[name]; want == nil || !errors.Is(err, want) {
				t.Errorf("%s %q: error %v, want %s", v.Message, v.Name, err, name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s %q: %v", v.Message, v.Name, err)
			continue
		}
		if d := cmp.Diff(v.Expect, any(value)); d != "" {
			t.Errorf("%s %q: value (-want +got):\n%.1000s", v.Message, v.Name, d)
		}
		if again == nil {
			continue
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%s %q: Append(Parse(b)) is not b", v.Message, v.Name)
		}
		for n := range b {
			if _, _, err := v.run(b[:n]); err == nil {
				t.Errorf("%s %q: its first %d bytes pass too", v.Message, v.Name, n)
			}
		}
	}
}

// TestReadFrameAsParseFrame: a stream that comes in any pieces gives what the
// whole bytes give.
func TestReadFrameAsParseFrame(t *testing.T) {
	for _, v := range vectors(t) {
		if v.Message != "Frame" {
			continue
		}
		limit := v.With.Limit
		if limit == 0 {
			limit = MaxFrame
		}
		b := v.bytes(t)
		want, _, wantErr := ParseFrame(b, limit)
		for name, r := range map[string]io.Reader{
			"whole":    bytes.NewReader(b),
			"one byte": iotest.OneByteReader(bytes.NewReader(b)),
			"halves":   iotest.HalfReader(bytes.NewReader(b)),
			"data+EOF": iotest.DataErrReader(bytes.NewReader(b)),
		} {
			got, err := ReadFrame(bufio.NewReader(r), limit)
			if len(b) == 0 {
				if err != io.EOF {
					t.Errorf("%q, %s: %v at the end of the stream, want io.EOF", v.Name, name, err)
				}
				continue
			}
			if !bytes.Equal(got, want) || !errors.Is(err, errors.Unwrap(wantErr)) && !errors.Is(err, wantErr) {
				t.Errorf("%q, %s: %d bytes, %v; want %d bytes, %v", v.Name, name, len(got), err, len(want), wantErr)
			}
		}
	}
}

func TestReadFrameKeepsWhatFollows(t *testing.T) {
	var stream []byte
	var want []string
	for i := range 200 {
		body := strings.Repeat(string(rune('a'+i%26)), 1+i*i%9000)
		want = append(want, body)
		stream = AppendFrame(stream, []byte(body))
	}
	r := bufio.NewReader(iotest.HalfReader(bytes.NewReader(stream)))
	for i := range want {
		got, err := ReadFrame(r, MaxFrame)
		if err != nil || string(got) != want[i] {
			t.Fatalf("frame %d: %d bytes, %v; want %d", i, len(got), err, len(want[i]))
		}
	}
	if _, err := ReadFrame(r, MaxFrame); err != io.EOF {
		t.Errorf("after the last frame: %v, want io.EOF", err)
	}
}

// TestReadFramePassesErrorsOn: a deadline is the caller's, and is neither a cut
// frame nor the end.
func TestReadFramePassesErrorsOn(t *testing.T) {
	cut := errors.New("deadline")
	frame := AppendFrame(nil, make([]byte, 9000))
	for _, n := range []int{0, 1, 2, 100, 5000} {
		r := io.MultiReader(bytes.NewReader(frame[:n]), iotest.ErrReader(cut))
		if _, err := ReadFrame(bufio.NewReader(r), MaxFrame); !errors.Is(err, cut) || errors.Is(err, ErrFrameCut) {
			t.Errorf("deadline after %d bytes: %v", n, err)
		}
	}
}

// TestReadFrameAllocatesLate (H2): a length alone costs 4 KiB, a refused one
// nothing to speak of.
func TestReadFrameAllocatesLate(t *testing.T) {
	for _, tt := range []struct {
		name  string
		bytes []byte
		most  uint64
	}{
		{"32 KiB announced, nothing sent", binary.AppendUvarint(nil, MaxFrame), firstRead + 512},
		{"2^62 announced", binary.AppendUvarint(nil, 1<<62), 512},
	} {
		src := bytes.NewReader(tt.bytes)
		r := bufio.NewReaderSize(src, 16)
		const rounds = 1000
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range rounds {
			src.Reset(tt.bytes)
			r.Reset(src)
			if _, err := ReadFrame(r, MaxFrame); err == nil {
				t.Fatalf("%s: no error", tt.name)
			}
		}
		runtime.ReadMemStats(&after)
		if got := (after.TotalAlloc - before.TotalAlloc) / rounds; got > tt.most {
			t.Errorf("%s: %d bytes allocated, at most %d", tt.name, got, tt.most)
		}
	}
}

func TestAppendFrameBug(t *testing.T) {
	for _, n := range []int{0, MaxFrame + 1} {
		func() {
			defer func() {
				if s, _ := recover().(string); !strings.HasPrefix(s, "bug:") {
					t.Errorf("frame of %d bytes: recovered %q", n, s)
				}
			}()
			AppendFrame(nil, make([]byte, n))
		}()
	}
}

// TestPadmeSizes (H35): every size up to CellSize, and the few that come out.
func TestPadmeSizes(t *testing.T) {
	sizes := map[int]bool{}
	for n := range CellSize + 1 {
		p := Padme(n)
		sizes[p] = true
		if p < n || p < MinCell || p > CellSize {
			t.Fatalf("Padme(%d) = %d", n, p)
		}
		if Padme(p) != p {
			t.Fatalf("Padme(%d) = %d, which is padded again to %d", n, p, Padme(p))
		}
		if n > MinCell && float64(p-n) > 0.063*float64(n) {
			t.Fatalf("Padme(%d) = %d adds more than 6.3 %%", n, p)
		}
	}
	if len(sizes) != 97 {
		t.Errorf("%d sizes, SPEC.md says 97", len(sizes))
	}
}

// TestCellEveryBit: no bit of a cell can change unseen.
func TestCellEveryBit(t *testing.T) {
	sealed := bytes.Repeat([]byte("sealed "), 40)[:272-CellHeader]
	cell := AppendCell([]byte("before"), sealed)[len("before"):]
	id, got, err := ParseCell(cell)
	if err != nil || id != sha256.Sum256(sealed) || !bytes.Equal(got, sealed) {
		t.Fatalf("ParseCell: %v, %d bytes, %v", id, len(got), err)
	}
	for bit := range 8 * len(cell) {
		cell[bit/8] ^= 1 << (bit % 8)
		if _, _, err := ParseCell(cell); err == nil {
			t.Fatalf("bit %d changed, no error", bit)
		}
		cell[bit/8] ^= 1 << (bit % 8)
	}
}

func TestCodeNames(t *testing.T) {
	seen := map[string]bool{}
	for c := CodeMalformed; c <= CodeClone; c++ {
		s := c.String()
		if s == "" || strings.HasPrefix(s, "code ") || seen[s] {
			t.Errorf("code %d has the name %q", int(c), s)
		}
		seen[s] = true
	}
	if got := Code(4711).String(); got != "code 4711" {
		t.Errorf("unknown code: %q", got)
	}
}

func BenchmarkReadFrame(b *testing.B) {
	frame := AppendFrame(nil, make([]byte, CellSize))
	src := bytes.NewReader(frame)
	r := bufio.NewReader(src)
	b.ReportAllocs()
	b.SetBytes(int64(len(frame)))
	for b.Loop() {
		src.Reset(frame)
		r.Reset(src)
		if _, err := ReadFrame(r, MaxFrame); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseCell(b *testing.B) {
	cell := AppendCell(nil, make([]byte, Padme(1300)-CellHeader))
	b.ReportAllocs()
	b.SetBytes(int64(len(cell)))
	for b.Loop() {
		if _, _, err := ParseCell(cell); err != nil {
			b.Fatal(err)
		}
	}
}
