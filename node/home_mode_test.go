package node_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/kinloom/kinloom/node"
)

// TestLastCrash: the status tells of the crash of the run before, whose log a start puts aside.
func TestLastCrash(t *testing.T) {
	dir := t.TempDir()
	if _, err := node.Init(t.Context(), node.Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ now, before, want string }{
		{"", "", ""},
		{"", "panic: before\n\ngoroutine 1", "panic: before"},
		{"panic: now\n\ngoroutine 1", "panic: before\n", "panic: now"},
	} {
		for name, text := range map[string]string{"crash.log": tt.now, "crash.old.log": tt.before} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		n, err := node.OpenOffline(t.Context(), node.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if s, err := n.Status(t.Context()); err != nil || s.LastCrash != tt.want {
			t.Errorf("crash logs %q and %q: told of %q, %v; want %q", tt.now, tt.before, s.LastCrash, err, tt.want)
		}
		closeAll(t, n)
	}
}

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

// TestHomeThatEverybodyWritesTo: a folder for temporary files, say, becomes no home, and keeps its mode.
func TestHomeThatEverybodyWritesTo(t *testing.T) {
	dir := t.TempDir()
	const mode = os.ModeSticky | 0o777
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
	_, err := node.Init(t.Context(), node.Config{Dir: dir, Name: "Ada"})
	if runtime.GOOS != "windows" {
		wantKind(t, "a folder of everybody", err, node.KindUsage, "no place for a home")
	}
	info, err := os.Stat(dir)
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != mode.Perm() {
		t.Errorf("the folder has mode %v now, %v", info.Mode(), err)
	}
}
