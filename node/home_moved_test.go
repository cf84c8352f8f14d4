package node_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/node/store"
)

// TestHomeIsGone: a node whose home is taken away stops, and says why. What is sent to
// it waits, and is not said to be delivered; it comes once the home is back.
func TestHomeIsGone(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // it does not let go of an open file
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{Latency: time.Millisecond})
		home, aside := filepath.Join(t.TempDir(), "bob"), filepath.Join(t.TempDir(), "aside")
		ada, bob := onLAN(t, net, 0, "", "Ada", nil), onLAN(t, net, 1, home, "Bob", nil)
		defer func() { closeAll(t, ada, bob) }()
		befriend(ctx, t, ada, bob)
		delivered(ctx, t, ada, say(ctx, t, ada, "Bob", "before"))
		if err := os.Rename(home, aside); err != nil {
			t.Fatal(err)
		}
		lost := say(ctx, t, ada, "Bob", "into the air")
		select {
		case <-bob.Done():
		case <-time.After(time.Minute):
			t.Error("the node runs on without its home")
		}
		if err := bob.Close(); !errors.Is(err, store.ErrMoved) {
			t.Errorf("it ended with %v, want %v", err, store.ErrMoved)
		}
		short, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if m, err := ada.Wait(short, lost.ID, "delivered"); err == nil {
			t.Errorf("what nobody has is %q", m.State)
		}
		if err := os.Rename(aside, home); err != nil {
			t.Fatal(err)
		}
		bob = onLAN(t, net, 1, home, "", nil)
		delivered(ctx, t, ada, lost)
	})
}
