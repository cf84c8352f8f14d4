package node

import (
	"errors"
	"fmt"
	"strings"

	"github.com/kinloom/kinloom/node/p2p"
)

// Kind says what class of failure an Error is. Its number is the exit code of
// the command line.
type Kind int

// The kinds, in the order of the exit codes.
const (
	KindError      Kind = 1 // anything that has no kind of its own
	KindUsage      Kind = 2 // the caller gave something that cannot be meant
	KindNotFound   Kind = 3 // no such contact, conversation, message, invite
	KindRefused    Kind = 4 // refused by the other side, by a rule, or blocked
	KindTimeout    Kind = 5 // did not happen in time; what was said stays queued
	KindNotRunning Kind = 6 // a running node is needed and there is none
)

// Error is a failure that a person is meant to read: what happened, and what to
// do next. Err, if set, is the cause.
type Error struct {
	Kind       Kind
	Text       string
	Next       string
	Candidates []string
	Err        error
	Quiet      bool // Err is in the words of a library: no part of the text, see Technical
}

// Error gives text, cause and next step in one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Text)
	if cause := e.Cause(); cause != "" {
		fmt.Fprintf(&b, ": %s", cause)
	}
	if len(e.Candidates) > 0 {
		fmt.Fprintf(&b, ". Known: %s", strings.Join(e.Candidates, ", "))
	}
	if e.Next != "" {
		fmt.Fprintf(&b, ". %s", e.Next)
	}
	return b.String()
}

// Cause is what the text leaves to Err to say, or nothing.
func (e *Error) Cause() string {
	if e.Err == nil || e.Quiet || strings.Contains(e.Text, e.Err.Error()) {
		return ""
	}
	return e.Err.Error()
}

// Technical is what a library said, for a report of the failure, or nothing.
func (e *Error) Technical() string {
	if e.Err == nil || !e.Quiet {
		return ""
	}
	if dial, ok := errors.AsType[*p2p.DialError](e.Err); ok {
		return dial.Details()
	}
	return e.Err.Error()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, ErrNotFound) and the like work by kind.
func (e *Error) Is(target error) bool {
	var t *Error
	return errors.As(target, &t) && t.Text == "" && t.Kind == e.Kind
}

// Sentinels for errors.Is; every Error of the kind matches.
var (
	ErrUsage    = &Error{Kind: KindUsage}
	ErrNotFound = &Error{Kind: KindNotFound}
	ErrRefused  = &Error{Kind: KindRefused}
	ErrTimeout  = &Error{Kind: KindTimeout}
)

// Errors of opening a home.
var (
	ErrNoHome     = errors.New("there is no kinloom home here yet")
	ErrHomeExists = errors.New("there is a kinloom home here already")
	ErrClosed     = errors.New("the node is closed")
)

func usage(next, format string, args ...any) *Error {
	return &Error{Kind: KindUsage, Text: fmt.Sprintf(format, args...), Next: next}
}

func notFound(next, format string, args ...any) *Error {
	return &Error{Kind: KindNotFound, Text: fmt.Sprintf(format, args...), Next: next}
}

func refused(next, format string, args ...any) *Error {
	return &Error{Kind: KindRefused, Text: fmt.Sprintf(format, args...), Next: next}
}

// KindOf gives the kind of err, KindError when it has none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return KindError
}
