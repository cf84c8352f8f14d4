package keyfile

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/cryptotest"

	"github.com/google/go-cmp/cmp"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/enc"
)

// rewrite is for the author of a change of format:
// go test ./identity/keyfile -run TestVectors -rewrite
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

type namedError struct {
	name string
	is   func(error) bool
}

// named are the errors that vectors name, the telling ones first.
func named() []namedError {
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	return []namedError{
		{"ErrNewer", func(err error) bool { _, ok := errors.AsType[ErrNewer](err); return ok }},
		{"ErrWord", func(err error) bool { _, ok := errors.AsType[ErrWord](err); return ok }},
		{"ErrWordCount", is(ErrWordCount)},
		{"ErrWordChecksum", is(ErrWordChecksum)},
		{"ErrArgon2Bounds", is(ErrArgon2Bounds)},
		{"ErrNotKeyFile", is(ErrNotKeyFile)},
		{"ErrPassphraseNeeded", is(ErrPassphraseNeeded)},
		{"ErrOutsideNeeded", is(ErrOutsideNeeded)},
		{"ErrWrongPassphrase", is(ErrWrongPassphrase)},
		{"ErrWrongOutside", is(ErrWrongOutside)},
		{"ErrWrongRoot", is(ErrWrongRoot)},
		{"ErrNoPassphrase", is(ErrNoPassphrase)},
		{"ErrDamaged", is(ErrDamaged)},
	}
}

func errName(err error) string {
	for _, n := range named() {
		if n.is(err) {
			return n.name
		}
	}
	return err.Error()
}

// secretsValue is Secrets as vectors show them.
type secretsValue struct {
	Generation uint64            `json:"generation"`
	DataKey    string            `json:"dataKey"`
	Person     identity.PersonID `json:"person"`
	Root       string            `json:"root,omitempty"`
	Log        string            `json:"log,omitempty"`
	Device     string            `json:"device"`
	Olm        string            `json:"olm"`
	Rendezvous string            `json:"rendezvous"`
	Files      map[string]string `json:"files,omitempty"`
}

const vectorPassphrase = "correct horse battery staple"

// vectorLock is how a vector's message says that the file is opened (SPEC 7).
func vectorLock(how string) Lock {
	root := fill("root seed ")
	switch how {
	case "passphrase":
		return Lock{Passphrase: []byte(vectorPassphrase)}
	case "outside":
		return Lock{Outside: outside()}
	case "words":
		return Lock{Root: &root}
	default:
		return Lock{}
	}
}

// mean says what bytes mean, as a value or an error. A vector of a key file
// holds one copy up to where its filling of zeros begins; the file is that
// copy, filled up, with its checksum, twice.
func mean(message string, b []byte) (any, error) {
	if message == "words" {
		root, err := ParseWords(string(b))
		return hex.EncodeToString(root[:]), err
	}
	file := twice(b)
	s, err := Open(file, vectorLock(strings.TrimPrefix(message, "key-file/")))
	if err != nil {
		return nil, err
	}
	info, err := Inspect(file)
	if err != nil {
		return nil, err
	}
	v := secretsValue{
		Generation: info.Generation, DataKey: hex.EncodeToString(s.DataKey[:]), Person: s.Person,
		Device: hex.EncodeToString(s.Device[:]), Olm: hex.EncodeToString(s.Olm[:]), Rendezvous: hex.EncodeToString(s.Rendezvous[:]),
		Files: map[string]string{},
	}
	if s.Root != nil {
		v.Root = hex.EncodeToString(s.Root[:])
	}
	if s.Log != nil {
		v.Log = hex.EncodeToString(s.Log[:])
	}
	for name, id := range s.Files {
		v.Files[name] = hex.EncodeToString(id[:])
	}
	return v, nil
}

// TestVectors: the committed vectors are what the code makes and reads.
func TestVectors(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1) // HPKE draws by itself
	covered := map[string]bool{}
	for file, list := range map[string][]vector{"key-file.json": fileVectors(t), "words.json": wordVectors()} {
		for i, v := range list {
			value, err := mean(v.Message, v.bytes(t))
			if err != nil {
				value = errName(err)
				covered[errName(err)] = true
			}
			if list[i].Expect, err = json.Marshal(value); err != nil {
				t.Fatal(err)
			}
		}
		if *rewrite {
			writeVectors(t, file, list)
		}
		committed := readVectors(t, file)
		for i, v := range committed {
			var b bytes.Buffer
			if err := json.Compact(&b, v.Expect); err != nil {
				t.Fatal(err)
			}
			committed[i].Expect = b.Bytes()
		}
		if d := cmp.Diff(committed, list); d != "" {
			t.Errorf("%s is not what the code makes now: (-file +code)\n%s", file, d)
		}
	}
	for _, n := range named() {
		if !covered[n.name] {
			t.Errorf("no vector meets %s", n.name)
		}
	}
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

func fileVectors(t testing.TB) []vector {
	t.Helper()
	var out []vector
	put := func(name, how string, file []byte) {
		b := bytes.TrimRight(file[:CopySize-sumSize], "\x00")
		out = append(out, vector{Name: name, Message: "key-file/" + how, Hex: hex.EncodeToString(b)})
	}
	s := testSecrets()
	b := seal(t, s, Lock{Passphrase: []byte(vectorPassphrase), Outside: outside(), Params: cheap()})
	open := seal(t, testSecrets(), Lock{})
	only := seal(t, testSecrets(), Lock{Outside: outside()})
	plain := testSecrets()
	plain.Root, plain.Log, plain.Files = nil, nil, nil
	further := seal(t, plain, Lock{Outside: outside()})
	other := testSecrets()
	other.Root, other.Backup = nil, backupKey(fill("another root ")).PublicKey().Bytes()
	foreign := seal(t, other, Lock{Outside: bytes.Repeat([]byte{1}, 32)})
	changed := func(name, how string, change func(version *uint16, generation *uint64, bd *body)) {
		put(name, how, forge(t, b, change))
	}

	put("passphrase, outside and root slot", "passphrase", b)
	put("the same, opened from outside", "outside", b)
	put("the same, opened with the recovery words", "words", b)
	put("open", "nothing", open)
	put("device without root and log key", "outside", further)
	put("unknown key in the body", "outside", later(t, b))

	put("sealed with a passphrase", "nothing", b)
	put("sealed from outside", "nothing", only)
	put("no passphrase", "passphrase", only)
	put("other secret outside", "outside", foreign)
	put("other recovery words", "words", foreign)
	changed("wrong passphrase", "passphrase", func(_ *uint16, _ *uint64, bd *body) {
		bd.Slots[0] = changeSlot(t, bd.Slots[0], func(s *slot) { s.Salt[0] ^= 1 })
	})
	changed("64 GiB of Argon2 memory", "outside", func(_ *uint16, _ *uint64, bd *body) {
		bd.Slots[0] = changeSlot(t, bd.Slots[0], func(s *slot) { s.Memory = 64 << 20 })
	})
	changed("one pass of Argon2", "passphrase", func(_ *uint16, _ *uint64, bd *body) {
		bd.Slots[0] = changeSlot(t, bd.Slots[0], func(s *slot) { s.Time = 1 })
	})
	changed("later version", "outside", func(v *uint16, _ *uint64, _ *body) { *v = 2 })
	changed("version 0", "outside", func(v *uint16, _ *uint64, _ *body) { *v = 0 })
	changed("generation 0", "outside", func(_ *uint16, g *uint64, _ *body) { *g = 0 })
	changed("other generation than sealed", "outside", func(_ *uint16, g *uint64, _ *body) { *g = 2 })
	changed("slot taken out", "outside", func(_ *uint16, _ *uint64, bd *body) { bd.Slots = bd.Slots[1:] })
	changed("slot twice", "outside", func(_ *uint16, _ *uint64, bd *body) { bd.Slots = append(bd.Slots, bd.Slots[0]) })
	changed("sealed part changed", "outside", func(_ *uint16, _ *uint64, bd *body) { bd.Sealed[30] ^= 1 })
	changed("body not canonical", "outside", func(_ *uint16, _ *uint64, bd *body) { bd.Slots = []enc.Raw{{0xa0}} })
	slots := func(name string, list func(have []enc.Raw) []enc.Raw) {
		changed(name, "outside", func(_ *uint16, _ *uint64, bd *body) { bd.Slots = list(bd.Slots) })
	}
	opened := raw(t, slot{Kind: slotOpen, Key: s.DataKey[:]})
	slots("no slots", func([]enc.Raw) []enc.Raw { return nil })
	slots("open and sealed", func(have []enc.Raw) []enc.Raw { return append(have, opened) })
	slots("neither open nor sealed", func(have []enc.Raw) []enc.Raw { return have[2:] })
	slots("more slots than 8", func(have []enc.Raw) []enc.Raw {
		for kind := range slotKind(6) {
			have = append(have, raw(t, slot{Kind: 100 + kind, Key: []byte{1}}))
		}
		return have
	})
	changed("300 lanes of Argon2", "outside", func(_ *uint16, _ *uint64, bd *body) {
		bd.Slots[0] = changeSlot(t, bd.Slots[0], func(s *slot) { s.Threads = 300 })
	})
	changed("2^32 passes of Argon2", "outside", func(_ *uint16, _ *uint64, bd *body) {
		bd.Slots[0] = changeSlot(t, bd.Slots[0], func(s *slot) { s.Time = 1 << 32 })
	})
	newer, err := build(&stream{}, testSecrets(), 1, func() ([]enc.Raw, error) {
		have, err := newSlots(&stream{}, testSecrets(), Lock{Outside: outside()})
		return append(have, raw(t, slot{Kind: 300, Key: []byte{1}})), err
	})
	if err != nil {
		t.Fatal(err)
	}
	put("slot of a kind of a later version", "outside", newer)
	put("another file", "nothing", append([]byte("SQLite format 3"), make([]byte, CopySize)...))
	return out
}

func raw(t testing.TB, s slot) enc.Raw {
	t.Helper()
	b, err := enc.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// later is b with one more key in its body, as a later version may write it.
func later(t testing.TB, b []byte) []byte {
	t.Helper()
	f, err := parseCopy(b[:CopySize])
	if err != nil {
		t.Fatal(err)
	}
	raw, err := enc.Marshal(map[int]any{1: f.body.Slots, 2: f.body.Sealed, 100: "later"})
	if err != nil {
		t.Fatal(err)
	}
	c := binary.BigEndian.AppendUint32(bytes.Clone(b[:headerSize-4]), uint32(len(raw)))
	return twice(append(c, raw...))
}

func wordVectors() []vector {
	var out []vector
	put := func(name, text string) {
		out = append(out, vector{Name: name, Message: "words", Hex: hex.EncodeToString([]byte(text))})
	}
	own := strings.Join(Words(fill("root seed ")), " ")
	put("all zeros", strings.Repeat("abandon ", 23)+"art")
	put("all ones", strings.Repeat("zoo ", 23)+"vote")
	put("a root seed", own)
	put("upper case and blanks", "  "+strings.ToUpper(strings.ReplaceAll(own, " ", "\n\t"))+"\n")
	put("a word not in the list", strings.Repeat("abandon ", 23)+"kinloom")
	put("23 words", strings.TrimSpace(strings.Repeat("abandon ", 23)))
	put("25 words", strings.Repeat("abandon ", 24)+"art")
	put("checksum", strings.Repeat("abandon ", 23)+"abandon")
	put("no words", "")
	return out
}

// FuzzOpen: nothing but the file that was sealed opens, whatever the checksum
// says, and what can be inspected can be repaired.
func FuzzOpen(f *testing.F) {
	sealed := map[string]bool{}
	for _, v := range readVectors(f, "key-file.json") {
		b := v.bytes(f)
		f.Add(b)
		if _, err := Open(twice(b), Lock{Outside: outside()}); err == nil {
			sealed[string(twice(b))] = true
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, file := range [][]byte{b, twice(b[:min(len(b), CopySize-sumSize)])} {
			s, err := Open(file, Lock{Outside: outside()})
			if (s == nil) == (err == nil) {
				t.Fatalf("secrets %v beside error %v", s != nil, err)
			}
			info, ierr := Inspect(file)
			if err == nil && (ierr != nil || !info.Open && !sealed[string(file)]) {
				t.Fatal("opens without having been sealed")
			}
			if ierr != nil {
				continue
			}
			fixed, err := Repair(file)
			if err != nil || len(fixed) != FileSize {
				t.Fatalf("inspected, not repaired: %v", err)
			}
		}
	})
}
