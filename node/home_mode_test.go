package node_test

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/kinloom/kinloom/node"
)

// TestHomeOpenToOthers: a home in a folder that others may list is told of, as it cannot be known why it is open.
func TestHomeOpenToOthers(t *testing.T) {
	dir := t.TempDir()
	n, err := node.Init(t.Context(), node.Config{Dir: dir, Name: "Ada"})
	if err != nil || n.Person.String() == "" {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		mode os.FileMode
		told bool
	}{{0o755, runtime.GOOS != "windows"}, {0o700, false}} {
		if err := os.Chmod(dir, tt.mode); err != nil {
			t.Fatal(err)
		}
		n, err := node.OpenOffline(t.Context(), node.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		s, err := n.Status(t.Context())
		if err != nil || strings.Contains(strings.Join(s.Warnings, "\n"), "chmod 700") != tt.told {
			t.Errorf("mode %o: warned of %q, %v; want to be told: %v", tt.mode, s.Warnings, err, tt.told)
		}
		closeAll(t, n)
	}
}
