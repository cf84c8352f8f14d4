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
	for _, check := range []string{"keys", "disk", "node", "store", "certificate", "copy", "clock", "ports", "lan", "messages", "crash"} {
		if f := found[check]; f.Verdict != node.OK {
			t.Errorf("%+v", f)
		}
	}
	if f := found["reach"]; f.Verdict != node.Warn || !strings.Contains(f.Fix, "bootstrap add") {
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

// TestDoctorSeesAClockSetBack: a node whose clock is behind its own certificate.
func TestDoctorSeesAClockSetBack(t *testing.T) {
	dir := t.TempDir()
	if err := loopback(t, dir, "Ada").Close(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		off  time.Duration
		want node.Verdict
	}{{-26 * time.Hour, node.Fail}, {-time.Minute, node.OK}, {26 * time.Hour, node.OK}} {
		n, err := node.OpenOffline(t.Context(), node.Config{Dir: dir, Now: func() time.Time { return time.Now().Add(test.off) }})
		if err != nil {
			t.Fatal(err)
		}
		if f := examined(t.Context(), t, n)["clock"]; f.Verdict != test.want {
			t.Errorf("%v off: %+v, want %s", test.off, f, test.want)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestDoctorSeesDamage: a few pages in the middle are not what was written, and the
// home can be opened all the same.
func TestDoctorSeesDamage(t *testing.T) {
	dir := t.TempDir()
	first := loopback(t, dir, "Ada")
	for range 300 {
		say(t.Context(), t, first, "me", strings.Repeat("words of a note ", 60))
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "account.db")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, damaged := range []bool{false, true} {
		if damaged {
			for at := len(b) / 2; at < len(b)/2+3*4096; at++ {
				b[at] ^= 0x55
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		n, err := node.OpenOffline(t.Context(), node.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		f := examined(t.Context(), t, n)["store"]
		if bad := f.Verdict == node.Fail && strings.Contains(f.Found, "account.db in "+dir+" is damaged") && strings.Contains(f.Fix, "backup"); bad != damaged {
			t.Errorf("damaged %v: %+v", damaged, f)
		}
		if err := n.Close(); err != nil {
			t.Log(err) // it may find the damage too
		}
	}
}
