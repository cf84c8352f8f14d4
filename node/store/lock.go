package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Lock is the exclusive claim of this process on a home. The operating system
// drops it when the process ends, however that happens; the file stays.
type Lock struct{ f *os.File }

// AcquireLock claims the home dir, at once or with an [InUseError] that names
// the process that has it. It comes before anything else is looked at: one
// process per home is a condition of correctness, as readers and the writer of
// a WAL are kept apart inside the process only.
func AcquireLock(dir string) (*Lock, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return nil, fmt.Errorf("open the process lock: %w: %w", ErrReadOnly, err)
		}
		return nil, fmt.Errorf("open the process lock: %w", err)
	}
	held, err := lockFile(f)
	if err != nil || held {
		pid := 0
		if held {
			b := make([]byte, 16)
			n, _ := f.ReadAt(b, 0)
			pid, _ = strconv.Atoi(strings.TrimSpace(string(b[:n])))
			err = &InUseError{PID: pid}
		} else {
			err = fmt.Errorf("take the process lock: %w", err)
		}
		return nil, errors.Join(err, f.Close())
	}
	// The pid is advice for the person who reads the error, so a full disk
	// must not stop the node from starting.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &Lock{f}, nil
}

// Release gives the home free. It may be called twice.
func (l *Lock) Release() error {
	if l == nil || l.f == nil {
		return nil
	}
	f := l.f
	l.f = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("release the process lock: %w", err)
	}
	return nil
}
