package node_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kinloom/kinloom/node"
)

// examined gives the lines of a node by check.
func examined(ctx context.Context, t *testing.T, n *node.Node) map[string]node.Finding {
	t.Helper()
	found, err := n.Doctor(ctx)
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, "a real node", found)
	out := map[string]node.Finding{}
	for _, f := range found {
		out[f.Check] = f
	}
	return out
}

// TestDoctorOfANode: a running node has a line for every check but the one of its
// socket, says what waits and for whom, and nothing of what was said.
func TestDoctorOfANode(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	ada, bob := loopback(t, dir, "Ada"), loopback(t, t.TempDir(), "Bob")
	befriend(ctx, t, ada, bob)
	delivered(ctx, t, ada, say(ctx, t, ada, "Bob", "hello"))
	found := examined(ctx, t, ada)
	for _, check := range node.Checks {
		if _, ok := found[check]; ok == (check == "socket") {
			t.Errorf("a line %q: %v", check, ok)
		}
	}
	for _, check := range []string{"keys", "disk", "node", "store", "certificate", "copy", "ports", "lan", "messages", "crash"} {
		if f := found[check]; f.Verdict != node.OK {
			t.Errorf("%+v", f)
		}
	}
	if f := found["reach"]; f.Verdict != node.Warn || !strings.Contains(f.Fix, "bootstrap add") {
		t.Errorf("%+v", f)
	}
	for _, check := range []string{"relay", "dht"} { // nobody outside is known, so these facts are not there
		if f := found[check]; f.Verdict != node.Warn || !strings.HasPrefix(f.Found, "not looked at, as nobody outside") || !strings.Contains(f.Fix, "line on bootstrap") {
			t.Errorf("%+v", f)
		}
	}
	if f := found["clock"]; f.Verdict != node.Warn || !strings.Contains(f.Found, "nobody was asked") {
		t.Errorf("%+v", f)
	}

	if err := bob.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		say(ctx, t, ada, "Bob", "a secret")
	}
	f := examined(ctx, t, ada)["messages"]
	if f.Verdict != node.Warn || !strings.HasPrefix(f.Found, "3 wait: 3 for Bob (") || !strings.Contains(f.Fix, "kinloom ") || strings.Contains(f.Found, "secret") {
		t.Errorf("%+v", f)
	}

	if err := os.WriteFile(filepath.Join(dir, "crash.log"), []byte("panic: bug: of a test\nmore\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "keys"), 0o644); err != nil {
		t.Fatal(err)
	}
	found = examined(ctx, t, ada)
	if f := found["crash"]; f.Verdict != node.Warn || !strings.Contains(f.Found, "panic: bug: of a test (") {
		t.Errorf("%+v", f)
	}
	if f := found["keys"]; f.Verdict != node.Fail {
		t.Errorf("%+v", f)
	}
}

// TestDoctorSeesAClockSetBack: a node whose clock is behind its own certificate, or
// behind what it wrote last. That it is ahead nobody here can tell, and it says so.
func TestDoctorSeesAClockSetBack(t *testing.T) {
	dir := t.TempDir()
	if err := loopback(t, dir, "Ada").Close(); err != nil {
		t.Fatal(err)
	}
	look := func(off time.Duration, want node.Verdict, says string, then func(*node.Node)) {
		t.Helper()
		n, err := node.OpenOffline(t.Context(), node.Config{Dir: dir, Now: func() time.Time { return time.Now().Add(off) }})
		if err != nil {
			t.Fatal(err)
		}
		found := examined(t.Context(), t, n)
		if f := found["clock"]; f.Verdict != want || !strings.Contains(f.Found, says) {
			t.Errorf("%v off: %+v, want %s, %q", off, f, want, says)
		}
		for _, check := range node.Checks { // a line each, without a network too
			if _, ok := found[check]; ok == (check == "socket") {
				t.Errorf("a line %q: %v", check, ok)
			}
		}
		if then != nil {
			then(n)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	const behind, unasked = "is behind what this home wrote on", "could not be compared, as nobody was asked"
	look(-26*time.Hour, node.Fail, behind, nil)
	look(-time.Minute, node.Warn, unasked, nil)
	look(26*time.Hour, node.Warn, unasked, func(n *node.Node) { say(t.Context(), t, n, "me", "of tomorrow") })
	look(0, node.Fail, behind, nil)
}

// spoil alters a few pages in the middle of a database of a home at rest.
func spoil(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := len(b) / 2; at < len(b)/2+3*4096; at++ {
		b[at] ^= 0x55
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// fullHome makes a home with some hundred pages.
func fullHome(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	n := loopback(t, dir, "Ada")
	for range 300 {
		say(t.Context(), t, n, "me", strings.Repeat("words of a note ", 60))
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// damagedHome makes a home with a few pages that are not what was written, and that can
// be opened all the same.
func damagedHome(t *testing.T) string {
	t.Helper()
	dir := fullHome(t)
	spoil(t, filepath.Join(dir, "account.db"))
	return dir
}

// TestDoctorSeesDamage of each database: of what was said, and of what is made anew.
func TestDoctorSeesDamage(t *testing.T) {
	for _, test := range []struct {
		name string
		want node.Verdict
		fix  string
	}{
		{"", node.OK, ""},
		{"account.db", node.Fail, "backup"},
		{"net.db", node.Warn, "delete that file"},
	} {
		dir := fullHome(t)
		says := "every page of the databases is whole"
		if test.name != "" {
			spoil(t, filepath.Join(dir, test.name))
			says = test.name + " in " + dir + " is damaged"
		}
		n, err := node.OpenOffline(t.Context(), node.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if f := examined(t.Context(), t, n)["store"]; f.Verdict != test.want || !strings.Contains(f.Found, says) || !strings.Contains(f.Fix, test.fix) {
			t.Errorf("%q damaged: %+v", test.name, f)
		}
		if err := n.Close(); err != nil {
			t.Log(err) // it may find the damage too
		}
	}
}
