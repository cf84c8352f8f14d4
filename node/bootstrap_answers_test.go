package node_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// TestBootstrapSaysWhoAnswers: a named server is shown with whether it answers, so that
// a mistyped key is seen; one's own address is refused.
func TestBootstrapSaysWhoAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		server, ada := onto(t, net, 0, "", "Server", "server"), onto(t, net, 1, "", "Ada", "home")
		defer closeAll(t, ada, server)
		_, err := ada.AddBootstrap(ctx, listensAt(t, ada))
		wantKind(t, "one's own address", err, node.KindUsage, "this node itself")
		good := listensAt(t, server)
		at, _, _ := strings.Cut(good, "/p2p/")
		wrong := "12D3KooWAvocDfgG4k8GXErtRqhENCzRYg5vbJiQEQtXgmCxGYJt"
		for _, a := range []string{good, at + "/p2p/" + wrong} {
			if _, err := ada.AddBootstrap(ctx, a); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Minute)
		all, err := ada.Bootstraps(ctx)
		if err != nil || len(all) != 2 {
			t.Fatalf("%d are named, %v", len(all), err)
		}
		for _, b := range all {
			if mistyped := b.Peer == wrong; mistyped != b.Answered.IsZero() || mistyped != (b.Fails > 0) {
				t.Errorf("%s: answered %v, %d times in vain", b.Addresses, b.Answered, b.Fails)
			}
		}
	})
}
