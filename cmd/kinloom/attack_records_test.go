package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p-kad-dht/pb"
	recpb "github.com/libp2p/go-libp2p-record/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	autonatpb "github.com/libp2p/go-libp2p/p2p/host/autonat/pb"
	autonatv2pb "github.com/libp2p/go-libp2p/p2p/protocol/autonatv2/pb"
	circuitpb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	identifypb "github.com/libp2p/go-libp2p/p2p/protocol/identify/pb"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/rv"
)

// recordAssaults are well-formed requests, as many as there is time for: signed
// records of the attacker's own, put and fetched, and all that a server does for others.
func recordAssaults() []assault {
	return []assault{
		{"records", "identify push", 4, onConn(pushRecord)},
		{"records", "kad put", 4, onStream("/kinloom/kad/1.0.0", func() []byte {
			point, rec := ownRecord()
			key := []byte(rv.DHTKey(point))
			return framed(&dht_pb.Message{Type: dht_pb.Message_PUT_VALUE, Key: key, Record: &recpb.Record{Key: key, Value: rec}})
		})},
		{"records", "kad get", 4, onStream("/kinloom/kad/1.0.0", func() []byte {
			point, _ := ownRecord()
			return framed(&dht_pb.Message{Type: dht_pb.Message_GET_VALUE, Key: []byte(rv.DHTKey(point))})
		})},
		{"records", "kad find node", 2, onStream("/kinloom/kad/1.0.0", func() []byte {
			return framed(&dht_pb.Message{Type: dht_pb.Message_FIND_NODE, Key: []byte(strangersID())})
		})},
		{"records", "proxy put", 2, onConn(askProxy(func() ([]byte, error) {
			point, rec := ownRecord()
			return rv.Request{Point: point, Record: rec}.Append(nil)
		}))},
		{"records", "proxy get", 2, onConn(askProxy(func() ([]byte, error) {
			point, _ := ownRecord()
			return rv.Request{Point: point}.Append(nil)
		}))},
		{"records", "reservation", 2, onConn(request("/libp2p/circuit/relay/0.2.0/hop", func(host.Host) proto.Message {
			return &circuitpb.HopMessage{Type: circuitpb.HopMessage_RESERVE.Enum()}
		}))},
		{"records", "circuit to nobody", 2, onConn(request("/libp2p/circuit/relay/0.2.0/hop", func(host.Host) proto.Message {
			return &circuitpb.HopMessage{Type: circuitpb.HopMessage_CONNECT.Enum(), Peer: &circuitpb.Peer{Id: []byte(strangersID())}}
		}))},
		{"records", "circuit", 1, circuits},
		{"records", "dial back", 2, onConn(request("/libp2p/autonat/1.0.0", func(h host.Host) proto.Message {
			return &autonatpb.Message{Type: autonatpb.Message_DIAL.Enum(), Dial: &autonatpb.Message_Dial{
				Peer: &autonatpb.Message_PeerInfo{Id: []byte(h.ID()), Addrs: manyAddrs(100)},
			}}
		}))},
		{"records", "dial back 2", 2, onConn(request("/libp2p/autonat/2/dial-request", func(host.Host) proto.Message {
			return &autonatv2pb.Message{Msg: &autonatv2pb.Message_DialRequest{DialRequest: &autonatv2pb.DialRequest{Addrs: manyAddrs(50), Nonce: mrand.Uint64()}}}
		}))},
	}
}

// framed is a message behind its length.
func framed(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return append(binary.AppendUvarint(nil, uint64(len(b))), b...)
}

// request sends one message and reads the answer.
func request(protocol string, m func(host.Host) proto.Message) func(context.Context, host.Host, network.Conn) error {
	return func(ctx context.Context, h host.Host, c network.Conn) error {
		s, err := open(ctx, c, named(protocol), framed(m(h)))
		if err != nil {
			return err
		}
		drain(s)
		return nil
	}
}

func askProxy(m func() ([]byte, error)) func(context.Context, host.Host, network.Conn) error {
	return func(ctx context.Context, _ host.Host, c network.Conn) error {
		b, err := m()
		if err != nil {
			return err
		}
		s, err := open(ctx, c, named("/kinloom/dhtproxy/1"), binary.AppendUvarint(nil, uint64(len(b))), b)
		if err != nil {
			return err
		}
		drain(s)
		return nil
	}
}

// onStream writes one message after the other on one stream and reads what is answered,
// as fast as that goes.
func onStream(protocol string, m func() []byte) func(context.Context, *attacker, *tally) {
	return onConn(func(ctx context.Context, _ host.Host, c network.Conn) error {
		s, err := open(ctx, c, named(protocol))
		if err != nil {
			return err
		}
		var wg sync.WaitGroup
		defer wg.Wait()
		defer s.Reset()
		wg.Go(func() { drain(s) })
		for i := range 500 {
			if _, err := s.Write(m()); err != nil {
				if i == 0 {
					return err
				}
				return nil
			}
		}
		return nil
	})
}

// owned are records of the attacker's own, made once: signing would slow the attack.
var owned = sync.OnceValue(func() (out [1000]struct {
	point rv.Point
	rec   []byte
},
) {
	period := rv.PeriodAt(time.Now())
	for i := range out {
		var seed [32]byte
		binary.BigEndian.PutUint64(seed[:], mrand.Uint64())
		key, secret := identity.NewRendezvousKey(seed), rv.Secret(seed)
		hint := rv.Hint{Devices: []rv.Place{{Transport: [32]byte{1}, Addrs: manyAddrs(1)}}}
		point, err := rv.PointOf(key.Public(), secret, period)
		if err != nil {
			panic(err)
		}
		rec, err := rv.Seal(key, secret, period, 1, hint, mrand.NewChaCha8(seed))
		if err != nil {
			panic(err)
		}
		out[i].point, out[i].rec = point, rec
	}
	return out
})

var ownedNext atomic.Int64

func ownRecord() (rv.Point, []byte) {
	all := owned()
	r := all[ownedNext.Add(1)%int64(len(all))]
	return r.point, r.rec
}

func manyAddrs(n int) (out [][]byte) {
	for range n {
		out = append(out, ma.StringCast(fmt.Sprintf("/ip4/8.%d.%d.%d/udp/%d/quic-v1",
			mrand.IntN(250), mrand.IntN(250), mrand.IntN(250), 1+mrand.IntN(60000))).Bytes())
	}
	return out
}

func strangersID() peer.ID {
	_, pub, err := crypto.GenerateEd25519Key(mrand.NewChaCha8([32]byte{byte(mrand.Uint32()), byte(mrand.Uint32()), byte(mrand.Uint32())}))
	if err != nil {
		panic(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		panic(err)
	}
	return id
}

var pushedSeq atomic.Uint64

// pushRecord tells a signed record of the attacker's own, each newer than the last and
// with other addresses.
func pushRecord(ctx context.Context, h host.Host, c network.Conn) error {
	rec := &peer.PeerRecord{PeerID: h.ID(), Seq: pushedSeq.Add(1) + uint64(time.Now().UnixNano())}
	msg := &identifypb.Identify{}
	for _, b := range manyAddrs(200) {
		a, err := ma.NewMultiaddrBytes(b)
		if err != nil {
			return err
		}
		rec.Addrs = append(rec.Addrs, a)
	}
	for range 100 {
		msg.Protocols = append(msg.Protocols, fmt.Sprint("/invented/", mrand.Uint64()))
	}
	env, err := record.Seal(rec, h.Peerstore().PrivKey(h.ID()))
	if err != nil {
		return err
	}
	if msg.SignedPeerRecord, err = env.Marshal(); err != nil {
		return err
	}
	s, err := open(ctx, c, named("/ipfs/id/push/1.0.0"), framed(msg))
	if err != nil {
		return err
	}
	drain(s)
	return nil
}

// circuits holds a reservation, and has a second stranger send through it what it can.
func circuits(ctx context.Context, a *attacker, n *tally) {
	err := func() error {
		to, err := stranger("/ip4/127.0.0.1/udp/0/quic-v1")
		if err != nil {
			return err
		}
		defer to.Close()
		to.SetStreamHandler("/libp2p/circuit/relay/0.2.0/stop", func(s network.Stream) {
			buf := make([]byte, 4096)
			if _, err := s.Read(buf); err != nil {
				return
			}
			_, _ = s.Write(framed(&circuitpb.StopMessage{Type: circuitpb.StopMessage_STATUS.Enum(), Status: circuitpb.Status_OK.Enum()}))
			drain(s)
		})
		if err := to.Connect(ctx, peer.AddrInfo{ID: a.victim, Addrs: []ma.Multiaddr{a.addr()}}); err != nil {
			return err
		}
		conns := to.Network().ConnsToPeer(a.victim)
		if len(conns) == 0 {
			return errors.New("not connected")
		}
		reserve := request("/libp2p/circuit/relay/0.2.0/hop", func(host.Host) proto.Message {
			return &circuitpb.HopMessage{Type: circuitpb.HopMessage_RESERVE.Enum()}
		})
		if err := reserve(ctx, to, conns[0]); err != nil {
			return err
		}
		a.connected(ctx, n, func(_ host.Host, c network.Conn) {
			for ctx.Err() == nil && !c.IsClosed() {
				s, err := open(ctx, c, named("/libp2p/circuit/relay/0.2.0/hop"), framed(&circuitpb.HopMessage{
					Type: circuitpb.HopMessage_CONNECT.Enum(), Peer: &circuitpb.Peer{Id: []byte(to.ID())},
				}))
				if err != nil {
					n.failed.Add(1)
					return
				}
				for range 10 {
					if _, err := s.Write(noise); err != nil {
						break
					}
					n.done.Add(1)
				}
				_ = s.Reset()
			}
		})
		return nil
	}()
	if err != nil {
		n.failed.Add(1)
		rest(ctx, 10*time.Millisecond)
	}
}
