package wire

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sound is a protocol folder with nothing wrong, by file name.
func sound() map[string]string {
	return map[string]string{
		"SPEC.md": "Messages Ping and Pong, error ErrPing, limit MaxPing.",
		"doc.go":  "// Package ping is an example.\npackage ping\n",
		"wire.go": `package ping
import "errors"
const MaxPing = 3
var ErrPing = errors.New("ping")
type Pong struct{}
func (p *Pong) Append() []byte { return nil }
func ParsePing(b []byte) (int, error) { return 0, ErrPing }
func Twice(b []byte) int { return 2 }
`,
		"wire_test.go": `package ping
func vectors() []int { return nil }
func TestVectors() { vectors() }
`,
		"fuzz_test.go": `package ping
func seed() { vectors() }
func FuzzParsePing() { seed() }
`,
		"testdata/vectors/ping.json": `[
{"name": "one", "message": "Ping", "hex": "a10101", "expect": {"N": 1}},
{"name": "one, unknown key", "message": "Ping", "hex": "a201010200", "expect": {"N": 1}},
{"name": "fixed", "message": "Pong", "hex": "01ff", "with": {"Now": 7}, "expect": {}},
{"name": "doubled", "message": "Twice", "hex": "a0", "expect": {"N": 0}},
{"name": "MaxPing + 1", "message": "Ping", "hex": "", "expect": "ErrPing"}
]`,
	}
}

// TestCoverageRules breaks a sound folder in every way that a rule is about.
func TestCoverageRules(t *testing.T) {
	replace := func(file, old, with string) func(map[string]string) {
		return func(files map[string]string) {
			if !strings.Contains(files[file], old) {
				panic("bug: the fixture has no " + old)
			}
			files[file] = strings.ReplaceAll(files[file], old, with)
		}
	}
	remove := func(file string) func(map[string]string) {
		return func(files map[string]string) { delete(files, file) }
	}
	const json = "testdata/vectors/ping.json"
	for _, tt := range []struct {
		name  string
		spoil func(map[string]string)
		want  string // part of a problem; none if empty
	}{
		{"sound", func(map[string]string) {}, ""},
		{"no spec", remove("SPEC.md"), "SPEC.md is missing"},
		{"no fuzz file", remove("fuzz_test.go"), "fuzz_test.go is missing"},
		{"no vectors", remove(json), "has no vector"},
		{"no TestVectors", replace("wire_test.go", "TestVectors", "TestOther"), "no function TestVectors"},
		{"no vectors function", replace("wire_test.go", "func vectors", "func other"), "no function vectors"},
		{"not JSON", replace(json, "[\n", "{\n"), "not an array"},
		{"field missing", replace(json, `"hex": "a10101", `, ""), "belong into every vector"},
		{"field unknown", replace(json, `"hex": "a10101"`, `"hex": "a10101", "hint": 1`), `field "hint" is not known`},
		{"hex broken", replace(json, `"a10101"`, `"a1010"`), "odd length"},
		{"hex in upper case", replace(json, "01ff", "01FF"), "lower case"},
		{"expect a number", replace(json, `"expect": {}`, `"expect": 7`), "neither the name"},
		{"name twice", replace(json, "one, unknown key", "one"), "has this name"},
		{"message unknown", replace(json, `"Twice"`, `"Thrice"`), `message "Thrice"`},
		{"message without accepting vector", replace(json, `"expect": {}`, `"expect": "ErrPing"`), "Pong has no accepting"},
		{"parser without accepting vector", replace("wire.go", "func Twice", "func ParseTwo() {}\nfunc Twice"), "Two has no accepting"},
		{"message not in SPEC", replace("SPEC.md", "Pong", "pongs"), "does not name the message Pong"},
		{"twin missing", replace(json, "one, unknown key", "two, unknown key"), `has no twin "one, unknown key"`},
		{"twin of nothing", replace(json, `"fixed"`, `"lost, unknown key"`), `there is no "lost"`},
		{"twin of another value", replace(json, `"a201010200", "expect": {"N": 1}`, `"a201010200", "expect": {"N": 2}`), "something else"},
		{"twin without the key", replace(json, "a201010200", "a10101"), "not longer"},
		{"error not shown", replace("wire.go", "const MaxPing", "var ErrOther = errors.New(\"\")\nconst MaxPing"), "ErrOther has no refusing"},
		{"error of a state needs none", func(files map[string]string) {
			files["state.go"] = "package ping\nvar ErrState error\n"
		}, ""},
		{"error unknown", replace(json, `"ErrPing"`, `"ErrPong"`), "no error of the package"},
		{"error not in SPEC", replace("SPEC.md", "ErrPing", "none"), "does not name the error ErrPing"},
		{"limit not shown", replace(json, "MaxPing + 1", "too much"), "has the limit MaxPing"},
		{"limit shown by an accepting vector only", func(files map[string]string) {
			replace(json, "MaxPing + 1", "too much")(files)
			replace(json, `"doubled"`, `"MaxPing"`)(files)
		}, "has the limit MaxPing"},
		{"limit not in SPEC", replace("SPEC.md", "MaxPing", "three"), "does not name the limit MaxPing"},
		{"no fuzz target", replace("fuzz_test.go", "FuzzParsePing", "FuzzPing"), "no FuzzParsePing"},
		{"fuzz target without seeds", replace("fuzz_test.go", "{ vectors() }", "{ FuzzParsePing() }"), "does not begin from vectors()"},
		{"released and gone", func(files map[string]string) {
			files["testdata/vectors/RELEASED"] = "f59ac3d24a0be7c9c3d3c2d7d2a3a9ed15bb2bb3ef7b6ae6ac7a1e6e1bd7c0ff one\n"
		}, `"f59ac3d24a0be7c9c3d3c2d7d2a3a9ed15bb2bb3ef7b6ae6ac7a1e6e1bd7c0ff one" is missing or has changed`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := sound()
			tt.spoil(files)
			f := writeFolder(t, files)
			problems := f.check([]*folder{f})
			if tt.want == "" && len(problems) > 0 {
				t.Errorf("problems %q, want none", problems)
			}
			if !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, tt.want) }) && tt.want != "" {
				t.Errorf("problems %q, want one with %q", problems, tt.want)
			}
		})
	}
}

// TestCoverageReleased: a released vector may move to another line or file, and
// may not change.
func TestCoverageReleased(t *testing.T) {
	files := sound()
	var lines strings.Builder
	for _, v := range writeFolder(t, files).vectors {
		lines.WriteString(v.releaseLine() + "\n")
	}
	files["testdata/vectors/RELEASED"] = lines.String()
	f := writeFolder(t, files)
	if p := f.check([]*folder{f}); len(p) > 0 {
		t.Errorf("nothing changed: %q", p)
	}
	const json = "testdata/vectors/ping.json"
	files["testdata/vectors/pong.json"] = strings.ReplaceAll(files[json], ": ", ":\n  ")
	delete(files, json)
	f = writeFolder(t, files)
	if p := f.check([]*folder{f}); len(p) > 0 {
		t.Errorf("other file, other blanks: %q", p)
	}
	files["testdata/vectors/pong.json"] = strings.Replace(files["testdata/vectors/pong.json"], "01ff", "01fe", 1)
	f = writeFolder(t, files)
	if p := f.check([]*folder{f}); len(p) != 1 || !strings.Contains(p[0], "RELEASED:3") {
		t.Errorf("one vector changed: %q", p)
	}
}

// TestCoverageSharedLimit: a limit of wire is shown where it applies.
func TestCoverageSharedLimit(t *testing.T) {
	files := sound()
	files["testdata/vectors/ping.json"] = strings.Replace(files["testdata/vectors/ping.json"], "MaxPing + 1", "MaxText + 1", 1)
	other := writeFolder(t, files)
	files["wire.go"] = strings.Replace(files["wire.go"], "MaxPing = 3", "MaxText = 3", 1)
	files["SPEC.md"] += " MaxText"
	files["testdata/vectors/ping.json"] = strings.Replace(files["testdata/vectors/ping.json"], "MaxText + 1", "too long", 1)
	f := writeFolder(t, files)
	f.name = "wire"
	if p := f.check([]*folder{f}); !slices.ContainsFunc(p, func(s string) bool { return strings.Contains(s, "MaxText") }) {
		t.Errorf("shown nowhere: %q", p)
	}
	f.problems = nil
	if p := f.check([]*folder{f, other}); len(p) > 0 {
		t.Errorf("shown in another folder: %q", p)
	}
}

func writeFolder(t *testing.T, files map[string]string) *folder {
	t.Helper()
	root := t.TempDir()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(root, "ping", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[name]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	folders, err := readFolders(root)
	if err != nil || len(folders) != 1 {
		t.Fatalf("%d folders, %v", len(folders), err)
	}
	return folders[0]
}
