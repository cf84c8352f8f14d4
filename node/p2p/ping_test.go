package p2p

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"
)

// TestPing measures round trips on the path in use, also from and to libp2p's own
// ping, and lists who is connected.
func TestPing(t *testing.T) {
	if ping.ID != PingID {
		t.Fatalf("libp2p calls its ping %s", ping.ID)
	}
	for _, listen := range []ma.Multiaddr{loopQUIC, loopTCP} {
		a, b := start(t, Config{Listen: []ma.Multiaddr{listen}}), start(t, Config{Listen: []ma.Multiaddr{listen}})
		idA, _ := a.PeerIDs()
		idB, _ := b.PeerIDs()
		if _, _, err := a.Ping(t.Context(), idB); !errors.Is(err, ErrNotConnected) {
			t.Errorf("ping of nobody: %v", err)
		}
		if got := a.Peers(); len(got) != 0 {
			t.Errorf("peers of a node alone: %+v", got)
		}
		want, err := a.Dial(t.Context(), idB, b.Addrs())
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			took, path, err := a.Ping(t.Context(), idB)
			if err != nil || took <= 0 || took > 5*time.Second || !path.Addr.Equal(want.Addr) {
				t.Errorf("ping over %s: %v by %+v, %v", listen, took, path, err)
			}
		}
		if _, path, err := b.Ping(t.Context(), idA); err != nil || !path.Inbound {
			t.Errorf("ping back over %s: %+v, %v", listen, path, err)
		}
		for _, side := range []struct {
			n       *Net
			id      peer.ID
			inbound bool
		}{{a, idB, false}, {b, idA, true}} {
			got := side.n.Peers()
			if len(got) != 1 || got[0].ID != side.id || got[0].Inbound != side.inbound || got[0].Route != LAN || got[0].Since.IsZero() || got[0].Serves {
				t.Errorf("peers: %+v", got)
			}
		}
	}
}

func TestPingAndLibp2p(t *testing.T) {
	n := start(t, Config{Listen: []ma.Multiaddr{loopQUIC}})
	id, _ := n.PeerIDs()
	h := rawHost(t, libp2p.ListenAddrs(loopQUIC)) // with its own ping service
	if err := h.Connect(t.Context(), peer.AddrInfo{ID: id, Addrs: n.Addrs()}); err != nil {
		t.Fatal(err)
	}
	pongs := ping.Ping(t.Context(), h, id)
	for range 3 {
		if pong := <-pongs; pong.Error != nil {
			t.Fatal("libp2p pings us:", pong.Error)
		}
	}
	if _, _, err := n.Ping(t.Context(), h.ID()); err != nil {
		t.Error("we ping libp2p:", err)
	}
	h.RemoveStreamHandler(ping.ID)
	if _, _, err := n.Ping(t.Context(), h.ID()); !errors.Is(err, ErrNotSupported) {
		t.Errorf("ping of who does not speak it: %v", err)
	}
	h.SetStreamHandler(ping.ID, func(s network.Stream) {
		_, _ = io.Copy(s, io.LimitReader(zeros{}, pingSize))
	})
	if _, _, err := n.Ping(t.Context(), h.ID()); !errors.Is(err, errEcho) {
		t.Errorf("ping of who answers something else: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestPingIsBounded: a stream ends after so many echoes, and a third stream beside
// two that are open is refused.
func TestPingIsBounded(t *testing.T) {
	n := start(t, Config{Listen: []ma.Multiaddr{loopQUIC}})
	h, c := attack(t, n, n.Addrs()[0])
	id := c.RemotePeer()
	s, err := h.NewStream(t.Context(), id, PingID)
	if err != nil {
		t.Fatal(err)
	}
	echoes, sent := 0, bytes.Repeat([]byte{7}, pingSize)
	for ; echoes <= 10*pingEchoes; echoes++ {
		if _, err := s.Write(sent); err != nil {
			break
		}
		if _, err := io.ReadFull(s, make([]byte, pingSize)); err != nil {
			break
		}
	}
	if echoes != pingEchoes {
		t.Errorf("%d echoes on one stream, want %d", echoes, pingEchoes)
	}
	open := 0
	h, c = attack(t, n, n.Addrs()[0]) // somebody else, as the stream before may still be counted
	id = c.RemotePeer()
	for range 2 * pingLimits.PerPeer {
		s, err := h.NewStream(t.Context(), id, PingID)
		if err != nil {
			continue
		}
		defer s.Reset()
		if _, err := s.Write(sent); err == nil {
			if _, err = io.ReadFull(s, make([]byte, pingSize)); err == nil {
				open++
			}
		}
	}
	if open != pingLimits.PerPeer {
		t.Errorf("%d streams of one peer are served at once, want %d", open, pingLimits.PerPeer)
	}
}
