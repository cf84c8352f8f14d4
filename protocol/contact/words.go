package contact

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/keyfile"
)

// Labels that keep the hashes of this protocol apart from all others.
const (
	labelCommit      = "kinloom/contact/1 commitment"
	labelTranscript  = "kinloom/contact/1 transcript"
	labelWords       = "kinloom/contact/1 check words"
	labelFingerprint = "kinloom/contact/1 fingerprint"
)

// WordCount is how many check words there are, 33 bits in all.
const WordCount = 3

const wordBits = 11 // of one word: the list has 2,048

// Fingerprint digits: 16 groups of four are 212 bits.
const (
	fingerprintGroups = 16
	fingerprintRow    = 4
)

// Transport is the Ed25519 key of a libp2p host, as its PeerID holds it.
type Transport [32]byte

// transportHead is what a PeerID of an Ed25519 key has before the key: the
// identity multihash of 36 bytes, and the key's protobuf.
const transportHead = "\x00\x24\x08\x01\x12\x20"

// PeerID returns the binary libp2p PeerID, 38 bytes.
func (t Transport) PeerID() []byte { return append([]byte(transportHead), t[:]...) }

// ParseTransport reads a binary PeerID. Keys that are not Ed25519 keys are
// refused: RSA ones cost the verifier (H17), and no node of ours has any other.
func ParseTransport(id []byte) (Transport, error) {
	key, ok := strings.CutPrefix(string(id), transportHead)
	if !ok || len(key) != len(Transport{}) {
		return Transport{}, ErrTransport
	}
	return Transport([]byte(key)), nil
}

// Channel names the two ends of the connection an exchange runs over. Both
// stand in the transcript, so it fits no other connection.
type Channel struct{ Local, Remote Transport }

// commitment binds a nonce and a material without showing either (SPEC 4.2).
func commitment(nonce [32]byte, material []byte) [32]byte {
	m := sha256.Sum256(material)
	return digest(labelCommit, nonce[:], m[:])
}

// transcript is the hash that both sides sign and that the check words come
// from. Only what was sent or committed to before the other side's nonce was
// known goes in; a field that could still be chosen afterwards would let an
// attacker search for words that match.
func transcript(ask, offer []byte, nonce [32]byte, material []byte, initiator, responder Transport) [32]byte {
	m := sha256.Sum256(material)
	return digest(labelTranscript, ask, offer, nonce[:], m[:], initiator.PeerID(), responder.PeerID())
}

// digest hashes label and parts, each with its length in front.
func digest(label string, parts ...[]byte) [32]byte {
	h := sha256.New()
	var size [4]byte
	write := func(b []byte) {
		binary.BigEndian.PutUint32(size[:], uint32(len(b)))
		h.Write(size[:])
		h.Write(b)
	}
	write([]byte(label))
	for _, p := range parts {
		write(p)
	}
	return [32]byte(h.Sum(nil))
}

// checkWords are 33 bits that HKDF draws from the transcript, as words of the
// list of recovery words, 11 bits each, the highest bits first.
func checkWords(transcript [32]byte) [WordCount]string {
	key, err := hkdf.Key(sha256.New, transcript[:], nil, labelWords, 8)
	if err != nil {
		panic("bug: check words: " + err.Error())
	}
	bits := binary.BigEndian.Uint64(key)
	var words [WordCount]string
	for i := range words {
		words[i] = keyfile.WordAt(int(bits >> (64 - wordBits)))
		bits <<= wordBits
	}
	return words
}

// Fingerprint returns 64 digits in 16 groups, four to a line, that two persons
// compare when they cannot do it live. It is the same on both sides, whoever
// asks. All 212 bits come from one hash over both keys: whoever stands in the
// middle has to find two keys that give both sides the same digits, which
// takes 2^106 tries.
func Fingerprint(a, b identity.PersonID) string {
	if string(a[:]) > string(b[:]) {
		a, b = b, a
	}
	key, err := hkdf.Key(sha512.New, append(a[:], b[:]...), nil, labelFingerprint, 8*fingerprintGroups)
	if err != nil {
		panic("bug: fingerprint: " + err.Error())
	}
	var out strings.Builder
	for i := range fingerprintGroups {
		switch {
		case i == 0:
		case i%fingerprintRow == 0:
			out.WriteByte('\n')
		default:
			out.WriteByte(' ')
		}
		fmt.Fprintf(&out, "%04d", binary.BigEndian.Uint64(key[8*i:])%10000)
	}
	return out.String()
}
