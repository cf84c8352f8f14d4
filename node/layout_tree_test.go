package node_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// layoutTree is the module as the rules see it: its Go files parsed, all its files by name. Nested modules, testdata
// and folders that start with a dot are passed over.
type layoutTree struct {
	fsys  fs.FS
	fset  *token.FileSet
	top   []string // names in the root folder
	all   []string // paths of all files
	files []*layoutFile
}

// layoutFile is one parsed Go file.
type layoutFile struct {
	path    string // from the root, with slashes
	folder  string // its package's folder
	test    bool   // _test.go
	src     string
	ast     *ast.File
	imports map[string]string // import path -> name it goes by in the file
}

func layoutLoad(fsys fs.FS) (*layoutTree, error) {
	tree := &layoutTree{fsys: fsys, fset: token.NewFileSet()}
	top, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, err
	}
	for _, entry := range top {
		tree.top = append(tree.top, entry.Name())
	}
	return tree, fs.WalkDir(fsys, ".", func(p string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if p != "." && layoutPassed(fsys, p, entry.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		tree.all = append(tree.all, p)
		if path.Ext(p) != ".go" {
			return nil
		}
		return tree.parse(p)
	})
}

// layoutPassed reports folders that the rules do not look into.
func layoutPassed(fsys fs.FS, p, name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" || name == "node_modules" {
		return true
	}
	_, err := fs.Stat(fsys, path.Join(p, "go.mod"))
	return err == nil
}

func (tree *layoutTree) parse(p string) error {
	src, err := fs.ReadFile(tree.fsys, p)
	if err != nil {
		return err
	}
	parsed, err := parser.ParseFile(tree.fset, p, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("parse: %w", err)
	}
	file := &layoutFile{
		path: p, folder: path.Dir(p), test: strings.HasSuffix(p, "_test.go"),
		src: string(src), ast: parsed, imports: map[string]string{},
	}
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return fmt.Errorf("parse %s: %w", p, err)
		}
		name := path.Base(imported)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		file.imports[imported] = name
	}
	tree.files = append(tree.files, file)
	return nil
}

// at names a place for a finding.
func (tree *layoutTree) at(file *layoutFile, node ast.Node) string {
	return fmt.Sprintf("%s:%d", file.path, tree.fset.Position(node.Pos()).Line)
}

// uses returns every place where the file names pkg.name, as in time.Now.
func (file *layoutFile) uses(pkg, name string) []ast.Node {
	local, imported := file.imports[pkg]
	if !imported {
		return nil
	}
	var found []ast.Node
	ast.Inspect(file.ast, func(n ast.Node) bool {
		if layoutIs(n, local, name) {
			found = append(found, n)
		}
		return true
	})
	return found
}

// layoutIs reports whether n is the selector pkg.name.
func layoutIs(n ast.Node, pkg, name string) bool {
	selector, ok := n.(*ast.SelectorExpr)
	if !ok || selector.Sel.Name != name {
		return false
	}
	ident, ok := selector.X.(*ast.Ident)
	return ok && ident.Name == pkg
}

// layoutMatch reports whether the package folder p falls under a pattern.
func layoutMatch(pattern, p string) bool {
	if pattern == "*" || pattern == p {
		return true
	}
	folder, ok := strings.CutSuffix(pattern, "/*")
	return ok && (p == folder || strings.HasPrefix(p, folder+"/"))
}

// layoutHelps reports packages that exist for tests although their files are not named _test.go.
func layoutHelps(folder string) bool {
	return layoutMatch("node/bridge/bridgetest/*", folder) || layoutMatch("node/internal/testnet/*", folder)
}
