package store

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/ncruces/go-sqlite3"
)

// Errors that a caller branches on. They arrive wrapped, with the file's name
// and the cause; use errors.Is.
var (
	// ErrDiskFull: the disk or the quota is full. Nothing of the failed
	// transaction was kept; the store goes on as soon as there is room.
	ErrDiskFull = errors.New("the disk is full: free some space; reading still works")
	// ErrDamaged: a page or the structure of a database is not what was written.
	ErrDamaged = errors.New("the file is damaged")
	// ErrForeign: the file does not belong to this home's key file.
	ErrForeign = errors.New("the file belongs to another home: put back the file that was made with this key file")
	// ErrMissing: a database is gone although the files around it are there.
	ErrMissing = errors.New("the file is missing although the others of this home are there: put it back, or restore a backup")
	// ErrReadOnly: the home cannot be written, or a write was tried in Read.
	ErrReadOnly = errors.New("the home cannot be written: check the mount and the permissions")
	// ErrNotSynced: the disk refused to confirm a write. The database was closed,
	// reopened and checked; the failed transaction is in it whole or not at all,
	// so what is held in memory must be loaded again.
	ErrNotSynced = errors.New("the disk did not confirm a write: check the disk; the database was reopened and is whole")
	// ErrFatal: the disk refused a second time, or the reopened database was not
	// whole. Nothing is stored any more; the process should end.
	ErrFatal = errors.New("the disk can no longer be trusted: stop, check the disk, then start again")
	// ErrMoved: the file is no longer where it was opened. What is written now would be
	// lost, or missing from what lies there instead; the process should end.
	ErrMoved = errors.New("the file was removed, moved or replaced while it was in use: put the home back and start again")
	// ErrNetworkFS: the home lies on a file system whose locks and syncs cannot
	// be relied upon.
	ErrNetworkFS = errors.New("the home lies on a network file system: choose a folder on a local disk")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the store is closed")
	// ErrNotFound: there is no such row.
	ErrNotFound = errors.New("not found")
	// ErrQuota: the quota of this class of network data is used up.
	ErrQuota = errors.New("the quota for this kind of network data is used up")
)

// NewerSchemaError says that a database was written by a later version.
type NewerSchemaError struct {
	File        string
	Have, Known int // schema of the file, and the newest that this program knows
}

func (e *NewerSchemaError) Error() string {
	return fmt.Sprintf("%s has schema %d, this version knows up to %d: install the newer version that wrote it", e.File, e.Have, e.Known)
}

// InUseError says that another process holds the home. PID is 0 when unknown.
type InUseError struct{ PID int }

func (e *InUseError) Error() string {
	if e.PID == 0 {
		return "another process uses it"
	}
	return fmt.Sprintf("process %d uses it", e.PID)
}

// Is makes errors.Is(err, ErrInUse) hold for every InUseError.
func (e *InUseError) Is(target error) bool { return target == ErrInUse }

// ErrInUse is matched by every InUseError.
var ErrInUse = errors.New("the home is in use")

// codeOf reports the SQLite codes in err, if it came from SQLite.
func codeOf(err error) (sqlite3.ErrorCode, sqlite3.ExtendedErrorCode, bool) {
	var code sqlite3.ErrorCode
	var ext sqlite3.ExtendedErrorCode
	if !errors.As(err, &code) {
		return 0, 0, false
	}
	if !errors.As(err, &ext) {
		ext = sqlite3.ExtendedErrorCode(code)
	}
	return code, ext, true
}

// OfContent reports whether a transaction failed by what it was to store or to
// read, such as a row that breaks a constraint, and not by the disk: others would
// have gone through, and nothing of this one was kept.
func OfContent(err error) bool {
	if code, _, ok := codeOf(err); ok {
		return code == sqlite3.CONSTRAINT || code == sqlite3.TOOBIG || code == sqlite3.MISMATCH
	}
	for _, other := range []error{ErrDiskFull, ErrReadOnly, ErrNotSynced, ErrFatal, ErrMoved, ErrClosed, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, other) {
			return false
		}
	}
	return err != nil
}

// syncFailed reports whether err says that the disk did not confirm a write.
func syncFailed(err error) bool {
	_, ext, ok := codeOf(err)
	return ok && (ext == sqlite3.IOERR_FSYNC || ext == sqlite3.IOERR_DIR_FSYNC)
}

// mapError gives an error of SQLite the sentinel that callers branch on. free
// reports the free bytes beside the file, and is asked only after an I/O error
// without a usable cause: the driver does not always hand the cause on.
func mapError(file string, err error, free func() (uint64, error)) error {
	code, ext, ok := codeOf(err)
	if err == nil || !ok {
		return err
	}
	with := func(sentinel error) error { return fmt.Errorf("%s: %w: %w", file, sentinel, err) }
	switch {
	case code == sqlite3.FULL, errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return with(ErrDiskFull)
	case errors.Is(err, syscall.EROFS), code == sqlite3.READONLY, code == sqlite3.PERM:
		return with(ErrReadOnly)
	case ext == sqlite3.IOERR_DATA, ext == sqlite3.IOERR_CORRUPTFS, code == sqlite3.CORRUPT, code == sqlite3.NOTADB:
		return with(ErrDamaged)
	case code == sqlite3.IOERR && free != nil:
		if n, ferr := free(); ferr == nil && n < noSpace {
			return with(ErrDiskFull)
		}
	case code == sqlite3.CANTOPEN && errors.Is(err, syscall.EACCES):
		return with(ErrReadOnly)
	}
	return fmt.Errorf("%s: %w", file, err)
}

// noSpace is the free space in bytes below which an I/O error without a cause
// is taken for a full disk: less than a commit with its padding needs.
const noSpace = 1 << 20
