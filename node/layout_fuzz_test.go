package node_test

import (
	"fmt"
	"go/ast"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// layoutDecoder names what reads bytes of others: its first result is what it made of
// them, so it is asked for in a fuzz target.
var layoutDecoder = regexp.MustCompile(`^([Pp]arse|[Rr]ead[A-Z]|Unmarshal$|Valid(ate)?$)`)

// layoutReaders are the packages that get bytes from others, of the network or of files.
var layoutReaders = []string{"identity/*", "protocol/*", "node/p2p"}

// TestEveryDecoderIsFuzzed: network.md 16, DoS.
func TestEveryDecoderIsFuzzed(t *testing.T) {
	tree, err := layoutLoad(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	decoders, found := layoutFuzzed(tree)
	for _, f := range found {
		t.Error(f)
	}
	if decoders < 30 {
		t.Errorf("found %d decoders: the search is broken", decoders)
	}
}

// layoutFuzzed counts the decoders, and names those that no fuzz target of their package
// can reach.
func layoutFuzzed(tree *layoutTree) (decoders int, found []string) {
	type fn struct {
		file *layoutFile
		decl *ast.FuncDecl
	}
	byFolder := map[string]map[string][]fn{}
	for _, file := range tree.files {
		if !slices.ContainsFunc(layoutReaders, func(p string) bool { return layoutMatch(p, file.folder) }) {
			continue
		}
		if byFolder[file.folder] == nil {
			byFolder[file.folder] = map[string][]fn{}
		}
		for _, d := range file.ast.Decls {
			if d, ok := d.(*ast.FuncDecl); ok && d.Body != nil {
				byFolder[file.folder][d.Name.Name] = append(byFolder[file.folder][d.Name.Name], fn{file, d})
			}
		}
	}
	for _, fns := range byFolder {
		reached := map[string]bool{}
		var follow func(name string)
		follow = func(name string) {
			if reached[name] {
				return
			}
			reached[name] = true
			for _, f := range fns[name] {
				ast.Inspect(f.decl.Body, func(n ast.Node) bool {
					if id, ok := n.(*ast.Ident); ok && len(fns[id.Name]) > 0 {
						follow(id.Name)
					}
					return true
				})
			}
		}
		for name := range fns {
			if strings.HasPrefix(name, "Fuzz") {
				follow(name)
			}
		}
		for name, all := range fns {
			for _, f := range all {
				if f.file.test || !layoutDecoder.MatchString(name) || !layoutTakesBytes(f.decl) {
					continue
				}
				decoders++
				if !reached[name] {
					found = append(found, fmt.Sprintf("%s: %s reads what others wrote, and no fuzz target of its package reaches it", tree.at(f.file, f.decl), name))
				}
			}
		}
	}
	slices.Sort(found)
	return decoders, found
}

// layoutTakesBytes reports whether a function reads bytes, a text or a stream.
func layoutTakesBytes(d *ast.FuncDecl) bool {
	for _, p := range d.Type.Params.List {
		switch typ := p.Type.(type) {
		case *ast.ArrayType:
			if id, ok := typ.Elt.(*ast.Ident); ok && id.Name == "byte" && typ.Len == nil {
				return true
			}
		case *ast.Ident:
			if typ.Name == "string" {
				return true
			}
		case *ast.SelectorExpr:
			if typ.Sel.Name == "Reader" || typ.Sel.Name == "Stream" {
				return true
			}
		}
	}
	return false
}

// TestEveryDecoderIsFuzzedBites: a decoder that is not fuzzed is found, one that a fuzzed
// one calls is not.
func TestEveryDecoderIsFuzzedBites(t *testing.T) {
	tree, err := layoutLoad(fstest.MapFS{
		"protocol/x/wire.go": {Data: []byte("package x\n\nfunc Parse(b []byte) error { return parseInner(b) }\n\n" +
			"func parseInner(b []byte) error { return nil }\n\nfunc ParseOther(b []byte) error { return nil }\n\nfunc ParseNothing() {}\n")},
		"protocol/x/fuzz_test.go": {Data: []byte("package x\n\nfunc FuzzParse(f any) { _ = Parse(nil) }\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	decoders, found := layoutFuzzed(tree)
	if decoders != 3 || len(found) != 1 || !strings.Contains(found[0], "ParseOther") {
		t.Errorf("%d decoders, found %q", decoders, found)
	}
}
