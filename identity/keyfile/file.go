package keyfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/kinloom/kinloom/identity/enc"
)

// Layout of the file (SPEC 2): the same copy twice, each complete in itself.
const (
	Version  uint16 = 1
	CopySize        = 8192
	FileSize        = 2 * CopySize

	magic      = "kinloomk"
	headerSize = len(magic) + 2 + 8 + 4 // magic, version, generation, length of the body
	sumSize    = sha256.Size
	maxBody    = CopySize - headerSize - sumSize
	aadFile    = "kinloom/key-file/1\x00"
)

var (
	// ErrDamaged: neither copy in the file is sound. Nothing in it can be
	// trusted; the way back is a copy of the file.
	ErrDamaged = errors.New("the key file is damaged: put back a copy of it")
	// ErrNotKeyFile: these bytes were never a key file.
	ErrNotKeyFile = errors.New("this is not a kinloom key file")
	// ErrOtherKey: the secrets given to Update or Relock have another data key
	// than the file.
	ErrOtherKey = errors.New("the key file belongs to another data key")
)

// ErrNewer says that the file was written by a later version of kinloom.
type ErrNewer struct{ Version uint16 }

func (e ErrNewer) Error() string {
	return fmt.Sprintf("the key file has format %d and this kinloom knows up to %d: use the newer kinloom that wrote it", e.Version, Version)
}

// Info is what a key file tells without being opened.
type Info struct {
	Version    uint16
	Generation uint64 // grows with every change
	Passphrase bool   // has a passphrase slot
	Outside    bool   // has a slot for a secret kept outside
	Root       bool   // can be opened with the recovery words
	Open       bool   // protected by the mode of the file only
	Params     Argon2 // of the passphrase slot
	// Repair: one of the two copies is damaged or older, by a bad disk or a
	// change that was cut off. The file opens; write what Repair returns.
	Repair bool
}

// Write is one write into the file. The file and its directory have to be
// synced before the next one.
type Write struct {
	Offset int64
	Data   []byte
}

// body is what a copy holds between header and checksum.
type body struct {
	Slots  []enc.Raw `cbor:"1,keyasint"`
	Sealed []byte    `cbor:"2,keyasint"` // nonce, payload
}

// fileCopy is one of the two copies, read but not opened.
type fileCopy struct {
	raw        []byte
	generation uint64
	body       body
	slots      map[slotKind]slot
}

// Seal makes a key file of generation 1. It sets s.Backup where s.Root is set.
// Errors: ErrSecrets, ErrLock, ErrArgon2Bounds, and those of random.
func Seal(random io.Reader, s *Secrets, l Lock) ([]byte, error) {
	c, err := build(random, s, 1, func() ([]enc.Raw, error) { return newSlots(random, s, l) })
	if err != nil {
		return nil, fmt.Errorf("seal key file: %w", err)
	}
	return append(c, c...), nil
}

// Open returns the secrets. Errors: ErrNotKeyFile, ErrDamaged, ErrNewer, and
// those of Lock. A wrong passphrase costs as much as the right one, however
// often it is tried, and changes nothing.
func Open(b []byte, l Lock) (*Secrets, error) {
	s, err := open(b, l)
	if err != nil {
		return nil, fmt.Errorf("open key file: %w", err)
	}
	return s, nil
}

func open(b []byte, l Lock) (*Secrets, error) {
	f, _, err := best(b)
	if err != nil {
		return nil, err
	}
	k, err := unlock(f.slots, l)
	if err != nil {
		return nil, err
	}
	return f.open(k)
}

// Inspect tells what is in a key file, without a secret and without work.
func Inspect(b []byte) (Info, error) {
	f, repair, err := best(b)
	if err != nil {
		return Info{}, fmt.Errorf("inspect key file: %w", err)
	}
	i := Info{Version: Version, Generation: f.generation, Params: f.slots[slotPassphrase].params(), Repair: repair}
	_, i.Passphrase = f.slots[slotPassphrase]
	_, i.Outside = f.slots[slotOutside]
	_, i.Root = f.slots[slotRoot]
	_, i.Open = f.slots[slotOpen]
	return i, nil
}

// Update changes the secrets in a file and leaves the slots as they are; the
// data key has to be the same (ErrOtherKey). The writes go to the disk in
// order, each synced before the next: the older copy first, so that at every
// moment one sound copy is there. A file that Inspect wants repaired is
// repaired first (ErrDamaged if its size is wrong).
func Update(random io.Reader, old []byte, s *Secrets) ([]Write, error) {
	w, err := change(random, old, s, func(f *fileCopy) ([]enc.Raw, error) { return f.body.Slots, nil })
	if err != nil {
		return nil, fmt.Errorf("update key file: %w", err)
	}
	return w, nil
}

// Relock changes what opens a file: new slots for l, the same data key. Until
// the second write is on disk, the older copy still opens with the old lock.
func Relock(random io.Reader, old []byte, s *Secrets, l Lock) ([]Write, error) {
	w, err := change(random, old, s, func(*fileCopy) ([]enc.Raw, error) { return newSlots(random, s, l) })
	if err != nil {
		return nil, fmt.Errorf("change the lock of the key file: %w", err)
	}
	return w, nil
}

// Repair returns the whole file with its newest sound copy twice. It is to be
// written beside the old file and renamed over it.
func Repair(old []byte) ([]byte, error) {
	f, _, err := best(old)
	if err != nil {
		return nil, fmt.Errorf("repair key file: %w", err)
	}
	return append(bytes.Clone(f.raw), f.raw...), nil
}

func change(random io.Reader, old []byte, s *Secrets, slots func(*fileCopy) ([]enc.Raw, error)) ([]Write, error) {
	f, _, err := best(old)
	if err != nil {
		return nil, err
	}
	if len(old) != FileSize {
		return nil, fmt.Errorf("%w (%d bytes, repair it first)", ErrDamaged, len(old))
	}
	if _, err := f.open(s.DataKey); err != nil {
		return nil, ErrOtherKey
	}
	c, err := build(random, s, f.generation+1, func() ([]enc.Raw, error) { return slots(f) })
	if err != nil {
		return nil, err
	}
	first, second := int64(0), int64(CopySize)
	if bytes.Equal(old[:CopySize], f.raw) { // the copy that counts is overwritten last
		first, second = second, first
	}
	return []Write{{Offset: first, Data: c}, {Offset: second, Data: c}}, nil
}

func newSlots(random io.Reader, s *Secrets, l Lock) ([]enc.Raw, error) {
	list, err := makeSlots(random, s, l)
	if err != nil {
		return nil, err
	}
	var out []enc.Raw
	for _, x := range list {
		b, err := enc.Marshal(x)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// build makes one copy.
func build(random io.Reader, s *Secrets, generation uint64, slots func() ([]enc.Raw, error)) ([]byte, error) {
	if s.Root != nil {
		s.Backup = backupKey(*s.Root).PublicKey().Bytes()
	}
	plain, err := s.marshal()
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	var bd body
	if bd.Slots, err = slots(); err != nil {
		return nil, err
	}
	aad, err := payloadAAD(generation, bd.Slots)
	if err != nil {
		return nil, err
	}
	if bd.Sealed, err = sealX(random, s.SubKey("key file"), plain, aad); err != nil {
		return nil, err
	}
	raw, err := enc.Marshal(bd)
	if err != nil {
		return nil, err
	}
	if len(raw) > maxBody {
		return nil, fmt.Errorf("%w: %d bytes do not fit", ErrSecrets, len(raw))
	}
	c := make([]byte, 0, CopySize)
	c = append(c, magic...)
	c = binary.BigEndian.AppendUint16(c, Version)
	c = binary.BigEndian.AppendUint64(c, generation)
	c = binary.BigEndian.AppendUint32(c, uint32(len(raw)))
	c = append(c, raw...)
	c = c[:CopySize-sumSize]
	sum := sha256.Sum256(c)
	return append(c, sum[:]...), nil
}

// payloadAAD ties the payload to its generation and to all slots.
func payloadAAD(generation uint64, slots []enc.Raw) ([]byte, error) {
	b, err := enc.Marshal(slots)
	if err != nil {
		return nil, err
	}
	aad := binary.BigEndian.AppendUint16([]byte(aadFile), Version)
	aad = binary.BigEndian.AppendUint64(aad, generation)
	return append(aad, b...), nil
}

// best returns the newest sound copy, and whether the two differ.
func best(b []byte) (f *fileCopy, repair bool, err error) {
	var errs []error
	for i := range 2 {
		c, err := parseCopy(b[min(i*CopySize, len(b)):min((i+1)*CopySize, len(b))])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if f == nil || c.generation > f.generation {
			f = c
		}
	}
	if f != nil {
		return f, !bytes.Equal(b, append(bytes.Clone(f.raw), f.raw...)), nil
	}
	// The most telling of the two errors.
	for _, err := range errs {
		if _, newer := errors.AsType[ErrNewer](err); newer || errors.Is(err, ErrArgon2Bounds) {
			return nil, false, err
		}
	}
	for _, err := range errs {
		if errors.Is(err, ErrDamaged) {
			return nil, false, err
		}
	}
	return nil, false, errs[0]
}

func parseCopy(b []byte) (*fileCopy, error) {
	if len(b) < len(magic)+2 || string(b[:len(magic)]) != magic {
		if len(b) > 0 && len(b) < len(magic)+2 && bytes.HasPrefix([]byte(magic), b[:min(len(b), len(magic))]) {
			return nil, fmt.Errorf("%w (cut short)", ErrDamaged)
		}
		return nil, ErrNotKeyFile
	}
	// A later format may differ in everything behind its version.
	if v := binary.BigEndian.Uint16(b[len(magic):]); v > Version {
		return nil, ErrNewer{Version: v}
	}
	if len(b) != CopySize {
		return nil, fmt.Errorf("%w (cut short)", ErrDamaged)
	}
	content, sum := b[:CopySize-sumSize], b[CopySize-sumSize:]
	if sha256.Sum256(content) != [sumSize]byte(sum) {
		return nil, fmt.Errorf("%w (checksum)", ErrDamaged)
	}
	f := &fileCopy{raw: b, generation: binary.BigEndian.Uint64(content[len(magic)+2:])}
	n := binary.BigEndian.Uint32(content[headerSize-4:])
	if binary.BigEndian.Uint16(content[len(magic):]) != Version || uint64(n) > uint64(maxBody) || f.generation == 0 {
		return nil, fmt.Errorf("%w (header)", ErrDamaged)
	}
	if len(bytes.Trim(content[headerSize+int(n):], "\x00")) != 0 {
		return nil, fmt.Errorf("%w (filling)", ErrDamaged)
	}
	if err := enc.Unmarshal(content[headerSize:headerSize+int(n)], &f.body); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return f, f.readSlots()
}

func (f *fileCopy) readSlots() error {
	if len(f.body.Slots) > maxSlots {
		return fmt.Errorf("%w: %d slots", ErrDamaged, len(f.body.Slots))
	}
	f.slots = make(map[slotKind]slot)
	for _, raw := range f.body.Slots {
		var s slot
		if err := enc.Unmarshal(raw, &s); err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if err := s.check(); err != nil {
			return err
		}
		if _, ok := f.slots[s.Kind]; ok {
			return fmt.Errorf("%w: two slots of a kind", ErrDamaged)
		}
		f.slots[s.Kind] = s
	}
	_, passphrase := f.slots[slotPassphrase]
	_, outside := f.slots[slotOutside]
	if _, open := f.slots[slotOpen]; open == (passphrase || outside) {
		return fmt.Errorf("%w: open and sealed, or neither", ErrDamaged)
	}
	return nil
}

func (f *fileCopy) open(dataKey [32]byte) (*Secrets, error) {
	aad, err := payloadAAD(f.generation, f.body.Slots)
	if err != nil {
		return nil, err
	}
	key := (&Secrets{DataKey: dataKey}).SubKey("key file")
	plain, err := openX(key, f.body.Sealed, aad)
	if err != nil {
		return nil, fmt.Errorf("%w (sealed part)", ErrDamaged)
	}
	defer clear(plain)
	s, err := unmarshalSecrets(dataKey, plain)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return s, nil
}
