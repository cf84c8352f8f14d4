package keyfile

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/kinloom/kinloom/identity"
)

// TestSecretsStayHidden: no way of printing shows a secret.
func TestSecretsStayHidden(t *testing.T) {
	s := testSecrets()
	l := Lock{Passphrase: []byte("root seed"), Outside: outside(), Root: s.Root}
	var log strings.Builder
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("secrets", "s", s, "value", *s, "lock", l)
	}
	js, err := json.Marshal(map[string]any{"s": s, "l": l})
	if err != nil {
		t.Fatal(err)
	}
	shown := []string{log.String(), string(js), s.String(), l.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{s, *s, l, &l, []any{s}, struct{ L Lock }{l}} {
			shown = append(shown, fmt.Sprintf(verb, v))
		}
	}
	for _, out := range shown {
		if strings.Contains(out, "seed") || strings.Contains(out, "73656564") || strings.Contains(out, "115 101 101 100") {
			t.Errorf("a secret shows: %s", out)
		}
	}
}

// TestSubKeys: one key per label, and the labels do not run into each other.
func TestSubKeys(t *testing.T) {
	s := testSecrets()
	seen := map[[32]byte]string{s.DataKey: "the data key"}
	for _, label := range []string{"account.db", "index.db", "net.db", "rows", "attachments", "api token", "key file", "", "a"} {
		k := s.SubKey(label)
		if other, ok := seen[k]; ok {
			t.Errorf("%q and %q have the same key", label, other)
		}
		seen[k] = label
	}
	other := testSecrets()
	other.DataKey[0]++
	if _, ok := seen[other.SubKey("account.db")]; ok {
		t.Error("another data key gives the same key")
	}
	// HKDF-SHA256 without salt, info "kinloom/data-key/1/account.db".
	k := s.SubKey("account.db")
	if got, want := hex.EncodeToString(k[:]), "b2cf4cf5c8b441e685b28f23f161d6fdb1e740e4452c3e26069fc311e10d864e"; got != want {
		t.Errorf("account.db: got %s, want %s", got, want)
	}
}

// TestBackupRecipient: the words alone give it, and it is not the root key.
func TestBackupRecipient(t *testing.T) {
	s := testSecrets()
	seal(t, s, Lock{})
	if len(s.Backup) != backupPublicSize {
		t.Fatalf("backup recipient of %d bytes", len(s.Backup))
	}
	root, err := ParseWords(strings.Join(Words(*s.Root), " "))
	if err != nil {
		t.Fatal(err)
	}
	if string(backupKey(root).PublicKey().Bytes()) != string(s.Backup) {
		t.Error("the words give another recipient")
	}
	if string(s.Backup[:32]) == string(s.Person[:]) || identity.NewRootKey(root).Person() != s.Person {
		t.Error("the recipient is the root key")
	}
}
