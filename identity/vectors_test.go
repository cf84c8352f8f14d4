package identity

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kinloom/kinloom/identity/enc"
)

// rewrite is for the author of a change of format:
// go test ./identity -run TestVectors -rewrite
var rewrite = flag.Bool("rewrite", false, "write testdata/vectors anew")

// vector is one line of testdata/vectors: bytes, and what they mean or the
// name of the error they meet (SPEC 7).
type vector struct {
	Name    string          `json:"name"`
	Message string          `json:"message"`
	Hex     string          `json:"hex"`
	Expect  json.RawMessage `json:"expect"`
}

func (v vector) bytes(t testing.TB) []byte {
	t.Helper()
	b, err := hex.DecodeString(v.Hex)
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	return b
}

func readVectors(t testing.TB, file string) []vector {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "vectors", file))
	if err != nil {
		t.Fatal(err)
	}
	var out []vector
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return out
}

// namedError is an error under the name by which vectors expect it.
type namedError struct {
	name string
	err  error
}

// named are the errors that vectors name, the telling ones first: an error
// that is several of them goes by the first.
func named() []namedError {
	return []namedError{
		{"ErrDID", ErrDID},
		{"ErrNotInLog", ErrNotInLog},
		{"ErrRevoked", ErrRevoked},
		{"ErrSignature", ErrSignature},
		{"ErrKey", ErrKey},
		{"ErrSuite", ErrSuite},
		{"ErrVersion", ErrVersion},
		{"ErrTooLarge", ErrTooLarge},
		{"ErrTooMany", ErrTooMany},
		{"ErrIncomplete", ErrIncomplete},
		{"ErrChain", ErrChain},
		{"ErrPerson", ErrPerson},
		{"ErrUnknownEntry", ErrUnknownEntry},
		{"ErrRecord", ErrRecord},
		{"ErrEntry", ErrEntry},
		{"ErrTruncated", enc.ErrTruncated},
		{"ErrTrailing", enc.ErrTrailing},
		{"ErrNotCanonical", enc.ErrNotCanonical},
		{"ErrDuplicate", enc.ErrDuplicate},
		{"ErrForbidden", enc.ErrForbidden},
		{"ErrDepth", enc.ErrDepth},
		{"ErrUTF8", enc.ErrUTF8},
		{"ErrMissing", enc.ErrMissing},
		{"ErrType", enc.ErrType},
	}
}

// recordValue is a DeviceRecord as vectors show it.
type recordValue struct {
	Hash         string   `json:"hash"`
	Person       PersonID `json:"person"`
	Device       string   `json:"device"`
	DeviceID     string   `json:"deviceID"`
	Olm          string   `json:"olm"`
	Rendezvous   string   `json:"rendezvous"`
	NotBefore    int64    `json:"notBefore"`
	Expiry       int64    `json:"expiry"`
	Capabilities []string `json:"capabilities,omitempty"`
}

type deviceValue struct {
	ID        string `json:"id"`
	Record    string `json:"record"`
	NotBefore int64  `json:"notBefore"`
	Expiry    int64  `json:"expiry"`
	Added     int64  `json:"added"`
	Renewed   int64  `json:"renewed"`
	Revoked   bool   `json:"revoked"`
}

// logValue is a Log as vectors show it. Ends is the error that ends the
// verified part before the log does.
type logValue struct {
	Person  PersonID      `json:"person"`
	Head    string        `json:"head"`
	Seq     uint64        `json:"seq"`
	LogKey  string        `json:"logKey"`
	Devices []deviceValue `json:"devices"`
	Ends    string        `json:"ends,omitempty"`
}

// logMessage is how a vector holds a log: the person, then the entries.
type logMessage struct {
	_       struct{} `cbor:",toarray"`
	Person  PersonID
	Entries [][]byte
}

// mean says what bytes mean, as a value or an error.
func mean(message string, b []byte) (any, error) {
	switch message {
	case "did":
		p, err := ParsePersonID(string(b))
		return hex.EncodeToString(p[:]), err
	case "device-record":
		r, h, err := ParseDeviceRecord(b)
		if err != nil {
			return nil, err
		}
		return recordValue{
			Hash: h.String(), Person: r.Person, Device: hex.EncodeToString(r.Device[:]), DeviceID: r.Device.ID().String(),
			Olm: hex.EncodeToString(r.Olm[:]), Rendezvous: hex.EncodeToString(r.Rendezvous[:]),
			NotBefore: r.NotBefore, Expiry: r.Expiry, Capabilities: r.Capabilities,
		}, nil
	case "log":
		return meanLog(b)
	default:
		return nil, errors.New("bug: no such message")
	}
}

func meanLog(b []byte) (any, error) {
	var m logMessage
	if err := enc.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	l, err := ParseLog(m.Person, m.Entries)
	if l == nil {
		return nil, err
	}
	key := l.LogKey()
	v := logValue{Person: l.Person(), Head: l.Head().String(), Seq: l.Seq(), LogKey: hex.EncodeToString(key[:]), Devices: []deviceValue{}}
	for _, d := range l.Devices() {
		v.Devices = append(v.Devices, deviceValue{
			ID: d.ID.String(), Record: d.RecordHash.String(), NotBefore: d.NotBefore, Expiry: d.Expiry,
			Added: d.Added, Renewed: d.Renewed, Revoked: d.Revoked,
		})
	}
	if err != nil {
		v.Ends = errName(err)
	}
	return v, nil
}

func errName(err error) string {
	for _, n := range named() {
		if errors.Is(err, n.err) {
			return n.name
		}
	}
	return err.Error()
}

// TestVectors: the committed vectors are what the code makes and what it
// reads. In another language, only the files and SPEC.md are needed.
func TestVectors(t *testing.T) {
	covered := map[string]bool{}
	for file, list := range buildVectors(t) {
		for i, v := range list {
			value, err := mean(v.Message, v.bytes(t))
			if err != nil {
				value = errName(err)
			}
			if list[i].Expect, err = json.Marshal(value); err != nil {
				t.Fatal(err)
			}
		}
		if *rewrite {
			writeVectors(t, file, list)
		}
		if d := cmp.Diff(compact(t, readVectors(t, file)), list); d != "" {
			t.Errorf("%s is not what the code makes now: (-file +code)\n%s", file, d)
		}
		names := map[string]bool{}
		for _, v := range list {
			if names[v.Name] {
				t.Errorf("%s: two vectors are called %q", file, v.Name)
			}
			names[v.Name] = true
			var name string
			if json.Unmarshal(v.Expect, &name) == nil {
				covered[name] = true
				continue
			}
			var l logValue
			if json.Unmarshal(v.Expect, &l) == nil {
				covered[l.Ends] = true
			}
			b := v.bytes(t)
			for n := range b {
				if _, err := mean(v.Message, b[:n]); err == nil {
					t.Errorf("%s: %s: its first %d bytes are accepted", file, v.Name, n)
				}
			}
		}
	}
	for _, n := range named() {
		if !covered[n.name] {
			t.Errorf("no vector meets %s", n.name)
		}
	}
}

func compact(t testing.TB, list []vector) []vector {
	t.Helper()
	for i := range list {
		var b bytes.Buffer
		if err := json.Compact(&b, list[i].Expect); err != nil {
			t.Fatal(err)
		}
		list[i].Expect = b.Bytes()
	}
	return list
}

func writeVectors(t testing.TB, file string, list []vector) {
	t.Helper()
	b, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join("testdata", "vectors"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("testdata", "vectors", file), append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}
