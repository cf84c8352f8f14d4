package identity

import (
	"errors"
	"fmt"
)

// Errors of Merge. Each comes with a Log that is to be kept.
var (
	// ErrRollback: the other log is older than ours. Ours stays.
	ErrRollback = errors.New("log is older than the one that is known")
	// ErrSuperseded: the other log was written under a log key that the root
	// has superseded since. Ours stays. It is also ErrRollback.
	ErrSuperseded = fmt.Errorf("log key was superseded: %w", ErrRollback)
	// ErrFork: two entries of one number, soundly signed by one key. Ours
	// stays with the other beside it (Fork); nothing new is sent until a
	// root-signed log-key entry resolves it.
	ErrFork = errors.New("log is forked: two different entries have one number")
)

// Merge takes in another copy of the same person's log and returns what is to
// be kept from now on, which is never nil unless the persons differ
// (ErrPerson).
//
// The log with more root-signed log-key entries stands, at whatever length: it
// is how the root overrules a stolen log key, and the order in which copies
// arrive does not matter. With equally many, the longer of two logs that do
// not contradict each other stands; if they contradict, that is a fork. While
// the result is forked, the error is ErrFork whatever the other log was.
func (l *Log) Merge(other *Log) (*Log, error) {
	if other.person != l.person {
		return nil, fmt.Errorf("merge logs: %w", ErrPerson)
	}
	kept, err := l.mergeOne(other)
	if other.rival != nil {
		next, err2 := kept.mergeOne(other.rival)
		if next != kept {
			err = err2
		}
		kept = next
	}
	if kept.rival != nil {
		err = ErrFork
	}
	if err != nil {
		return kept, fmt.Errorf("merge logs: %w", err)
	}
	return kept, nil
}

// mergeOne merges without looking at a rival of other.
func (l *Log) mergeOne(other *Log) (*Log, error) {
	n := l.common(other)
	switch {
	case len(other.logKeys) > len(l.logKeys):
		return other.beside(nil), nil
	case len(other.logKeys) < len(l.logKeys) && n < len(other.entries):
		return l, ErrSuperseded
	case n == len(other.entries) && n == len(l.entries):
		return l, nil
	case n == len(other.entries):
		return l, ErrRollback
	case n == len(l.entries):
		return other.beside(l.rival), nil
	case l.rival == nil:
		return l.beside(other.beside(nil)), nil
	case l.rival.common(other) == len(l.rival.entries): // the rival, continued
		return l.beside(other.beside(nil)), nil
	default: // one rival is alarm enough; further ones are not kept
		return l, nil
	}
}

// common is the number of entries with which both logs begin.
func (l *Log) common(other *Log) int {
	n := min(len(l.heads), len(other.heads))
	// Heads are chained, so equal heads at i mean equal entries up to i.
	lo, hi := 0, n
	for lo < hi {
		mid := (lo + hi) / 2
		if l.heads[mid] == other.heads[mid] {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// beside returns l with another rival.
func (l *Log) beside(rival *Log) *Log {
	if l.rival == rival {
		return l
	}
	c := *l
	c.rival = rival
	return &c
}
