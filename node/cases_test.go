package node_test

import (
	"fmt"
	"go/ast"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// testedCase is a way to fail that the design names, and a test that has it happen. A
// case that is tested at several places has several rows.
type testedCase struct {
	name string // as the design has it
	pkg  string // folder of the test
	test string // name of its function, of a scenario of cmd/netlab, or of a script of cmd/kinloom
}

// testedLists are the lists of such cases, one variable each.
var testedLists = []struct {
	name  string
	cases []testedCase
}{
	{"Discovery", discoveryCases},
	{"Cold start", coldStartCases},
	{"Reachability", reachabilityCases},
	{"LAN", lanCases},
	{"DoS", dosCases},
}

var discoveryCases = []testedCase{
	{"no bootstrap reachable", "node/internal/testnet", "TestNobodyThere"},
	{"no bootstrap reachable", "cmd/netlab", "nowhere"},
	{"all cached peers dead", "node/internal/testnet", "TestAllCachedPeersDead"},
	{"all cached peers dead", "node/p2p", "TestDeadServersFallBehindAndOut"},
	{"all 20 closest nodes hostile: withhold, old seq, garbage, oversize", "node/internal/testnet", "TestHostileNearest"},
	{"all 20 closest nodes hostile: withhold, old seq, garbage, oversize", "protocol/rv", "TestTenThousand"},
	{"clock off by +-26 h", "node", "TestClock26HoursOff"},
	{"clock off by +-26 h", "node/p2p", "TestCertificateOfTomorrow"},
	{"clock off by +-26 h", "protocol/rv", "TestClocksApart"},
	{"period change during a query", "node", "TestPeriodChangesDuringQuery"},
	{"record at exact notAfter", "protocol/rv", "TestRecordAtExactNotAfter"},
	{"record at exact notAfter", "node/p2p", "TestRecordsSurviveAndEnd"},
	{"two writers of one key in the same minute (cloned device)", "node/internal/testnet", "TestClonedDeviceWritesTwice"},
	{"two writers of one key in the same minute (cloned device)", "protocol/rv", "TestTwoWritersInOneMinute"},
	{"seq lower after restart with the clock set back", "node", "TestSeqAfterRestartWithClockSetBack"},
	{"seq lower after restart with the clock set back", "protocol/rv", "TestSeqAfterClockSetBack"},
	{"removed contact cannot find the new record", "node", "TestRemovedFindsNothing"},
	{"removed contact cannot find the new record", "node", "TestRemovedContactIsLeftBehind"},
	{"removed contact cannot find the new record", "protocol/rv", "TestRemoved"},
	{"small-order or non-canonical point", "protocol/rv", "TestSmallOrderPoint"},
	{"wrong length", "protocol/rv", "TestWrongLength"},
	{"notAfter not on a day", "protocol/rv", "TestNotAfterNotOnADay"},
	{"signing nonces of two periods differ for the same plaintext", "protocol/rv", "TestSigningNonces"},
	{"consecutive days' records unlinkable in a transcript of all storing nodes", "node", "TestTranscriptOfTheThird"},
	{"consecutive days' records unlinkable in a transcript of all storing nodes", "node/internal/testnet", "TestTwoDaysNeverMeet"},
	{"consecutive days' records unlinkable in a transcript of all storing nodes", "protocol/rv", "TestUnlinked"},
	{"split then heal", "node/internal/testnet", "TestSplitThenHeal"},
	{"< 4 public peers", "node/internal/testnet", "TestFewerThanFourPublicPeers"},
	{"< 4 public peers", "node/internal/testnet", "TestNoPublicPeer"},
}

// Two nodes that know only each other's mail address come with the carriers.
var coldStartCases = []testedCase{
	{"invite printed with nothing reachable says LAN only so far, and turns true later", "node", "TestInviteIsTrueAndTakenBack"},
	{"invite printed with nothing reachable says LAN only so far, and turns true later", "cmd/netlab", "far-invite"},
	{"invite printed with nothing reachable says LAN only so far, and turns true later", "cmd/kinloom", "offline.txtar"},
	{"lost reachability takes it back", "node", "TestInviteIsTrueAndTakenBack"},
	{"expired, used and --many invites", "node", "TestInviteIsForOnePersonOnce"},
	{"expired, used and --many invites", "node", "TestPublicInviteMakesRequests"},
	{"expired, used and --many invites", "cmd/kinloom", "invites.txtar"},
	{"LAN invite still dialled after the daily key changed", "node", "TestLANInviteAfterTheDailyKeyChanged"},
	{"LAN invite still dialled after the daily key changed", "node/internal/testnet", "TestInviteOnTheLAN"},
}

// TestCasesHaveTests: each case has a test that exists and is not skipped.
func TestCasesHaveTests(t *testing.T) {
	root := os.DirFS("..")
	tree, err := layoutLoad(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range testedLists {
		cases := map[string]bool{}
		for i, c := range list.cases {
			cases[c.name] = true
			if slices.Contains(list.cases[:i], c) {
				t.Errorf("%s, %q: %s stands twice", list.name, c.name, c.test)
			}
			if err := caseIsTested(root, tree, c); err != nil {
				t.Errorf("%s, %q: %v", list.name, c.name, err)
			}
		}
		t.Logf("%s: %d cases, %d tests", list.name, len(cases), len(list.cases))
	}
	for _, c := range []testedCase{{"a test that is not there", "node", "TestOfNothing"}, {"a scenario that is not there", "cmd/netlab", "nothing"}, {"a script that is not there", "cmd/kinloom", "nothing.txtar"}} {
		if caseIsTested(root, tree, c) == nil {
			t.Errorf("%s was found", c.name)
		}
	}
}

// caseIsTested looks for the test of a case.
func caseIsTested(root fs.FS, tree *layoutTree, c testedCase) error {
	if path.Ext(c.test) == ".txtar" {
		_, err := fs.Stat(root, path.Join(c.pkg, "testdata/script", c.test))
		return err
	}
	for _, file := range tree.files {
		if file.folder != c.pkg {
			continue
		}
		found, skips := false, false
		ast.Inspect(file.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if file.test && n.Recv == nil && n.Name.Name == c.test && strings.HasPrefix(c.test, "Test") {
					found, skips = true, callsSkip(n)
				}
			case *ast.KeyValueExpr: // {name: "moved", …}
				key, ok := n.Key.(*ast.Ident)
				value, isText := n.Value.(*ast.BasicLit)
				if ok && isText && key.Name == "name" && value.Value == strconv.Quote(c.test) && c.pkg == "cmd/netlab" && !file.test {
					found = true
				}
			}
			return true
		})
		switch {
		case skips:
			return fmt.Errorf("%s in %s may be skipped", c.test, file.path)
		case found:
			return nil
		}
	}
	return fmt.Errorf("there is no %s in %s", c.test, c.pkg)
}

// callsSkip reports whether a test has a way to skip itself.
func callsSkip(f *ast.FuncDecl) (skips bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && (s.Sel.Name == "Skip" || s.Sel.Name == "Skipf" || s.Sel.Name == "SkipNow") {
			skips = true
		}
		return true
	})
	return skips
}
