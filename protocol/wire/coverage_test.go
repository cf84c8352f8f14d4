package wire

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestVectorCoverage holds every protocol folder to the rules of
// protocol/README.md ("Vectors"). It reads sources and JSON; that the vectors
// come out as they say is each folder's own TestVectors.
func TestVectorCoverage(t *testing.T) {
	folders, err := readFolders("..")
	if err != nil {
		t.Fatal(err)
	}
	if len(folders) < 2 {
		t.Fatalf("only %d protocol folders found", len(folders))
	}
	for _, f := range folders {
		t.Run(f.name, func(t *testing.T) {
			for _, problem := range f.check(folders) {
				t.Error(problem)
			}
		})
	}
}

// folder is what the test knows of one protocol folder.
type folder struct {
	name  string
	dir   string
	spec  string
	files map[string]bool

	parsers   map[string]bool     // exported ParseX, by message
	appenders map[string]bool     // exported types with an Append method
	funcs     map[string]bool     // exported functions
	errors    map[string]string   // exported errors of the package, by name: file
	limits    map[string]string   // constants MaxX and MinX of wire files: file
	calls     map[string][]string // what each function of the tests calls
	helpers   map[string]bool     // functions of wire_test.go

	vectors  []checkedVector
	problems []string
}

// checkedVector is a vector as far as this test looks into it.
type checkedVector struct {
	Name    string
	Message string
	Hex     string
	With    json.RawMessage
	Expect  json.RawMessage

	file  string
	raw   json.RawMessage
	bytes []byte
	err   string // of a refusing one
}

func (v checkedVector) String() string { return fmt.Sprintf("%s: vector %q", v.file, v.Name) }

// readFolders reads every folder of protocol/ that has Go files.
func readFolders(root string) ([]*folder, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	var all []*folder
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		sources, err := filepath.Glob(filepath.Join(root, e.Name(), "*.go"))
		if err != nil {
			return nil, err
		}
		if len(sources) == 0 {
			continue
		}
		f, err := readFolder(filepath.Join(root, e.Name()), sources)
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

func readFolder(dir string, sources []string) (*folder, error) {
	f := &folder{
		name:  filepath.Base(dir),
		dir:   dir,
		files: map[string]bool{}, parsers: map[string]bool{}, appenders: map[string]bool{},
		funcs: map[string]bool{}, errors: map[string]string{}, limits: map[string]string{},
		calls: map[string][]string{}, helpers: map[string]bool{},
	}
	for _, path := range sources {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		base := filepath.Base(path)
		f.files[base] = true
		if strings.HasSuffix(base, "_test.go") {
			f.readTests(base, file)
		} else {
			f.readSource(base, file)
		}
	}
	spec, err := os.ReadFile(filepath.Join(dir, "SPEC.md"))
	if err == nil {
		f.files["SPEC.md"] = true
		f.spec = string(spec)
	}
	f.readVectors()
	return f, nil
}

func isWireFile(base string) bool {
	return base == "wire.go" || strings.HasSuffix(base, "_wire.go") || strings.HasPrefix(base, "wire_")
}

var limitName = regexp.MustCompile(`^[mM](ax|in)[A-Z]`)

func (f *folder) readSource(base string, file *ast.File) {
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if !d.Name.IsExported() {
				continue
			}
			if d.Recv != nil {
				if recv := receiver(d); d.Name.Name == "Append" && ast.IsExported(recv) {
					f.appenders[recv] = true
				}
				continue
			}
			f.funcs[d.Name.Name] = true
			if x, ok := strings.CutPrefix(d.Name.Name, "Parse"); ok {
				f.parsers[f.message(x)] = true
			}
		case *ast.GenDecl:
			f.readNames(base, d)
		}
	}
}

// message is the name of the message that ParseX reads.
func (f *folder) message(x string) string {
	if x == "" {
		return strings.ToUpper(f.name[:1]) + f.name[1:]
	}
	return x
}

// parser is the name of the function that reads a message.
func (f *folder) parser(message string) string {
	if message == f.message("") && f.funcs["Parse"] {
		return "Parse"
	}
	return "Parse" + message
}

func receiver(d *ast.FuncDecl) string {
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if name, ok := typ.(*ast.Ident); ok {
		return name.Name
	}
	return ""
}

// readNames takes the errors of any file and the limits of wire files. An error
// of another file than a wire file is a state's: it may be expected, but need
// not be.
func (f *folder) readNames(base string, d *ast.GenDecl) {
	for _, spec := range d.Specs {
		if typ, ok := spec.(*ast.TypeSpec); ok && typ.Name.IsExported() {
			f.funcs[typ.Name.Name] = true
		}
		v, ok := spec.(*ast.ValueSpec)
		if !ok {
			continue
		}
		for _, name := range v.Names {
			switch {
			case d.Tok == token.VAR && strings.HasPrefix(name.Name, "Err"):
				f.errors[name.Name] = base
			case d.Tok == token.CONST && isWireFile(base) && limitName.MatchString(name.Name):
				f.limits[name.Name] = base
			}
		}
	}
}

func (f *folder) readTests(base string, file *ast.File) {
	for _, decl := range file.Decls {
		d, ok := decl.(*ast.FuncDecl)
		if !ok || d.Recv != nil || d.Body == nil {
			continue
		}
		if base == "wire_test.go" {
			f.helpers[d.Name.Name] = true
		}
		calls := []string{}
		ast.Inspect(d.Body, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if fun, ok := call.Fun.(*ast.Ident); ok {
					calls = append(calls, fun.Name)
				}
			}
			return true
		})
		f.calls[d.Name.Name] = calls
	}
}

func (f *folder) problem(format string, args ...any) {
	f.problems = append(f.problems, fmt.Sprintf(format, args...))
}

func (f *folder) readVectors() {
	files, _ := filepath.Glob(filepath.Join(f.dir, "testdata/vectors/*.json"))
	for _, path := range files {
		base := filepath.Base(path)
		b, err := os.ReadFile(path)
		if err != nil {
			f.problem("%v", err)
			continue
		}
		var list []json.RawMessage
		if err := json.Unmarshal(b, &list); err != nil {
			f.problem("%s: not an array of vectors: %v", base, err)
			continue
		}
		for i, raw := range list {
			v := checkedVector{file: base, raw: raw}
			if err := v.read(); err != nil {
				f.problem("%s: vector %d (%q): %v", base, i+1, v.Name, err)
				continue
			}
			f.vectors = append(f.vectors, v)
		}
	}
}

// read takes a vector apart. Every field is there, and nothing else.
func (v *checkedVector) read() error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(v.raw, &fields); err != nil {
		return err
	}
	for name := range fields {
		if !slices.Contains([]string{"name", "message", "hex", "with", "expect"}, name) {
			return fmt.Errorf("field %q is not known", name)
		}
	}
	if err := json.Unmarshal(v.raw, v); err != nil {
		return err
	}
	if _, ok := fields["hex"]; !ok || v.Name == "" || v.Message == "" || len(v.Expect) == 0 {
		return fmt.Errorf("name, message, hex and expect belong into every vector")
	}
	b, err := hex.DecodeString(v.Hex)
	if err != nil {
		return err
	}
	if v.Hex != strings.ToLower(v.Hex) {
		return fmt.Errorf("hex is written in lower case")
	}
	v.bytes = b
	switch v.Expect[0] {
	case '"':
		return json.Unmarshal(v.Expect, &v.err)
	case '{':
		return nil
	}
	return fmt.Errorf("expect is neither the name of an error nor an object")
}
