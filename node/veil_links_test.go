package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/dm"
	"github.com/kinloom/kinloom/protocol/session"
	"github.com/kinloom/kinloom/protocol/wire"
)

// tapped is a stream that keeps what is read from it.
type tapped struct {
	network.Stream
	read bytes.Buffer
}

func (s *tapped) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	s.read.Write(b[:n])
	return n, err
}

// deaf takes what comes and does nothing about it.
type deaf struct{}

func (deaf) Cell(context.Context, []byte) error            { return nil }
func (deaf) Nack(wire.CellID, wire.Code)                   {}
func (deaf) WantBundle(context.Context) (dm.Bundle, error) { return dm.Bundle{}, errors.New("no") }
func (deaf) Bundle(dm.Bundle)                              {}

// told opens a dm stream at a host from that of n, sends a cell there, asks for keys, and
// gives every byte of the answer and when the stream ended.
func told(t *testing.T, n *Node, id peer.ID, addr multiaddr.Multiaddr, cell []byte) string {
	t.Helper()
	if _, err := n.net.Dial(t.Context(), id, []multiaddr.Multiaddr{addr}); err != nil {
		t.Fatal(err)
	}
	s, err := n.net.NewStream(t.Context(), id, wire.DM)
	if err != nil {
		t.Fatal(err)
	}
	tap := &tapped{Stream: s}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	begin := time.Now()
	c := dm.New(tap, deaf{}, dm.Config{Dialer: true, Known: true})
	if err := errors.Join(c.Send(ctx, [][]byte{cell}), c.WantBundle()); err != nil {
		t.Fatal(err)
	}
	_ = c.Run(ctx)
	return fmt.Sprintf("%x, for %v", tap.read.Bytes(), time.Since(begin))
}

// TestRelayOnlyContactIsToldWhatStrangersAre: at the main host a contact who may reach
// Ada by relays only gets byte for byte what a stranger does, though he comes with the
// transport key that she knows and a cell that would open; of one that shows a renewed
// certificate nothing is asked.
func TestRelayOnlyContactIsToldWhatStrangersAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{})
		ada, bob, eve := alone(t, net, 1, "Ada"), alone(t, net, 2, "Bob"), alone(t, net, 3, "Eve")
		meet(t, ada, bob)
		time.Sleep(10 * time.Second)
		if _, err := ada.SetWays(t.Context(), "Bob", WaysRelay); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		var cell []byte
		at(t, bob, ada, func(l *loop, d *device) {
			s, ok := l.acct.sessions.Current(l.now(), d.ID)
			if !ok {
				return
			}
			cell, _, _ = l.acct.sessions.Pack(l.now(), d.ID, s.Session, nil, wire.Padme)
		})
		if len(cell) == 0 {
			t.Fatal("Bob has no session with Ada")
		}
		main, _ := ada.net.PeerIDs()
		addr := ada.net.Addrs()[0]
		asked := make(chan bool, 1)
		time.AfterFunc(20*time.Second, func() { // while Bob's stream is there
			him, _ := bob.net.PeerIDs()
			seen := false
			_ = ada.ask(t.Context(), func(l *loop) {
				for k := range l.links {
					if k.peer == him && !k.veiled {
						d := l.acct.devices[bob.device]
						seen = !k.known && !l.unknown(cellIn{cell: cell, link: k}, &session.UnknownDevice{Device: d.ID})
					}
				}
			})
			asked <- seen
		})
		his := told(t, bob, main, addr, cell)
		if !<-asked {
			t.Error("Ada knows whose stream it is, or asks for his news")
		}
		hers := told(t, eve, main, addr, cell)
		if his != hers {
			t.Errorf("Bob is told %s, and a stranger %s", his, hers)
		}
		closed(t, ada, bob, eve)
	})
}

// TestDialOfBeforeTheRuleEnds: a dial that began when its device could be reached by any
// way goes nowhere once it may be by relays only, and a link of before ends with part.
func TestDialOfBeforeTheRuleEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{})
		ada, bob, eve := alone(t, net, 1, "Ada"), alone(t, net, 2, "Bob"), alone(t, net, 3, "Eve")
		meet(t, ada, bob)
		time.Sleep(10 * time.Second)
		var before *link
		at(t, ada, bob, func(l *loop, d *device) {
			before = d.queue.link
			l.acct.contacts[d.Person].Ways = store.RelayOnly
			l.tellKnown()
			l.part(0)
		})
		if before == nil || !before.stale.Load() {
			t.Error("the link of before goes on, or there was none")
		}
		elsewhere, _ := eve.net.PeerIDs() // a key of his that Ada does not know
		ways := []dialWay{{transport: []byte(elsewhere), addr: eve.net.Addrs()[0]}}
		if _, err := ada.edge.try(t.Context(), dialRequest{device: bob.device, rule: store.AnyWay, ways: ways}, ways); !errors.Is(err, errNoVeil) {
			t.Errorf("a dial of before: %v", err)
		}
		if c := net.Traffic(1, 3).Packets; c > 0 {
			t.Errorf("%d packets went there", c)
		}
		closed(t, ada, bob, eve)
	})
}

// TestPartingIsOfItsOwnKey: a key that the main host gets, and that was drawn because of
// somebody else before, neither ends the link by which Bob is told of the veil nor counts
// as what parts him from this node; nor Eve, who is not connected at all.
func TestPartingIsOfItsOwnKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{})
		ada, bob, eve, carol := alone(t, net, 1, "Ada"), alone(t, net, 2, "Bob"), alone(t, net, 3, "Eve"), alone(t, net, 4, "Carol")
		for _, n := range []*Node{bob, eve, carol} {
			meet(t, ada, n)
		}
		closed(t, eve)
		time.Sleep(time.Minute)
		begin := time.Now()
		type done struct {
			who string
			in  time.Duration
		}
		parted := make(chan done, 3)
		under := func(who string) {
			go func() {
				if _, err := ada.SetWays(t.Context(), who, WaysRelay); err != nil {
					t.Error(err)
				}
				parted <- done{who, time.Since(begin)}
			}()
		}
		under("Carol")
		time.Sleep(3 * time.Second)
		under("Bob")
		under("Eve")
		time.Sleep(100 * time.Millisecond)
		var link *link
		at(t, ada, bob, func(l *loop, d *device) {
			if link = d.queue.link; link == nil || len(l.parting) != 3 {
				t.Errorf("Bob is connected: %v, and %d are parting", link != nil, len(l.parting))
			}
			l.part(1) // as if the host got Carol's key while Bob's was drawn
		})
		at(t, ada, bob, func(l *loop, d *device) {
			if link == nil || link.stale.Load() || l.hidden(d, link) || len(l.parting) != 2 {
				t.Errorf("Bob is cut off, or hidden from, before he is parted; %d are parting", len(l.parting))
			}
		})
		for range 3 {
			if d := <-parted; (d.in < 3*time.Second+rekeyAfter) != (d.who == "Carol") {
				t.Errorf("%s was parted after %v", d.who, d.in)
			}
		}
		at(t, ada, bob, func(l *loop, d *device) {
			if len(l.parting) > 0 || l.hasKeys != 3 || l.keys != 3 {
				t.Errorf("%d are parting still; the host has key %d of %d", len(l.parting), l.hasKeys, l.keys)
			}
		})
		closed(t, ada, bob, carol)
	})
}

// asked keeps of whom the network is asked where this machine is.
type asked struct {
	jobs
	known *known
}

func (a *asked) places(k *known) []netip.Prefix {
	a.known = k
	return nil
}

// TestPlacesAreNotAskedOfWhoLeaves: where this node is when Bob is to find it no more,
// his server has no say in; it could make this node take its own place for another one.
func TestPlacesAreNotAskedOfWhoLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{})
		ada, bob := alone(t, net, 1, "Ada"), alone(t, net, 2, "Bob")
		meet(t, ada, bob)
		time.Sleep(10 * time.Second)
		for _, leaves := range []bool{false, true} {
			at(t, ada, bob, func(l *loop, d *device) {
				var who identity.PersonID
				if leaves {
					who = d.Person
				}
				real, spy := l.net, &asked{jobs: l.net}
				l.net = spy
				l.places(who)
				l.net = real
				if left := spy.known != nil && spy.known.shunned[peer.ID(d.Transport)]; left != leaves {
					t.Errorf("Bob leaves: %v; his server is left out: %v", leaves, left)
				}
			})
		}
		closed(t, ada, bob)
	})
}

// TestAllows: which addresses may be used with whom.
func TestAllows(t *testing.T) {
	const relay = "/ip4/8.0.0.1/udp/4001/quic-v1/p2p/12D3KooWLpzASfMWPFMcA4JWx5SsXejw81Q3Jz1rT64actgsTPhn/p2p-circuit"
	for _, tc := range []struct {
		addr           string
		any, over, lan bool
	}{
		{"/ip4/8.0.0.1/udp/4001/quic-v1", true, false, false},
		{"/ip4/192.168.1.7/udp/4001/quic-v1", true, false, true},
		{relay, true, true, false},
		{"/ip4/192.168.1.7/udp/4001/quic-v1/p2p/12D3KooWLpzASfMWPFMcA4JWx5SsXejw81Q3Jz1rT64actgsTPhn/p2p-circuit", true, true, false},
	} {
		a := multiaddr.StringCast(tc.addr)
		if any, over, lan := allows(store.AnyWay, a), allows(store.RelayOnly, a), allows(store.LANOnly, a); any != tc.any || over != tc.over || lan != tc.lan {
			t.Errorf("%s: any %v, relay %v, lan %v", tc.addr, any, over, lan)
		}
	}
}
