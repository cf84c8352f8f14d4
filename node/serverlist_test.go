package node_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/protocol/serverlist"
)

const someServer = "/ip4/198.51.100.7/udp/443/quic-v1/p2p/12D3KooWAvocDfgG4k8GXErtRqhENCzRYg5vbJiQEQtXgmCxGYJt"

func listKey(i byte) (identity.ListKey, string) {
	k := identity.NewListKey([32]byte{9, i})
	public := k.Public()
	return k, hex.EncodeToString(public[:])
}

// signedList is a list as it lies in a file.
func signedList(t *testing.T, l serverlist.List, by ...identity.ListKey) []byte {
	t.Helper()
	for _, k := range by {
		l = l.Sign(k)
	}
	b, err := l.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// listOf is a list of addresses, dated now, for 30 days.
func listOf(now time.Time, addresses ...string) serverlist.List {
	l := serverlist.List{Name: "Ours", Issued: now.Unix(), Expires: now.Unix() + 30*86400}
	for _, a := range addresses {
		l.Servers = append(l.Servers, serverlist.Server{Address: a})
	}
	return l
}

// TestServerListsAreTakenByTheirSigners: who is believed and how many must agree is the
// owner's to say; unknown signers, an end, a date to come, a rollback and damage are told
// in words, and nothing changes then.
func TestServerListsAreTakenByTheirSigners(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	config := node.Config{Dir: dir, Now: func() time.Time { return at }}
	if _, err := node.Init(ctx, config); err != nil {
		t.Fatal(err)
	}
	n, err := node.OpenOffline(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { closeAll(t, n) }()
	one, key1 := listKey(1)
	two, key2 := listKey(2)
	three, key3 := listKey(3)
	l := listOf(at, someServer, "/onion3/of-tomorrow/p2p/12D3KooWAvocDfgG4k8GXErtRqhENCzRYg5vbJiQEQtXgmCxGYJt")
	good := signedList(t, l, one, two)
	refused := func(name string, file []byte, want string) {
		t.Helper()
		before, err := n.ServerLists(ctx)
		if err != nil {
			t.Fatal(err)
		}
		got, err := n.ImportServers(ctx, file)
		if !errors.Is(err, node.ErrRefused) || !strings.Contains(err.Error(), want) || got.Name != "" {
			t.Errorf("%s: %+v, %v, want words with %q", name, got, err, want)
		}
		after, err := n.ServerLists(ctx)
		if err != nil || len(after) != len(before) {
			t.Errorf("%s: %d lists, %v, were %d", name, len(after), err, len(before))
		}
	}
	refused("nobody is believed", good, "signed by nobody whom you believe, but by "+key1+", "+key2)
	for _, key := range []string{key1, key2} {
		if _, err := n.AddSigner(ctx, key, "somebody"); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.NeedSigners(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if err := n.NeedSigners(ctx, 3); !errors.Is(err, node.ErrUsage) {
		t.Errorf("three of two: %v", err)
	}
	if err := n.RemoveSigner(ctx, key2); !errors.Is(err, node.ErrRefused) {
		t.Errorf("one of two who must agree went: %v", err)
	}
	refused("one of two", signedList(t, l, one, three), "2 of those whom you believe must have signed a list, and this one is signed by 1")
	refused("unsigned", signedList(t, l), "nobody has signed this list")
	refused("changed", bytes.Replace(good, []byte("name Ours"), []byte("name Yours"), 1), "changed after it was signed")
	refused("cut", good[:len(good)-9], "damaged")
	refused("something else", []byte("#!/bin/sh\n"), "no list of servers: line 1")
	refused("huge", make([]byte, 1<<20), "larger than 48 KiB")
	refused("of tomorrow's kind", bytes.Replace(good, []byte("list 1"), []byte("list 2"), 1), "does not know. Install a newer version")
	old := listOf(at.AddDate(0, -2, 0), someServer)
	refused("expired", signedList(t, old, one, two), "this list has expired on 2026-01-31 12:00 UTC")
	refused("of next week", signedList(t, listOf(at.AddDate(0, 0, 7), someServer), one, two), "still to come: by the clock of this computer it is 2026-03-01 12:00 UTC")

	got, err := n.ImportServers(ctx, good)
	if err != nil || got.Servers != 1 || got.Skipped != 1 || len(got.Signers) != 2 || got.Signers[0] != "somebody" || !got.New || got.Problem != "" {
		t.Fatalf("imported %+v, %v", got, err)
	}
	if again, err := n.ImportServers(ctx, signedList(t, l, two, three, one)); err != nil || again.New {
		t.Errorf("the same once more: %+v, %v", again, err)
	}
	earlier := l
	earlier.Issued--
	refused("rollback", signedList(t, earlier, one, two), "older than the one of its name that you have, of 2026-03-01 12:00 UTC")
	twin := l
	twin.Expires++
	refused("another of this date", signedList(t, twin, one, two), "those who signed have signed two")

	// All of it is there after a restart; a list ends by itself.
	closeAll(t, n)
	at = at.AddDate(0, 0, 31)
	if n, err = node.OpenOffline(ctx, config); err != nil {
		t.Fatal(err)
	}
	all, err := n.ServerLists(ctx)
	if err != nil || len(all) != 1 || !strings.Contains(all[0].Problem, "expired") {
		t.Errorf("a month later %+v, %v", all, err)
	}
	newer := listOf(at, someServer)
	if got, err := n.ImportServers(ctx, signedList(t, newer, one, two)); err != nil || !got.New {
		t.Errorf("a newer one: %+v, %v", got, err)
	}
	refused("the old one again", good, "expired")
	if err := n.NeedSigners(ctx, 1); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{key1, key2} {
		if err := n.RemoveSigner(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.RemoveSigner(ctx, key3); !errors.Is(err, node.ErrNotFound) {
		t.Errorf("removing somebody who was not believed: %v", err)
	}
	if all, err = n.ServerLists(ctx); err != nil || len(all) != 1 || !strings.Contains(all[0].Problem, "nobody whom you believe") {
		t.Errorf("when nobody is believed %+v, %v", all, err)
	}
	if err := n.RemoveServerList(ctx, "Ours"); err != nil {
		t.Error(err)
	}
	if err := n.RemoveServerList(ctx, "Ours"); !errors.Is(err, node.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
}

// TestAListLeadsIntoTheNetwork: two nodes that know nobody there, and whose invite named
// no server, import a list, and find each other by it after both have moved. Whoever is
// believed no longer takes the servers along.
func TestAListLeadsIntoTheNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		server := onto(t, net, 0, "", "Server", "server")
		adaHome, bobHome := t.TempDir(), t.TempDir()
		ada, bob := onto(t, net, 1, adaHome, "Ada", "home"), onto(t, net, 2, bobHome, "Bob", "home")
		befriend(ctx, t, ada, bob)
		signer, key := listKey(1)
		file := signedList(t, listOf(time.Now(), fullAddress(t, server)), signer)
		for _, n := range []*node.Node{ada, bob} {
			if found := examined(ctx, t, n)["bootstrap"]; found.Verdict != node.Warn {
				t.Errorf("before: %+v", found)
			}
			if _, err := n.AddSigner(ctx, key, ""); err != nil {
				t.Fatal(err)
			}
			if _, err := n.ImportServers(ctx, file); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		for _, n := range []*node.Node{ada, bob} {
			if found := examined(ctx, t, n)["bootstrap"]; found.Verdict != node.OK {
				t.Errorf("after: %+v", found)
			}
		}
		closeAll(t, ada, bob)
		ada, bob = onto(t, net, 3, adaHome, "", "home"), onto(t, net, 4, bobHome, "", "home")
		t.Logf("talking again after %s", talking(ctx, t, ada, bob, "Ada", "Bob"))
		s, err := server.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if from := named(ada)[s.PeerID]; from != p2p.FromList {
			t.Errorf("the server is known from %q", from)
		}
		if err := ada.RemoveSigner(ctx, key); err != nil {
			t.Fatal(err)
		}
		if from, ok := named(ada)[s.PeerID]; ok {
			t.Errorf("the server stays, known from %q", from)
		}
		closeAll(t, ada, bob, server)
	})
}
