package contact

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Sizes and counts of an invite (SPEC 2).
const (
	// MaxAddresses is how many addresses an invite carries at most: one in a
	// QR code, up to five in a pasted link.
	MaxAddresses = 5
	// MaxAddress is the longest address, in bytes of its multiaddr or, of a
	// relayed one, of the short form in the payload.
	MaxAddress = 127
	// qrSize is the longest payload, in bytes, that a QR code of version 6
	// holds: 120 B are 188 characters.
	qrSize = 120

	inviteVersion = 1
	inviteHead    = 1 + 16 + 32 + 16 + 4 + 1
	inviteSum     = 4
	// inviteTextSize bounds what ParseInvite looks at; the longest link is a
	// good deal shorter, white space that a mail program added included.
	inviteTextSize = 4096

	linkScheme = "kinloom:i#"
	qrScheme   = "KINLOOM:"
)

// Flags of an invite. The low four bits inform, so an unknown one is ignored
// and dropped; bits 4 to 6 count the addresses; bit 7 marks an invite that
// this version cannot answer.
const (
	flagMany     = 0x01
	flagLAN      = 0x02
	flagCount    = 4
	flagCritical = 0x80
)

// relayed marks, in the length byte of an address, the short form of
// "<address>/p2p/<relay>/p2p-circuit": the bytes of <address>, then the
// relay's Ed25519 key. It saves the 11 bytes that keep a QR code at version 6.
const relayed = 0x80

// relayHead and relayTail stand around the relay's 32-byte key in the full
// multiaddr: code p2p (421), length 38, identity multihash of a libp2p
// Ed25519 public key; then code p2p-circuit (290).
var (
	relayHead = []byte{0xa5, 0x03, 0x26, 0x00, 0x24, 0x08, 0x01, 0x12, 0x20}
	relayTail = []byte{0xa2, 0x02}
)

// Errors of ParseInvite. They tell a person what happened to the link.
var (
	// ErrInviteForeign: the text is not an invite, but may be something else
	// of kinloom's, such as a code that links a device.
	ErrInviteForeign = errors.New("this is not a kinloom invite; an invite begins with kinloom:i#")
	// ErrInviteTruncated: the end is missing.
	ErrInviteTruncated = errors.New("the end of this invite is missing; copy the whole link and try again")
	// ErrInviteBroken: a character was changed.
	ErrInviteBroken = errors.New("this invite was damaged on its way; copy it again or ask for a new one")
	// ErrInviteVersion: it was made by a newer kinloom.
	ErrInviteVersion = errors.New("this invite needs a newer kinloom; update, then open it again")
	// ErrInviteExpired: it was good once. ParseInvite never returns it, as it
	// has no clock: the caller asks Invite.Expired.
	ErrInviteExpired = errors.New("this invite has expired; ask for a new one")
)

// Token is the secret that an invite carries: who shows it was invited.
type Token [16]byte

// String hides the token: it opens a contact, so it belongs in no log.
func (Token) String() string { return "token" }

// GoString hides the token as String does.
func (Token) GoString() string { return "contact.Token{}" }

// Invite is what one person hands to another so that the other's node can
// find this one and be let in. It names the person by a hash only.
type Invite struct {
	// Person is the first 16 bytes of the SHA-256 of the inviter's root key.
	Person [16]byte
	// Transport is the Ed25519 key of the libp2p host to dial.
	Transport [32]byte
	Token     Token
	// Expiry is in hours since 1970; 0 means open until revoked.
	Expiry uint32
	// Many tells that anyone may answer, and that an answer is a request.
	Many bool
	// LAN tells that no address was proven from outside yet.
	LAN bool
	// Addresses are 1 to MaxAddresses multiaddrs in their binary form, best
	// first, without the transport key's own /p2p part.
	Addresses [][]byte
}

// Expires returns when the invite ends; ok is false if it never does.
func (v Invite) Expires() (at time.Time, ok bool) {
	return time.Unix(int64(v.Expiry)*3600, 0).UTC(), v.Expiry != 0
}

// Expired tells whether the invite has ended at now.
func (v Invite) Expired(now time.Time) bool {
	at, ok := v.Expires()
	return ok && !now.Before(at)
}

// ExpiryHours turns a time into the Expiry of an invite, rounded up to the
// next full hour.
func ExpiryHours(at time.Time) uint32 {
	s := at.Unix()
	switch {
	case s <= 0:
		return 1
	case s > (1<<32-2)*3600:
		return 1<<32 - 1
	}
	return uint32((s + 3599) / 3600)
}

// AppendInvite appends the payload of v, at most 714 bytes.
func AppendInvite(dst []byte, v Invite) ([]byte, error) {
	if n := len(v.Addresses); n < 1 || n > MaxAddresses {
		return nil, fmt.Errorf("write invite: %d addresses, want 1 to %d", n, MaxAddresses)
	}
	start := len(dst)
	dst = append(dst, inviteVersion)
	dst = append(dst, v.Person[:]...)
	dst = append(dst, v.Transport[:]...)
	dst = append(dst, v.Token[:]...)
	dst = binary.BigEndian.AppendUint32(dst, v.Expiry)
	flags := byte(len(v.Addresses) << flagCount)
	if v.Many {
		flags |= flagMany
	}
	if v.LAN {
		flags |= flagLAN
	}
	dst = append(dst, flags)
	for _, a := range v.Addresses {
		mark := byte(0)
		if base, key, ok := splitRelayed(a); ok {
			mark, a = relayed, append(bytes.Clone(base), key...)
		}
		if len(a) == 0 || len(a) > MaxAddress {
			return nil, fmt.Errorf("write invite: address of %d bytes, want 1 to %d", len(a), MaxAddress)
		}
		dst = append(dst, mark|byte(len(a)))
		dst = append(dst, a...)
	}
	return appendSum(dst, start), nil
}

// appendSum appends the checksum of what begins at start.
func appendSum(dst []byte, start int) []byte {
	sum := sha256.Sum256(dst[start:])
	return append(dst, sum[:inviteSum]...)
}

// splitRelayed takes a full relayed multiaddr apart.
func splitRelayed(a []byte) (base, key []byte, ok bool) {
	n := len(a) - len(relayHead) - 32 - len(relayTail)
	if n <= 0 || !bytes.HasSuffix(a, relayTail) || !bytes.HasPrefix(a[n:], relayHead) {
		return nil, nil, false
	}
	return a[:n], a[n+len(relayHead):][:32], true
}

// Link returns the form to paste: kinloom:i# and base64url.
func (v Invite) Link() (string, error) {
	b, err := AppendInvite(nil, v)
	if err != nil {
		return "", err
	}
	return linkScheme + base64.RawURLEncoding.EncodeToString(b), nil
}

// QR returns the form for a QR code in alphanumeric mode: KINLOOM: and
// base45. An invite above 120 bytes is refused: give it fewer addresses.
func (v Invite) QR() (string, error) {
	b, err := AppendInvite(nil, v)
	if err != nil {
		return "", err
	}
	if len(b) > qrSize {
		return "", fmt.Errorf("write invite: %d bytes, a QR code holds %d; use one short address", len(b), qrSize)
	}
	return string(appendBase45([]byte(qrScheme), b)), nil
}

// ParseInvite reads either text form. White space that a mail program or a
// terminal put in is passed over, and so are the brackets around a link.
func ParseInvite(text string) (Invite, error) {
	if len(text) > inviteTextSize {
		return Invite{}, ErrInviteForeign
	}
	const around = "\t\r\n<>\"'`"
	text = strings.TrimRight(strings.TrimLeft(text, around+" "), around)
	if rest, ok := strings.CutPrefix(text, qrScheme); ok {
		return parseQR(rest)
	}
	text = strings.TrimRight(strings.Join(strings.Fields(text), ""), around)
	rest, ok := strings.CutPrefix(text, linkScheme)
	switch {
	case ok:
	case text == "":
		return Invite{}, ErrInviteForeign
	case strings.HasPrefix(linkScheme, text) && len(text) >= len("kinloom"), text+":" == qrScheme:
		return Invite{}, ErrInviteTruncated
	case strings.HasPrefix(strings.ToLower(text), "kinloom"):
		return Invite{}, fmt.Errorf("%w: this code is for something else, such as linking a device of one's own; "+
			"never use a code of that kind to add a contact", ErrInviteForeign)
	default:
		return Invite{}, ErrInviteForeign
	}
	b, err := base64.RawURLEncoding.DecodeString(rest)
	if err != nil {
		// A lone last character is the remainder of a cut; anything else
		// that does not decode was changed.
		if len(rest)%4 != 1 {
			return Invite{}, ErrInviteBroken
		}
		if b, err = base64.RawURLEncoding.DecodeString(rest[:len(rest)-1]); err != nil {
			return Invite{}, ErrInviteBroken
		}
		return readInvite(b, false)
	}
	exact := base64.RawURLEncoding.EncodeToString(b) == rest
	return readInvite(b, exact)
}

// parseQR reads what follows KINLOOM: in a QR code. A space is a digit of
// base45, so only line breaks are dropped; spaces at the end are read as
// digits first and, if that makes no sense, taken for padding of a terminal.
func parseQR(rest string) (Invite, error) {
	rest = strings.NewReplacer("\r", "", "\n", "", "\t", "").Replace(rest)
	v, err := readBase45(rest)
	if bare := strings.TrimRight(rest, " "); err != nil && bare != rest {
		if v, again := readBase45(bare); again == nil {
			return v, nil
		}
	}
	return v, err
}

func readBase45(s string) (Invite, error) {
	b, err := decodeBase45(s)
	if errors.Is(err, errBase45Digit) {
		return Invite{}, ErrInviteBroken
	}
	return readInvite(b, err == nil)
}

// ParsePayload reads the binary payload of an invite.
func ParsePayload(b []byte) (Invite, error) {
	return readInvite(b, true)
}

// readInvite reads a payload; exact is false if the text around it was cut
// inside a byte or has a second spelling. What the addresses announce tells
// how long the payload has to be, so a cut one is told from a changed one
// before the checksum is looked at.
func readInvite(b []byte, exact bool) (Invite, error) {
	if len(b) == 0 {
		return Invite{}, ErrInviteTruncated
	}
	if b[0] != inviteVersion {
		// Whatever a later version holds, it ends with this checksum, so a
		// damaged version byte is not taken for a newer program.
		if len(b) > inviteSum && sumFits(b) {
			return Invite{}, ErrInviteVersion
		}
		return Invite{}, ErrInviteBroken
	}
	if len(b) < inviteHead {
		return Invite{}, ErrInviteTruncated
	}
	var v Invite
	r := b[1:]
	r = r[copy(v.Person[:], r):]
	r = r[copy(v.Transport[:], r):]
	r = r[copy(v.Token[:], r):]
	v.Expiry = binary.BigEndian.Uint32(r)
	flags := r[4]
	r = r[5:]
	v.Many, v.LAN = flags&flagMany != 0, flags&flagLAN != 0
	count := int(flags&^flagCritical) >> flagCount
	whole := true
	for range count {
		if len(r) == 0 || len(r) < 1+int(r[0]&^relayed) {
			return Invite{}, ErrInviteTruncated
		}
		n := int(r[0] &^ relayed)
		a, ok := readAddress(r[0]&relayed != 0, r[1:1+n])
		whole = whole && ok
		v.Addresses = append(v.Addresses, a)
		r = r[1+n:]
	}
	if len(r) < inviteSum {
		return Invite{}, ErrInviteTruncated
	}
	switch {
	case len(r) > inviteSum, !sumFits(b), !exact:
		return Invite{}, ErrInviteBroken
	case flags&flagCritical != 0:
		return Invite{}, ErrInviteVersion
	case count < 1 || count > MaxAddresses, !whole:
		return Invite{}, ErrInviteBroken
	}
	return v, nil
}

// sumFits tells whether the last inviteSum bytes are the checksum of the rest.
func sumFits(b []byte) bool {
	n := len(b) - inviteSum
	sum := sha256.Sum256(b[:n])
	return bytes.Equal(sum[:inviteSum], b[n:])
}

// readAddress undoes the short form of a relayed address. A full one that
// has a short form is refused: there is one spelling.
func readAddress(short bool, b []byte) ([]byte, bool) {
	if !short {
		_, _, again := splitRelayed(b)
		return bytes.Clone(b), len(b) > 0 && !again
	}
	if len(b) <= 32 {
		return nil, false
	}
	base, key := b[:len(b)-32], b[len(b)-32:]
	return bytes.Join([][]byte{base, relayHead, key, relayTail}, nil), true
}
