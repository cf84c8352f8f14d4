package node_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
)

// TestOneInputIsToBlame: something that cannot be stored is handed in together
// with what can: cells of a contact, and what the owner says and asks. It alone is
// refused. Nobody else notices, the node does not pause and the owner is told
// nothing of a disk.
func TestOneInputIsToBlame(t *testing.T) {
	for name, cause := range map[string]error{"a row breaks a constraint": nil, "a row is no good": errors.New("no good")} {
		t.Run(name, func(t *testing.T) {
			pair(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, added node.Added) {
				conv := added.Contact.Conversation
				delivered(ctx, t, bob, say(ctx, t, bob, "ada", "start"))
				notices := ada.Watch()
				var want []string
				for round := range 3 {
					release, err := ada.Hold(ctx)
					if err != nil {
						t.Fatal(err)
					}
					sent := []node.Message{say(ctx, t, bob, "ada", "b"), say(ctx, t, bob, "ada", "c")}
					time.Sleep(time.Second) // they wait at Ada's
					poisoned := make(chan error, 2)
					spoken := make(chan error, 2)
					hand := func(f func()) {
						go f()
						synctest.Wait() // until it is handed in
					}
					send := func() {
						_, err := ada.Send(ctx, conv, node.Text("a"))
						spoken <- err
					}
					hand(send)
					hand(func() { poisoned <- ada.Poison(ctx, cause) })
					hand(func() { poisoned <- ada.Poison(ctx, cause) })
					hand(send)
					begin := time.Now()
					release(nil)
					for range 2 {
						if err := <-poisoned; err == nil || cause != nil && !errors.Is(err, cause) {
							t.Errorf("round %d: what cannot be stored got %v", round, err)
						}
						if err := <-spoken; err != nil {
							t.Errorf("round %d: beside it, what can be stored got %v", round, err)
						}
					}
					for _, m := range sent {
						delivered(ctx, t, bob, m)
					}
					delivered(ctx, t, ada, say(ctx, t, ada, "bob", "d"))
					if took := time.Since(begin); took > time.Second {
						t.Errorf("round %d: all was delivered after %v", round, took)
					}
					want = append(want, "b", "c", "a", "a", "d")
				}
				for who, n := range map[string]*node.Node{"bob": ada, "ada": bob} {
					got := strings.Split(texts(ctx, t, n, who), "|")[1:]
					slices.Sort(got)
					slices.Sort(want)
					if !slices.Equal(got, want) {
						t.Errorf("beside %s: %q, want %q", who, got, want)
					}
				}
				if told := notices(); len(told) > 0 {
					t.Errorf("told %+v", told)
				}
			})
		})
	}
}

// TestAskedTwice: what is read in the loop is read again after another input of its batch has failed, and given once.
func TestAskedTwice(t *testing.T) {
	staged(t, func(ctx context.Context, t *testing.T, s *stage, ada, bob *home) {
		s.stop(t, bob)
		waits := say(ctx, t, ada.Node, "bob", "waits")
		s.pass(time.Minute)
		asks := map[string]func() int{
			"ways to Bob": func() int {
				ways, err := ada.Route(ctx, "bob")
				if err != nil {
					t.Error(err)
				}
				return len(ways)
			},
			"stages": func() int {
				stages, err := ada.Why(ctx, hexOf(waits))
				if err != nil {
					t.Error(err)
				}
				return len(stages)
			},
		}
		want := map[string]int{}
		for what, ask := range asks {
			want[what] = ask()
		}
		release, err := ada.Hold(ctx)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]chan int{}
		for what, ask := range asks {
			got[what] = make(chan int, 1)
			go func() { got[what] <- ask() }()
			synctest.Wait() // until it is handed in
		}
		poisoned := make(chan error, 1)
		go func() { poisoned <- ada.Poison(ctx, nil) }()
		synctest.Wait()
		release(nil)
		if err := <-poisoned; err == nil {
			t.Error("what cannot be stored was stored")
		}
		for what, n := range want {
			if again := <-got[what]; again != n || n == 0 {
				t.Errorf("%d %s beside what cannot be stored, %d before", again, what, n)
			}
		}
	})
}
