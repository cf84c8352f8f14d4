package node_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// layoutRule is one rule of the tree; check returns its findings as sentences that say where, what and why.
type layoutRule struct {
	name  string
	check func(*layoutTree) []string
}

var layoutRules = []layoutRule{
	{"top level", layoutTopLevel},
	{"imports", layoutImportTable},
	{"foreign modules", layoutForeignModules},
	{"libp2p in streams only", layoutStreamsOnly},
	{"testing in tests only", layoutTestingOnly},
	{"random numbers", layoutRandom},
	{"pure machines", layoutPure},
	{"contexts", layoutContexts},
	{"no init", layoutNoInit},
	{"no sleep", layoutNoSleep},
	{"dangerous words", layoutForbiddenWords},
	{"file length", layoutLength},
	{"nothing generated", layoutGenerated},
	{"package comments", layoutComments},
	{"protocol folders", layoutProtocols},
	{"protocol IDs", layoutIDs},
	{"go.mod", layoutGoMod},
}

func layoutTopLevel(tree *layoutTree) (found []string) {
	var ignored []string
	if b, err := fs.ReadFile(tree.fsys, ".gitignore"); err == nil {
		for line := range strings.Lines(string(b)) {
			ignored = append(ignored, strings.Trim(strings.TrimSpace(line), "/"))
		}
	}
	for _, name := range tree.top {
		known := strings.HasPrefix(name, ".") || slices.Contains(layoutTop, name) ||
			slices.ContainsFunc(ignored, func(pattern string) bool {
				ok, err := path.Match(pattern, name)
				return ok && err == nil
			})
		if !known {
			found = append(found, name+": unknown at the top level: programs, the running node, what is said and who says it have their folders")
		}
	}
	return found
}

func layoutImportTable(tree *layoutTree) (found []string) {
	for _, file := range tree.files {
		i := slices.IndexFunc(layoutImports, func(row layoutRow) bool { return layoutMatch(row.pkg, file.folder) })
		if i < 0 {
			found = append(found, file.path+": the package has no row in the import table")
			continue
		}
		row := layoutImports[i]
		for imported := range file.imports {
			ours, ok := strings.CutPrefix(imported, layoutModule+"/")
			if !ok || ours == file.folder {
				continue
			}
			if ours == "node/internal/testnet" && file.test && layoutMatch("node/*", file.folder) {
				continue
			}
			if !slices.ContainsFunc(row.may, func(pattern string) bool { return layoutMatch(pattern, ours) }) || ours == "node/internal/testnet" {
				found = append(found, fmt.Sprintf("%s: must not import %s: %s", file.path, ours, row.why))
			}
		}
	}
	return found
}

func layoutForeignModules(tree *layoutTree) (found []string) {
	for _, file := range tree.files {
		for imported := range file.imports {
			for _, row := range layoutForeign {
				if !strings.HasPrefix(imported, row.module) {
					continue
				}
				if !slices.ContainsFunc(row.may, func(pattern string) bool { return layoutMatch(pattern, file.folder) }) {
					found = append(found, fmt.Sprintf("%s: must not import %s: %s", file.path, imported, row.why))
				}
				break
			}
		}
	}
	return found
}

func layoutStreamsOnly(tree *layoutTree) (found []string) {
	for _, file := range tree.files {
		if !layoutMatch("protocol/*", file.folder) || file.test || strings.HasSuffix(file.path, "stream.go") {
			continue
		}
		for imported := range file.imports {
			if strings.HasPrefix(imported, "github.com/libp2p/") {
				found = append(found, file.path+": imports "+imported+": only stream.go and tests of a protocol know libp2p")
			}
		}
	}
	return found
}

func layoutTestingOnly(tree *layoutTree) (found []string) {
	for _, file := range tree.files {
		if file.test || layoutHelps(file.folder) {
			continue
		}
		for imported := range file.imports {
			if imported == "testing" || strings.HasPrefix(imported, "testing/") {
				found = append(found, file.path+": imports "+imported+": a product links no test code")
			}
		}
	}
	return found
}

func layoutRandom(tree *layoutTree) (found []string) {
	for _, file := range tree.files {
		if file.test || layoutHelps(file.folder) || slices.Contains(layoutSeeded, file.folder) {
			continue
		}
		for _, imported := range []string{"math/rand", "math/rand/v2"} {
			if _, ok := file.imports[imported]; ok {
				found = append(found, file.path+": imports "+imported+": chance is an io.Reader argument, so that a run repeats from a seed")
			}
		}
	}
	return found
}

// layoutPure holds wire.go and state.go, and their siblings such as proxy_wire.go, to bytes and values.
func layoutPure(tree *layoutTree) (found []string) {
	for _, file := range tree.files {
		base := path.Base(file.path)
		pure := base == "wire.go" || base == "state.go" || strings.HasSuffix(base, "_wire.go") || strings.HasSuffix(base, "_state.go")
		if !pure || !layoutMatch("protocol/*", file.folder) {
			continue
		}
		for imported := range file.imports {
			if slices.Contains([]string{"crypto/rand", "net", "os"}, imported) || strings.HasPrefix(imported, "net/") || strings.HasPrefix(imported, "os/") {
				found = append(found, file.path+": imports "+imported+": messages and machines take what they need as arguments")
			}
		}
		for _, n := range file.uses("time", "Now") {
			found = append(found, tree.at(file, n)+": time.Now in a message or machine: time is an argument")
		}
		ast.Inspect(file.ast, func(n ast.Node) bool {
			if statement, ok := n.(*ast.GoStmt); ok {
				found = append(found, tree.at(file, statement)+": a goroutine in a message or machine")
			}
			return true
		})
	}
	return found
}

func layoutContexts(tree *layoutTree) (found []string) {
	for _, file := range tree.files {
		local, ok := file.imports["context"]
		if !ok {
			continue
		}
		ast.Inspect(file.ast, func(n ast.Node) bool {
			structure, ok := n.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range structure.Fields.List {
				if layoutIs(field.Type, local, "Context") {
					found = append(found, tree.at(file, field)+": a context in a struct: it is the first argument of what can wait")
				}
			}
			return true
		})
		if file.test || layoutHelps(file.folder) || file.ast.Name.Name == "main" && path.Base(file.path) == "main.go" {
			continue
		}
		for _, n := range append(file.uses("context", "Background"), file.uses("context", "TODO")...) {
			found = append(found, tree.at(file, n)+": a context of its own: only main, examples and tests begin one")
		}
	}
	return found
}

func layoutNoInit(tree *layoutTree) (found []string) {
	for _, file := range tree.files {
		for _, decl := range file.ast.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				found = append(found, tree.at(file, f)+": init(): nothing happens because a package was imported")
			}
		}
	}
	return found
}

func layoutNoSleep(tree *layoutTree) (found []string) {
	for _, file := range tree.files {
		if _, virtual := file.imports["testing/synctest"]; virtual || !file.test && !layoutHelps(file.folder) {
			continue
		}
		for _, n := range file.uses("time", "Sleep") {
			found = append(found, tree.at(file, n)+": a sleep in a test outside virtual time: wait for the event")
		}
	}
	return found
}

func layoutForbiddenWords(tree *layoutTree) (found []string) {
	for _, file := range tree.files {
		for _, row := range layoutWords {
			if strings.Contains(file.src, row.word) {
				found = append(found, fmt.Sprintf("%s: holds %q: %s", file.path, row.word, row.why))
			}
		}
	}
	return found
}

func layoutLength(tree *layoutTree) (found []string) {
	for _, file := range tree.files {
		if n := strings.Count(file.src, "\n"); n > layoutMaxLines {
			found = append(found, fmt.Sprintf("%s: %d lines, at most %d: split it by idea", file.path, n, layoutMaxLines))
		}
	}
	return found
}

var layoutGeneratedHeader = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

func layoutGenerated(tree *layoutTree) (found []string) {
	for _, file := range tree.files {
		if layoutGeneratedHeader.MatchString(file.src) || strings.Contains(file.src, "\n//go:debug ") {
			found = append(found, file.path+": generated code or a go:debug line: what runs is written and read by people, with Go's own settings")
		}
	}
	return found
}

func layoutComments(tree *layoutTree) (found []string) {
	documented := map[string]bool{}
	for _, file := range tree.files {
		if file.test {
			continue
		}
		documented[file.folder] = documented[file.folder] || file.ast.Doc != nil
		if file.ast.Doc == nil {
			continue
		}
		want := "Package " + file.ast.Name.Name + " "
		if file.ast.Name.Name == "main" {
			want = "Command " + path.Base(file.folder) + " "
		}
		if !strings.HasPrefix(file.ast.Doc.Text(), want) {
			found = append(found, fmt.Sprintf("%s: the package comment must start %q", file.path, want))
		}
	}
	for folder, ok := range documented {
		if !ok {
			found = append(found, folder+": the package has no comment")
		}
	}
	slices.Sort(found)
	return found
}

// layoutProtocols asks each folder of protocol/ for its files. A folder that is format alone (wire, event) has no
// machine, so state.go is asked for only where there is a stream to feed it.
func layoutProtocols(tree *layoutTree) (found []string) {
	has := map[string]bool{}
	folders := map[string]bool{}
	for _, p := range tree.all {
		has[p] = true
		if parts := strings.Split(p, "/"); parts[0] == "protocol" && len(parts) > 2 {
			folders[path.Join(parts[0], parts[1])] = true
		}
	}
	if len(folders) > 0 && !has["protocol/README.md"] {
		found = append(found, "protocol/README.md is missing: how to write a protocol, and the table of IDs")
	}
	for folder := range folders {
		want := []string{"SPEC.md", "doc.go", "wire.go", "wire_test.go", "fuzz_test.go"}
		if has[folder+"/stream.go"] {
			want = append(want, "state.go")
		}
		if has[folder+"/state.go"] {
			want = append(want, "state_test.go")
		}
		for _, name := range want {
			if !has[path.Join(folder, name)] {
				found = append(found, folder+"/"+name+" is missing: every protocol folder has the same files")
			}
		}
		if vectors, err := fs.Glob(tree.fsys, folder+"/testdata/vectors/*.json"); err != nil || len(vectors) == 0 {
			found = append(found, folder+"/testdata/vectors holds no vector: another implementation needs them")
		}
	}
	slices.Sort(found)
	return found
}

// layoutIDs ties the constants of protocol/wire to the pages that own them, and keeps IDs out of other code.
func layoutIDs(tree *layoutTree) (found []string) {
	specs := map[string]string{}
	for _, p := range tree.all {
		if parts := strings.Split(p, "/"); len(parts) == 3 && parts[0] == "protocol" && parts[2] == "SPEC.md" && parts[1] != "wire" {
			b, err := fs.ReadFile(tree.fsys, p)
			if err != nil {
				return []string{err.Error()}
			}
			specs[path.Dir(p)] = string(b)
		}
	}
	ids := layoutConstants(tree, "protocol/wire", regexp.MustCompile(`^/kinloom/[a-z/]+/[0-9.]+$`))
	owner := map[string]bool{}
	for name, id := range ids {
		owned := false
		for folder, text := range specs {
			if strings.Contains(text, id) {
				owned, owner[folder] = true, true
			}
		}
		if !owned {
			found = append(found, "protocol/wire."+name+": no SPEC.md names "+id)
		}
	}
	for _, file := range tree.files {
		if path.Base(file.path) == "stream.go" && layoutMatch("protocol/*", file.folder) && !owner[file.folder] {
			found = append(found, file.path+": a stream without an ID that this folder's SPEC.md names")
		}
		if file.test || file.folder == "protocol/wire" {
			continue
		}
		ast.Inspect(file.ast, func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING && strings.HasPrefix(literal.Value[1:], "/kinloom/") {
				found = append(found, tree.at(file, literal)+": a protocol ID as a literal: IDs are constants of protocol/wire")
			}
			return true
		})
	}
	slices.Sort(found)
	return found
}

// layoutConstants returns the string constants of a package whose value matches, sums of constants included.
func layoutConstants(tree *layoutTree, folder string, want *regexp.Regexp) map[string]string {
	values := map[string]string{}
	var eval func(ast.Expr) (string, bool)
	eval = func(e ast.Expr) (string, bool) {
		switch e := e.(type) {
		case *ast.BasicLit:
			s, err := strconv.Unquote(e.Value)
			return s, err == nil && e.Kind == token.STRING
		case *ast.Ident:
			s, ok := values[e.Name]
			return s, ok
		case *ast.BinaryExpr:
			x, okX := eval(e.X)
			y, okY := eval(e.Y)
			return x + y, okX && okY && e.Op == token.ADD
		case *ast.CallExpr: // a conversion such as protocol.ID("…")
			if len(e.Args) == 1 {
				return eval(e.Args[0])
			}
		}
		return "", false
	}
	for range 2 { // the second pass knows constants of files that come later
		for _, file := range tree.files {
			if file.folder != folder || file.test {
				continue
			}
			ast.Inspect(file.ast, func(n ast.Node) bool {
				if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Names) == len(spec.Values) {
					for i, name := range spec.Names {
						if s, ok := eval(spec.Values[i]); ok {
							values[name.Name] = s
						}
					}
				}
				return true
			})
		}
	}
	for name, s := range values {
		if !want.MatchString(s) {
			delete(values, name)
		}
	}
	return values
}

func layoutGoMod(tree *layoutTree) (found []string) {
	b, err := fs.ReadFile(tree.fsys, "go.mod")
	if err != nil {
		return []string{err.Error()}
	}
	above, block := "", ""
	for i, line := range strings.Split(string(b), "\n") {
		code, comment, _ := strings.Cut(line, "//")
		code, comment = strings.TrimSpace(code), strings.TrimSpace(comment)
		where := fmt.Sprintf("go.mod:%d", i+1)
		words := strings.Fields(code)
		switch {
		case len(words) == 0:
			above = comment
			continue
		case words[0] == ")":
			block = ""
		case len(words) == 2 && words[1] == "(":
			block = words[0]
		case block == "":
			block, words = words[0], words[1:]
			found = append(found, layoutModLine(where, block, words, above, comment)...)
			block = ""
		default:
			found = append(found, layoutModLine(where, block, words, above, comment)...)
		}
		above = ""
	}
	return found
}

func layoutModLine(where, directive string, words []string, above, comment string) (found []string) {
	switch directive {
	case "replace", "godebug", "exclude":
		return []string{where + ": " + directive + ": a build of ours is the build of everybody"}
	case "require":
		for _, row := range layoutDenied {
			if strings.HasPrefix(words[0], row.module) {
				found = append(found, where+": "+words[0]+" is denied: "+row.why)
			}
		}
		if comment != "indirect" && comment == "" && above == "" {
			found = append(found, where+": "+words[0]+" stands without its reason in a comment")
		}
	}
	return found
}
