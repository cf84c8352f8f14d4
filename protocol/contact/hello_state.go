package contact

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/kinloom/kinloom/identity"
)

// ErrHelloVersion means that there is no version in common.
var ErrHelloVersion = errors.New("the other side speaks no version that this kinloom does; update both")

// Pair is this device, another one, and the secret that the two share.
type Pair struct {
	Own    identity.DeviceID
	Device identity.DeviceID
	Secret [32]byte
}

// String names the device and hides the secret.
func (p Pair) String() string { return "pair with " + p.Device.Short() }

// GoString hides the secret as String does.
func (p Pair) GoString() string { return p.String() }

// Greeting is what a hello told.
type Greeting struct {
	// Known tells that the other side is the contact's device Device. What
	// it proves is that the host it speaks from was told the pair secret by
	// that device, or is it.
	Known  bool
	Device identity.DeviceID
	// Version is the highest version of both sides.
	Version uint16
	// Caps and Limits are empty unless Known.
	Caps   []string
	Limits Limits
}

// About is what a device tells of itself in a hello.
type About struct {
	Versions []uint16 // best first; nil means HelloVersion alone
	Caps     []string
	Limits   Limits
}

func (a About) versions() []uint16 {
	if len(a.Versions) == 0 {
		return []uint16{HelloVersion}
	}
	return a.Versions
}

// tag is what one device of a pair, speaker, shows to the other over one connection
// (SPEC 5.2).
func tag(p Pair, dialer, listener Transport, speaker identity.DeviceID) Tag {
	h := hmac.New(sha256.New, p.Secret[:])
	h.Write([]byte(HelloID))
	h.Write([]byte{0})
	h.Write(dialer.PeerID())
	h.Write(listener.PeerID())
	h.Write(speaker[:])
	return Tag(h.Sum(nil)[:TagSize])
}

// HelloDialer is the side that dialled.
type HelloDialer struct {
	about   About
	channel Channel
	pairs   []Pair
	random  io.Reader
	asked   bool
	over    bool
}

// NewHelloDialer prepares a hello. It names at most MaxTags pairs, the first
// ones: the caller puts those first that may be there.
func NewHelloDialer(about About, channel Channel, pairs []Pair, random io.Reader) *HelloDialer {
	return &HelloDialer{about: about, channel: channel, pairs: pairs[:min(len(pairs), MaxTags)], random: random}
}

// Start returns the hello. It can be called once.
func (d *HelloDialer) Start() ([]byte, error) {
	if d.asked {
		return nil, ErrOver
	}
	d.asked = true
	classes := tagClasses()
	i := slices.IndexFunc(classes, func(n int) bool { return len(d.pairs) <= n })
	tags := make([]Tag, classes[i])
	for i, p := range d.pairs {
		tags[i] = tag(p, d.channel.Local, d.channel.Remote, p.Own)
	}
	flat := make([]byte, 0, len(tags)*TagSize)
	for i := range tags {
		if i >= len(d.pairs) {
			if _, err := io.ReadFull(d.random, tags[i][:]); err != nil {
				return nil, fmt.Errorf("draw tags: %w", err)
			}
		}
	}
	if err := shuffle(tags, d.random); err != nil {
		return nil, err
	}
	for _, t := range tags {
		flat = append(flat, t[:]...)
	}
	return Hello{Versions: d.about.versions(), Caps: d.about.Caps, Limits: d.about.Limits, Tags: flat}.Append(nil)
}

// Handle takes the answer.
func (d *HelloDialer) Handle(b []byte) (Greeting, error) {
	if !d.asked || d.over {
		return Greeting{}, ErrOver
	}
	d.over = true
	m, err := ParseAnswer(b)
	if err != nil {
		return Greeting{}, err
	}
	version, err := common(d.about.versions(), m.Versions)
	if err != nil {
		return Greeting{}, err
	}
	g := Greeting{Version: version}
	for _, p := range d.pairs {
		want := tag(p, d.channel.Local, d.channel.Remote, p.Device)
		if hmac.Equal(want[:], m.Tag[:]) {
			g.Known, g.Device, g.Caps, g.Limits = true, p.Device, m.Caps, m.Limits
		}
	}
	return g, nil
}

// HelloListener is the side that was dialled.
type HelloListener struct {
	about   About
	channel Channel
	pairs   []Pair
	random  io.Reader
	over    bool
}

// NewHelloListener waits for a hello. pairs are all that may call.
func NewHelloListener(about About, channel Channel, pairs []Pair, random io.Reader) *HelloListener {
	return &HelloListener{about: about, channel: channel, pairs: pairs, random: random}
}

// Handle takes the hello and returns the answer, which has one length for
// everybody and takes the same work. With ErrHelloVersion there is an answer
// too: it is how the other side learns which versions there are.
func (l *HelloListener) Handle(b []byte) ([]byte, Greeting, error) {
	if l.over {
		return nil, Greeting{}, ErrOver
	}
	l.over = true
	m, err := ParseHello(b)
	if err != nil {
		return nil, Greeting{}, err
	}
	answer := Answer{Versions: l.about.versions()}
	if _, err := io.ReadFull(l.random, answer.Tag[:]); err != nil {
		return nil, Greeting{}, fmt.Errorf("draw tag: %w", err)
	}
	shown := make(map[Tag]bool, MaxTags)
	for t := range slices.Chunk(m.Tags, TagSize) {
		shown[Tag(t)] = true
	}
	var g Greeting
	for _, p := range l.pairs {
		if shown[tag(p, l.channel.Remote, l.channel.Local, p.Device)] && !g.Known {
			g.Known, g.Device = true, p.Device
			answer.Tag = tag(p, l.channel.Remote, l.channel.Local, p.Own)
		}
	}
	if g.Known {
		g.Caps, g.Limits = m.Caps, m.Limits
		answer.Caps, answer.Limits = l.about.Caps, l.about.Limits
	}
	out, err := answer.Append(nil)
	if err != nil {
		return nil, Greeting{}, err
	}
	if g.Version, err = common(l.about.versions(), m.Versions); err != nil {
		return out, Greeting{}, err
	}
	return out, g, nil
}

// common is the highest version that stands in both lists.
func common(a, b []uint16) (uint16, error) {
	best := uint16(0)
	for _, v := range a {
		if slices.Contains(b, v) {
			best = max(best, v)
		}
	}
	if best == 0 {
		return 0, ErrHelloVersion
	}
	return best, nil
}

// shuffle puts tags in an order drawn from random (Fisher and Yates). A draw
// of 64 bits leaves a bias below 2^-53.
func shuffle(tags []Tag, random io.Reader) error {
	var b [8]byte
	for i := len(tags) - 1; i > 0; i-- {
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return fmt.Errorf("draw order of tags: %w", err)
		}
		j := int(binary.BigEndian.Uint64(b[:]) % uint64(i+1))
		tags[i], tags[j] = tags[j], tags[i]
	}
	return nil
}
