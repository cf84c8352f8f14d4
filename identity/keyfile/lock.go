package keyfile

import (
	"crypto/hpke"
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kinloom/kinloom/identity/enc"
)

// Argon2 holds the cost of turning a passphrase into a key with Argon2id. The
// zero value stands for DefaultArgon2.
type Argon2 struct {
	Time    uint32 // passes
	Memory  uint32 // KiB
	Threads uint8  // lanes
}

// Bounds of Argon2, inclusive. They hold for reading and for writing: below
// them a passphrase is too cheap to guess, above them a hostile file could
// make us work or allocate without end (H107).
const (
	MinTime, MaxTime       = 2, 10
	MinMemory, MaxMemory   = 19 << 10, 256 << 10 // KiB
	MinThreads, MaxThreads = 1, 8

	MaxPassphrase = 1024 // bytes
	outsideSize   = 32
)

// DefaultArgon2 is the second recommended choice of RFC 9106: 3 passes over
// 64 MiB in 4 lanes. It costs about a second on a small machine.
func DefaultArgon2() Argon2 { return Argon2{Time: 3, Memory: 64 << 10, Threads: 4} }

func (a Argon2) check() error {
	if a.Time < MinTime || a.Time > MaxTime || a.Memory < MinMemory || a.Memory > MaxMemory ||
		a.Threads < MinThreads || a.Threads > MaxThreads {
		return fmt.Errorf("%w: t=%d m=%d KiB p=%d", ErrArgon2Bounds, a.Time, a.Memory, a.Threads)
	}
	return nil
}

// Lock is what opens a key file. When sealing, each that is set makes a slot,
// and any one of them opens the file later; with neither Passphrase nor
// Outside the file is open. When opening, what is set is tried, the cheap
// before the costly. It prints as "<secret>".
type Lock struct {
	Passphrase []byte    // at most MaxPassphrase bytes, taken as they are
	Outside    []byte    // 32 random bytes that the operating system keeps
	Root       *[32]byte // root seed from the recovery words; only opens
	Params     Argon2    // for a new passphrase slot
}

func (Lock) String() string               { return secretText }
func (Lock) GoString() string             { return secretText }
func (Lock) Format(w fmt.State, _ rune)   { _, _ = w.Write([]byte(secretText)) }
func (Lock) MarshalText() ([]byte, error) { return []byte(secretText), nil }

// Errors of opening. Each text says what happened and what to do next.
var (
	ErrPassphraseNeeded = errors.New("the key file is sealed with a passphrase: give it with --passphrase-file")
	ErrOutsideNeeded    = errors.New("the key file is sealed by the system keychain: unlock the keychain and try again")
	ErrWrongPassphrase  = errors.New("wrong passphrase: the key file stays sealed, nothing was changed")
	ErrWrongOutside     = errors.New("the system keychain holds the secret of another key file: the file stays sealed")
	ErrWrongRoot        = errors.New("these recovery words belong to another person: the key file stays sealed")
	ErrNoPassphrase     = errors.New("the key file has no passphrase: open it without one")
	ErrArgon2Bounds     = errors.New("the passphrase cost is outside of what is allowed (t 2-10, m 19-256 MiB, p 1-8): the key file was not made by kinloom or was tampered with")
	ErrLock             = errors.New("passphrase above 1024 bytes, or outside secret that is not 32 bytes")
)

type slotKind uint64

const (
	slotPassphrase slotKind = 1
	slotOutside    slotKind = 2
	slotRoot       slotKind = 3
	slotOpen       slotKind = 4

	maxSlots = 8 // unknown kinds of later versions included
)

// slot holds the data key, wrapped for one way to open the file (SPEC 3).
type slot struct {
	Kind    slotKind `cbor:"1,keyasint"`
	Salt    [16]byte `cbor:"2,keyasint,omitzero"`
	Time    uint64   `cbor:"3,keyasint,omitempty"`
	Memory  uint64   `cbor:"4,keyasint,omitempty"`
	Threads uint64   `cbor:"5,keyasint,omitempty"`
	Key     []byte   `cbor:"6,keyasint"`
}

const (
	wrappedSize = chacha20poly1305.NonceSizeX + 32 + chacha20poly1305.Overhead

	infoOutside = "kinloom/key-slot/outside/1"
	infoRoot    = "kinloom/key-slot/root/1"
	infoBackup  = "kinloom/backup-recipient/1"
	aadSlot     = "kinloom/key-slot/1\x00"

	backupPublicSize = 1216           // X-Wing public key
	rootWrappedSize  = 1120 + 32 + 16 // X-Wing ciphertext, data key, tag
)

// params are the cost in a slot. What is above its bound stays above it, whatever
// its size.
func (s slot) params() Argon2 {
	return Argon2{
		Time: uint32(min(s.Time, MaxTime+1)), Memory: uint32(min(s.Memory, MaxMemory+1)), Threads: uint8(min(s.Threads, MaxThreads+1)),
	}
}

// check holds the form of a slot, Argon2 bounds included, before any work.
func (s slot) check() error {
	size := 0
	switch s.Kind {
	case slotPassphrase:
		if err := s.params().check(); err != nil {
			return err
		}
		size = wrappedSize
	case slotOutside:
		size = wrappedSize
	case slotRoot:
		size = rootWrappedSize
	case slotOpen:
		size = 32
	default:
		return nil // of a later version, passed over
	}
	if len(s.Key) != size {
		return fmt.Errorf("%w: slot of %d bytes", ErrDamaged, len(s.Key))
	}
	return nil
}

// aad authenticates kind, salt and cost along with the wrapped key.
func (s slot) aad() ([]byte, error) {
	s.Key = nil
	b, err := enc.Marshal(s)
	return append([]byte(aadSlot), b...), err
}

func passphraseKey(passphrase []byte, s slot) [32]byte {
	p := s.params()
	return [32]byte(argon2.IDKey(passphrase, s.Salt[:], p.Time, p.Memory, p.Threads, 32))
}

// backupKey derives the backup recipient from the root seed.
func backupKey(root [32]byte) hpke.PrivateKey {
	seed := derive(root[:], infoBackup)
	k, err := hpke.MLKEM768X25519().NewPrivateKey(seed[:])
	if err != nil {
		panic("bug: X-Wing refused a seed of 32 bytes: " + err.Error())
	}
	return k
}

// makeSlots wraps the data key for everything in l, and for the backup
// recipient where there is one.
func makeSlots(random io.Reader, s *Secrets, l Lock) ([]slot, error) {
	if len(l.Passphrase) > MaxPassphrase || len(l.Outside) != 0 && len(l.Outside) != outsideSize {
		return nil, ErrLock
	}
	var out []slot
	if len(l.Passphrase) > 0 {
		if l.Params == (Argon2{}) {
			l.Params = DefaultArgon2()
		}
		if err := l.Params.check(); err != nil {
			return nil, err
		}
		p := slot{
			Kind: slotPassphrase, Time: uint64(l.Params.Time), Memory: uint64(l.Params.Memory), Threads: uint64(l.Params.Threads),
		}
		if _, err := io.ReadFull(random, p.Salt[:]); err != nil {
			return nil, fmt.Errorf("read randomness: %w", err)
		}
		if err := p.wrap(random, passphraseKey(l.Passphrase, p), s.DataKey); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	if len(l.Outside) > 0 {
		o := slot{Kind: slotOutside}
		if err := o.wrap(random, derive(l.Outside, infoOutside), s.DataKey); err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	if len(out) == 0 {
		out = append(out, slot{Kind: slotOpen, Key: slices.Clone(s.DataKey[:])})
	}
	if len(s.Backup) > 0 {
		r, err := rootSlot(s)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// rootSlot needs the public key only. HPKE draws its randomness by itself.
func rootSlot(s *Secrets) (slot, error) {
	pub, err := hpke.MLKEM768X25519().NewPublicKey(s.Backup)
	if err != nil {
		return slot{}, fmt.Errorf("%w: backup recipient: %w", ErrSecrets, err)
	}
	key, err := hpke.Seal(pub, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(infoRoot), s.DataKey[:])
	if err != nil {
		return slot{}, fmt.Errorf("seal to the backup recipient: %w", err)
	}
	return slot{Kind: slotRoot, Key: key}, nil
}

func (s *slot) wrap(random io.Reader, key, dataKey [32]byte) error {
	aad, err := s.aad()
	if err != nil {
		return err
	}
	s.Key, err = sealX(random, key, dataKey[:], aad)
	return err
}

func (s slot) unwrap(key [32]byte) ([32]byte, bool) {
	aad, err := s.aad()
	if err != nil {
		return [32]byte{}, false
	}
	b, err := openX(key, s.Key, aad)
	if err != nil || len(b) != 32 {
		return [32]byte{}, false
	}
	return [32]byte(b), true
}

// unlock finds the data key with what l holds.
func unlock(slots map[slotKind]slot, l Lock) ([32]byte, error) {
	if len(l.Passphrase) > MaxPassphrase || len(l.Outside) != 0 && len(l.Outside) != outsideSize {
		return [32]byte{}, ErrLock
	}
	var why error
	if s, ok := slots[slotOutside]; ok && len(l.Outside) > 0 {
		if k, ok := s.unwrap(derive(l.Outside, infoOutside)); ok {
			return k, nil
		}
		why = ErrWrongOutside
	}
	if s, ok := slots[slotRoot]; ok && l.Root != nil {
		b, err := hpke.Open(backupKey(*l.Root), hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(infoRoot), s.Key)
		if err == nil && len(b) == 32 {
			return [32]byte(b), nil
		}
		why = ErrWrongRoot
	}
	if len(l.Passphrase) > 0 {
		s, ok := slots[slotPassphrase]
		if !ok {
			return [32]byte{}, ErrNoPassphrase
		}
		if k, ok := s.unwrap(passphraseKey(l.Passphrase, s)); ok {
			return k, nil
		}
		return [32]byte{}, ErrWrongPassphrase
	}
	if s, ok := slots[slotOpen]; ok {
		return [32]byte(s.Key), nil
	}
	_, passphrase := slots[slotPassphrase]
	switch {
	case passphrase && why == ErrWrongOutside:
		return [32]byte{}, fmt.Errorf("%w (%w)", ErrPassphraseNeeded, why)
	case why != nil:
		return [32]byte{}, why
	case passphrase:
		return [32]byte{}, ErrPassphraseNeeded
	default:
		return [32]byte{}, ErrOutsideNeeded
	}
}

// sealX is XChaCha20-Poly1305 with a random nonce in front.
func sealX(random io.Reader, key [32]byte, plain, aad []byte) ([]byte, error) {
	a, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, a.NonceSize(), a.NonceSize()+len(plain)+a.Overhead())
	if _, err := io.ReadFull(random, nonce); err != nil {
		return nil, fmt.Errorf("read randomness: %w", err)
	}
	return a.Seal(nonce, nonce, plain, aad), nil
}

func openX(key [32]byte, sealed, aad []byte) ([]byte, error) {
	a, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return nil, err
	}
	if len(sealed) < a.NonceSize() {
		return nil, ErrDamaged
	}
	return a.Open(nil, sealed[:a.NonceSize()], sealed[a.NonceSize():], aad)
}
