package node_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/protocol/wire"
)

// strangersProtocols are what a node with the profile server serves to anybody, in frames.
var strangersProtocols = []protocol.ID{
	wire.DM, wire.Contact, wire.Hello, wire.DHTProxy, wire.DHTPrefix + "/kad/1.0.0",
	"/ipfs/id/push/1.0.0", "/libp2p/circuit/relay/0.2.0/hop", "/libp2p/autonat/1.0.0", "/libp2p/autonat/2/dial-request",
}

// strange runs f with a stranger that is connected with a server, which serves a contact
// before and after it.
func strange(t *testing.T, f func(ctx context.Context, h host.Host, to peer.ID)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{Latency: 5 * time.Millisecond})
		ada := onto(t, net, 0, "", "Ada", "server")
		bob := onto(t, net, 1, "", "Bob", "home", ada)
		befriend(ctx, t, ada, bob)
		s, err := ada.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		h, err := bare(net.Host(2))
		if err != nil {
			t.Fatal(err)
		}
		at, err := peer.AddrInfoFromP2pAddr(multiaddr.StringCast(s.Listening[0] + "/p2p/" + s.PeerID))
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Connect(ctx, *at); err != nil {
			t.Fatal(err)
		}
		f(ctx, h, at.ID)
		served(ctx, t, ada, bob)
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		closeAll(t, ada, bob)
	})
}

// ended waits until the other side has ended a stream, for a time at most, and gives how
// long that took.
func ended(s network.Stream, most time.Duration) (time.Duration, bool) {
	begin := time.Now()
	_ = s.SetReadDeadline(begin.Add(most))
	buf := make([]byte, 4096)
	for {
		if _, err := s.Read(buf); err != nil {
			return time.Since(begin), !errors.Is(err, os.ErrDeadlineExceeded)
		}
	}
}

// TestSlowlorisFrames: one byte a second, on every protocol that strangers are served.
// Each stream is ended within two minutes, however long its frame says it is.
func TestSlowlorisFrames(t *testing.T) {
	strange(t, func(ctx context.Context, h host.Host, to peer.ID) {
		for _, id := range append(strangersProtocols, p2p.PingID) {
			s, err := h.NewStream(ctx, to, id)
			if err != nil {
				t.Errorf("%s: %v", id, err)
				continue
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				frame := binary.AppendUvarint(nil, 1000)
				for range 300 {
					if _, err := s.Write(frame[:1]); err != nil {
						return
					}
					frame = append(frame[1:], 1)
					time.Sleep(time.Second)
				}
			}()
			took, ok := ended(s, 4*time.Minute)
			t.Logf("%s ended after %v: %v", id, took.Round(time.Millisecond), ok)
			if !ok || took > 2*time.Minute {
				t.Errorf("%s: a stream with a byte a second lives for %v, ended: %v", id, took, ok)
			}
			_ = s.Reset()
			<-done
		}
	})
}

// TestHugeLengthPrefix: frames that say that they have 2^63, 2^32 or 16 MiB bytes end the
// stream of every protocol before anybody makes room for them.
func TestHugeLengthPrefix(t *testing.T) {
	strange(t, func(ctx context.Context, h host.Host, to peer.ID) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		tries := 0
		for _, id := range strangersProtocols {
			for _, size := range []uint64{1 << 63, 1 << 32, 16 << 20} {
				time.Sleep(200 * time.Millisecond) // the rate of streams of one peer
				s, err := h.NewStream(ctx, to, id)
				if err != nil {
					t.Errorf("%s: %v", id, err)
					continue
				}
				if _, err := s.Write(append(binary.AppendUvarint(nil, size), make([]byte, 100)...)); err != nil {
					t.Errorf("%s: %v", id, err)
				}
				tries++
				if took, ok := ended(s, time.Minute); !ok || took > time.Second {
					t.Errorf("%s: a frame of %d bytes is waited for: %v, ended: %v", id, size, took, ok)
				}
				_ = s.Reset()
			}
		}
		runtime.ReadMemStats(&after)
		if more := (after.TotalAlloc - before.TotalAlloc) / uint64(tries); more > 2<<20 {
			t.Errorf("each frame cost %d KiB of memory", more>>10)
		}
	})
}

// TestPingPlacesForContacts: strangers hold all ping streams that strangers may have. A
// contact still hears that somebody is there.
func TestPingPlacesForContacts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		ada := onto(t, net, 0, "", "Ada", "server")
		bob := onto(t, net, 2, "", "Bob", "home", ada)
		befriend(ctx, t, ada, bob)
		time.Sleep(time.Minute)
		s, err := ada.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		to, err := peer.AddrInfoFromP2pAddr(multiaddr.StringCast(s.Listening[0] + "/p2p/" + s.PeerID))
		if err != nil {
			t.Fatal(err)
		}
		held := 0
		for i := range 10 {
			h, err := bare(net.Host(20 + i))
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			if err := h.Connect(ctx, *to); err != nil {
				t.Fatal(err)
			}
			for range 6 {
				s, err := h.NewStream(ctx, to.ID, p2p.PingID)
				if err != nil {
					continue
				}
				if _, err = s.Write(make([]byte, 32)); err == nil {
					_, err = io.ReadFull(s, make([]byte, 32))
				}
				if err == nil {
					held++
				}
			}
		}
		pongs, err := bob.Ping(ctx, "Ada")
		if err != nil || len(pongs) != 1 || !pongs[0].Answered {
			t.Errorf("while strangers hold %d streams: %+v, %v", held, pongs, err)
		}
		if held != 32 {
			t.Errorf("strangers hold %d streams, want 32", held)
		}
		closeAll(t, ada, bob)
	})
}
