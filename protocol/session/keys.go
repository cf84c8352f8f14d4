package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/event"
)

// Labels of SPEC 2 and 3.
const (
	labelBundle  = "kinloom/bundle/1"
	labelStart   = "kinloom/start/1"
	labelSession = "kinloom/session/1"
	labelBinding = "kinloom/binding/1"
	labelAAD     = "kinloom/msg/1"
)

// Forms of a cell.
const (
	formPlain = 0
	formStart = 1
)

// transcript is everything that both sides agree on when a session starts.
type transcript struct {
	capsule   *Capsule
	recipient identity.DeviceID
	bundle    [8]byte
	olmKey    [32]byte
	enc       []byte // 1120 B
}

func (t *transcript) hash() [32]byte {
	c := t.capsule
	b := make([]byte, 0, 2048)
	b = append(b, labelSession...)
	b = binary.BigEndian.AppendUint16(b, c.Suite)
	b = binary.BigEndian.AppendUint32(b, c.Epoch)
	for _, f := range [][32]byte{c.Record, c.YourRecord, c.Head, c.YourHead, c.Device, t.recipient} {
		b = append(b, f[:]...)
	}
	b = append(b, t.bundle[:]...)
	for _, f := range [][32]byte{t.olmKey, c.OlmBase, c.OlmRatchet} {
		b = append(b, f[:]...)
	}
	b = append(b, t.enc...)
	b = append(b, c.Previous[:]...)
	return sha256.Sum256(b)
}

// schedule is what a session is made of, see SPEC 3. Direction 0 is from the
// one who started it.
type schedule struct {
	id       ID
	next     [32]byte
	key, tag [2][32]byte
}

// past is what a renewal takes along from the session before; zero without one.
type past struct {
	next  [32]byte // of its schedule, so that breaking the start alone gives nothing
	carry [32]byte // fresh, under its ratchet, so that a start to stolen keys does not undo its healing
}

// newSchedule derives it from the HPKE export, the past and the hash of the
// transcript.
func newSchedule(export []byte, p past, transcript [32]byte) schedule {
	secret := append(append(append([]byte(nil), export...), p.next[:]...), p.carry[:]...)
	root := must(hkdf.Extract(sha256.New, secret, transcript[:]))
	expand := func(label string, n int) []byte { return must(hkdf.Expand(sha256.New, root, label, n)) }
	s := schedule{id: ID(expand(labelSession+" id", 16)), next: [32]byte(expand(labelSession+" next", 32))}
	for d := range 2 {
		s.key[d] = [32]byte(expand(labelSession+" key"+string(rune(d)), 32))
		s.tag[d] = [32]byte(expand(labelSession+" tag"+string(rune(d)), 32))
	}
	return s
}

// must is for functions that fail on lengths fixed at compile time only.
func must[T any](v T, err error) T {
	if err != nil {
		panic("bug: " + err.Error())
	}
	return v
}

// binding is the hash that each inner plaintext begins with.
func binding(transcript [32]byte, seq uint64, from, to identity.DeviceID, conversation event.ConversationID) [32]byte {
	b := make([]byte, 0, len(labelBinding)+32+8+3*32)
	b = append(b, labelBinding...)
	b = append(b, transcript[:]...)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = append(b, from[:]...)
	b = append(b, to[:]...)
	b = append(b, conversation[:]...)
	return sha256.Sum256(b)
}

func appendAAD(dst []byte, session ID, from, to identity.DeviceID, direction, form byte) []byte {
	dst = append(dst, labelAAD...)
	dst = binary.BigEndian.AppendUint16(dst, identity.Suite1)
	dst = binary.BigEndian.AppendUint16(dst, Version)
	dst = append(dst, session[:]...)
	dst = append(dst, from[:]...)
	dst = append(dst, to[:]...)
	return append(dst, direction, form)
}

func newAEAD(key [32]byte) cipher.AEAD { return must(cipher.NewGCM(must(aes.NewCipher(key[:])))) }

// tagger computes tags under one key. Building the HMAC once makes looking for
// a tag among many sessions cheap.
type tagger struct{ h hash.Hash }

func newTagger(key [32]byte) tagger { return tagger{hmac.New(sha256.New, key[:])} }

func (t tagger) tag(nonce []byte) [tagSize]byte {
	var sum [32]byte
	t.h.Reset()
	t.h.Write(nonce)
	return [tagSize]byte(t.h.Sum(sum[:0])[:tagSize])
}

// secrets are what a bundle is made of, all from one seed.
type secrets struct {
	id         [8]byte
	intro      [32]byte
	olm, xwing [32]byte
}

func newSecrets(seed [32]byte) secrets {
	key := func(label string, n int) []byte {
		return must(hkdf.Key(sha256.New, seed[:], nil, labelBundle+" "+label, n))
	}
	return secrets{
		id: [8]byte(key("id", 8)), intro: [32]byte(key("intro", 32)),
		olm: [32]byte(key("olm", 32)), xwing: [32]byte(key("xwing", 32)),
	}
}

// startInfo binds an encapsulation to suite, bundle and recipient.
func startInfo(bundle [8]byte, to identity.DeviceID) []byte {
	b := binary.BigEndian.AppendUint16([]byte(labelStart), identity.Suite1)
	b = append(b, bundle[:]...)
	return append(b, to[:]...)
}
