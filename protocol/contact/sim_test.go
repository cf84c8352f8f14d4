package contact

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
)

func transportOf(t *testing.T, h host.Host) Transport {
	t.Helper()
	id, err := ParseTransport([]byte(h.ID()))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// endings are how the streams of a server ended.
type endings struct {
	mu  sync.Mutex // guards all
	all []error
}

func (e *endings) add(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, err)
}

// serveOn lets h answer the invites of node's person, as the node does.
func serveOn(t *testing.T, h host.Host, node *hostNode, ended *endings) {
	t.Helper()
	node.party.transport = transportOf(t, h)
	h.SetStreamHandler(ID, func(s network.Stream) {
		channel, err := StreamChannel(s)
		if err != nil {
			t.Error(err)
			return
		}
		_, err = Serve(t.Context(), s, NewResponder(node.party.Self, channel, random(99)), node)
		ended.add(err)
	})
}

// answer runs the initiator's side from h, and tells when the inviter was met.
func answer(t *testing.T, h, inviter host.Host, a, b *party) (r Result, met time.Duration, err error) {
	t.Helper()
	b.transport = transportOf(t, h)
	begun := time.Now()
	s, err := h.NewStream(t.Context(), inviter.ID(), ID)
	if err != nil {
		t.Fatal(err)
	}
	channel, err := StreamChannel(s)
	if err != nil {
		t.Fatal(err)
	}
	i, err := NewInitiator(time.Now(), b.Self, a.invite(), channel, b.random)
	if err != nil {
		t.Fatal(err)
	}
	r, err = Exchange(t.Context(), s, i, func(Met) error { met = time.Since(begun); return nil })
	return r, met, err
}

// TestSimExchange: two hosts that are connected become contacts in two round
// trips, and the one who asks may write after the first.
func TestSimExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2)
		a, b := newParty(t, 1), newParty(t, 2)
		node, ended := newHost(a), &endings{}
		serveOn(t, hosts[0], node, ended)
		connect(t, hosts[1], hosts[0])
		begun := time.Now()
		r, met, err := answer(t, hosts[1], hosts[0], a, b)
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(begun)
		t.Logf("met after %v, contact after %v", met, took)
		if met > roundTrip+20*time.Millisecond || took > 2*roundTrip+20*time.Millisecond {
			t.Errorf("met after %v and contact after %v; want one and two round trips of %v", met, took, roundTrip)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(node.met) != 1 || node.met[0].Words != r.Words || node.met[0].Peer.Transport != b.transport {
			t.Errorf("the inviter has %d contacts, or other words than %v", len(node.met), r.Words)
		}
		if len(ended.all) != 1 || ended.all[0] != nil {
			t.Errorf("the inviter's stream ended with %v", ended.all)
		}
	})
}

// TestSimRefusal: the reason reaches the other side over a real stream.
func TestSimRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2)
		a, b := newParty(t, 1), newParty(t, 2)
		node, ended := newHost(a), &endings{}
		node.token = Token{9}
		serveOn(t, hosts[0], node, ended)
		connect(t, hosts[1], hosts[0])
		begun := time.Now()
		_, _, err := answer(t, hosts[1], hosts[0], a, b)
		if !errors.Is(err, Refused{CodeTokenUnknown}) || time.Since(begun) > roundTrip+20*time.Millisecond {
			t.Errorf("after %v: %v, want Refused after one round trip", time.Since(begun), err)
		}
	})
}

// TestSimHostilePeers: 20 streams of a peer that says nothing, a byte a second
// or something else are all cut in time, with the reason, while an honest one
// is served as if they were not there.
func TestSimHostilePeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 3)
		a, b := newParty(t, 1), newParty(t, 2)
		node, ended := newHost(a), &endings{}
		serveOn(t, hosts[0], node, ended)
		connect(t, hosts[1], hosts[0])
		connect(t, hosts[2], hosts[0])
		var wg sync.WaitGroup
		begun := time.Now()
		for n := range 20 {
			s, err := hosts[2].NewStream(t.Context(), hosts[0].ID(), ID)
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				var first []byte
				switch n % 3 {
				case 0: // a frame is announced and does not come
					first = []byte{0x60}
				case 1: // a byte a second
					first = []byte{0x7f}
				case 2:
					first = []byte("HTTP/1.1 400 Bad Request\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close\r\n\r\n")
				}
				for {
					if _, err := s.Write(first); err != nil {
						return
					}
					if n%3 != 1 {
						break
					}
					time.Sleep(time.Second)
				}
				_ = s.SetReadDeadline(time.Now().Add(time.Minute))
				for err == nil { // until it is cut
					_, err = s.Read(make([]byte, 64))
				}
				_ = s.Reset()
			})
		}
		time.Sleep(3 * time.Second)
		honest := time.Now()
		if _, _, err := answer(t, hosts[1], hosts[0], a, b); err != nil || time.Since(honest) > 2*roundTrip+20*time.Millisecond {
			t.Errorf("honest peer after %v: %v, want a contact after two round trips", time.Since(honest), err)
		}
		wg.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		if took := time.Since(begun); took > Timeout+3*time.Second {
			t.Errorf("hostile streams lived for %v, want %v at most", took, Timeout)
		}
		slow, malformed, fine := 0, 0, 0
		for _, err := range ended.all {
			switch {
			case errors.Is(err, ErrSlow):
				slow++
			case errors.Is(err, ErrMalformed):
				malformed++
			case err == nil:
				fine++
			default:
				t.Errorf("a stream ended with %v", err)
			}
		}
		if slow != 14 || malformed != 6 || fine != 1 {
			t.Errorf("%d streams too slow, %d malformed, %d served; want 14, 6 and 1", slow, malformed, fine)
		}
	})
}

// TestSimHello: contacts recognise each other in one round trip, a stranger is
// told nothing.
func TestSimHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 3)
		hosts[0].SetStreamHandler(HelloID, func(s network.Stream) {
			channel, err := StreamChannel(s)
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = ServeHello(t.Context(), s, NewHelloListener(aboutForHello, channel, pairs(bob, ada, 200, 7), random(9)))
		})
		for n, wants := range map[int]bool{1: true, 2: false} {
			connect(t, hosts[n], hosts[0])
			known := -1
			if wants {
				known = 3
			}
			begun := time.Now()
			s, err := hosts[n].NewStream(t.Context(), hosts[0].ID(), HelloID)
			if err != nil {
				t.Fatal(err)
			}
			channel, err := StreamChannel(s)
			if err != nil {
				t.Fatal(err)
			}
			g, err := SayHello(t.Context(), s, NewHelloDialer(About{}, channel, pairs(ada, bob, 20, known), random(8)))
			if err != nil {
				t.Fatal(err)
			}
			if g.Known != wants || (g.Caps != nil) != wants {
				t.Errorf("host %d: known %v with capabilities %v, want %v", n, g.Known, g.Caps, wants)
			}
			if took := time.Since(begun); took > roundTrip+20*time.Millisecond {
				t.Errorf("host %d: hello took %v, want one round trip", n, took)
			}
		}
	})
}

// TestSimOldTransport: what an exchange sent is worth nothing when the host
// has another key, over whichever connection.
func TestSimOldTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2)
		a, b := newParty(t, 1), newParty(t, 2)
		node, ended := newHost(a), &endings{}
		serveOn(t, hosts[0], node, ended)
		connect(t, hosts[1], hosts[0])
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s, err := hosts[1].NewStream(ctx, hosts[0].ID(), ID)
		if err != nil {
			t.Fatal(err)
		}
		// b signs for the key it had yesterday.
		yesterday := Channel{Local: Transport{1}, Remote: a.transport}
		i, err := NewInitiator(time.Now(), b.Self, a.invite(), yesterday, b.random)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Exchange(ctx, s, i, nil); err == nil {
			t.Error("the exchange went through")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(node.met) != 0 || len(ended.all) != 1 || !errors.Is(ended.all[0], ErrProof) {
			t.Errorf("the inviter stored %d, its stream ended with %v; want none and ErrProof", len(node.met), ended.all)
		}
	})
}
