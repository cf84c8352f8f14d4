//go:build unix

package api

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kinloom/kinloom/node/client"
)

// TestListenIsPrivate opens the socket under umask 0, in folders that do not exist, that are open to all, and over a
// dead socket: it is always for its owner alone. Not parallel: the umask belongs to the process.
func TestListenIsPrivate(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	for _, test := range []struct {
		name    string
		prepare func(t *testing.T, folder string)
	}{
		{"new folder", func(*testing.T, string) {}},
		{"open folder", func(t *testing.T, folder string) {
			if err := os.MkdirAll(folder, 0o777); err != nil {
				t.Fatal(err)
			}
		}},
		{"dead socket", func(t *testing.T, folder string) {
			if err := os.MkdirAll(folder, 0o777); err != nil {
				t.Fatal(err)
			}
			old, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(folder, "api.sock"), Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			old.SetUnlinkOnClose(false)
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			home := t.TempDir()
			path := filepath.Join(home, "run", "api.sock")
			test.prepare(t, filepath.Dir(path))
			listener, err := Listen(home, path, nil)
			if err != nil {
				t.Fatal(err)
			}
			private(t, path)
			if err := listener.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(path); err == nil {
				t.Error("the socket is still there after Close")
			}
		})
	}
}

func private(t *testing.T, path string) {
	t.Helper()
	for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", p, got, want)
		}
	}
}

// TestListenLongPath serves from a home whose path no socket can have: a short one is found through the home, and is
// gone afterwards.
func TestListenLongPath(t *testing.T) {
	home := filepath.Join(t.TempDir(), strings.Repeat("x", 120))
	if err := os.MkdirAll(home, 0o700); err != nil {
		t.Fatal(err)
	}
	usual := filepath.Join(home, "api.sock")
	listener, err := Listen(home, usual, []string{"", strings.Repeat("/long", 30), os.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	short := client.SocketPath(home, usual)
	if short == usual || len(short) > maxSocketPath() {
		t.Fatalf("the socket is at %s", short)
	}
	private(t, short)

	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"status":"ok"}`)) })
	go func() { served <- Serve(ctx, listener, handler) }()
	c := client.Dial(short)
	defer c.Close()
	if health, err := c.Health(t.Context()); err != nil || health.Status != "ok" {
		t.Errorf("health: %+v, %v", health, err)
	}
	stop()
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
	if _, err := os.Stat(filepath.Dir(short)); err == nil {
		t.Errorf("the folder %s is still there", filepath.Dir(short))
	}
	if got := client.SocketPath(home, usual); got != usual {
		t.Errorf("the home still names %s", got)
	}
	// The next start has a short path again and forgets the note of a killed process.
	if err := os.WriteFile(client.SocketNote(home), []byte("/nowhere/api.sock\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err = Listen(home, filepath.Join(t.TempDir(), "s"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if got := client.SocketPath(home, usual); got != usual {
		t.Errorf("an old note is followed: %s", got)
	}
}

// TestListenNowhere says what to do where no short folder exists.
func TestListenNowhere(t *testing.T) {
	home := t.TempDir()
	_, err := Listen(home, filepath.Join(home, strings.Repeat("x", 120)), []string{"/does/not/exist"})
	if err == nil || !strings.Contains(err.Error(), "set TMPDIR to one") {
		t.Errorf("got %v", err)
	}
}
