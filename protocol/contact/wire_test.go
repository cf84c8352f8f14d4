package contact

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
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kinloom/kinloom/identity"
)

// vector is one object of testdata/vectors, as protocol/README.md says.
type vector struct {
	Name    string
	Message string
	Hex     string
	With    struct{ Now int64 } // unix seconds
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
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return float64(v.Uint())
	}
	return x
}

var namedErrors = map[string]error{
	"ErrMalformed": ErrMalformed, "ErrLimit": ErrLimit, "ErrHello": ErrHello, "ErrHelloLimit": ErrHelloLimit,
	"ErrInviteForeign": ErrInviteForeign, "ErrInviteTruncated": ErrInviteTruncated, "ErrInviteBroken": ErrInviteBroken,
	"ErrInviteVersion": ErrInviteVersion, "ErrInviteExpired": ErrInviteExpired, "ErrTransport": ErrTransport,
}

// run parses b as the message of v, and writes it again.
func (v vector) run(b []byte) (got any, again []byte, err error) {
	switch v.Message {
	case "Invite":
		i, err := ParseInvite(string(b))
		if err != nil {
			return i, nil, err
		}
		if i.Expired(time.Unix(v.With.Now, 0)) {
			return Invite{}, nil, ErrInviteExpired
		}
		link, err := i.Link()
		if strings.HasPrefix(string(b), qrScheme) {
			link, err = i.QR()
		}
		return i, []byte(link), err
	case "Payload":
		i, err := ParsePayload(b)
		if err != nil {
			return i, nil, err
		}
		again, err := AppendInvite(nil, i)
		return i, again, err
	case "Transport":
		id, err := ParseTransport(b)
		if err != nil {
			return nil, nil, err
		}
		return map[string]any{"Key": value(id)}, id.PeerID(), nil
	case "Fingerprint":
		digits := Fingerprint(identity.PersonID(b[:32]), identity.PersonID(b[32:]))
		return map[string]any{"Digits": digits}, nil, nil
	case "Material":
		return parsed(ParseMaterial(b))
	case "Hello":
		return parsed(ParseHello(b))
	case "Answer":
		return parsed(ParseAnswer(b))
	}
	m, err := ParseMessage(b)
	if err == nil && v.Message != "Message" && reflect.TypeOf(m).Name() != v.Message {
		return nil, nil, fmt.Errorf("it is %T", m)
	}
	return parsed(m, err)
}

func parsed(m Message, err error) (any, []byte, error) {
	if err != nil {
		return m, nil, err
	}
	again, err := m.Append(nil)
	return m, again, err
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		b := v.bytes(t)
		got, again, err := v.run(b)
		if name, ok := v.Expect.(string); ok {
			if want := namedErrors[name]; want == nil || !errors.Is(err, want) {
				t.Errorf("%s %q: error %v, want %s", v.Message, v.Name, err, name)
			}
			if got != nil && !reflect.ValueOf(got).IsZero() {
				t.Errorf("%s %q: refused, yet there is a value: %+v", v.Message, v.Name, got)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s %q: %v", v.Message, v.Name, err)
			continue
		}
		if fields, ok := got.(map[string]any); !ok {
			got = value(got)
		} else {
			got = fields
		}
		if d := cmp.Diff(v.Expect, got); d != "" {
			t.Errorf("%s %q (-want +got):\n%.1000s", v.Message, v.Name, d)
		}
		if v.Message == "Fingerprint" {
			continue
		}
		if unknown := strings.Contains(v.Name, ", unknown key") || v.Name == "unknown flag that informs"; unknown == bytes.Equal(again, b) {
			t.Errorf("%s %q: written again as %.80x, was %.80x", v.Message, v.Name, again, b)
		}
		for n := range b {
			if _, _, err := v.run(b[:n]); err == nil {
				t.Errorf("%s %q: its first %d bytes pass too", v.Message, v.Name, n)
			}
		}
	}
}

// example is what both sides of an exchange compute, for implementers in other
// languages. All byte strings are in hex; the transports are PeerIDs.
type example struct {
	Ask, Offer, Nonce, Material            string
	InitiatorTransport, ResponderTransport string
	InitiatorSeed, ResponderSeed           string // of the device keys
	Commitment, Transcript                 string
	InitiatorSig, ContactSig, RequestSig   string
	Words                                  [WordCount]string
}

// TestExamples computes testdata/transcript.json again.
func TestExamples(t *testing.T) {
	raw, err := os.ReadFile("testdata/transcript.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []example
	if err := json.Unmarshal(raw, &all); err != nil || len(all) == 0 {
		t.Fatalf("%d examples: %v", len(all), err)
	}
	for n, want := range all {
		unhex := func(s string) []byte {
			b, err := hex.DecodeString(s)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		transport := func(s string) Transport {
			id, err := ParseTransport(unhex(s))
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		nonce, material := [32]byte(unhex(want.Nonce)), unhex(want.Material)
		commit := commitment(nonce, material)
		sum := transcript(unhex(want.Ask), unhex(want.Offer), nonce, material, transport(want.InitiatorTransport), transport(want.ResponderTransport))
		sign := func(seed string, msg []byte) string {
			return hex.EncodeToString(identity.NewDeviceKey([32]byte(unhex(seed))).Sign(identity.ContextContact, msg))
		}
		got := want
		got.Commitment, got.Transcript, got.Words = hex.EncodeToString(commit[:]), hex.EncodeToString(sum[:]), checkWords(sum)
		got.InitiatorSig = sign(want.InitiatorSeed, signedByInitiator(sum))
		got.ContactSig = sign(want.ResponderSeed, signedByResponder(sum, false))
		got.RequestSig = sign(want.ResponderSeed, signedByResponder(sum, true))
		if d := cmp.Diff(want, got); d != "" {
			b, _ := json.MarshalIndent(got, "", "  ")
			t.Errorf("example %d (-want +got):\n%s\nall of it: %s", n, d, b)
		}
	}
}

// TestAppendRefuses: what Parse would refuse is not written either.
func TestAppendRefuses(t *testing.T) {
	good := newParty(t, 1).Material
	with := func(change func(*Material)) Material {
		m := good
		change(&m)
		return m
	}
	for name, m := range map[string]Message{
		"no suite":            Ask{},
		"too many suites":     Ask{Suites: make([]uint16, MaxSuites+1)},
		"empty material":      Offer{Suite: 1},
		"large material":      Reveal{Material: make([]byte, materialSize+1)},
		"refusal without why": Refuse{},
		"no log":              with(func(m *Material) { m.Entries = nil }),
		"long log":            with(func(m *Material) { m.Entries = make([][]byte, identity.MaxEntries+1) }),
		"large log": with(func(m *Material) {
			m.Entries = nil
			for range identity.MaxEntries {
				m.Entries = append(m.Entries, make([]byte, 100))
			}
		}),
		"empty entry":  with(func(m *Material) { m.Entries = [][]byte{{}} }),
		"long entry":   with(func(m *Material) { m.Entries = [][]byte{make([]byte, identity.MaxEntry+1)} }),
		"no record":    with(func(m *Material) { m.Record = nil }),
		"long record":  with(func(m *Material) { m.Record = make([]byte, identity.MaxRecord+1) }),
		"large bundle": with(func(m *Material) { m.Once = make([]byte, MaxBundle+1) }),
		"long name":    with(func(m *Material) { m.Name = strings.Repeat("x", MaxName+1) }),
		"invalid name": with(func(m *Material) { m.Name = "\xff" }),
		"addresses":    with(func(m *Material) { m.Addresses = make([][]byte, MaxReach+1) }),
		"no address":   with(func(m *Material) { m.Addresses = [][]byte{{}} }),
		"tags":         Hello{Versions: []uint16{1}, Tags: make([]byte, 65*TagSize)},
		"no version":   Answer{},
		"no hello":     Hello{Tags: make([]byte, 64*TagSize)},
		"empty cap":    Answer{Versions: []uint16{1}, Caps: []string{""}},
		"long cap":     Answer{Versions: []uint16{1}, Caps: []string{strings.Repeat("x", MaxCap+1)}},
	} {
		if b, err := m.Append(nil); err == nil || b != nil {
			t.Errorf("%s: %T is written as %.40x (%v)", name, m, b, err)
		}
	}
}

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{
		"Ada":                    "Ada",
		"  Ada \t Lovelace\n":    "Ada Lovelace",
		"a\u202eb\u200bc\u2066d": "abcd",
		"a\x00b\x1b[31mc":        "ab[31mc",
		"\u2028line\u2029":       "line",
		"\xff\xfe":               "",
		"Zoë 🦦":                  "Zoë 🦦",
		"\ufeff":                 "",
		"":                       "",
		"\ue000private":          "private",
	} {
		if got := CleanName(in); got != want {
			t.Errorf("CleanName(%q) = %q, want %q", in, got, want)
		}
	}
	for _, in := range []string{strings.Repeat("ä", 1<<20), strings.Repeat("a ", 500), strings.Repeat("🦦", 33)} {
		got := CleanName(in)
		if len(got) > MaxName || len(got) < MaxName-4 || CleanName(got) != got {
			t.Errorf("CleanName of %d bytes gives %d: %q", len(in), len(got), got)
		}
	}
}
