package node

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/node/p2p"
)

// TestPatience: where receipts come fast a missing one is doubted soon, where they are
// slow it is waited for, and of nobody's receipts nothing is known.
func TestPatience(t *testing.T) {
	var q queue
	if got := q.patience(doubtSoon, doubtAfter); got != doubtAfter {
		t.Errorf("before any receipt: %v", got)
	}
	q.answered(20 * time.Millisecond)
	if got := q.patience(doubtSoon, doubtAfter); got != doubtSoon {
		t.Errorf("fast: %v", got)
	}
	q.answered(900 * time.Millisecond)
	if got := q.patience(doubtSoon, doubtAfter); got != 4600*time.Millisecond {
		t.Errorf("slow: %v", got)
	}
	for range 30 {
		q.answered(20 * time.Millisecond)
	}
	if got := q.patience(doubtSoon, doubtAfter); got != doubtSoon {
		t.Errorf("fast again: %v", got)
	}
	q.answered(time.Minute)
	if got := q.patience(doubtTime, doubtLong); got != doubtLong {
		t.Errorf("never more than %v: %v", doubtLong, got)
	}
}

// TestLateByTheFirst: amid a stream of messages it is the first without a receipt that
// tells whether the other side is there, not the one with which the stream began.
func TestLateByTheFirst(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	q := queue{items: []item{{sent: now}, {sent: now.Add(time.Minute)}}, sent: 2}
	q.answered(time.Millisecond)
	if !q.late(now.Add(doubtSoon)) || q.late(now.Add(doubtSoon-1)) {
		t.Error("the first one is not what counts")
	}
	q.items, q.sent = q.items[1:], 1
	if q.late(now.Add(time.Minute + doubtSoon - 1)) {
		t.Error("doubted by one that has its receipt")
	}
	q.rewind()
	if q.late(now.Add(time.Hour)) {
		t.Error("doubted by what was not sent")
	}
}

// TestSilentContactDoubtsOneRelay: a contact who comes over a relay and answers nothing
// has that relay asked whether it is there, and no other one.
func TestSilentContactDoubtsOneRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{})
		var named []string
		open := func(i int, name, profile string) *Node {
			n := opened(t, Config{Name: name, NoLAN: true, NoDHT: true, Profile: profile, Bootstrap: named, Network: net.Host(i).Configure})
			t.Cleanup(func() { closed(t, n) })
			return n
		}
		for i := range 2 {
			relay := open(i, "Relay", "server")
			main, _ := relay.edge.ids()
			named = append(named, relay.edge.listening()[0]+"/p2p/"+main)
		}
		net.Host(2).Firewall(true)
		net.Host(3).Firewall(true)
		net.Cut([]int{2}, []int{3})
		ada, bob := open(2, "Ada", "home"), open(3, "Bob", "home")
		time.Sleep(time.Minute)
		introduce(t, ada, bob)
		time.Sleep(time.Minute)
		bob.net.Handle(p2p.PingID, p2p.Limits{StreamMemory: 1 << 10}, func(s network.Stream) {
			time.Sleep(time.Minute) // virtual: as one that is gone
			_ = s.Reset()
		})
		before := ada.net.Reachability().Relays
		var over peer.ID
		at(t, ada, bob, func(_ *loop, d *device) {
			if k := d.queue.link; k != nil {
				over = p2p.PathOf(k.stream.Conn()).Relay
				d.queue.doubted(doubtTime)
			}
		})
		time.Sleep(doubtLong + time.Second)
		after := ada.net.Reachability().Relays
		if over == "" || len(before) != 2 || len(after) != 2 {
			t.Fatalf("over %v, of %v, then of %v", over, before, after)
		}
		for i, r := range after {
			if asked := r.Until.After(before[i].Until); asked != (r.Peer == over) {
				t.Errorf("%v was asked: %v, over which he came: %v", r.Peer, asked, r.Peer == over)
			}
		}
	})
}

// TestRefusedPingIsAnAnswer: a contact who has no room for a ping is there, and keeps its
// connection. One that is silent loses it.
func TestRefusedPingIsAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{})
		open := func(i int, name string) *Node {
			n, err := Open(t.Context(), Config{Name: name, NoLAN: true, NoDHT: true, Network: net.Host(i).Configure})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		ada, bob := open(0, "Ada"), open(1, "Bob")
		introduce(t, ada, bob)
		time.Sleep(time.Minute)
		// doubts has Bob doubt that Ada is there, and says whether they are connected after it.
		doubts := func() bool {
			var c network.Conn
			if err := bob.ask(t.Context(), func(l *loop) {
				for _, d := range l.acct.devices {
					if d.queue.link != nil {
						c = d.queue.link.stream.Conn()
						d.queue.doubted(doubtTime)
					}
				}
			}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(doubtLong + time.Second)
			return c != nil && !c.IsClosed()
		}
		if !doubts() {
			t.Error("not connected after an echo")
		}
		var refused atomic.Int32
		ada.net.Handle(p2p.PingID, p2p.Limits{StreamMemory: 1 << 10}, func(s network.Stream) {
			refused.Add(1)
			s.ResetWithError(network.StreamResourceLimitExceeded)
		})
		if !doubts() || refused.Load() != 1 {
			t.Errorf("the connection ended by a ping that was refused %d times", refused.Load())
		}
		ada.net.Handle(p2p.PingID, p2p.Limits{StreamMemory: 1 << 10}, func(s network.Stream) {
			time.Sleep(time.Minute) // virtual: as one that is gone
			_ = s.Reset()
		})
		if doubts() {
			t.Error("the connection is kept though nobody answers")
		}
		for _, n := range []*Node{ada, bob} {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
