package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/charmbracelet/x/term"
	"github.com/zalando/go-keyring"

	"github.com/kinloom/kinloom/identity/keyfile"
)

// maxPassphrase bounds a passphrase file, in bytes.
const maxPassphrase = 4096

// passphrase gives the passphrase for an existing or new home: from the file that was named, or, if the home is sealed
// with one and there is a terminal, from a prompt. Nil: none.
func (a *app) passphrase(home string) ([]byte, error) {
	path := a.passphraseFile
	if path == "" {
		path = a.env("KINLOOM_PASSPHRASE_FILE")
	}
	if path != "" {
		return readPassphrase(path)
	}
	if !sealed(home) || !a.talks() {
		return nil, nil
	}
	return a.ask("Passphrase: ")
}

// sealed reports whether the home's key file has a slot for a passphrase.
func sealed(home string) bool {
	b, err := os.ReadFile(filepath.Join(home, "keys"))
	if err != nil {
		return false // the node says what is wrong with it
	}
	info, err := keyfile.Inspect(b)
	return err == nil && info.Passphrase
}

func readPassphrase(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usage("Give the path of a file that you can read.", "cannot open the passphrase file: %v", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPassphrase+1))
	if err != nil {
		return nil, fmt.Errorf("read the passphrase file: %w", err)
	}
	b = bytes.TrimRight(b, "\r\n")
	switch {
	case len(b) == 0:
		return nil, usage("Write the passphrase into it.", "the passphrase file %s is empty", path)
	case len(b) > maxPassphrase:
		return nil, usage("It holds the passphrase alone.", "the passphrase file %s is longer than %d bytes", path, maxPassphrase)
	}
	return b, nil
}

// newPassphrase asks for a passphrase twice.
func (a *app) newPassphrase() ([]byte, error) {
	if !a.talks() {
		return nil, usage("Use --passphrase-file FILE.", "there is no terminal to ask for a passphrase")
	}
	first, err := a.ask("New passphrase: ")
	if err != nil {
		return nil, err
	}
	if len(first) == 0 {
		return nil, usage("Leave --passphrase out for a home without one.", "the passphrase is empty")
	}
	second, err := a.ask("Once more: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, usage("Start again.", "the two passphrases differ")
	}
	return first, nil
}

// ask reads a secret line from the terminal.
func (a *app) ask(prompt string) ([]byte, error) {
	fmt.Fprint(a.term.err, prompt)
	before, err := term.GetState(a.term.in.Fd())
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	b, err := answer(a, func() ([]byte, error) { return term.ReadPassword(a.term.in.Fd()) })
	if errors.Is(err, errInterrupted) {
		return nil, errors.Join(err, term.Restore(a.term.in.Fd(), before)) // what is typed next is seen again
	}
	fmt.Fprintln(a.term.err)
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	return b, nil
}

// keychain is the system's keychain. A home that the user named with --home stands for itself and can be carried
// elsewhere, so its new key is not put there.
type keychain struct{ closed bool }

const keychainService = "kinloom"

// Get gives the secret of a home.
func (k keychain) Get(id string) ([]byte, error) {
	text, err := keyring.Get(keychainService, id)
	if err != nil {
		return nil, fmt.Errorf("ask the keychain: %w", err)
	}
	return hex.DecodeString(text)
}

// Set keeps the secret of a new home.
func (k keychain) Set(id string, secret []byte) error {
	if k.closed {
		return errors.New("a home of its own folder keeps its key there")
	}
	return keyring.Set(keychainService, id, hex.EncodeToString(secret))
}
