package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/ncruces/go-sqlite3"
)

// layers are the two ways in which a WAL is written.
var layers = map[string]bool{"plain": false, "block": true}

// work is a scenario that passes every kind of call: commits of several sizes,
// both checkpoints, a truncated log. It goes on after a refusal.
func work(ctx context.Context, m *model, s *Store) (refused error) {
	note := func(err error) {
		if err != nil && refused == nil {
			refused = err
		}
	}
	for i := range 6 {
		note(m.group(ctx, s))
		switch i {
		case 1:
			note(s.account.checkpointAs(ctx, sqlite3.CHECKPOINT_PASSIVE))
		case 3:
			note(s.account.checkpoint(ctx))
		}
	}
	return refused
}

// TestFaultAtEveryCall refuses the n-th read, write, truncation or sync, for
// every n, once or for ever: nothing acknowledged is lost, nothing refused is
// shown, and the store goes on when the disk does.
func TestFaultAtEveryCall(t *testing.T) {
	for layer, block := range layers {
		for _, c := range []struct {
			name  string
			op    op
			cause error
			torn  bool
			ever  bool
		}{
			{"read EIO", opRead, syscall.EIO, false, false},
			{"write EIO", opWrite, syscall.EIO, false, false},
			{"write short EIO", opWrite, syscall.EIO, true, false},
			{"write full", opWrite, syscall.ENOSPC, false, false},
			{"write short full", opWrite, syscall.ENOSPC, true, false},
			{"write quota for ever", opWrite, syscall.EDQUOT, true, true},
			{"truncate EIO", opTruncate, syscall.EIO, false, false},
			{"sync EIO", opSync, syscall.EIO, false, false},
			{"sync EIO for ever", opSync, syscall.EIO, false, true},
		} {
			t.Run(layer+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				hit := true
				n, stride := 1, strideOf(block)
				for ; hit; n += stride {
					hit = faultAt(t, block, c.op, n, fmt.Errorf("injected: %w", c.cause), c.torn, c.ever)
					if t.Failed() {
						t.Fatalf("at call %d", n)
					}
				}
				t.Logf("%d calls", n-stride-1)
			})
		}
	}
}

func faultAt(t *testing.T, block bool, o op, n int, cause error, torn, ever bool) bool {
	dir, err := os.MkdirTemp(t.TempDir(), "")
	check(t, err)
	fs := newFaultFS(t, block)
	full := errors.Is(cause, syscall.ENOSPC) || errors.Is(cause, syscall.EDQUOT)
	s, err := openAccount(t, Options{Dir: dir, vfs: fs.name, free: func() (uint64, error) {
		if full {
			return 4096, nil
		}
		return 1 << 30, nil
	}})
	check(t, err)
	m := newModel(uint64(n))
	check(t, m.group(t.Context(), s))
	fs.arm(func(got op, nth int, _ string) error {
		if got == o && (nth == n || ever && nth > n) {
			return cause
		}
		return nil
	}, torn)
	refused := work(t.Context(), m, s)
	hit := fs.count(o) >= n
	if refused != nil && full && !errors.Is(refused, ErrDiskFull) {
		t.Errorf("a full disk was reported as %v", refused)
	}
	fs.arm(nil, false)
	if dead := s.account.fatal.Load(); dead {
		if o != opSync || !ever {
			t.Errorf("died of one fault: %v", refused)
		}
		if err := s.Write(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, ErrFatal) {
			t.Errorf("dead store: %v", err)
		}
	} else {
		// The running store is what the model says, and goes on.
		check(t, m.settleSync(t.Context(), s, refused))
		if err := m.verify(t.Context(), s, true); err != nil {
			t.Errorf("running on after %v: %v", refused, err)
		}
		if err := m.group(t.Context(), s); err != nil {
			t.Errorf("the disk works again, the store does not: %v", err)
		}
	}
	if err := s.account.close(); err != nil && !s.account.fatal.Load() {
		t.Errorf("close: %v", err)
	}
	s, err = openAccount(t, Options{Dir: dir, vfs: fs.name})
	if err != nil {
		t.Fatalf("reopen after %v: %v", refused, err)
	}
	if err := errors.Join(m.verify(t.Context(), s, false), wholeFile(t.Context(), s)); err != nil {
		t.Errorf("reopened after %v: %v", refused, err)
	}
	check(t, s.account.close())
	check(t, os.RemoveAll(dir))
	return hit
}

// settleSync takes groups whose sync failed for what they turned out to be: a
// disk that did not confirm may have written.
func (m *model) settleSync(ctx context.Context, s *Store, refused error) error {
	if !errors.Is(refused, ErrNotSynced) {
		return nil
	}
	return m.settle(ctx, s)
}
