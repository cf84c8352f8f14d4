package p2p

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	pb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/util"
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
	relay := newID(t)
	if _, err := g.arrive(relay, now); !errors.Is(err, errGuardRelay) {
		t.Errorf("a relay that nobody asked: %v", err)
	}
	g.relay(relay, true)
	var open []*circuitIn
	for range 100 {
		if in, err := g.arrive(relay, now); err == nil {
			open = append(open, in)
		}
	}
	if len(open) != MaxCircuitsRelay {
		t.Errorf("%d at a time, want %d", len(open), MaxCircuitsRelay)
	}
	for _, in := range open {
		g.ended(in)
	}
	n := 0
	for range 100 {
		if in, err := g.arrive(relay, now); err == nil {
			n++
			g.ended(in)
		}
	}
	if n != CircuitBurst-MaxCircuitsRelay {
		t.Errorf("%d more in the same instant, want %d", n, CircuitBurst-MaxCircuitsRelay)
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
	for range StreamBurstPeer + 2*StrikesToBan {
		_ = g.stream(relay, now)
	}
	if g.banned(relay, now) || len(kicked) > 0 {
		t.Error("the relay is banned for what strangers make it do")
	}
	g.relay(relay, false)
	if _, err := g.arrive(relay, now.Add(time.Hour)); err == nil {
		t.Error("the relay brings others after it was given up")
	}
}

// TestStrangersCircuitsGo: strangers who come over a relay take half of the places, for
// a few seconds each, and give way to those who come after them.
func TestStrangersCircuitsGo(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	g := newGuard(nil)
	var cut []peer.ID
	g.cut = func(p peer.ID) { cut = append(cut, p) }
	contact, relay := newID(t), newID(t)
	g.trusted = func(p peer.ID) bool { return p == contact }
	g.relay(relay, true)
	come := func(p peer.ID) {
		t.Helper()
		in, err := g.arrive(relay, now)
		if err != nil {
			t.Fatal(err)
		}
		g.came(in, p)
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
	g.recognise(strangers[len(strangers)-1]) // it has shown an invite
	if got := g.strangers(now); len(got) != 0 {
		t.Errorf("%d strangers go before their time", len(got))
	}
	now = now.Add(CircuitStranger)
	if got := g.strangers(now); len(got) != MaxCircuitsRelay/2-1 {
		t.Errorf("%d strangers go after their time, want %d", len(got), MaxCircuitsRelay/2-1)
	}
	if got := len(g.relays[relay].all); got != 2 {
		t.Errorf("%d stay, want the contact and who has shown an invite", got)
	}
}

func TestContactsBytesOfADay(t *testing.T) {
	s := &relayService{used: make(map[string]int64)}
	p, q := string(newID(t)), string(newID(t))
	day := time.Unix(1_700_000_000, 0)
	if err := s.spend(p, ContactDayBytes, day); err != nil {
		t.Error(err)
	}
	if err := s.spend(p, 1, day.Add(time.Minute)); !errors.Is(err, errDayBytes) {
		t.Errorf("one byte more: %v", err)
	}
	if err := s.spend(q, 1, day); err != nil {
		t.Error("another contact pays:", err)
	}
	if err := s.spend(p, 1, day.Add(24*time.Hour)); err != nil {
		t.Error("the next day:", err)
	}
	if len(s.used) != 1 {
		t.Errorf("%d counters, want those of the day", len(s.used))
	}
}

// TestContactsBytesWithAnotherKey: a contact's bytes of a day are the person's, whatever
// keys the devices draw.
func TestContactsBytesWithAnotherKey(t *testing.T) {
	phone, next, other := newID(t), newID(t), newID(t)
	owners := map[peer.ID]string{phone: "carol", next: "carol"}
	n := &Net{cfg: Config{Trusted: func(peer.ID) bool { return true }, Owner: func(p peer.ID) string { return owners[p] }}}
	s := &relayService{net: n, used: make(map[string]int64)}
	now := time.Now()
	if err := s.spend(n.owner(phone), ContactDayBytes, now); err != nil {
		t.Fatal(err)
	}
	if (contactACL{s}).AllowConnect("", nil, next) {
		t.Error("a new key of the same person has a new share")
	}
	if !(contactACL{s}).AllowConnect("", nil, other) {
		t.Error("another contact pays for it")
	}
}

func FuzzReadHop(f *testing.F) {
	for _, msg := range []*pb.HopMessage{
		{Type: pb.HopMessage_RESERVE.Enum()},
		{Type: pb.HopMessage_CONNECT.Enum(), Peer: util.PeerInfoToPeerV2(peer.AddrInfo{ID: "\x00\x24\x08\x01\x12\x20 12345678901234567890123456789012"})},
	} {
		var b bytes.Buffer
		if err := util.NewDelimitedWriter(&b).WriteMsg(msg); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(append(b, "rest"...))
		raw, msg, err := readHop(r)
		if err != nil {
			return
		}
		if len(raw) > relayMessage+2 || msg == nil || !bytes.HasPrefix(append(b, "rest"...), raw) {
			t.Errorf("read %x of %x", raw, b)
		}
		// The relay reads the same again, and then the rest.
		h := &hopStream{Stream: restStream{Reader: r}, head: bytes.NewReader(raw)}
		all, err := io.ReadAll(h)
		if err != nil || !bytes.Equal(all, append(b, "rest"...)) {
			t.Errorf("again: %x, %v, want %x", all, err, b)
		}
	})
}

type restStream struct {
	network.Stream
	io.Reader
}

func (r restStream) Read(b []byte) (int, error) { return r.Reader.Read(b) }

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
