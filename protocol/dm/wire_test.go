package dm

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kinloom/kinloom/protocol/wire"
)

// vector is one object of testdata/vectors, as protocol/README.md says.
type vector struct {
	Name    string
	Message string
	Hex     string
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

// value writes a Go value as vectors do: fields by name, bytes in hex, nothing
// that is zero.
func value(x any) any {
	v := reflect.ValueOf(x)
	switch v.Kind() {
	case reflect.Struct:
		fields := map[string]any{}
		for i := range v.NumField() {
			if f := v.Field(i); !f.IsZero() && (f.Kind() != reflect.Slice || f.Len() > 0) {
				fields[v.Type().Field(i).Name] = value(f.Interface())
			}
		}
		return fields
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			b := make([]byte, v.Len())
			reflect.Copy(reflect.ValueOf(b), v)
			return hex.EncodeToString(b)
		}
		list := make([]any, v.Len())
		for i := range list {
			list[i] = value(v.Index(i).Interface())
		}
		return list
	case reflect.Uint8, reflect.Uint16:
		return float64(v.Uint())
	}
	return x
}

var namedErrors = map[string]error{"ErrMalformed": ErrMalformed, "ErrLimit": ErrLimit, "ErrCell": ErrCell}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		b := v.bytes(t)
		f, err := ParseFrame(b)
		if name, ok := v.Expect.(string); ok {
			if want := namedErrors[name]; want == nil || !errors.Is(err, want) {
				t.Errorf("%s %q: error %v, want %s", v.Message, v.Name, err, name)
			}
			if f != nil {
				t.Errorf("%s %q: refused, yet there is a value: %+v", v.Message, v.Name, f)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s %q: %v", v.Message, v.Name, err)
			continue
		}
		if kind := reflect.TypeOf(f).Name(); kind != v.Message && v.Message != "Frame" {
			t.Errorf("%s %q: it is a %s", v.Message, v.Name, kind)
		}
		if d := cmp.Diff(v.Expect, value(f)); d != "" {
			t.Errorf("%s %q (-want +got):\n%.1000s", v.Message, v.Name, d)
		}
		again, err := f.Append(nil)
		if err != nil {
			t.Errorf("%s %q: Append: %v", v.Message, v.Name, err)
		}
		if unknown := strings.Contains(v.Name, ", unknown key"); unknown == bytes.Equal(again, b) {
			t.Errorf("%s %q: written again as %.80x, was %.80x", v.Message, v.Name, again, b)
		}
		for n := range b {
			if _, err := ParseFrame(b[:n]); err == nil {
				t.Errorf("%s %q: its first %d bytes pass too", v.Message, v.Name, n)
			}
		}
	}
}

// TestLimits: the numbers of SPEC 7 fit each other.
func TestLimits(t *testing.T) {
	if n := len(body(t, Cells{repeat(cell(wire.MinCell, 1), MaxCells)})); n > wire.MaxFrame || n+wire.MinCell+cellHead <= wire.MaxFrame {
		t.Errorf("MaxCells = %d cells of the smallest size take %d of %d bytes", MaxCells, n, wire.MaxFrame)
	}
	if n := len(body(t, Cells{[][]byte{cell(wire.CellSize, 1)}})); n > wire.CellSize+10 {
		t.Errorf("a frame of one large cell takes %d bytes", n)
	}
	if n := len(body(t, Bundle{Bundle: make([]byte, MaxBundle), News: make([]byte, MaxNews)})); n > wire.MaxFrame {
		t.Errorf("the largest bundle with the largest news takes %d bytes", n)
	}
	for _, n := range []int{0, 1, 23, 24, 255, 256, 65535} {
		if got := len(appendHead(nil, majorBytes, n)); got != headSize(n) {
			t.Errorf("headSize(%d) = %d, want %d", n, headSize(n), got)
		}
	}
}

func repeat(c []byte, n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = c
	}
	return out
}

// TestAppendRefuses: what ParseFrame would refuse is not written either.
func TestAppendRefuses(t *testing.T) {
	for name, f := range map[string]Frame{
		"no cells":          Cells{},
		"too many cells":    Cells{repeat(cell(wire.MinCell, 1), MaxCells+1)},
		"too large":         Cells{repeat(cell(wire.CellSize, 1), 2)},
		"small cell":        Cells{[][]byte{cell(wire.MinCell-1, 1)}},
		"large cell":        Cells{[][]byte{cell(wire.CellSize+1, 1)}},
		"refusal, no code":  Nack{Cell: wire.CellID{1}},
		"bundle, too large": Bundle{Bundle: make([]byte, MaxBundle+1)},
		"news, too large":   Bundle{Bundle: []byte{1}, News: make([]byte, MaxNews+1)},
	} {
		if b, err := f.Append(nil); err == nil || b != nil {
			t.Errorf("%s: written as %.40x (%v)", name, b, err)
		}
		if b, err := appendFramed(nil, f); err == nil || b != nil {
			t.Errorf("%s: framed as %.40x (%v)", name, b, err)
		}
	}
}

// TestCellsShareMemory: a frame of cells is cut, not copied.
func TestCellsShareMemory(t *testing.T) {
	b := body(t, Cells{repeat(cell(1152, 1), 20)})
	f, err := ParseFrame(b)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] = 9
	if cells := f.(Cells).Cells; cells[19][1151] != 9 {
		t.Error("cells are copies")
	}
	if n := testing.AllocsPerRun(100, func() { _, err = ParseFrame(b) }); n > 3 || err != nil {
		t.Errorf("ParseFrame of 20 cells allocates %v times (%v), want 3 at most", n, err)
	}
	// Who appends to a cell does not write into the next one.
	first := f.(Cells).Cells[0]
	_ = append(first, 7)
	if f.(Cells).Cells[1][0] != 1 {
		t.Error("appending to a cell changed its neighbour")
	}
}

func BenchmarkFrame(b *testing.B) {
	for _, n := range []int{1, 20} {
		b.Run(fmt.Sprint(n, " cells"), func(b *testing.B) {
			cells := Cells{repeat(cell(1152, 1), n)}
			var out []byte
			for b.Loop() {
				var err error
				if out, err = appendFramed(out[:0], cells); err != nil {
					b.Fatal(err)
				}
				if _, err := ParseFrame(out[len(out)-cellsSize(n, n*(1152+3)):]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/cell")
		})
	}
}
