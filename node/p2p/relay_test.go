package p2p

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// TestCircuitAddrs: what a relay says about itself is used within bounds.
func TestCircuitAddrs(t *testing.T) {
	relay := newID(t)
	suffix := "/p2p/" + relay.String() + "/p2p-circuit"
	path := Path{Addr: ma.StringCast("/ip4/8.8.8.8/udp/443/quic-v1")}
	var named [][]byte
	for _, a := range []string{
		"/ip4/8.8.8.8/udp/443/quic-v1/p2p/" + relay.String(),
		"/ip4/8.8.4.4/udp/1/quic-v1", // a second one of a kind
		"/ip4/192.168.1.1/tcp/443",
		"/ip4/127.0.0.1/tcp/22",
		"/ip4/8.8.8.8/tcp/443/p2p/" + relay.String(),
		"/ip4/8.8.8.8/tcp/443/tls/ws",
		"/ip6/2606:4700::1/udp/443/quic-v1",
		"/ip6/2606:4700::1/tcp/443",
		"/ip4/8.8.8.8/tcp/1" + suffix,
		"/dns4/example.org/tcp/443",
	} {
		named = append(named, ma.StringCast(a).Bytes())
	}
	named = append(named, []byte("rubbish"))
	var got []string
	for _, a := range circuitAddrs(relay, path, named) {
		if !strings.HasSuffix(a.String(), suffix) {
			t.Errorf("%v does not lead over the relay", a)
		}
		got = append(got, strings.TrimSuffix(a.String(), suffix))
		if plain, ok := usable(a); !ok || !plain.Equal(a) {
			t.Errorf("%v is not usable", a)
		}
	}
	want := []string{"/ip4/8.8.8.8/udp/443/quic-v1", "/ip6/2606:4700::1/udp/443/quic-v1", "/ip4/8.8.8.8/tcp/443", "/ip6/2606:4700::1/tcp/443"}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got %v, want %v", got, want)
	}
	path.Inbound = true // the relay dialled: its port of the moment is no address
	if got := circuitAddrs(relay, path, nil); len(got) != 0 {
		t.Errorf("inbound: got %v, want none", got)
	}
}

func TestPunchable(t *testing.T) {
	addrs := []ma.Multiaddr{
		ma.StringCast("/ip4/192.168.1.1/tcp/1"), ma.StringCast("/ip4/127.0.0.1/udp/1/quic-v1"), ma.StringCast("/dns4/example.org/tcp/1"),
		ma.StringCast("/ip4/8.8.8.8/udp/1/quic-v1/p2p/" + newID(t).String() + "/p2p-circuit"),
	}
	if got := punchable(addrs); len(got) != 0 {
		t.Errorf("got %v, want none", got)
	}
	for range 100 {
		addrs = append(addrs, ma.StringCast("/ip4/8.8.8.8/udp/1/quic-v1"))
	}
	if got := punchable(addrs); len(got) != maxPunch {
		t.Errorf("%d of a peer's addresses dialled, want %d", len(got), maxPunch)
	}
}

// TestArrivals: who comes over a relay is counted apart from the relay, and only
// relays that were asked to bring others may.
func TestArrivals(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var kicked []peer.ID
	g := newGuard(func(p peer.ID) { kicked = append(kicked, p) })
	known := make(map[peer.ID]bool)
	g.trusted = func(p peer.ID) bool { return known[p] }
	relay := newID(t)
	end := func() {}
	if _, err := g.arrive(relay, newID(t), end, now); !errors.Is(err, errGuardRelay) {
		t.Errorf("a relay that nobody asked: %v", err)
	}
	g.relay(relay, true)
	n := 0
	for range 100 {
		if in, err := g.arrive(relay, newID(t), end, now); err == nil {
			n++
			g.ended(in)
		}
	}
	if n != CircuitBurst {
		t.Errorf("%d strangers in the same instant, want %d", n, CircuitBurst)
	}
	var open []*circuitIn
	for range 100 {
		p := newID(t)
		known[p] = true
		if in, err := g.arrive(relay, p, end, now); err == nil {
			open = append(open, in)
		}
	}
	if len(open) != MaxCircuitsRelay {
		t.Errorf("%d at a time, want %d", len(open), MaxCircuitsRelay)
	}
	for _, in := range open {
		g.ended(in)
	}

	// Streams of those who came over it are counted together, and not against the
	// relay's subnet.
	from := ma.StringCast("/ip4/8.8.8.8/udp/1/quic-v1/p2p/" + relay.String() + "/p2p-circuit")
	n = 0
	for range 20 {
		p := newID(t)
		g.connected(p, from)
		for range StreamBurstPeer {
			if g.stream(p, now) == nil {
				n++
			}
		}
	}
	if n != StreamBurstSubnet {
		t.Errorf("20 peers over one relay: got %d streams, want %d", n, StreamBurstSubnet)
	}
	neighbour := newID(t)
	g.connected(neighbour, ma.StringCast("/ip4/8.8.8.9/udp/1/quic-v1"))
	if err := g.stream(neighbour, now); err != nil {
		t.Error("the relay's subnet pays for them:", err)
	}
	// A relay is told to open streams by others; it is not banned for it.
	n = 0
	for range 2 * relayStreams * StreamBurstPeer {
		if g.stream(relay, now) == nil {
			n++
		}
	}
	if n != relayStreams*StreamBurstPeer {
		t.Errorf("got %d streams of the relay, want %d", n, relayStreams*StreamBurstPeer)
	}
	if g.banned(relay, now) || len(kicked) > 0 {
		t.Error("the relay is banned for what strangers make it do")
	}
	g.relay(relay, false)
	if _, err := g.arrive(relay, newID(t), end, now.Add(time.Hour)); err == nil {
		t.Error("the relay brings others after it was given up")
	}
}

// TestStrangersCircuitsGo: strangers who come over a relay take half of the places, for
// a few seconds each, and give way to those who come after them.
func TestStrangersCircuitsGo(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	g := newGuard(nil)
	var cut []peer.ID
	contact, relay := newID(t), newID(t)
	g.trusted = func(p peer.ID) bool { return p == contact }
	g.relay(relay, true)
	come := func(p peer.ID) {
		t.Helper()
		in, err := g.arrive(relay, p, func() { cut = append(cut, p) }, now)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.came(in, p); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
	}
	var strangers []peer.ID
	for range 3 * MaxCircuitsRelay {
		strangers = append(strangers, newID(t))
		come(strangers[len(strangers)-1])
	}
	if got := len(g.relays[relay].all); got != MaxCircuitsRelay/2 || len(cut) != len(strangers)-got || cut[0] != strangers[0] {
		t.Errorf("%d strangers stay and %d went, want %d to stay and the first to go first", got, len(cut), MaxCircuitsRelay/2)
	}
	come(contact)
	g.recognise(strangers[len(strangers)-1], "") // it has shown an invite
	cut = nil
	if g.strangers(now); len(cut) != 0 {
		t.Errorf("%d strangers go before their time", len(cut))
	}
	now = now.Add(CircuitStranger)
	if g.strangers(now); len(cut) != MaxCircuitsRelay/2-1 {
		t.Errorf("%d strangers go after their time, want %d", len(cut), MaxCircuitsRelay/2-1)
	}
	if got := len(g.relays[relay].all); got != 2 {
		t.Errorf("%d stay, want the contact and who has shown an invite", got)
	}
}

// TestSilentCircuitsGo: who says nothing before the handshake takes half of the places
// at most, two for one peer, and the oldest goes; who is known comes in whatever strangers
// do, and is not ended by them.
func TestSilentCircuitsGo(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	g := newGuard(nil)
	contact, relay := newID(t), newID(t)
	g.trusted = func(p peer.ID) bool { return p == contact }
	g.relay(relay, true)
	var ended []*circuitIn
	come := func(p peer.ID) (in *circuitIn) {
		in, err := g.arrive(relay, p, func() { ended = append(ended, in) }, now)
		if err != nil {
			return nil
		}
		return in
	}
	one := newID(t)
	var its []*circuitIn
	for range MaxCircuitsFrom + 1 {
		its = append(its, come(one))
	}
	if c := g.relays[relay]; len(c.all) != MaxCircuitsFrom || !its[0].gone || its[1].gone {
		t.Errorf("%d of one peer, want %d, and the first gone", len(c.all), MaxCircuitsFrom)
	}
	if err := g.came(its[0], one); err == nil {
		t.Error("one that was ended comes in after all")
	}
	for range MaxCircuitsRelay/2 + 1 { // a half that has said who it is
		p := newID(t)
		if err := g.came(come(p), p); err != nil {
			t.Error(err)
		}
	}
	for come(newID(t)) != nil { // and as many as may that have not
	}
	c := g.relays[relay]
	silent, strangers := 0, 0
	for _, in := range c.all {
		if in.silent() {
			silent++
		} else {
			strangers++
		}
	}
	if silent != MaxCircuitsRelay/2 || strangers != MaxCircuitsRelay/2 {
		t.Errorf("%d silent and %d strangers, want %d of each", silent, strangers, MaxCircuitsRelay/2)
	}
	in := come(contact)
	if in == nil || len(c.all) != MaxCircuitsRelay {
		t.Fatalf("a contact does not come in: %d connections", len(c.all))
	}
	for range 100 {
		now = now.Add(time.Second)
		come(newID(t))
	}
	if err := g.came(in, contact); err != nil {
		t.Error("strangers ended a contact's before the handshake:", err)
	}
	if len(c.all) > MaxCircuitsRelay {
		t.Errorf("%d connections", len(c.all))
	}
	// A relay that lies about who comes gains nothing after the handshake.
	liar := come(contact)
	p := newID(t)
	if err := g.came(liar, p); err != nil {
		t.Error(err)
	}
	if liar.known {
		t.Error("a stranger is known by the name of another")
	}
}

// TestOnePersonsCircuits: a contact with several keys has a quarter of the places, before
// the handshake and after it, and loses the oldest of their own: another one comes in.
func TestOnePersonsCircuits(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	relay, other := newID(t), newID(t)
	keys := []peer.ID{newID(t), newID(t), newID(t), newID(t)}
	n, err := New(Config{
		Key: newKey(t), Trusted: func(p peer.ID) bool { return p == other || slices.Contains(keys, p) },
		Owner: func(p peer.ID) string {
			if slices.Contains(keys, p) {
				return "one"
			}
			return ""
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	g := n.guard
	g.relay(relay, true)
	come := func(p peer.ID) *circuitIn {
		t.Helper()
		in, err := g.arrive(relay, p, func() {}, now)
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	c := g.relays[relay]
	stays := come(other)
	if err := g.came(stays, other); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * len(keys) { // without a handshake, and two of one key
		come(keys[i%len(keys)])
	}
	if len(c.all) != 1+MaxCircuitsPerson {
		t.Errorf("%d places before the handshake, want %d", len(c.all)-1, MaxCircuitsPerson)
	}
	var first *circuitIn
	for i := range MaxCircuitsRelay { // whoever the relay says that they are
		in, p := come(newID(t)), keys[i%len(keys)]
		if err := g.came(in, p); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = in
		}
	}
	if len(c.all) != 1+MaxCircuitsPerson || !first.gone || stays.gone {
		t.Errorf("%d places after it, want %d, the first gone: %v, another's gone: %v", len(c.all)-1, MaxCircuitsPerson, first.gone, stays.gone)
	}
	for range MaxCircuitsRelay { // under keys that they have told nobody, until a cell opens
		p := newID(t)
		if err := g.came(come(p), p); err != nil {
			t.Fatal(err)
		}
		n.Recognise(p, "one")
	}
	if len(c.all) != 1+MaxCircuitsPerson || stays.gone {
		t.Errorf("%d places under new keys, want %d, another's gone: %v", len(c.all)-1, MaxCircuitsPerson, stays.gone)
	}
}

func TestProfiles(t *testing.T) {
	for profile, want := range map[Profile]struct {
		low, high, relays int
		serves, lanOnly   bool
	}{
		"":         {64, 96, 3, true, false},
		Home:       {64, 96, 3, true, false},
		Server:     {160, 192, 0, true, false},
		Client:     {8, 12, 1, false, false},
		LANProfile: {64, 96, 0, false, true},
	} {
		cfg := Config{Key: newKey(t), Profile: profile}
		cfg.setProfile()
		if cfg.ConnLow != want.low || cfg.ConnHigh != want.high || cfg.Profile.relays() != want.relays ||
			cfg.Profile.serves() != want.serves || cfg.LANOnly != want.lanOnly || cfg.validate() != nil {
			t.Errorf("%q: got %+v", profile, cfg)
		}
	}
	cfg := Config{Key: newKey(t), Profile: Server, LANOnly: true}
	if cfg.setProfile(); cfg.Profile != LANProfile {
		t.Errorf("a server on the LAN only is %q", cfg.Profile)
	}
	if _, err := New(Config{Key: newKey(t), Profile: "tor"}); err == nil {
		t.Error("an unknown profile is accepted")
	}
	err := error(&ListenError{Addr: ma.StringCast("/ip4/0.0.0.0/tcp/443"), Err: syscall.EACCES})
	if !strings.Contains(err.Error(), "below 1024") {
		t.Errorf("no right to bind: %v", err)
	}
}
