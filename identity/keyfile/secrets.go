package keyfile

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/enc"
)

// Limits of Secrets.
const (
	MaxFiles    = 16 // names in Secrets.Files
	MaxFileName = 64 // bytes of one name
)

// ErrSecrets means that the secrets contradict themselves or lack what every node has.
var ErrSecrets = errors.New("secrets are incomplete or contradict themselves")

// Secrets is all that a node keeps secret about itself. Seeds are 32 random
// bytes. It prints as "<secret>".
type Secrets struct {
	DataKey    [32]byte            // everything at rest is encrypted under it, see SubKey
	Person     identity.PersonID   // whose device this is
	Root       *[32]byte           // root seed; nil once its owner has taken it out, and on further devices
	Log        *[32]byte           // log key seed; nil on devices that are not the primary
	Device     [32]byte            // device key seed
	Olm        [32]byte            // Olm identity seed
	Rendezvous [32]byte            // rendezvous key seed
	Files      map[string][16]byte // id of each database, by file name

	// Backup is the public key of the root's backup recipient. Seal, Update
	// and Relock derive it where Root is set, and it stays when Root goes.
	Backup []byte
}

// SubKey derives the key for one purpose, such as "account.db", from the data
// key. Different labels give independent keys.
func (s *Secrets) SubKey(label string) [32]byte {
	return derive(s.DataKey[:], "kinloom/data-key/1/"+label)
}

// derive is HKDF-SHA256 without salt: the input is uniformly random.
func derive(secret []byte, info string) [32]byte {
	k, err := hkdf.Key(sha256.New, secret, nil, info, 32)
	if err != nil {
		panic("bug: HKDF of 32 bytes: " + err.Error())
	}
	return [32]byte(k)
}

// secretText is what every printed form says.
const secretText = "<secret>"

func (Secrets) String() string               { return secretText }
func (Secrets) GoString() string             { return secretText }
func (Secrets) Format(w fmt.State, _ rune)   { _, _ = w.Write([]byte(secretText)) }
func (Secrets) MarshalText() ([]byte, error) { return []byte(secretText), nil }

// payload is the sealed form of Secrets. The data key is not in it: it seals
// it.
type payload struct {
	Person     identity.PersonID   `cbor:"1,keyasint"`
	Root       *[32]byte           `cbor:"2,keyasint,omitempty"`
	Log        *[32]byte           `cbor:"3,keyasint,omitempty"`
	Device     [32]byte            `cbor:"4,keyasint"`
	Olm        [32]byte            `cbor:"5,keyasint"`
	Rendezvous [32]byte            `cbor:"6,keyasint"`
	Files      map[string][16]byte `cbor:"7,keyasint,omitempty"`
	Backup     []byte              `cbor:"8,keyasint,omitempty"`
}

func (s *Secrets) marshal() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return enc.Marshal(payload{
		Person: s.Person, Root: s.Root, Log: s.Log, Device: s.Device, Olm: s.Olm,
		Rendezvous: s.Rendezvous, Files: s.Files, Backup: s.Backup,
	})
}

func unmarshalSecrets(dataKey [32]byte, b []byte) (*Secrets, error) {
	var p payload
	if err := enc.Unmarshal(b, &p); err != nil {
		return nil, err
	}
	s := &Secrets{
		DataKey: dataKey, Person: p.Person, Root: p.Root, Log: p.Log, Device: p.Device, Olm: p.Olm,
		Rendezvous: p.Rendezvous, Files: p.Files, Backup: p.Backup,
	}
	return s, s.check()
}

func (s *Secrets) check() error {
	if slices.Contains([][32]byte{s.DataKey, s.Person, s.Device, s.Olm, s.Rendezvous}, [32]byte{}) {
		return ErrSecrets
	}
	if s.Root != nil && identity.NewRootKey(*s.Root).Person() != s.Person {
		return fmt.Errorf("%w: root of another person", ErrSecrets)
	}
	if len(s.Files) > MaxFiles {
		return fmt.Errorf("%w: more than %d files", ErrSecrets, MaxFiles)
	}
	for name := range s.Files {
		if name == "" || len(name) > MaxFileName {
			return fmt.Errorf("%w: file name of %d bytes", ErrSecrets, len(name))
		}
	}
	if len(s.Backup) != 0 && len(s.Backup) != backupPublicSize {
		return fmt.Errorf("%w: backup recipient of %d bytes", ErrSecrets, len(s.Backup))
	}
	return nil
}
