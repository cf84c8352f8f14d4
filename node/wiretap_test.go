package node_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/keyfile"
	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// secrets is what nobody but the two may learn, by what it is.
type secrets map[string][]byte

// ofHome adds all that names or opens a home: public and secret keys, ids.
func (s secrets) ofHome(t *testing.T, dir string, passphrase []byte) *keyfile.Secrets {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := keyfile.Open(b, keyfile.Lock{Passphrase: passphrase})
	if err != nil {
		t.Fatal(err)
	}
	device, log := identity.NewDeviceKey(k.Device), identity.NewLogKey(*k.Log).Public()
	public, id, olm, rendezvous := device.Public(), device.ID(), identity.NewOlmKey(k.Olm).Public(), identity.NewRendezvousKey(k.Rendezvous).Public()
	for what, key := range map[string][]byte{
		"root key": k.Person[:], "did:key": []byte(k.Person.String()), "device key": public[:], "device id": id[:], "log key": log[:],
		"Olm key": olm[:], "rendezvous key": rendezvous[:],
		"data key": k.DataKey[:], "root seed": k.Root[:], "log seed": k.Log[:], "device seed": k.Device[:], "Olm seed": k.Olm[:],
		"rendezvous seed": k.Rendezvous[:],
	} {
		s[filepath.Base(dir)+"'s "+what] = key
	}
	return k
}

// ofNode adds the transport key of a running node: it is no identity, but nobody on the line has to know it either.
func (s secrets) ofNode(ctx context.Context, t *testing.T, n *node.Node) {
	t.Helper()
	status, err := n.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for what, id := range map[string]string{"peer id": status.PeerID, "LAN peer id": status.LANPeerID} {
		if id == "" {
			continue
		}
		key, err := peer.Decode(id)
		if err != nil {
			t.Fatal(err)
		}
		s[status.Name+"'s "+what] = []byte(id)
		s[status.Name+"'s raw "+what] = []byte(key)[len(key)-32:] // the Ed25519 key at its end
	}
}

// spellings gives the ways to write a secret: as it is, hex of both cases, and base64 of both alphabets, wherever in a
// longer base64 text it begins.
func spellings(secret []byte) [][]byte {
	lower := hex.EncodeToString(secret)
	out := [][]byte{secret, []byte(lower), []byte(strings.ToUpper(lower))}
	for _, alphabet := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			text := alphabet.EncodeToString(append(make([]byte, before), secret...))
			out = append(out, []byte(text[(before*8+5)/6:(before+len(secret))*8/6]))
		}
	}
	return out
}

// leaks fails the test for every secret that occurs in b.
func (s secrets) leaks(t *testing.T, where string, b []byte) {
	t.Helper()
	for what, secret := range s {
		if len(secret) < 8 {
			t.Fatalf("%s is too short to be looked for: chance would find it", what)
		}
		if i, at := find(b, secret); at >= 0 {
			t.Errorf("%s has %s in spelling %d at byte %d", where, what, i, at)
		}
	}
}

// find looks for a secret in any spelling; at is -1 if b has none.
func find(b, secret []byte) (spelling, at int) {
	for i, spelling := range spellings(secret) {
		if at := bytes.Index(b, spelling); at >= 0 {
			return i, at
		}
	}
	return 0, -1
}

// TestSearchFindsWhatIsThere is the control of the tests below.
func TestSearchFindsWhatIsThere(t *testing.T) {
	key := sha256.Sum256([]byte("a key"))
	for _, hidden := range []string{
		string(key[:]), hex.EncodeToString(key[:]), strings.ToUpper(hex.EncodeToString(key[:])),
		base64.StdEncoding.EncodeToString(key[:]), base64.URLEncoding.EncodeToString(append([]byte("x"), key[:]...)),
		base64.StdEncoding.EncodeToString(slices.Concat([]byte("xy"), key[:], []byte("z"))),
	} {
		if _, at := find([]byte("...."+hidden+"...."), key[:]); at < 0 {
			t.Errorf("a key written as %q is not found", hidden)
		}
	}
}

// overheard is what a wiretap has: every packet of every direction, and what it can open without any secret.
type overheard struct {
	mu      sync.Mutex // guards all fields
	packets int
	bytes   map[[2]int][]byte // one direction after the other, packets joined
	opened  []byte            // the insides of QUIC's first packets, which anybody can decrypt
	initial int
	broken  error
}

func (o *overheard) hear(p testnet.Packet) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.packets++
	way := [2]int{p.From, p.To}
	o.bytes[way] = append(o.bytes[way], p.Data...)
	plain, err := openInitials(p.Data)
	if err != nil && !errors.Is(err, errNotInitial) {
		o.broken = err
	}
	if len(plain) > 0 {
		o.initial++
	}
	o.opened = append(o.opened, plain...)
}

// TestWiretap: all that somebody on the line sees of two people who meet, talk both ways, read, change a name, renew
// sessions and certificates, restart and catch up contains no text, no name, no identity and no key, in any spelling,
// not even inside of those first packets that QUIC encrypts for show.
func TestWiretap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{Latency: 10 * time.Millisecond})
		line := &overheard{bytes: map[[2]int][]byte{}}
		net.Tap(line.hear)
		all := secrets{}
		dirs := [2]string{filepath.Join(t.TempDir(), "ada"), filepath.Join(t.TempDir(), "bob")}
		names := [2]string{"Ada Lindqvist", "Bob Okafor"}
		var clock shifted
		open := func(i int) *node.Node {
			n, err := node.Open(t.Context(), node.Config{Dir: dirs[i], Name: names[i], Network: net.Host(i).Configure, Now: clock.now})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		ada, bob := open(0), open(1)
		defer func() { closeAll(t, ada, bob) }()
		ctx, cancel := context.WithTimeout(t.Context(), 240*time.Hour)
		defer cancel()
		link, err := ada.Invite(ctx)
		if err != nil {
			t.Fatal(err)
		}
		added, err := bob.AddContact(ctx, link, node.AddOptions{Name: "Countess of Somewhere"})
		if err != nil {
			t.Fatal(err)
		}
		all["petname"], all["words"] = []byte("Countess of Somewhere"), []byte(strings.Join(added.Words, " "))
		all["conversation"] = added.Contact.Conversation[:]
		said := 0
		talk := func() {
			for _, n := range []*node.Node{ada, bob} {
				text := fmt.Sprintf("text number %d, with ümläuts and 🧵", said)
				if said == 4 {
					text = strings.Repeat("a long text that goes on and on ", 380)
				}
				said++
				m, err := n.Send(ctx, added.Contact.Conversation, node.Text(text))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := n.Wait(ctx, m.ID, "delivered"); err != nil {
					t.Fatalf("%q: %v", text[:20], err)
				}
				all[fmt.Sprint("text ", said)], all[fmt.Sprint("event ", said)] = []byte(text), m.ID[:]
			}
			for n, who := range map[*node.Node]string{ada: names[1], bob: "countess of somewhere"} {
				if _, err := n.Read(ctx, who, node.ReadQuery{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range 4 {
			talk()
		}
		if err := ada.SetName(ctx, "Augusta Lindqvist"); err != nil {
			t.Fatal(err)
		}
		days := []time.Duration{61, 100, 165} // certificates are renewed after 60 days, and end after 90
		if testing.Short() {                  // beside the race detector
			days = days[:1]
		} else {
			time.Sleep(25 * time.Hour) // sessions renew after a day of use
			talk()
		}
		for _, day := range days {
			clock.set(day * 24 * time.Hour)
			time.Sleep(10 * time.Second)
			talk()
		}
		all.ofNode(ctx, t, ada)
		all.ofNode(ctx, t, bob)
		closeAll(t, bob)
		late, err := ada.Send(ctx, added.Contact.Conversation, node.Text("said while Bob was away"))
		if err != nil {
			t.Fatal(err)
		}
		all["late text"], all["late event"] = []byte("said while Bob was away"), late.ID[:]
		bob = open(1)
		if _, err := ada.Wait(ctx, late.ID, "delivered"); err != nil {
			t.Fatal(err)
		}
		talk()
		all.ofNode(ctx, t, bob) // its LAN key is a new one
		for i, name := range names {
			all[name] = []byte(name)
			all.ofHome(t, dirs[i], nil)
		}
		all["new name"] = []byte("Augusta Lindqvist")
		if got, err := bob.Contact(ctx, "countess of somewhere"); err != nil || got.ProfileName != "Augusta Lindqvist" {
			t.Errorf("Bob knows Ada as %q, %v: then her new name was not on the line either", got.ProfileName, err)
		}

		line.mu.Lock()
		defer line.mu.Unlock()
		seen := 0
		for way, b := range line.bytes {
			seen += len(b)
			all.leaks(t, fmt.Sprintf("the line from %d to %d", way[0], way[1]), b)
		}
		all.leaks(t, "what QUIC's first packets hide", line.opened)
		t.Logf("%d packets, %d bytes, %d first packets opened to %d bytes; looked for %d secrets", line.packets, seen, line.initial, len(line.opened), len(all))
		if line.broken != nil || line.initial < 4 || !bytes.Contains(line.opened, []byte("libp2p")) {
			t.Errorf("the wiretap cannot open QUIC's first packets (%v): it would not see what they leak", line.broken)
		}
		if len(line.bytes) < 2 || seen < 100_000 || len(all) < 50 {
			t.Errorf("the wiretap saw too little to prove anything: %d bytes in %d directions, %d secrets", seen, len(line.bytes), len(all))
		}
	})
}

// errNotInitial is for packets whose keys nobody can compute from the packet.
var errNotInitial = errors.New("not a first packet")

// openInitials opens the Initial packets of QUIC version 1 in a datagram. Their keys come from the connection id that
// the client chose, which stands in the client's packet in clear: RFC 9001, section 5.2.
func openInitials(datagram []byte) ([]byte, error) {
	var out []byte
	for len(datagram) > 0 {
		plain, rest, err := openInitial(datagram)
		if err != nil {
			if len(out) > 0 {
				err = nil
			}
			return out, err
		}
		out, datagram = append(out, plain...), rest
	}
	return out, nil
}

func openInitial(b []byte) (plain, rest []byte, err error) {
	// Long header, type Initial, version 1, then both connection ids. Only the client's are opened: the server's use
	// the same id, which is not in them.
	if len(b) < 7 || b[0]&0xf0 != 0xc0 || binary.BigEndian.Uint32(b[1:]) != 1 {
		return nil, nil, errNotInitial
	}
	dcid := b[6:min(len(b), 6+int(b[5]))]
	at := 6 + len(dcid)
	at += 1 + int(b[at])
	token, n := varint(b[at:])
	at += n + int(token)
	size, n := varint(b[at:])
	at += n
	if at+int(size) > len(b) || size < 20 {
		return nil, nil, errNotInitial
	}
	rest = b[at+int(size):]
	packet := bytes.Clone(b[:at+int(size)])
	secret, err := initialSecret(dcid)
	if err != nil {
		return nil, nil, err
	}
	key, iv, hp := expand(secret, "quic key", 16), expand(secret, "quic iv", 12), expand(secret, "quic hp", 16)
	mask, err := aes.NewCipher(hp)
	if err != nil {
		return nil, nil, err
	}
	var m [16]byte
	mask.Encrypt(m[:], packet[at+4:at+20])
	packet[0] ^= m[0] & 0x0f
	digits := int(packet[0]&3) + 1
	number := uint64(0)
	for i := range digits {
		packet[at+i] ^= m[1+i]
		number = number<<8 | uint64(packet[at+i])
	}
	for i := range 8 {
		iv[4+i] ^= byte(number >> (56 - 8*i))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, nil, err
	}
	if plain, err = gcm.Open(nil, iv, packet[at+digits:], packet[:at+digits]); err != nil {
		return nil, rest, errNotInitial // the server's, or not with the first id any more
	}
	return plain, rest, nil
}

func initialSecret(dcid []byte) ([]byte, error) {
	salt := []byte{0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a}
	first, err := hkdf.Extract(sha256.New, dcid, salt)
	if err != nil {
		return nil, err
	}
	return expand(first, "client in", 32), nil
}

// expand is HKDF-Expand-Label of TLS 1.3 without a context.
func expand(secret []byte, label string, size int) []byte {
	label = "tls13 " + label
	info := append([]byte{byte(size >> 8), byte(size), byte(len(label))}, label...)
	out, err := hkdf.Expand(sha256.New, secret, string(append(info, 0)), size)
	if err != nil {
		panic("bug: " + err.Error())
	}
	return out
}

// varint reads an integer of QUIC.
func varint(b []byte) (v uint64, n int) {
	if len(b) == 0 {
		return 0, 0
	}
	n = 1 << (b[0] >> 6)
	v = uint64(b[0] & 0x3f)
	for i := 1; i < n && i < len(b); i++ {
		v = v<<8 | uint64(b[i])
	}
	return v, n
}
