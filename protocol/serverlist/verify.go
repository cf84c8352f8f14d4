package serverlist

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"github.com/kinloom/kinloom/identity"
)

// Errors of a list that reads well.
var (
	// ErrSigners: fewer signed than must agree, of those that the reader believes.
	ErrSigners = errors.New("list of servers is not signed by enough of those who are believed")
	// ErrForged: there would be enough, but what one of them signed is another list.
	ErrForged = errors.New("list of servers was changed after it was signed")
	// ErrExpired: its end has come.
	ErrExpired = errors.New("list of servers has expired")
	// ErrNotYet: its date is more than Ahead from now.
	ErrNotYet = errors.New("list of servers has a date in the future")
	// ErrRollback: an older list of the same name.
	ErrRollback = errors.New("list of servers is older than the one that is known")
	// ErrTwo: another list of the same name and date.
	ErrTwo = errors.New("another list of servers has this name and date")
)

// Ahead is how far a list's date may lie in the future: clocks are off by a day.
const Ahead = 26 * time.Hour

// Verify reads a file and checks it. Errors: those of ParseList and Check.
func Verify(now time.Time, believed []identity.ListPublic, need int, b []byte) (List, error) {
	l, err := ParseList(b)
	if err != nil {
		return List{}, err
	}
	if err := l.Check(now, believed, need); err != nil {
		return List{}, err
	}
	return l, nil
}

// Check says whether at least need of those who are believed have signed l, and whether
// it is valid now. A need below 1 is one of 1. Errors: ErrSigners, ErrForged, ErrExpired,
// ErrNotYet.
func (l List) Check(now time.Time, believed []identity.ListPublic, need int) error {
	body := l.Body()
	signed, forged := 0, 0
	for _, s := range l.Signatures {
		switch {
		case !slices.Contains(believed, s.Key):
		case s.Key.Verify(body, s.Signature[:]) == nil:
			signed++
		default:
			forged++
		}
	}
	switch need = max(need, 1); {
	case signed >= need:
	case signed+forged >= need:
		return ErrForged
	default:
		return ErrSigners
	}
	if now.Unix() >= l.Expires {
		return ErrExpired
	}
	if now.Add(Ahead).Unix() < l.Issued {
		return ErrNotYet
	}
	return nil
}

// After says whether l may take the place of old, a list of the same name. The same list
// may, whoever else has signed it. Errors: ErrRollback, ErrTwo.
func (l List) After(old List) error {
	switch {
	case l.Issued < old.Issued:
		return ErrRollback
	case l.Issued == old.Issued && !bytes.Equal(l.Body(), old.Body()):
		return ErrTwo
	}
	return nil
}

// Sign returns l with the signature of k, in place of those that it had of k and of
// those that do not fit it: who edits a list begins its signatures anew.
func (l List) Sign(k identity.ListKey) List {
	body := l.Body()
	l.Signatures = slices.DeleteFunc(slices.Clone(l.Signatures), func(s Signature) bool {
		return s.Key == k.Public() || s.Key.Verify(body, s.Signature[:]) != nil
	})
	l.Signatures = append(l.Signatures, Signature{k.Public(), [identity.SignatureSize]byte(k.Sign(body))})
	return l
}
