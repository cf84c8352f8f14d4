package p2p

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	pb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/util"
	ma "github.com/multiformats/go-multiaddr"
)

// dayService is a service that counts bytes, for whose contacts owners stands.
func dayService(owners map[peer.ID]string) *relayService {
	trusted := func(p peer.ID) bool { return owners[p] != "" }
	n := &Net{cfg: Config{Trusted: trusted, Owner: func(p peer.ID) string { return owners[p] }, ContactBytes: ContactDayBytes}}
	return &relayService{net: n, used: make(map[account]int64), asked: make(map[netip.Prefix]*bucket)}
}

func TestContactsBytesOfADay(t *testing.T) {
	s := dayService(nil)
	p, q := account{to: "p", from: "p"}, account{to: "q", from: "q"}
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

// TestOthersPartOfADay: nobody can use up a contact's bytes alone, strangers not even
// together, and what they are counted by is bounded.
func TestOthersPartOfADay(t *testing.T) {
	s := dayService(nil)
	now := time.Unix(1_700_000_000, 0)
	use := func(a account) (n int64) {
		const step = ContactDayBytes / 64
		for s.spend(a, step, now) == nil {
			n += step
		}
		return n
	}
	net := func(i int) account { return account{to: "ada", from: fmt.Sprintf("8.0.%d.0/24", i), stranger: true} }
	for i, want := range []int64{ContactDayBytes / 4, ContactDayBytes / 4, 0} {
		if got := use(net(i)); got != want {
			t.Errorf("the subnet %d of strangers used %d bytes, want %d", i, got, want)
		}
	}
	if got := use(account{to: "ada", from: "eve"}); got != ContactDayBytes/4 {
		t.Errorf("one contact used %d bytes, want a quarter", got)
	}
	if got := use(account{to: "ada", from: "ada"}); got != ContactDayBytes/4 {
		t.Errorf("%d bytes were left to the person's own devices, want a quarter", got)
	}
	for i := range 2 * maxBuckets {
		_ = s.spend(account{to: "bob", from: fmt.Sprint(i), stranger: true}, 1, now)
	}
	if len(s.used) > maxBuckets+2 {
		t.Errorf("%d counters, want at most %d", len(s.used), maxBuckets+2)
	}
	if err := s.spend(account{to: "bob", from: "bob"}, 1, now); err != nil {
		t.Error("strangers fill the table:", err)
	}
}

// hopConn is what the service is told of where a stream comes from.
type hopConn struct {
	network.Conn
	peer peer.ID
	at   string
}

func (c hopConn) RemotePeer() peer.ID           { return c.peer }
func (c hopConn) RemoteMultiaddr() ma.Multiaddr { return ma.StringCast(c.at) }

// hopFake is a stream that notes deadlines.
type hopFake struct {
	restStream
	conn      hopConn
	all, read time.Time
	reset     bool
}

func (f *hopFake) Conn() network.Conn                { return f.conn }
func (f *hopFake) Write(b []byte) (int, error)       { return len(b), nil }
func (f *hopFake) SetDeadline(t time.Time) error     { f.all, f.read = t, t; return nil }
func (f *hopFake) SetReadDeadline(t time.Time) error { f.read = t; return nil }
func (f *hopFake) Reset() error                      { f.reset = true; return nil }

// askHop has a service handle a CONNECT from p to dest, and returns what its relay gets.
func askHop(t *testing.T, s *relayService, p, dest peer.ID, at string) (*hopStream, *hopFake) {
	t.Helper()
	var b bytes.Buffer
	msg := &pb.HopMessage{Type: pb.HopMessage_CONNECT.Enum(), Peer: util.PeerInfoToPeerV2(peer.AddrInfo{ID: dest})}
	if err := util.NewDelimitedWriter(&b).WriteMsg(msg); err != nil {
		t.Fatal(err)
	}
	b.Write(make([]byte, 1<<20))
	s.forC, s.forS = new(relayHost), new(relayHost)
	var got *hopStream
	serve := func(st network.Stream) {
		h, ok := st.(*hopStream)
		if !ok {
			t.Fatalf("%T", st)
		}
		got = h
		_, _ = got.Read(make([]byte, got.head.Len()))
	}
	s.serve = map[*relayHost]network.StreamHandler{s.forC: serve, s.forS: serve}
	f := &hopFake{restStream: restStream{Reader: &b}, conn: hopConn{peer: p, at: at}}
	s.handle(f)
	return got, f
}

// TestContactsBytesWithAnotherKey: a contact's bytes of a day are the person's, whatever
// keys the devices draw; when they are used up, circuits are those of a stranger.
func TestContactsBytesWithAnotherKey(t *testing.T) {
	synctest.Test(t, contactsBytesWithAnotherKey)
}

func contactsBytesWithAnotherKey(t *testing.T) {
	phone, next, other := newID(t), newID(t), newID(t)
	s := dayService(map[peer.ID]string{phone: "carol", next: "carol", other: "dave"})
	now := time.Now()
	pass := func(h *hopStream) (in, out int) {
		t.Helper()
		b := make([]byte, 2048)
		for range 100 {
			if n, err := h.Read(b); err == nil {
				in += n
			}
			if n, err := h.Write(b); err == nil {
				out += n
			}
		}
		return in, out
	}
	const all = 100 * 2048
	h, f := askHop(t, s, phone, next, "/ip4/8.8.8.8/udp/1/quic-v1")
	if in, out := pass(h); in != all || out != all {
		t.Errorf("%d and %d bytes passed, want %d", in, out, all)
	}
	if _ = h.SetDeadline(now.Add(ContactCircuitTime)); f.all.Sub(now) != ContactCircuitTime {
		t.Errorf("a contact's circuit lasts %v", f.all.Sub(now))
	}
	if err := s.spend(account{to: "carol", from: "carol"}, ContactDayBytes-2*all-1, now); err != nil {
		t.Fatal(err)
	}
	if in, out := pass(h); in != 0 || out != 0 {
		t.Errorf("%d and %d bytes more than there are", in, out)
	}
	h, f = askHop(t, s, phone, next, "/ip4/8.8.8.8/udp/1/quic-v1")
	if h == nil {
		t.Fatal("no circuit when the bytes are used up")
	}
	if in, out := pass(h); in != 128<<10 || out != 128<<10 {
		t.Errorf("%d and %d bytes passed, want what a stranger has", in, out)
	}
	if _ = h.SetDeadline(now.Add(ContactCircuitTime)); f.all.Sub(now) != 2*time.Minute {
		t.Errorf("the circuit lasts %v", f.all.Sub(now))
	}
	h, _ = askHop(t, s, phone, other, "/ip4/8.8.8.8/udp/1/quic-v1")
	if in, out := pass(h); in != all || out != all {
		t.Error("another contact pays for it")
	}
}

// TestHopsAreRare: strangers of one subnet ask for circuits at a rate, and who does not
// take the answer holds none.
func TestHopsAreRare(t *testing.T) { synctest.Test(t, hopsAreRare) }

func hopsAreRare(t *testing.T) {
	contact, dest := newID(t), newID(t)
	s := dayService(map[peer.ID]string{contact: "carol"})
	ask := func(p peer.ID, at string) (n int) {
		for range 2 * HopBurstSubnet {
			began := time.Now()
			h, f := askHop(t, s, p, dest, at)
			if h == nil {
				if !f.reset {
					t.Error("refused and not ended")
				}
				continue
			}
			n++
			if left := f.all.Sub(began); left != hopWait || !f.read.IsZero() {
				t.Errorf("the answer may take %v, reading until %v", left, f.read)
			}
		}
		return n
	}
	if n := ask(newID(t), "/ip4/8.8.8.8/udp/1/quic-v1"); n != HopBurstSubnet {
		t.Errorf("%d circuits of one stranger, want %d", n, HopBurstSubnet)
	}
	if n := ask(newID(t), "/ip4/8.8.8.9/udp/1/quic-v1"); n != 0 {
		t.Errorf("%d more of his neighbour", n)
	}
	if n := ask(newID(t), "/ip4/8.8.9.1/udp/1/quic-v1"); n != HopBurstSubnet {
		t.Errorf("another subnet pays: %d", n)
	}
	if n := ask(contact, "/ip4/8.8.8.8/udp/1/quic-v1"); n != 2*HopBurstSubnet {
		t.Errorf("%d of a contact, want all", n)
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
