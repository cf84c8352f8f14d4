package p2p

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// TestDialAgainAtOnce: after a dial that failed the next one really dials: when to try again is decided by the caller.
func TestDialAgainAtOnce(t *testing.T) {
	h := start(t, Config{Listen: []ma.Multiaddr{loopTCP}}).host(mainHost)
	id, err := peer.IDFromPrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	nobody := ma.StringCast("/ip4/127.0.0.1/tcp/1")
	refused := func(err error) bool {
		de, ok := errors.AsType[*swarm.DialError](err)
		return ok && len(de.DialErrors) == 1 && !errors.Is(de.DialErrors[0].Cause, swarm.ErrDialBackoff)
	}
	for i := range 3 {
		if err := h.dial(t.Context(), id, []ma.Multiaddr{nobody}); !refused(err) {
			t.Errorf("dial %d: %v, want a refused connection", i, err)
		}
	}
	if _, err := h.Network().DialPeer(t.Context(), id); refused(err) {
		t.Errorf("libp2p itself does not wait after a failure: %v", err)
	}
	// So it is with a relay that somebody is dialled over: it did not answer a moment ago, as this machine had no network.
	behind, err := peer.IDFromPrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	over := nobody.Encapsulate(ma.StringCast("/p2p/" + id.String())).Encapsulate(circuit)
	for i := range 2 {
		if err := h.dial(t.Context(), behind, []ma.Multiaddr{over}); err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("dial %d over a relay: %v, want that the relay refused the connection", i, err)
		}
	}
}

// TestDialsOfOnePeerAtOnce: two who dial the same peer at the same moment, as the join of
// the DHT and the owner with an invite, do not take its addresses from each other.
func TestDialsOfOnePeerAtOnce(t *testing.T) {
	h, other := start(t, Config{Listen: []ma.Multiaddr{loopTCP}}).host(mainHost), start(t, Config{Listen: []ma.Multiaddr{loopTCP}}).host(mainHost)
	for round := range 60 { // fewer than the guard lets one peer come in a row
		var wg sync.WaitGroup
		errs := make([]error, 16)
		for i := range errs {
			wg.Go(func() { errs[i] = h.dial(t.Context(), other.ID(), other.Network().ListenAddresses()) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := h.Network().ClosePeer(other.ID()); err != nil {
			t.Fatal(err)
		}
	}
}
