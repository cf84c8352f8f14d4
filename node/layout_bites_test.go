package node_test

import (
	"maps"
	"strings"
	"testing"
	"testing/fstest"
)

// layoutGood is a small tree that breaks no rule.
func layoutGood() map[string]string {
	return map[string]string{
		"go.mod":             "module github.com/kinloom/kinloom\n\ngo 1.26.8\n\nrequire (\n\texample.org/a v1.0.0 // parses the thing\n\texample.org/b v1.0.0 // indirect\n)\n",
		"README.md":          "kinloom\n",
		".gitignore":         "/bin/\n",
		"bin/kinloom":        "built",
		"identity/doc.go":    "// Package identity says who.\npackage identity\n",
		"protocol/README.md": "IDs\n",

		"protocol/wire/SPEC.md":                     "frames\n",
		"protocol/wire/doc.go":                      "// Package wire frames.\npackage wire\n",
		"protocol/wire/wire.go":                     "package wire\n\nconst (\n\tPrefix = \"/kinloom/\"\n\tDM = Prefix + \"dm/1\"\n)\n",
		"protocol/wire/wire_test.go":                "package wire\n",
		"protocol/wire/fuzz_test.go":                "package wire\n",
		"protocol/wire/testdata/vectors/frame.json": "[]",

		"protocol/dm/SPEC.md":                    "owns `/kinloom/dm/1`\n",
		"protocol/dm/doc.go":                     "// Package dm carries cells.\npackage dm\n",
		"protocol/dm/wire.go":                    "package dm\n\nimport \"github.com/kinloom/kinloom/protocol/wire\"\n\nconst ID = wire.DM\n",
		"protocol/dm/state.go":                   "package dm\n",
		"protocol/dm/stream.go":                  "package dm\n\nimport \"github.com/libp2p/go-libp2p/core/network\"\n\nvar _ network.Stream\n",
		"protocol/dm/wire_test.go":               "package dm\n",
		"protocol/dm/state_test.go":              "package dm\n",
		"protocol/dm/fuzz_test.go":               "package dm\n",
		"protocol/dm/testdata/vectors/cell.json": "[]",

		"node/doc.go":          "// Package node runs.\npackage node\n",
		"node/sim_test.go":     "package node_test\n\nimport _ \"github.com/kinloom/kinloom/node/internal/testnet\"\n",
		"cmd/kinloom/main.go":  "// Command kinloom is the program.\npackage main\n\nimport \"context\"\n\nfunc main() { _ = context.Background() }\n",
		"cmd/nested/go.mod":    "module nested\n\nreplace x => y\n",
		"cmd/nested/anyhow.go": "package anyhow\n\nfunc init() {}\n",
	}
}

func layoutFindings(t *testing.T, files map[string]string) string {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	tree, err := layoutLoad(fsys)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, rule := range layoutRules {
		for _, finding := range rule.check(tree) {
			all = append(all, rule.name+": "+finding)
		}
	}
	return strings.Join(all, "\n")
}

// TestLayoutBites breaks each rule once in a tree that is good otherwise. An empty text takes the file away.
func TestLayoutBites(t *testing.T) {
	if got := layoutFindings(t, layoutGood()); got != "" {
		t.Fatalf("the good tree has findings:\n%s", got)
	}
	const ours = "github.com/kinloom/kinloom/"
	imports := func(pkg, path string) string { return "package " + pkg + "\n\nimport _ \"" + path + "\"\n" }
	for _, test := range []struct{ name, file, text, want string }{
		{"unknown folder", "pkg/util/doc.go", "// Package util helps.\npackage util\n", "top level: pkg: unknown"},
		{"unknown package", "node/helpers/doc.go", "// Package helpers helps.\npackage helpers\n", "imports: node/helpers/doc.go: the package has no row"},
		{"upward import", "identity/x.go", imports("identity", ours+"protocol/wire"), "imports: identity/x.go: must not import protocol/wire"},
		{"protocol to protocol", "protocol/dm/x.go", imports("dm", ours+"protocol/contact"), "must not import protocol/contact"},
		{"face past the client", "cmd/kinloom/tui/x.go", "// Package tui draws.\n" + imports("tui", ours+"node"), "cmd/kinloom/tui/x.go: must not import node: a face"},
		{"node with a connector", "node/x.go", imports("node", ours+"node/bridge/email"), "node/x.go: must not import node/bridge/email"},
		{"node with its server", "node/x.go", imports("node", ours+"node/api"), "node/x.go: must not import node/api"},
		{"testnet in a product", "node/x.go", imports("node", ours+"node/internal/testnet"), "node/x.go: must not import node/internal/testnet"},
		{"testnet in the program", "cmd/kinloom/x.go", imports("main", ours+"node/internal/testnet"), "must not import node/internal/testnet"},
		{"rule reaches tests", "protocol/dm/x_test.go", imports("dm", ours+"node/store"), "must not import node/store"},
		{"huma outside api", "node/x.go", imports("node", "github.com/danielgtaylor/huma/v2"), "foreign modules: node/x.go: must not import github.com/danielgtaylor/huma/v2"},
		{"olm outside session", "node/x.go", imports("node", "maunium.net/go/mautrix/crypto/goolm/account"), "its Olm alone"},
		{"fts5 outside the store", "node/x.go", imports("node", "github.com/ncruces/go-sqlite3/ext/fts5"), "registered after the key"},
		{"adiantum outside the store", "node/p2p/x.go", "// Package p2p speaks.\n" + imports("p2p", "github.com/ncruces/go-sqlite3/vfs/adiantum"), "our own registration"},
		{"libp2p in identity", "identity/x.go", imports("identity", "github.com/libp2p/go-libp2p/core/crypto"), "identity knows no network"},
		{"libp2p in a machine", "protocol/dm/state.go", imports("dm", "github.com/libp2p/go-libp2p/core/peer"), "libp2p in streams only: protocol/dm/state.go"},
		{"testing in a product", "node/x.go", imports("node", "testing"), "testing in tests only: node/x.go"},
		{"math/rand in a product", "node/x.go", imports("node", "math/rand/v2"), "random numbers: node/x.go"},
		{"clock in a message", "protocol/dm/wire.go", "package dm\n\nimport clock \"time\"\n\nvar Now = clock.Now\n", "pure machines: protocol/dm/wire.go:5: time.Now"},
		{"randomness in a machine", "protocol/dm/proxy_state.go", imports("dm", "crypto/rand"), "pure machines: protocol/dm/proxy_state.go: imports crypto/rand"},
		{"network in a machine", "protocol/dm/state.go", imports("dm", "net/netip"), "imports net/netip"},
		{"goroutine in a machine", "protocol/dm/state.go", "package dm\n\nfunc f() { go f() }\n", "protocol/dm/state.go:3: a goroutine"},
		{"context in a struct", "node/x.go", "package node\n\nimport \"context\"\n\ntype T struct{ ctx context.Context }\n", "contexts: node/x.go:5: a context in a struct"},
		{"embedded context", "node/x.go", "package node\n\nimport \"context\"\n\ntype T struct{ context.Context }\n", "a context in a struct"},
		{"context of its own", "node/x.go", "package node\n\nimport \"context\"\n\nvar c = context.Background()\n", "node/x.go:5: a context of its own"},
		{"context to do", "cmd/kinloom/x.go", "package main\n\nimport \"context\"\n\nvar c = context.TODO()\n", "cmd/kinloom/x.go:5: a context of its own"},
		{"init", "node/x.go", "package node\n\nfunc init() {}\n", "no init: node/x.go:3"},
		{"sleep", "node/x_test.go", "package node\n\nimport \"time\"\n\nfunc f() { time.Sleep(1) }\n", "no sleep: node/x_test.go:5"},
		{"look-up by key", "node/x.go", "package node\n\nvar _ = d.Find" + "Peer(ctx, id)\n", "dangerous words: node/x.go"},
		{"word", "node/x.go", "package node\n\nconst q = \"VACUUM" + " INTO 'x'\"\n", "dangerous words: node/x.go"},
		{"long file", "node/x.go", "package node\n" + strings.Repeat("\n", layoutMaxLines), "file length: node/x.go: 501 lines"},
		{"generated", "node/x.go", "// Code generated by x. DO " + "NOT EDIT.\n\npackage node\n", "nothing generated: node/x.go"},
		{"debug setting", "cmd/kinloom/x.go", "package main\n//go:debug tlsrsakex=1\n", "Go's own settings"},
		{"no comment", "node/doc.go", "package node\n", "package comments: node: the package has no comment"},
		{"odd comment", "node/doc.go", "// The node.\npackage node\n", `must start "Package node "`},
		{"odd command", "cmd/kinloom/main.go", "// Package main is it.\npackage main\n", `must start "Command kinloom "`},
		{"no spec", "protocol/dm/SPEC.md", "", "protocol/dm/SPEC.md is missing"},
		{"no fuzz test", "protocol/dm/fuzz_test.go", "", "protocol/dm/fuzz_test.go is missing"},
		{"no machine test", "protocol/dm/state_test.go", "", "protocol/dm/state_test.go is missing"},
		{"stream without machine", "protocol/dm/state.go", "", "protocol/dm/state.go is missing"},
		{"no vectors", "protocol/dm/testdata/vectors/cell.json", "", "protocol/dm/testdata/vectors holds no vector"},
		{"no protocol page", "protocol/README.md", "", "protocol/README.md is missing"},
		{"unnamed ID", "protocol/dm/SPEC.md", "cells\n", "protocol IDs: protocol/dm/stream.go: a stream without an ID"},
		{"new ID without a page", "protocol/wire/more.go", "package wire\n\nconst New = Prefix + \"new/1\"\n", "protocol/wire.New: no SPEC.md names /kinloom/new/1"},
		{"literal ID", "node/x.go", "package node\n\nconst id = \"/kinloom/dm/1\"\n", "node/x.go:3: a protocol ID as a literal"},
		{"denied module", "go.mod", "module m\n\nrequire go.mau.fi/libsignal v0.2.0 // needed\n", "go.mod:3: go.mau.fi/libsignal is denied: GPL-3.0"},
		{"denied indirectly", "go.mod", "module m\n\nrequire (\n\tgo.mau.fi/mautrix-meta v1.0.0 // indirect\n)\n", "go.mod:4: go.mau.fi/mautrix-meta is denied"},
		{"replace", "go.mod", "module m\n\nreplace a => b v1.0.0\n", "go.mod:3: replace"},
		{"replace block", "go.mod", "module m\n\nreplace (\n\ta => ../b\n)\n", "go.mod:4: replace"},
		{"no reason", "go.mod", "module m\n\nrequire (\n\ta.org/a v1.0.0\n)\n", "go.mod:4: a.org/a stands without its reason"},
	} {
		t.Run(test.name, func(t *testing.T) {
			files := maps.Clone(layoutGood())
			files[test.file] = test.text
			if test.text == "" {
				delete(files, test.file)
			}
			if got := layoutFindings(t, files); !strings.Contains(got, test.want) {
				t.Errorf("file %s\nwant a finding with: %s\ngot:\n%s", test.file, test.want, got)
			}
		})
	}
}

// TestLayoutReasonAbove takes a reason on the line above a requirement as well.
func TestLayoutReasonAbove(t *testing.T) {
	files := layoutGood()
	files["go.mod"] = "module m\n\nrequire (\n\t// draws the thing\n\ta.org/a v1.0.0\n)\n"
	if got := layoutFindings(t, files); got != "" {
		t.Errorf("got %s", got)
	}
}
