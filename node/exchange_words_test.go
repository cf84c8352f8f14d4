package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/protocol/contact"
)

// TestUnreached holds what is told of an invite that could not be answered to
// words: what was tried and what came of it.
func TestUnreached(t *testing.T) {
	at := multiaddr.StringCast("/ip4/192.0.2.1/tcp/4001")
	dial := func(causes ...error) error {
		e := &p2p.DialError{}
		for _, cause := range causes {
			e.Attempts = append(e.Attempts, p2p.Attempt{Addr: at, Err: cause})
		}
		return fmt.Errorf("dial: %w", e)
	}
	system := func(no syscall.Errno) error { return &os.SyscallError{Syscall: "connect", Err: no} }
	late := context.DeadlineExceeded
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"refused":        {dial(system(syscall.ECONNREFUSED)), "the one address of the invite was tried; no node runs there"},
		"refused, late":  {dial(late, system(syscall.ECONNREFUSED)), "all 2 addresses of the invite were tried; no node runs there"},
		"no way":         {dial(system(syscall.ENETUNREACH)), "the one address of the invite was tried; no way leads there from this network"},
		"another node":   {dial(sec.ErrPeerIDMismatch{Expected: "a", Actual: "b"}, late), "all 2 addresses of the invite were tried; another node is there now"},
		"late":           {dial(late, late), "all 2 addresses of the invite were tried; nobody answered"},
		"out of time":    {late, "nobody answered in time"},
		"nothing usable": {p2p.ErrNoAddress, "the invite has no address that this node may call"},
	} {
		if got := unreached(c.err); got != c.want {
			t.Errorf("%s: %v is told as %q, want %q", name, c.err, got, c.want)
		}
	}
	e := &Error{Text: "not reached", Err: dial(late), Quiet: true}
	if got := e.Technical(); !strings.Contains(got, at.String()) || !strings.Contains(got, late.Error()) {
		t.Errorf("the technical part is %q, want address and cause", got)
	}
}

// TestExchangeErrorIsWords: what a library says is no part of the text.
func TestExchangeErrorIsWords(t *testing.T) {
	for err, want := range map[error]Kind{
		fmt.Errorf("read the offer: %w: i/o deadline reached", contact.ErrSlow):                 KindTimeout,
		fmt.Errorf("read the offer: %w: %w", contact.ErrCut, &network.StreamError{}):            KindTimeout,
		fmt.Errorf("open stream: %w", context.DeadlineExceeded):                                 KindTimeout,
		fmt.Errorf("open stream: %w", errors.New("stream reset (remote): code: 0x1001: yamux")): KindError,
	} {
		got := exchangeError(err)
		for _, word := range []string{"stream", "deadline", "reset", "i/o"} {
			if strings.Contains(got.Error(), word) {
				t.Errorf("%v is told as %q, with %q in it", err, got, word)
			}
		}
		if KindOf(got) != want || !errors.Is(got, err) {
			t.Errorf("%v: kind %d, want %d, and the cause kept: %t", err, KindOf(got), want, errors.Is(got, err))
		}
	}
}

// TestShortErrorIsText: what is kept of a failed dial is text that can be stored, whatever the system said.
func TestShortErrorIsText(t *testing.T) {
	for n := range 4 {
		long := strings.Repeat("x", 197+n) + strings.Repeat("ü", 20)
		if got := shortError(errors.New(long)); !utf8.ValidString(got) || len([]rune(got)) > 200 {
			t.Errorf("%q", got)
		}
	}
}
