package p2p

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"testing/iotest"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/protocol/rv"
)

func newBuckets() *dht {
	return &dht{
		asks: make(map[peer.ID]*bucket), puts: make(map[peer.ID]*bucket), subnets: make(map[netip.Prefix]*bucket),
		proxyPuts: make(map[netip.Prefix]*bucket), proxyGets: make(map[netip.Prefix]*bucket),
	}
}

// TestPutFlood covers threats.md H54: one peer, one subnet, and wrong requests.
func TestPutFlood(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	point, b := sealed(t, 1, rv.PeriodAt(now), 1)
	key := []byte(rv.DHTKey(point))
	put := &pb.Message{Type: pb.Message_PUT_VALUE, Key: key, Record: record.MakePutRecord(string(key), b)}
	addr := func(i int) ma.Multiaddr {
		return ma.StringCast(fmt.Sprintf("/ip4/9.9.%d.%d/udp/1/quic-v1", i/200, i%200+1))
	}
	d := newBuckets()
	got := 0
	for i := range 10_000 { // 10 s at full speed
		if d.admit("flooder", addr(0), put, now.Add(time.Duration(i)*time.Millisecond)) {
			got++
		}
	}
	if want := PutBurstPeer + 10*PutRatePeer + 1; got > int(want) || got < PutBurstPeer {
		t.Errorf("one peer put %d records, want %v at most", got, want)
	}
	d = newBuckets()
	got = 0
	for i := range 10_000 {
		if d.admit(peer.ID(fmt.Sprint("sybil", i%200)), addr(i%200), put, now.Add(time.Duration(i)*time.Millisecond)) {
			got++
		}
	}
	if want := PutBurstSubnet + 10*PutRateSubnet + 1; got > want || got < PutBurstSubnet {
		t.Errorf("one subnet put %d records, want %d at most", got, want)
	}
	if !d.admit("elsewhere", addr(250), put, now) {
		t.Error("another subnet suffers")
	}
	d = newBuckets()
	for name, m := range map[string]*pb.Message{
		"other key":    {Type: pb.Message_GET_VALUE, Key: []byte("/pk/x")},
		"no record":    {Type: pb.Message_PUT_VALUE, Key: key},
		"long record":  {Type: pb.Message_PUT_VALUE, Key: key, Record: record.MakePutRecord(string(key), make([]byte, 1200))},
		"providers":    {Type: pb.Message_GET_PROVIDERS, Key: key},
		"add provider": {Type: pb.Message_ADD_PROVIDER, Key: key},
	} {
		if d.admit("p", addr(0), m, now) {
			t.Error(name, "was let in")
		}
	}
	for i := range 2 * rv.ProxyPuts {
		if d.proxyRate(addr(1), true, now) != (i < rv.ProxyPuts) {
			t.Fatalf("put %d through this node: want %d of one subnet", i, rv.ProxyPuts)
		}
	}
}

// fakeStream reads from r and notes a reset.
type fakeStream struct {
	network.Stream
	r     io.Reader
	reset bool
}

func (s *fakeStream) Read(b []byte) (int, error) { return s.r.Read(b) }

func (s *fakeStream) ResetWithError(network.StreamErrorCode) error {
	s.reset = true
	return nil
}

// TestMessagesAreCapped: what kad-dht would take up to 4 MiB ends at its length.
func TestMessagesAreCapped(t *testing.T) {
	message := func(n int) []byte {
		return append(binary.AppendUvarint(nil, uint64(n)), bytes.Repeat([]byte{0xff}, n)...)
	}
	sound := bytes.Join([][]byte{message(0), message(1), message(127), message(128), message(1000)}, nil)
	readers := map[string]func(io.Reader) io.Reader{
		"at once": func(r io.Reader) io.Reader { return r }, "by bytes": iotest.OneByteReader, "by halves": iotest.HalfReader,
	}
	for how, reader := range readers {
		s := &fakeStream{r: reader(bytes.NewReader(sound))}
		got, err := io.ReadAll(&cappedStream{Stream: s, max: 1000})
		if err != nil || !bytes.Equal(got, sound) || s.reset {
			t.Errorf("%s: %d of %d bytes, %v, reset %v", how, len(got), len(sound), err, s.reset)
		}
		for _, bad := range [][]byte{message(1001), message(4 << 20), {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}} {
			s := &fakeStream{r: reader(bytes.NewReader(append(bytes.Clone(sound), bad...)))}
			got, err := io.ReadAll(&cappedStream{Stream: s, max: 1000})
			if !errors.Is(err, errDHTSize) || !s.reset || len(got) > len(sound)+5 {
				t.Errorf("%s: %d bytes got through, %v, reset %v", how, len(got), err, s.reset)
			}
		}
	}
}
