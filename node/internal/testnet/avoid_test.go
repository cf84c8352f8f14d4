package testnet

import (
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2/pb"
	"github.com/libp2p/go-msgio/pbio"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/protocol/rv"
	"github.com/kinloom/kinloom/protocol/wire"
)

// treated is what a node does for somebody who comes to it: the answer to a request to
// dial back, whether it did, and whether it asked, as a server asks every other one.
type treated struct {
	dial   pb.DialStatus
	dialed bool
	probed bool
}

// visit comes to a server as machine i, which is a server of the DHT by its own word.
func visit(t *testing.T, n *Net, i int, s *up) (peer.ID, treated) {
	t.Helper()
	h := raw(t, n.Host(i), libp2p.Identity(key(t, 1, i)), libp2p.ForceReachabilityPrivate())
	var dialed, probed atomic.Bool
	h.SetStreamHandler(autonatv2.DialBackProtocol, func(s network.Stream) {
		dialed.Store(true)
		_, _ = io.ReadAll(s)
		s.Close()
	})
	h.SetStreamHandler(wire.DHTPrefix+"/kad/1.0.0", func(s network.Stream) {
		probed.Store(true)
		s.Reset()
	})
	if err := h.Connect(t.Context(), s.info()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Second)
	st, err := h.NewStream(t.Context(), s.id, autonatv2.DialProtocol)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	ask := &pb.Message{Msg: &pb.Message_DialRequest{DialRequest: &pb.DialRequest{Addrs: [][]byte{n.Host(i).Addr.Bytes()}, Nonce: 7}}}
	if err := pbio.NewDelimitedWriter(st).WriteMsg(ask); err != nil {
		t.Fatal(err)
	}
	var said pb.Message
	if err := pbio.NewDelimitedReader(st, 8192).ReadMsg(&said); err != nil {
		t.Fatal(err)
	}
	return h.ID(), treated{said.GetDialResponse().GetDialStatus(), dialed.Load(), probed.Load()}
}

// TestAvoidedPeerIsTreatedAsAStranger: somebody whom a server must not dial of its own
// accord comes to it and to others, by the key that they told. Nothing that a stranger
// can bring about tells them which one is the node that knows them: it dials them back
// and asks them what it asks every server.
func TestAvoidedPeerIsTreatedAsAStranger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{Latency: 5 * time.Millisecond})
		avoided := peerID(t, n, 1)
		s := server(t, n, 0, p2p.Config{Avoid: func(p peer.ID) bool { return p == avoided }})
		who, known := visit(t, n, 1, s)
		if _, stranger := visit(t, n, 2, s); who != avoided || known != stranger || known != (treated{pb.DialStatus_OK, true, true}) {
			t.Errorf("%+v, a stranger %+v", known, stranger)
		}
	})
}

// TestAvoidedPeerIsNotChosen: who is to be avoided is not dialled, not asked to relay
// and not asked for records, whether the owner named them or not.
func TestAvoidedPeerIsNotChosen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{Latency: 5 * time.Millisecond})
		bad := server(t, n, 1, p2p.Config{})
		avoid := func(p peer.ID) bool { return p == bad.id }
		a := start(t, n, 0, knowing(p2p.Config{Avoid: avoid, Relays: known([]*up{bad})}, bad))
		n.Host(0).Firewall(true)
		a.AddBootstrap(p2p.FromContact, bad.info())
		a.FindRelays()
		time.Sleep(10 * time.Minute)
		if _, err := a.Dial(t.Context(), bad.id, []ma.Multiaddr{bad.addr}); !errors.Is(err, p2p.ErrAvoided) {
			t.Errorf("dialled: %v", err)
		}
		point, record := newDevice(1).now(t, 1)
		if err := a.PublishRecord(t.Context(), point, record); err == nil {
			t.Error("published a record with them")
		}
		if c := n.Traffic(0, 1); c.Packets > 0 {
			t.Errorf("%d packets went there", c.Packets)
		}
	})
}

// TestAvoidedServerLooksUpLikeOthers: who is to be avoided and has a server that was met
// in the table, as others were, is asked to look up and to publish as they are: who has
// many servers does not see which address passes over theirs.
func TestAvoidedServerLooksUpLikeOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{Latency: 5 * time.Millisecond})
		named := server(t, n, 0, p2p.Config{})
		bad, other := server(t, n, 1, knowing(p2p.Config{}, named)), server(t, n, 2, knowing(p2p.Config{}, named))
		a := start(t, n, 3, knowing(p2p.Config{Avoid: func(p peer.ID) bool { return p == bad.id }}, named))
		time.Sleep(10 * time.Minute)
		before, others := bad.Stats(rv.ProxyID).Served, other.Stats(rv.ProxyID).Served
		for i := range 12 {
			point, record := newDevice(i).now(t, 1)
			if err := a.PublishRecord(t.Context(), point, record); err != nil {
				t.Error(err)
			}
			if got, _, err := a.find(t.Context(), point); err != nil || got == nil {
				t.Errorf("found %d bytes, %v", len(got), err)
			}
		}
		its, others := bad.Stats(rv.ProxyID).Served-before, other.Stats(rv.ProxyID).Served-others
		if its == 0 || others == 0 || its > 2*others || others > 2*its {
			t.Errorf("asked %d times, another one %d", its, others)
		}
	})
}
