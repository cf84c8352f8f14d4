package testnet

import (
	"bufio"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/protocol/rv"
	"github.com/kinloom/kinloom/protocol/wire"
)

// TestFalseAnswersAreCounted: a server answers look-ups with records of somebody
// else. None is taken, and whoever explains the network knows of it.
func TestFalseAnswersAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		wanted, other := newDevice(1), newDevice(2)
		point, _ := wanted.now(t, 1)
		_, forged := other.now(t, 1)
		liar := raw(t, n.Host(0))
		liar.SetStreamHandler(rv.ProxyID, func(s network.Stream) {
			defer s.Close()
			if _, err := wire.ReadFrame(bufio.NewReader(s), rv.ProxySize); err != nil {
				return
			}
			if b, err := (rv.Reply{At: time.Now(), Record: forged}).Append(nil); err == nil {
				_, _ = s.Write(wire.AppendFrame(nil, b))
			}
		})
		u := start(t, n, 1, p2p.Config{Bootstrap: []peer.AddrInfo{{ID: liar.ID(), Addrs: []ma.Multiaddr{n.Host(0).Addr}}}})
		found, _, err := u.find(t.Context(), point)
		if found != nil || err == nil {
			t.Errorf("a forged record was taken: %x, %v", found, err)
		}
		if got := u.Tried(); got.False == 0 || got.Answers < got.False {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// TestFastClockAccusesNobody: a server whose own clock is 26 hours ahead looks up for
// others, and takes no record, as all have ended by its clock. It does not count the
// answers as false: nobody lies.
func TestFastClockAccusesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		time.Sleep(22*time.Hour + 30*time.Minute) // the clock is in a day whose records nobody has put yet
		all := servers(t, n, 4)
		late := p2p.Config{Profile: p2p.Server, Now: func() time.Time { return time.Now().Add(26 * time.Hour) }}
		fast, publisher, finder := start(t, n, 10, knowing(late, all[0])), start(t, n, 11, knowing(p2p.Config{}, all[1])), start(t, n, 12, knowing(p2p.Config{}, all[2]))
		time.Sleep(2 * time.Minute)
		find := func(point rv.Point) {
			t.Helper()
			if _, err := finder.FindRecordBy(t.Context(), []peer.AddrInfo{fast.info()}, p2p.Point{ID: point}, func([]byte, time.Time) {}); err != nil {
				t.Error(err)
			}
		}
		for i := range 4 {
			point, record := newDevice(i).now(t, 1)
			if err := publisher.PublishRecord(t.Context(), point, record); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			find(point)
		}
		if got := fast.Tried(); got.Answers < 4 || got.False != 0 {
			t.Errorf("four true records: %+v", got)
		}
	})
}
