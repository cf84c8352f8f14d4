package rv

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kinloom/kinloom/identity"
)

// vector is one object of testdata/vectors, as protocol/README.md says.
type vector struct {
	Name    string
	Message string
	Hex     string
	With    struct {
		Now    int64  // unix seconds
		Point  string // the rest: of Validate, PointOf, Seal and Open
		Key    string
		Seed   string
		Secret string
		Period Period
		Seq    uint64
		Nonce  string
	}
	Expect any
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// unhex32 reads 32 bytes; a field that is left out is zeros.
func unhex32(tb testing.TB, s string) (b [32]byte) {
	tb.Helper()
	copy(b[:], unhex(tb, s))
	return b
}

func (v vector) bytes(tb testing.TB) []byte {
	tb.Helper()
	return unhex(tb, v.Hex)
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
	if at, ok := x.(time.Time); ok {
		return float64(at.Unix())
	}
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
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return float64(v.Uint())
	case reflect.Int, reflect.Int64:
		return float64(v.Int())
	}
	return x
}

var namedErrors = map[string]error{
	"ErrSize": ErrSize, "ErrVersion": ErrVersion, "ErrNotAfter": ErrNotAfter, "ErrSeq": ErrSeq, "ErrPoint": ErrPoint,
	"ErrProxy": ErrProxy, "ErrSignature": ErrSignature, "ErrDHTKey": ErrDHTKey, "ErrHint": ErrHint, "ErrHintLimit": ErrHintLimit, "ErrSealed": ErrSealed,
}

// derives tells that a message is a function of its input, of which there is
// no way back.
func (v vector) derives() bool {
	return slices.Contains([]string{"PointOf", "Seal", "Validate", "Open", "Select"}, v.Message)
}

// run parses b as the message of v, and writes it again.
func (v vector) run(tb testing.TB, b []byte) (got any, again []byte, err error) {
	w := v.With
	switch v.Message {
	case "DHTKey":
		p, err := ParseDHTKey(string(b))
		if err != nil {
			return nil, nil, err
		}
		return value(struct{ Point Point }{p}), []byte(DHTKey(p)), nil
	case "Hint":
		return parsed(ParseHint(b))
	case "Request":
		return parsed(ParseRequest(b))
	case "Reply":
		return parsed(ParseReply(b))
	case "PointOf":
		p, err := PointOf([32]byte(b), unhex32(tb, w.Secret), w.Period)
		return value(struct{ Point Point }{p}), nil, err
	case "Validate":
		s, err := Validate(time.Unix(w.Now, 0), unhex32(tb, w.Point), b)
		return value(s), nil, err
	case "Open":
		h, s, err := Open(unhex32(tb, w.Key), unhex32(tb, w.Secret), w.Period, b)
		fields := value(h).(map[string]any)
		maps.Copy(fields, value(s).(map[string]any))
		return fields, nil, err
	case "Seal":
		h, err := ParseHint(b)
		if err != nil {
			return nil, nil, err
		}
		r, err := Seal(identity.NewRendezvousKey(unhex32(tb, w.Seed)), unhex32(tb, w.Secret), w.Period, w.Seq, h, bytes.NewReader(unhex(tb, w.Nonce)))
		return value(struct{ Record []byte }{r}), nil, err
	case "Select":
		return value(struct{ Index int }{Select(slices.Collect(slices.Chunk(b, RecordSize)))}), nil, nil
	}
	tb.Fatalf("message %q is not known", v.Message)
	return nil, nil, nil
}

func parsed[M interface{ Append([]byte) ([]byte, error) }](m M, err error) (any, []byte, error) {
	if err != nil {
		return value(m), nil, err
	}
	again, err := m.Append(nil)
	return value(m), again, err
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		b := v.bytes(t)
		got, again, err := v.run(t, b)
		if name, ok := v.Expect.(string); ok {
			if want := namedErrors[name]; want == nil || !errors.Is(err, want) {
				t.Errorf("%s %q: error %v, want %s", v.Message, v.Name, err, name)
			}
			if fields, ok := got.(map[string]any); ok && len(fields) > 0 && v.Message != "PointOf" && v.Message != "Hint" {
				t.Errorf("%s %q: refused, yet there is a value: %+v", v.Message, v.Name, got)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s %q: %v", v.Message, v.Name, err)
			continue
		}
		if d := cmp.Diff(v.Expect, got); d != "" {
			t.Errorf("%s %q (-want +got):\n%.1000s", v.Message, v.Name, d)
		}
		if unknown := strings.Contains(v.Name, ", unknown key"); !v.derives() && unknown == bytes.Equal(again, b) {
			t.Errorf("%s %q: written again as %.80x, was %.80x", v.Message, v.Name, again, b)
		}
		if v.Message == "PointOf" || v.Message == "Select" {
			continue
		}
		for n := range b {
			if _, _, err := v.run(t, b[:n]); err == nil {
				t.Errorf("%s %q: its first %d bytes pass too", v.Message, v.Name, n)
			}
		}
	}
}
