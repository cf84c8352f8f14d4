package node

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/keyfile"
	"github.com/kinloom/kinloom/node/store"
)

// The files of a home besides those of the store.
const (
	keysFile     = "keys"
	keychainFile = "keys.id" // under which name the system's keychain has the secret
)

// crashFiles have what a crash left: that of this run, and that of the one before,
// which a start puts aside.
var crashFiles = [...]string{"crash.log", "crash.old.log"}

// databases are the files whose ids the key file keeps.
var databases = [...]string{"account.db", "index.db", "net.db"}

// How the key file of a home is protected, as Status says it.
const (
	ProtectedByPassphrase = "passphrase"
	ProtectedByKeychain   = "keychain"
	ProtectedByMode       = "file mode only"
)

// home is an opened home folder: its lock is held and its secrets are known.
type home struct {
	dir       string
	lock      *store.Lock
	secrets   *keyfile.Secrets
	protected string
	fresh     bool
}

// openHome takes the lock of the home and opens its key file, or makes both
// when create is set and there is no home. The lock comes before any look at
// the files.
func openHome(c *Config, create bool) (h *home, err error) {
	if c.Dir == "" {
		secrets, err := newSecrets(c.Random)
		if err != nil {
			return nil, err
		}
		return &home{secrets: secrets, protected: "memory only", fresh: true}, nil
	}
	if !create {
		if _, err := os.Stat(filepath.Join(c.Dir, keysFile)); errors.Is(err, fs.ErrNotExist) && !hasDatabase(c.Dir) {
			return nil, noHome(c.Dir)
		}
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, &Error{Kind: KindError, Text: "cannot make the home folder " + c.Dir, Err: err, Next: "Choose another with --home, or mend its rights."}
	}
	if modeOf(c.Dir)&0o002 != 0 {
		return nil, &Error{
			Kind: KindUsage, Text: "everybody may write into " + c.Dir + ": it is no place for a home", // and is not to be closed to them
			Next: "Choose a folder of your own with --home, or close it: chmod 700.",
		}
	}
	lock, err := store.AcquireLock(c.Dir)
	if err != nil {
		return nil, lockError(c.Dir, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Release())
		}
	}()
	h = &home{dir: c.Dir, lock: lock}
	path := filepath.Join(c.Dir, keysFile)
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		return h, h.unlock(c, b)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, &Error{Kind: KindError, Text: "cannot read the key file " + path, Err: err, Next: "Mend its rights: it must be readable by you alone."}
	case hasDatabase(c.Dir):
		return nil, &Error{
			Kind: KindError, Text: "the databases of this home are here but its key file " + path + " is missing",
			Next: "Put the key file back from your own copy; nothing was changed.",
		}
	case !create:
		return nil, noHome(c.Dir)
	}
	return h, h.create(c, path)
}

// modeOf gives what others than the owner may do in a home, which may have been
// there before it became one. Nothing where modes say nothing.
func modeOf(dir string) fs.FileMode {
	info, err := os.Stat(dir)
	if err != nil || runtime.GOOS == "windows" {
		return 0
	}
	return info.Mode().Perm() & 0o077
}

func noHome(dir string) error {
	return &Error{Kind: KindNotFound, Text: ErrNoHome.Error() + ": " + dir, Err: ErrNoHome, Next: "Make one: kinloom init, or kinloom up."}
}

func lockError(dir string, err error) error {
	if inUse, ok := errors.AsType[*store.InUseError](err); ok {
		return &Error{
			Kind: KindError, Err: err, Text: fmt.Sprintf("the home %s is taken: %v", dir, inUse),
			Next: "Talk to that node, or stop it first: kinloom stop.",
		}
	}
	return &Error{Kind: KindError, Err: err, Text: "cannot lock the home " + dir, Next: "The folder must be writable by you and not on a network file system."}
}

func hasDatabase(dir string) bool {
	for _, name := range databases {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

// create makes the key file of a new home.
func (h *home) create(c *Config, path string) error {
	secrets, err := newSecrets(c.Random)
	if err != nil {
		return err
	}
	h.secrets, h.fresh = secrets, true
	lock := keyfile.Lock{Passphrase: c.Passphrase}
	h.protected = ProtectedByPassphrase
	if len(c.Passphrase) == 0 {
		h.protected = ProtectedByMode
		if c.Keychain != nil {
			outside := make([]byte, 32)
			if _, err := io.ReadFull(c.Random, outside); err != nil {
				return fmt.Errorf("draw the keychain secret: %w", err)
			}
			id := make([]byte, 16)
			if _, err := io.ReadFull(c.Random, id); err != nil {
				return fmt.Errorf("draw the keychain id: %w", err)
			}
			if err := c.Keychain.Set(hex.EncodeToString(id), outside); err == nil {
				lock.Outside, h.protected = outside, ProtectedByKeychain
				if err := writeNew(filepath.Join(h.dir, keychainFile), []byte(hex.EncodeToString(id))); err != nil {
					return err
				}
			}
		}
	}
	b, err := keyfile.Seal(c.Random, secrets, lock)
	if err != nil {
		return fmt.Errorf("seal the key file: %w", err)
	}
	return writeNew(path, b)
}

// unlock opens the key file bytes b of an existing home.
func (h *home) unlock(c *Config, b []byte) error {
	info, err := keyfile.Inspect(b)
	if err != nil {
		return keyError(h.dir, err)
	}
	lock := keyfile.Lock{Passphrase: c.Passphrase}
	h.protected = ProtectedByMode
	switch {
	case info.Passphrase:
		h.protected = ProtectedByPassphrase
	case info.Outside:
		h.protected = ProtectedByKeychain
		if c.Keychain == nil {
			return keyError(h.dir, keyfile.ErrOutsideNeeded)
		}
		id, err := os.ReadFile(filepath.Join(h.dir, keychainFile))
		if err != nil {
			return keyError(h.dir, err)
		}
		if lock.Outside, err = c.Keychain.Get(string(id)); err != nil {
			return &Error{Kind: KindRefused, Err: err, Text: "the system's keychain did not give the key of this home", Next: "Unlock the keychain and try again."}
		}
	}
	if h.secrets, err = keyfile.Open(b, lock); err != nil {
		return keyError(h.dir, err)
	}
	if !info.Repair {
		return nil
	}
	c.Log.Warn("one of the two copies in the key file was damaged; it is written anew")
	whole, err := keyfile.Repair(b)
	if err != nil {
		return keyError(h.dir, err)
	}
	return writeNew(filepath.Join(h.dir, keysFile), whole)
}

// keyError puts a failure of the key file into words.
func keyError(dir string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Kind: KindError, Err: err, Text: "cannot open the key file of " + dir}
	newer, isNewer := errors.AsType[keyfile.ErrNewer](err)
	switch {
	case errors.Is(err, keyfile.ErrWrongPassphrase):
		e.Kind, e.Text, e.Err = KindRefused, "wrong passphrase", nil
		e.Next = "Try again; nothing was changed."
	case errors.Is(err, keyfile.ErrPassphraseNeeded):
		e.Kind, e.Text, e.Err = KindRefused, "this home is sealed with a passphrase", nil
		e.Next = "Give it at the prompt, with --passphrase-file, or in KINLOOM_PASSPHRASE_FILE."
	case errors.Is(err, keyfile.ErrNoPassphrase):
		e.Kind, e.Text, e.Err = KindUsage, "this home has no passphrase: its key file is protected by its mode only", nil
		e.Next = "Leave the passphrase out."
	case errors.Is(err, keyfile.ErrOutsideNeeded):
		e.Kind, e.Next = KindRefused, "This home is sealed by the system's keychain; open it in that session."
	case isNewer:
		e.Text, e.Err = fmt.Sprintf("the key file of %s was written by a newer kinloom (format %d)", dir, newer.Version), nil
		e.Next = "Install that version; nothing was changed."
	case errors.Is(err, keyfile.ErrDamaged):
		e.Text, e.Quiet = "the key file of "+dir+" is damaged", true
		e.Next = "Put it back from your own copy; the databases were not touched."
	default:
		e.Next = "Put it back from your own copy; the databases were not touched."
	}
	return e
}

// newSecrets draws all long-term secrets of a new person's first device.
func newSecrets(random io.Reader) (*keyfile.Secrets, error) {
	s := &keyfile.Secrets{Root: new([32]byte), Log: new([32]byte), Files: map[string][16]byte{}}
	for _, seed := range [][]byte{s.DataKey[:], s.Root[:], s.Log[:], s.Device[:], s.Olm[:], s.Rendezvous[:]} {
		if _, err := io.ReadFull(random, seed); err != nil {
			return nil, fmt.Errorf("draw keys: %w", err)
		}
	}
	for _, name := range databases {
		var id [16]byte
		if _, err := io.ReadFull(random, id[:]); err != nil {
			return nil, fmt.Errorf("draw keys: %w", err)
		}
		s.Files[name] = id
	}
	s.Person = identity.NewRootKey(*s.Root).Person()
	return s, nil
}

// writeNew writes a file of mode 0600 that must not exist, and makes file and
// folder entry durable before it returns.
func writeNew(path string, b []byte) (err error) {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return &Error{Kind: KindError, Err: err, Text: "cannot write " + path, Next: "The home folder must be writable and have free space."}
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return errors.Join(&Error{Kind: KindError, Err: err, Text: "cannot write " + path, Next: "The home folder must be writable and have free space."}, os.Remove(tmp))
	}
	return nil
}

// syncDir makes the entries of a folder durable; Windows has no such call.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (h *home) close() error {
	if h.lock == nil {
		return nil
	}
	return h.lock.Release()
}
