package serverlist

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
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
	With    struct { // of Verify
		Now      int64 // unix seconds
		Believed []string
		Need     int
	}
	Expect any
}

func unhexed(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
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

// value writes a Go value as vectors do: fields by name, bytes in hex, nothing that is
// zero.
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
	case reflect.Int64:
		return float64(v.Int())
	}
	return x
}

var namedErrors = map[string]error{
	"ErrSize": ErrSize, "ErrList": ErrList, "ErrVersion": ErrVersion, "ErrName": ErrName, "ErrTime": ErrTime, "ErrServer": ErrServer,
	"ErrSignature": ErrSignature, "ErrSigners": ErrSigners, "ErrForged": ErrForged, "ErrExpired": ErrExpired, "ErrNotYet": ErrNotYet,
}

// run parses b as the message of v.
func (v vector) run(tb testing.TB, b []byte) (List, error) {
	tb.Helper()
	switch v.Message {
	case "List":
		return ParseList(b)
	case "Verify":
		var believed []identity.ListPublic
		for _, k := range v.With.Believed {
			believed = append(believed, identity.ListPublic(unhexed(tb, k)))
		}
		return Verify(time.Unix(v.With.Now, 0), believed, v.With.Need, b)
	}
	tb.Fatalf("message %q is not known", v.Message)
	return List{}, nil
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		b := unhexed(t, v.Hex)
		got, err := v.run(t, b)
		if name, ok := v.Expect.(string); ok {
			if want := namedErrors[name]; want == nil || !errors.Is(err, want) {
				t.Errorf("%s %q: error %v, want %s", v.Message, v.Name, err, name)
			}
			if !reflect.ValueOf(got).IsZero() {
				t.Errorf("%s %q: refused, yet there is a value: %+v", v.Message, v.Name, got)
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
		again, err := got.Append(nil)
		if err != nil || !bytes.Equal(again, b) || !bytes.HasPrefix(b, got.Body()) {
			t.Errorf("%s %q: %v, written again as\n%s", v.Message, v.Name, err, again)
		}
		for n := range b {
			if _, err := v.run(t, b[:n]); err == nil {
				t.Errorf("%s %q: its first %d bytes pass too", v.Message, v.Name, n)
			}
		}
	}
}

// TestAppendRefuses: nothing is written that could not be read.
func TestAppendRefuses(t *testing.T) {
	good := List{Name: "n", Issued: 1, Expires: 2, Servers: []Server{{Address: "/ip4/198.51.100.7/tcp/443/p2p/" + idStart + strings.Repeat("a", idLength-len(idStart))}}}
	if _, err := good.Append(nil); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[error]func(*List){
		ErrName:   func(l *List) { l.Name = "n " },
		ErrTime:   func(l *List) { l.Expires = l.Issued },
		ErrServer: func(l *List) { l.Servers = append(l.Servers, l.Servers[0]) },
		ErrList:   func(l *List) { l.Name = "n\nserver x" },
	} {
		bad := good
		change(&bad)
		if b, err := bad.Append(nil); !errors.Is(err, want) || b != nil {
			t.Errorf("%v, want %v:\n%s", err, want, b)
		}
	}
}
