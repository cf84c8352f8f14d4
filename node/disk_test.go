package node_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// search looks for the secrets in every file below a folder, and in the names of the files. It gives the size of each.
func (s secrets) search(t *testing.T, dir string) map[string]int {
	t.Helper()
	sizes := map[string]int{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		s.leaks(t, "the name "+name, []byte(name))
		if !e.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		sizes[name] = len(b)
		s.leaks(t, "the file "+name, b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sizes
}

// TestDiskTellsNothing (A11): the home of a person who has set a passphrase, talked, renamed, read, searched and
// invited contains no text, no name, no identity and no key, in any spelling: neither while the node runs, logs
// included, nor after it has been closed.
func TestDiskTellsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{Latency: 10 * time.Millisecond})
		dirs := [2]string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")}
		names := [2]string{"Ada Lindqvist", "Bob Okafor"}
		passphrases := [2][]byte{[]byte("correct horse battery staple"), []byte("shoe glove planet nineteen")}
		configs := [2]node.Config{}
		nodes := [2]*node.Node{}
		for i := range nodes {
			configs[i] = node.Config{Dir: dirs[i], Name: names[i], Passphrase: passphrases[i], Network: net.Host(i).Configure}
			n, err := node.Open(t.Context(), configs[i])
			if err != nil {
				t.Fatal(err)
			}
			nodes[i] = n
		}
		ada, bob := nodes[0], nodes[1]
		defer func() { closeAll(t, ada, bob) }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()

		all := secrets{"petname": []byte("Countess of Somewhere"), "new name": []byte("Augusta Lindqvist")}
		invite, err := ada.Invite(ctx)
		if err != nil {
			t.Fatal(err)
		}
		unused, err := bob.Invite(ctx)
		if err != nil {
			t.Fatal(err)
		}
		all["invite"], all["unused invite"] = []byte(invite), []byte(unused)
		added, err := bob.AddContact(ctx, invite, node.AddOptions{Name: "Countess of Somewhere"})
		if err != nil {
			t.Fatal(err)
		}
		all["words"], all["conversation"] = []byte(strings.Join(added.Words, " ")), added.Contact.Conversation[:]
		for i := range 12 {
			text := fmt.Sprintf("text number %d, with ümläuts and 🧵", i)
			if i == 4 || i == 5 {
				text = strings.Repeat(fmt.Sprintf("a text that fills pages: %d. ", i), 400)
				all[fmt.Sprint("a part of text ", i)] = []byte(text[:29])
			}
			m, err := nodes[i%2].Send(ctx, added.Contact.Conversation, node.Text(text))
			if err != nil {
				t.Fatal(err)
			}
			delivered(ctx, t, nodes[i%2], m)
			all[fmt.Sprint("text ", i)], all[fmt.Sprint("event ", i)] = []byte(text), m.ID[:]
		}
		if err := ada.SetName(ctx, "Augusta Lindqvist"); err != nil {
			t.Fatal(err)
		}
		if _, err := bob.RenameContact(ctx, "countess of somewhere", "Augusta the Second"); err != nil {
			t.Fatal(err)
		}
		all["second petname"] = []byte("Augusta the Second")
		for n, who := range map[*node.Node]string{ada: names[1], bob: "augusta the second"} {
			if _, err := n.Read(ctx, who, node.ReadQuery{}); err != nil {
				t.Fatal(err)
			}
			found, err := n.Search(ctx, node.SearchQuery{Text: "ümläuts"})
			if err != nil || len(found) != 10 {
				t.Fatalf("the search found %d messages, %v, want 10: then they may not be on the disk either", len(found), err)
			}
		}
		late, err := ada.Send(ctx, added.Contact.Conversation, node.Text("said as the last of all")) // may still wait when the nodes close
		if err != nil {
			t.Fatal(err)
		}
		all["last text"], all["last event"] = []byte("said as the last of all"), late.ID[:]
		for i, n := range nodes {
			all.ofNode(ctx, t, n)
			all.ofHome(t, dirs[i], passphrases[i])
			all[names[i]], all[names[i]+"'s passphrase"] = []byte(names[i]), passphrases[i]
		}
		if len(all) < 60 {
			t.Errorf("only %d secrets to look for", len(all))
		}
		for _, dir := range dirs {
			sizes := all.search(t, dir)
			t.Logf("running: %v; looked for %d secrets", sizes, len(all))
			if sizes["account.db-wal"] == 0 {
				t.Error("the search while the node runs saw no log of the database")
			}
		}
		closeAll(t, ada, bob)
		for i, dir := range dirs {
			sizes := all.search(t, dir)
			t.Logf("closed: %v", sizes)
			if sizes["account.db"] < 40_000 || sizes["index.db"] < 8_000 || sizes["keys"] == 0 {
				t.Errorf("the search saw too little to prove anything: %v", sizes)
			}
			n, err := node.OpenOffline(ctx, configs[i])
			if err != nil {
				t.Fatal(err)
			}
			who := [2]string{names[1], "Augusta the Second"}[i]
			if got := texts(ctx, t, n, who); strings.Count(got, "ümläuts") != 10 || strings.Count(got, "fills pages") != 800 {
				t.Errorf("the home has not what was looked for: %.200q", got)
			}
			closeAll(t, n)
		}
		// The control: in a file beside them each secret is found.
		for what, secret := range all {
			spelled := spellings(secret)
			path := filepath.Join(dirs[0], "account.db-journal")
			if err := os.WriteFile(path, append(make([]byte, 5000), spelled[len(what)%len(spelled)]...), 0o600); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, at := find(b, secret); at < 5000 {
				t.Errorf("%s is not found where it is", what)
			}
		}
	})
}
