package store

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// TestHomeIsGone: what is written to a file without a name, or beside another one that
// took its place, is refused; what was written before is whole once the file is back.
func TestHomeIsGone(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // it does not let go of an open file
	}
	home := filepath.Join(t.TempDir(), "home")
	for name, take := range map[string]func(aside string) error{
		"removed": func(string) error { return os.RemoveAll(home) },
		"moved":   func(aside string) error { return os.Rename(home, aside) },
		"replaced": func(aside string) error {
			return errors.Join(os.Rename(home, aside), os.CopyFS(home, os.DirFS(aside)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, os.MkdirAll(home, 0o700))
			s := openTest(t, Options{Dir: home})
			m := newModel(6)
			check(t, m.group(t.Context(), s))
			aside := filepath.Join(t.TempDir(), "aside")
			check(t, take(aside))
			for range 2 {
				if err := s.Write(t.Context(), func(*Tx) error { t.Error("written"); return nil }); !errors.Is(err, ErrMoved) {
					t.Errorf("write: %v, want %v", err, ErrMoved)
				}
			}
			check(t, s.Close())
			if name == "removed" {
				return
			}
			check(t, os.RemoveAll(home))
			check(t, os.Rename(aside, home))
			s = openTest(t, Options{Dir: home})
			check(t, m.verify(t.Context(), s, true))
			check(t, s.Close())
			check(t, os.RemoveAll(home))
		})
	}
}
