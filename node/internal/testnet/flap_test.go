package testnet

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	pb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/util"

	"github.com/kinloom/kinloom/node/p2p"
)

// reservations answers each request for a reservation with one.
func reservations(s network.Stream) {
	defer s.Close()
	rd := util.NewDelimitedReader(s, 4096)
	var msg pb.HopMessage
	if rd.ReadMsg(&msg) != nil {
		return
	}
	until := uint64(time.Now().Add(time.Hour).Unix())
	err := util.NewDelimitedWriter(s).WriteMsg(&pb.HopMessage{
		Type: pb.HopMessage_STATUS.Enum(), Status: pb.Status_OK.Enum(), Reservation: &pb.Reservation{Expire: &until},
	})
	if err != nil {
		s.Reset()
	}
}

// TestRelayTakesBackAtOnce: a peer that says three times a second that it relays, and
// that it does not, is asked less and less often, and the node is told of few changes.
// A relay that stays is found beside it, and told within two seconds.
func TestRelayTakesBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{Latency: 10 * time.Millisecond})
		flapper := raw(t, n.Host(1))
		w := newWatcher()
		a := start(t, n, 0, p2p.Config{Handler: w, NoDHT: true})
		if _, err := a.Dial(t.Context(), flapper.ID(), flapper.Addrs()); err != nil {
			t.Fatal(err)
		}
		var asked atomic.Int32
		for range 33 {
			flapper.SetStreamHandler(proto.ProtoIDv2Hop, func(s network.Stream) {
				asked.Add(1)
				reservations(s)
			})
			time.Sleep(300 * time.Millisecond)
			flapper.RemoveStreamHandler(proto.ProtoIDv2Hop)
			time.Sleep(300 * time.Millisecond)
		}
		if asked := asked.Load(); asked == 0 || asked > 4 || len(w.addrs) > 12 {
			t.Errorf("in 20 s asked %d times, and told of %d changes", asked, len(w.addrs))
		}
		if a.Moves() != 1 {
			t.Errorf("%d networks, want one", a.Moves())
		}
		for len(w.addrs) > 0 {
			<-w.addrs
		}
		good := start(t, n, 2, p2p.Config{Profile: p2p.Server, NoDHT: true})
		time.Sleep(5 * time.Second)
		begin := time.Now()
		if _, err := a.Dial(t.Context(), good.id, good.info().Addrs); err != nil {
			t.Fatal(err)
		}
		for len(a.Reachability().Relays) == 0 {
			await(t, "change", w.addrs)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("the relay that stays was told after %v", took)
		}
	})
}
