package store

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// lockFile tries to lock f for this process, and reports whether another one
// holds it. The locked byte lies far behind the pid, which stays readable.
func lockFile(f *os.File) (held bool, err error) {
	at := &windows.Overlapped{OffsetHigh: 1}
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return true, nil
	}
	return false, err
}
