package p2p

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/protocol/rv"
)

// TestTriedTellsBlockedUDP: TCP alone says nothing of UDP, unless QUIC was tried with
// the same peer; the local network says nothing of the one outside.
func TestTriedTellsBlockedUDP(t *testing.T) {
	quic, tcp, home := ma.StringCast("/ip4/1.2.3.4/udp/4001/quic-v1"), ma.StringCast("/ip4/1.2.3.4/tcp/4001"), ma.StringCast("/ip4/192.168.1.2/udp/4001/quic-v1")
	n := start(t, Config{Listen: []ma.Multiaddr{loopTCP}})
	for _, step := range []struct {
		addrs []ma.Multiaddr
		path  Path
		want  Tried
	}{
		{[]ma.Multiaddr{tcp}, Path{Route: Direct, Transport: "tcp"}, Tried{TCP: 1}},
		{[]ma.Multiaddr{home}, Path{Route: LAN, Transport: "quic"}, Tried{TCP: 1}},
		{[]ma.Multiaddr{home, tcp}, Path{Route: Direct, Transport: "tcp"}, Tried{TCP: 2}},
		{[]ma.Multiaddr{quic, tcp}, Path{Route: Direct, Transport: "tcp"}, Tried{TCP: 3, Skipped: 1}},
		{[]ma.Multiaddr{quic, tcp}, Path{Route: Direct, Transport: "quic"}, Tried{UDP: 1, TCP: 3, Skipped: 1}},
	} {
		n.tried.dialled(step.addrs, step.path, time.Now())
		if got := n.Tried(); got != step.want {
			t.Errorf("after %v by %+v: %+v, want %+v", step.addrs, step.path, got, step.want)
		}
	}
	n.tried.lan(errors.New("no socket"))
	if got := n.Tried().LAN; got != "no socket" {
		t.Errorf("the search for neighbours: %q", got)
	}
}

// TestUDPBlockedInTheNextNetwork: that UDP got through at home says nothing of an office
// that blocks it, nor of home some hours later.
func TestUDPBlockedInTheNextNetwork(t *testing.T) {
	var tr tried
	now := time.Unix(1_700_000_000, 0)
	quic := []ma.Multiaddr{ma.StringCast("/ip4/1.2.3.4/udp/4001/quic-v1"), ma.StringCast("/ip4/1.2.3.4/tcp/4001")}
	tr.dialled(quic, Path{Route: Direct, Transport: "quic"}, now)
	now = now.Add(triedFor/2 + time.Minute)
	if got := tr.now(now); got.UDP != 1 {
		t.Errorf("after a while at home: %+v", got)
	}
	tr.forget(now)
	tr.dialled(quic, Path{Route: Direct, Transport: "tcp"}, now)
	if got, want := tr.now(now), (Tried{TCP: 1, Skipped: 1}); got != want {
		t.Errorf("in the office: %+v, want %+v", got, want)
	}
	now = now.Add(triedFor)
	if got, want := tr.now(now), (Tried{}); got != want {
		t.Errorf("hours later: %+v, want %+v", got, want)
	}
}

// TestLoginPageIsForgotten: the login page of a hotel, and who lied there, explain nothing
// at home, nor in the same network some hours later.
func TestLoginPageIsForgotten(t *testing.T) {
	page := &swarm.DialError{DialErrors: []swarm.TransportError{{Cause: ErrStrange}}}
	for _, leaves := range []bool{false, true} {
		var tr tried
		now := time.Unix(1_700_000_000, 0)
		tr.lan(errors.New("no socket"))
		tr.failed(page, now)
		tr.answered(false, now)
		tr.answered(true, now)
		now = now.Add(triedFor/2 + time.Minute)
		tr.failed(page, now)
		if got, want := tr.now(now), (Tried{Strange: 2, Answers: 2, False: 1, LAN: "no socket"}); got != want {
			t.Errorf("in the hotel: %+v, want %+v", got, want)
		}
		if leaves {
			tr.forget(now)
		} else {
			now = now.Add(triedFor)
		}
		if got, want := tr.now(now), (Tried{LAN: "no socket"}); got != want {
			t.Errorf("after it, left: %v: %+v, want %+v", leaves, got, want)
		}
	}
}

// TestForgeryOfAnotherTime: a record that nobody signed is false by any clock, one that
// its owner signed by none, though neither is taken at another time.
func TestForgeryOfAnotherTime(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	point, record := sealed(t, 1, rv.PeriodAt(now), 1)
	forged := bytes.Clone(record)
	forged[len(forged)-1]++
	for _, off := range []time.Duration{0, -100 * time.Hour, 100 * time.Hour} {
		w := walk{d: &dht{net: &Net{cfg: Config{Now: func() time.Time { return now.Add(off) }}}}, point: point}
		w.take(answer{hop: &hop{}, record: forged})
		if got, want := w.d.net.tried.now(time.Now()), (Tried{Answers: 1, False: 1}); got != want {
			t.Errorf("forged, the clock off by %v: %+v, want %+v", off, got, want)
		}
		if off == 0 {
			continue
		}
		honest := &hop{}
		w.take(answer{hop: honest, record: record})
		if got, want := w.d.net.tried.now(time.Now()), (Tried{Answers: 2, False: 1}); got != want || honest.state != hopFailed || w.best != nil {
			t.Errorf("true, the clock off by %v: %+v, want %+v", off, got, want)
		}
	}
}
