package serverlist

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kinloom/kinloom/identity"
)

// Bounds of a list.
const (
	// MaxList is the size of a file, in bytes: MaxServers addresses as they are, and all
	// signatures.
	MaxList = 48 << 10
	// MaxServers is how many addresses a list has; MaxSigners how many signatures.
	MaxServers = 128
	MaxSigners = 16
	// MaxName is the length of a name, in bytes; MaxAddress that of an address.
	MaxName    = 64
	MaxAddress = 256
	// MaxLife is the longest time from a list's date to its end. What is older says
	// little about which servers are there, and somebody may have lost a key since.
	MaxLife = 366 * 24 * time.Hour
)

// Errors of the bytes. They come with the number of the line.
var (
	ErrSize      = errors.New("list of servers is empty or too large")
	ErrList      = errors.New("not a list of servers, or a line that does not belong there")
	ErrVersion   = errors.New("list of servers in a form that this version does not know")
	ErrName      = errors.New("not a name")
	ErrTime      = errors.New("not a time like 2026-03-01T12:00:00Z, or an end that is not within a year of the date")
	ErrServer    = errors.New("not the address of a server, or one that stands there already, or too many")
	ErrSignature = errors.New("not a key and a signature, or of a key that signed already, or too many")
)

const (
	first  = "kinloom server list 1"
	ending = "end"
	moment = "2006-01-02T15:04:05Z"
)

// List is a list of servers as it stands in a file.
type List struct {
	Name       string
	Issued     int64 // unix seconds
	Expires    int64
	Servers    []Server
	Signatures []Signature
}

// Server is one address of a server. One that has several stands there several times.
type Server struct {
	Address string // full, with the /p2p part; checked by its looks alone
	Name    string // for those who read the list; may be empty
}

// Signature says that somebody stands for the list. Nothing has verified it.
type Signature struct {
	Key       identity.ListPublic
	Signature [identity.SignatureSize]byte
}

// Body returns what is signed: all lines in front of the signatures.
func (l List) Body() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nname %s\nissued %s\nexpires %s\n", first, l.Name, stamp(l.Issued), stamp(l.Expires))
	for _, s := range l.Servers {
		b.WriteString("server " + s.Address)
		if s.Name != "" {
			b.WriteString(" " + s.Name)
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// Append appends the file. It fails where ParseList would refuse it, with its errors.
func (l List) Append(dst []byte) ([]byte, error) {
	b := l.Body()
	for _, s := range l.Signatures {
		b = fmt.Appendf(b, "signature %x %x\n", s.Key, s.Signature)
	}
	b = append(b, ending+"\n"...)
	if _, err := ParseList(b); err != nil {
		return nil, err
	}
	return append(dst, b...), nil
}

func stamp(unix int64) string { return time.Unix(unix, 0).UTC().Format(moment) }

// ParseList reads a file. There is one spelling of each list, so that what was signed is
// what stands there. Errors: ErrSize, ErrList, ErrVersion, ErrName, ErrTime, ErrServer,
// ErrSignature.
func ParseList(b []byte) (List, error) {
	if len(b) == 0 || len(b) > MaxList {
		return List{}, ErrSize
	}
	p := parser{rest: string(b)}
	if line := p.line(); line != first {
		version, ok := strings.CutPrefix(line, first[:len(first)-1])
		if ok && version != "" && strings.Trim(version, "0123456789") == "" {
			return List{}, p.fails(ErrVersion)
		}
		return List{}, p.fails(ErrList)
	}
	var l List
	if err := p.head(&l); err != nil {
		return List{}, err
	}
	line := p.line()
	for ; strings.HasPrefix(line, "server "); line = p.line() {
		if err := p.server(&l, line); err != nil {
			return List{}, err
		}
	}
	if len(l.Servers) == 0 {
		return List{}, p.fails(ErrList)
	}
	for ; strings.HasPrefix(line, "signature "); line = p.line() {
		if err := p.signature(&l, line); err != nil {
			return List{}, err
		}
	}
	if line != ending || p.rest != "" {
		return List{}, p.fails(ErrList)
	}
	return l, nil
}

// parser goes through the lines.
type parser struct {
	rest   string
	number int
}

// line takes the next line; one without its end is an empty one, which stands nowhere.
func (p *parser) line() string {
	p.number++
	line, rest, ok := strings.Cut(p.rest, "\n")
	if !ok {
		p.rest = ""
		return ""
	}
	p.rest = rest
	return line
}

func (p *parser) fails(err error) error { return fmt.Errorf("line %d: %w", p.number, err) }

// head reads name, date and end.
func (p *parser) head(l *List) error {
	name, ok := strings.CutPrefix(p.line(), "name ")
	if !ok {
		return p.fails(ErrList)
	}
	if l.Name = name; !isName(name) {
		return p.fails(ErrName)
	}
	for _, at := range []struct {
		word string
		to   *int64
	}{{"issued ", &l.Issued}, {"expires ", &l.Expires}} {
		text, ok := strings.CutPrefix(p.line(), at.word)
		if !ok {
			return p.fails(ErrList)
		}
		t, err := time.Parse(moment, text)
		if err != nil || t.Format(moment) != text {
			return p.fails(ErrTime)
		}
		*at.to = t.Unix()
	}
	if l.Issued < 0 || l.Expires <= l.Issued || l.Expires-l.Issued > int64(MaxLife/time.Second) {
		return p.fails(ErrTime)
	}
	return nil
}

// isName reports whether s may name a list or a server: characters that print, blanks
// only between them. What writes backwards or hides is no such character.
func isName(s string) bool {
	if s == "" || len(s) > MaxName || s != strings.TrimSpace(s) || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

func (p *parser) server(l *List, line string) error {
	address, name, named := strings.Cut(strings.TrimPrefix(line, "server "), " ")
	if !isAddress(address) || len(l.Servers) == MaxServers {
		return p.fails(ErrServer)
	}
	if named && !isName(name) {
		return p.fails(ErrName)
	}
	for _, s := range l.Servers {
		if s.Address == address {
			return p.fails(ErrServer)
		}
	}
	l.Servers = append(l.Servers, Server{address, name})
	return nil
}

// A transport id of an Ed25519 key, as it is always written.
const (
	idStart  = "12D3KooW"
	idLength = 52
	base58   = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
)

// isAddress reports whether s looks like /something/.../p2p/12D3KooW....
func isAddress(s string) bool {
	way, id, ok := strings.Cut(s, "/p2p/")
	if !ok || len(s) > MaxAddress || len(way) < 2 || way[0] != '/' || len(id) != idLength || !strings.HasPrefix(id, idStart) {
		return false
	}
	for _, r := range way {
		if r <= ' ' || r > '~' {
			return false
		}
	}
	return strings.Trim(id, base58) == ""
}

func (p *parser) signature(l *List, line string) error {
	key, sig, _ := strings.Cut(strings.TrimPrefix(line, "signature "), " ")
	var s Signature
	if !unhex(s.Key[:], key) || !unhex(s.Signature[:], sig) || len(l.Signatures) == MaxSigners {
		return p.fails(ErrSignature)
	}
	for _, other := range l.Signatures {
		if other.Key == s.Key {
			return p.fails(ErrSignature)
		}
	}
	l.Signatures = append(l.Signatures, s)
	return nil
}

// unhex reads lower hex of exactly len(dst) bytes.
func unhex(dst []byte, s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == len(dst) && copy(dst, b) == len(dst) && hex.EncodeToString(b) == s
}
