package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/kinloom/kinloom/identity/enc"
)

// check returns what is missing or wrong in a folder. All are the folders that
// exist: limits of wire may be shown by the folder that applies them.
func (f *folder) check(all []*folder) []string {
	f.checkFiles()
	f.checkNames()
	f.checkMessages()
	f.checkTwins()
	f.checkErrors()
	f.checkLimits(all)
	f.checkFuzz()
	f.checkReleased()
	return f.problems
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func (f *folder) checkFiles() {
	for _, name := range []string{"SPEC.md", "doc.go", "wire.go", "wire_test.go", "fuzz_test.go"} {
		if !f.files[name] {
			f.problem("%s is missing", name)
		}
	}
	if len(f.vectors) == 0 {
		f.problem("testdata/vectors has no vector")
	}
	for _, name := range []string{"vectors", "TestVectors"} {
		if f.files["wire_test.go"] && !f.helpers[name] {
			f.problem("wire_test.go has no function %s", name)
		}
	}
}

// checkNames: a name stands once, a message is something of this package.
func (f *folder) checkNames() {
	seen := map[string]bool{}
	for _, v := range f.vectors {
		if seen[v.Message+"\x00"+v.Name] {
			f.problem("%v: another one of %s has this name", v, v.Message)
		}
		seen[v.Message+"\x00"+v.Name] = true
		if !f.parsers[v.Message] && !f.appenders[v.Message] && !f.funcs[v.Message] {
			f.problem("%v: message %q is no Parse%s, no exported function or type", v, v.Message, v.Message)
		}
	}
}

// checkMessages: each message type has an accepting vector.
func (f *folder) checkMessages() {
	accepted := map[string]bool{}
	for _, v := range f.vectors {
		accepted[v.Message] = accepted[v.Message] || v.err == ""
	}
	for _, m := range slices.Compact(slices.Sorted(slices.Values(append(sorted(f.parsers), sorted(f.appenders)...)))) {
		if !accepted[m] {
			f.problem("message %s has no accepting vector", m)
		}
		if !f.mentions(m) {
			f.problem("SPEC.md does not name the message %s", m)
		}
	}
}

const twinSuffix = ", unknown key"

// checkTwins: an accepting vector that is a CBOR map has a twin with an unknown
// key and the same value.
func (f *folder) checkTwins() {
	byName := map[string]checkedVector{}
	for _, v := range f.vectors {
		byName[v.Message+"\x00"+v.Name] = v
	}
	for _, v := range f.vectors {
		if v.err != "" {
			continue
		}
		if base, ok := strings.CutSuffix(v.Name, twinSuffix); ok {
			if _, ok := byName[v.Message+"\x00"+base]; !ok {
				f.problem("%v: there is no %q", v, base)
			}
			continue
		}
		if !f.parsers[v.Message] && !f.appenders[v.Message] || !isMap(v.bytes) {
			continue
		}
		twin, ok := byName[v.Message+"\x00"+v.Name+twinSuffix]
		switch {
		case !ok:
			f.problem("%v has no twin %q", v, v.Name+twinSuffix)
		case twin.err != "" || !sameJSON(v.Expect, twin.Expect) || !sameJSON(v.With, twin.With):
			f.problem("%v: expects something else than %q", twin, v.Name)
		case len(twin.bytes) <= len(v.bytes):
			f.problem("%v: not longer than %q", twin, v.Name)
		}
	}
}

func isMap(b []byte) bool { return len(b) > 0 && b[0]>>5 == 5 && enc.Valid(b) == nil }

func sameJSON(a, b json.RawMessage) bool {
	var x, y any
	if len(a) > 0 && json.Unmarshal(a, &x) != nil || len(b) > 0 && json.Unmarshal(b, &y) != nil {
		return false
	}
	return reflect.DeepEqual(x, y)
}

// checkErrors: each error of a wire file is shown, and only errors that exist
// are expected.
func (f *folder) checkErrors() {
	shown := map[string]bool{}
	for _, v := range f.vectors {
		if v.err == "" {
			continue
		}
		shown[v.err] = true
		if f.errors[v.err] == "" {
			f.problem("%v: expects %s, which is no error of the package", v, v.err)
		}
	}
	for _, name := range sorted(f.errors) {
		if file := f.errors[name]; isWireFile(file) && !shown[name] {
			f.problem("%s: %s has no refusing vector", file, name)
		}
		if isWireFile(f.errors[name]) && !f.mentions(name) {
			f.problem("SPEC.md does not name the error %s", name)
		}
	}
}

// checkLimits: each limit is shown by a refusing vector that names it.
func (f *folder) checkLimits(all []*folder) {
	for _, name := range sorted(f.limits) {
		shown := f.shows(name)
		if f.name == "wire" {
			shown = slices.ContainsFunc(all, func(g *folder) bool { return g.shows(name) })
		}
		if !shown {
			f.problem("%s: no refusing vector has the limit %s in its name", f.limits[name], name)
		}
		if !f.mentions(name) {
			f.problem("SPEC.md does not name the limit %s", name)
		}
	}
}

func (f *folder) shows(limit string) bool {
	return slices.ContainsFunc(f.vectors, func(v checkedVector) bool {
		return v.err != "" && word(limit).MatchString(v.Name)
	})
}

func (f *folder) mentions(name string) bool { return f.spec == "" || word(name).MatchString(f.spec) }

func word(s string) *regexp.Regexp { return regexp.MustCompile(`\b` + regexp.QuoteMeta(s) + `\b`) }

// checkFuzz: each parser has its target, which begins from the vectors.
func (f *folder) checkFuzz() {
	for _, m := range sorted(f.parsers) {
		target := "Fuzz" + f.parser(m)
		switch {
		case f.calls[target] == nil:
			f.problem("%s has no %s", f.parser(m), target)
		case !f.reaches(target, map[string]bool{}):
			f.problem("%s does not begin from vectors()", target)
		}
	}
}

// reaches reports whether a function of the tests calls vectors, itself or by
// way of another.
func (f *folder) reaches(name string, seen map[string]bool) bool {
	seen[name] = true
	return slices.ContainsFunc(f.calls[name], func(called string) bool {
		return called == "vectors" || !seen[called] && f.reaches(called, seen)
	})
}

// checkReleased: what a release has promised is still there and the same.
func (f *folder) checkReleased() {
	b, err := os.ReadFile(filepath.Join(f.dir, "testdata/vectors/RELEASED"))
	if os.IsNotExist(err) {
		return
	}
	if err != nil {
		f.problem("%v", err)
		return
	}
	sums := map[string]bool{}
	for _, v := range f.vectors {
		sums[v.releaseLine()] = true
	}
	for i, line := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		if !sums[line] {
			f.problem("RELEASED:%d: the vector %q is missing or has changed", i+1, line)
		}
	}
}

// releaseLine is the line of RELEASED that pins the vector.
func (v checkedVector) releaseLine() string {
	var compact bytes.Buffer
	if err := json.Compact(&compact, v.raw); err != nil {
		return ""
	}
	sum := sha256.Sum256(compact.Bytes())
	return hex.EncodeToString(sum[:]) + " " + v.Name
}
