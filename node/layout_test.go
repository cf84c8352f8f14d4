package node_test

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// layoutModule is the path of this module; what stands under it is "ours".
const layoutModule = "github.com/kinloom/kinloom"

// layoutMaxLines bounds a Go file: longer ones hold more than one idea.
const layoutMaxLines = 500

// layoutRow says what one package, or a folder of them, may import of ours. In a pattern "x/*" stands for x and
// everything under it, "*" for everything. A package may always import itself, so that external tests work.
type layoutRow struct {
	pkg string
	may []string
	why string
}

// layoutImports is read from the top, first match decides. A package that matches no row is misplaced.
var layoutImports = []layoutRow{
	{"identity/enc", nil, "every signer rests on it, so it rests on nothing"},
	{"identity", []string{"identity/enc"}, "who says it: no network, no disk, no clock"},
	{"identity/keyfile", []string{"identity", "identity/enc"}, "bytes in, bytes out: files and keychain are node's"},
	{"protocol/wire", []string{"identity/*"}, "framing knows no message"},
	{"protocol/event", []string{"identity/*", "protocol/wire"}, "history has one form, whoever wrote it"},
	{"protocol/*", []string{"identity/*", "protocol/wire", "protocol/event"}, "protocols never know each other: what two share goes down, what joins them goes up into node"},
	{"node/p2p", []string{"identity/*", "protocol/*"}, "streams, not storage: it names what it needs as interfaces"},
	{"node/store", []string{"identity/*", "protocol/*", "node/p2p", "node/corpus"}, "it implements the interfaces that p2p declares"},
	{"node/bridge", []string{"identity/*", "protocol/event"}, "a bridge brings events, it knows no session"},
	{"node/bridge/*", []string{"identity/*", "protocol/wire", "protocol/event", "node/bridge"}, "a connector carries events and sealed cells, nothing of the node"},
	{"node/client", []string{"identity/*", "protocol/event"}, "all that a user interface links, so it stays light"},
	{"node/api", []string{"identity/*", "protocol/*", "node", "node/client"}, "an adapter over the Go API; each JSON type is defined once, in client"},
	{"node/corpus", nil, "named, seeded texts for tests and figures: text and nothing else"},
	{"node/internal/testnet", []string{"identity/*", "protocol/*", "node", "node/p2p", "node/store", "node/bridge/*"}, "whole nodes in virtual time, without faces"},
	{"node", []string{"identity/*", "protocol/*", "node/store", "node/p2p", "node/bridge"}, "an embedding program links no connector, no API server and no face that it did not name"},
	{"cmd/kinloom/tui", []string{"node/client"}, "a face has no private path into the core"},
	{"cmd/kinloom/web", []string{"node/client"}, "a face has no private path into the core"},
	{"cmd/kinloom/bench", []string{"*"}, "it measures whole nodes beside their parts"},
	{"cmd/kinloom", []string{"*"}, "the program joins the parts"},
	{"cmd/netlab", nil, "a wire knows nothing of what it carries"},
}

// layoutForeign keeps modules of others where one package hides them.
var layoutForeign = []struct {
	module string   // import path or its beginning
	may    []string // patterns of packages that may import it
	why    string
}{
	{"github.com/danielgtaylor/huma", []string{"node/api"}, "one place to replace it"},
	{"github.com/spf13/cobra", []string{"cmd/*"}, "the core reads no flags"},
	{"charm.land/", []string{"cmd/*"}, "the core draws nothing"},
	{"maunium.net/go/mautrix", []string{"protocol/session"}, "used for its Olm alone, behind one package of ours"},
	{"github.com/ncruces/go-sqlite3/ext/fts5", []string{"node/store"}, "registered after the key is set, or the key is lost"},
	{"github.com/ncruces/go-sqlite3/vfs/adiantum", []string{"node/store"}, "safe only behind our own registration of the file system"},
	{"github.com/ncruces/go-sqlite3", []string{"node/store"}, "one writer per database is a promise of node/store"},
	{"golang.org/x/crypto/openpgp", nil, "unmaintained and vulnerable"},
	{"github.com/libp2p/", []string{"protocol/*", "node/*", "cmd/*"}, "identity knows no network"},
}

// layoutWords must stand in no Go file: each is a way to hurt the user that compiles.
var layoutWords = []struct{ word, why string }{
	{"vfs=" + "adiantum", "the ready-made file system returns wrong pages to WAL readers"},
	{"Auto" + "Extension", "an extension that opens before the key is set destroys the database"},
	{"VACUUM" + " INTO", "the copy would be written without encryption"},
	{".Find" + "Peer(", "one question about a transport key shows it to some 70 strangers: whoever is looked for has a record"},
	{".Find" + "Providers", "the DHT holds records and nothing else"},
}

// layoutTop are the names that may stand at the top of the tree, next to dotfiles and what .gitignore names.
var layoutTop = []string{"identity", "protocol", "node", "cmd", "go.mod", "go.sum", "README.md", "LICENSE"}

// layoutSeeded are packages that make texts, loads and losses from a named seed, so they may use math/rand.
var layoutSeeded = []string{"node/corpus", "cmd/kinloom/bench", "cmd/netlab"}

// layoutDenied are modules whose licence, or what they need, does not fit Apache-2.0.
var layoutDenied = []struct{ module, why string }{
	{"go.mau.fi/libsignal", "GPL-3.0"},
	{"go.mau.fi/whatsmeow", "needs libsignal, GPL-3.0"},
	{"go.mau.fi/mautrix-", "AGPL-3.0: runs as an unmodified program, linked nowhere"},
}

// TestLayout holds the tree to its rules. It reads files instead of running `go list`, because the test cache notices
// a file that a test opened, and would not notice an import added behind a command.
func TestLayout(t *testing.T) {
	tree, err := layoutLoad(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.files) < 10 {
		t.Fatalf("found %d Go files: the walk is broken", len(tree.files))
	}
	for _, rule := range layoutRules {
		t.Run(rule.name, func(t *testing.T) {
			for _, finding := range rule.check(tree) {
				t.Error(finding)
			}
		})
	}
}

// TestLayoutTableHasReasons keeps the tables readable: a rule without a reason is a rule nobody dares to change.
func TestLayoutTableHasReasons(t *testing.T) {
	var seen []string
	for _, row := range layoutImports {
		if row.why == "" {
			t.Errorf("row %s has no reason", row.pkg)
		}
		if slices.Contains(seen, row.pkg) {
			t.Errorf("row %s stands twice", row.pkg)
		}
		seen = append(seen, row.pkg)
	}
	for _, row := range layoutForeign {
		if row.why == "" || strings.HasPrefix(row.module, layoutModule) {
			t.Errorf("row %s: needs a reason, and a module that is not ours", row.module)
		}
	}
}
