package session

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
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
		Device string
		Now    int64
	}
	Expect any
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
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
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
	case reflect.Int64:
		return float64(v.Int())
	}
	return v.Interface()
}

var namedErrors = map[string]error{"ErrBundle": ErrBundle, "ErrExpired": ErrExpired, "ErrSuite": ErrSuite, "ErrBroken": ErrBroken}

// run parses b as the message of v and returns the value and what Append makes
// of it; a bundle has none, as only its device can sign it.
func (v vector) run(b []byte) (got any, again []byte, err error) {
	switch v.Message {
	case "Bundle":
		key, err := hex.DecodeString(v.With.Device)
		if err != nil || len(key) != 32 {
			return nil, nil, errors.New("vector without a device key")
		}
		x, err := ParseBundle(b, identity.DevicePublic(key), time.Unix(v.With.Now, 0))
		return x, nil, err
	case "Capsule":
		x, err := ParseCapsule(b)
		return x, x.Append(nil), err
	case "Advert":
		x, err := ParseAdvert(b)
		return x, x.Append(nil), err
	case "Outer":
		x, err := ParseOuter(b)
		return x, x.Append(nil), err
	case "Inner":
		x, err := ParseInner(b)
		if err != nil {
			return x, nil, err
		}
		return x, x.Append(nil), nil
	}
	return nil, nil, errors.New("unknown message " + v.Message)
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		b := v.bytes(t)
		got, again, err := v.run(b)
		if name, ok := v.Expect.(string); ok {
			if want := namedErrors[name]; want == nil || !errors.Is(err, want) {
				t.Errorf("%s %q: error %v, want %s", v.Message, v.Name, err, name)
			}
			if d := cmp.Diff(map[string]any{}, value(got)); d != "" {
				t.Errorf("%s %q: refused, yet there is a value:\n%.500s", v.Message, v.Name, d)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s %q: %v", v.Message, v.Name, err)
			continue
		}
		if d := cmp.Diff(v.Expect, value(got)); d != "" {
			t.Errorf("%s %q (-want +got):\n%.1000s", v.Message, v.Name, d)
		}
		if again != nil && !bytes.Equal(bytes.TrimRight(b, "\x00"), bytes.TrimRight(again, "\x00")) {
			t.Errorf("%s %q: Append(Parse(b)) is not b", v.Message, v.Name)
		}
		for n := range b {
			x, again, err := v.run(b[:n])
			// Entries and payloads have no end of their own: the layer outside has it.
			open := v.Message == "Outer" || v.Message == "Inner" && (b[0] == innerOwn || b[0] == innerElsewhere)
			if err == nil && !(open && bytes.Equal(bytes.TrimRight(again, "\x00"), bytes.TrimRight(b[:n], "\x00"))) {
				t.Errorf("%s %q: its first %d bytes pass too, as %.100v", v.Message, v.Name, n, x)
			}
		}
	}
}

// TestBundleBits: no bit of a bundle can change.
func TestBundleBits(t *testing.T) {
	for _, v := range vectors(t) {
		if v.Message != "Bundle" || strings.HasPrefix(v.Name, "MaxBundle") {
			continue
		}
		b := v.bytes(t)
		if _, ok := v.Expect.(string); ok {
			continue
		}
		for i := range len(b) * 8 {
			if (i > 2000 || testing.Short()) && i%37 != 0 {
				continue // the X-Wing key is long and all alike
			}
			c := bytes.Clone(b)
			c[i/8] ^= 1 << (i % 8)
			if _, _, err := v.run(c); err == nil {
				t.Fatalf("%q with bit %d changed is accepted", v.Name, i)
			}
		}
	}
}

// TestMaxSizes: the sizes of SPEC 2 hold, and those that rows rely on.

func TestMaxSizes(t *testing.T) {
	if n := len((&Capsule{}).Append(nil)); n != capsuleSize {
		t.Errorf("capsule of %d bytes", n)
	}
	if n := len((&Advert{}).Append(nil)); n != advertSize {
		t.Errorf("advertised keys of %d bytes", n)
	}
	if math.MaxUint16 < MaxSeq {
		t.Error("rows name a seq with four hex digits")
	}
}
