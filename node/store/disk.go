package store

import (
	"fmt"
	"os"
	"path/filepath"
)

// FreeSpace reports the bytes that this user may still write beside the
// databases. A store in memory reports a large constant.
func (s *Store) FreeSpace() (uint64, error) {
	switch {
	case s.opts.free != nil:
		return s.opts.free()
	case s.opts.Dir == "":
		return 1 << 40, nil
	}
	return freeSpace(s.opts.Dir)
}

// FreeIn reports the bytes that this user may still write in a folder, for whoever
// has no store open there.
func FreeIn(dir string) (uint64, error) { return freeSpace(dir) }

// NetworkFS names the network file system that a folder lies on, "" for none: a home
// there is refused by Open.
func NetworkFS(dir string) (string, error) { return networkFS(dir) }

// checkFS refuses a home on a file system that is known to break the promises
// of locks and syncs.
func checkFS(dir string) error {
	name, err := networkFS(dir)
	if err != nil {
		return fmt.Errorf("look at the file system of the home: %w", err)
	}
	if name != "" {
		return fmt.Errorf("%w (it is %s)", ErrNetworkFS, name)
	}
	return nil
}

// replaceFile renames from to to and makes that durable.
func replaceFile(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// size of a file in bytes, -1 if there is none.
func fileSize(path string) (int64, error) {
	fi, err := os.Stat(path)
	if os.IsNotExist(err) {
		return -1, nil
	}
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}
