package node_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
)

// The machines of TestIdleDayWithTwentyContacts: servers and contacts come after.
const (
	idleHome = iota
	idleClient
	idleServer
)

// idleTraffic counts what the packets of one machine were for, as far as somebody on
// the line can tell: by whom they went to, from which socket, and their size.
type idleTraffic map[string]int

// smallest is what nothing but a keep-alive or an acknowledgement fits into.
const smallest = 60

func (c idleTraffic) add(p testnet.Packet, other int, own uint16, servers int) {
	what := "contacts"
	switch {
	case own != 4001:
		what = "records and look-ups, by throwaway hosts"
	case other < 0:
		what = "nobody"
	case other >= idleServer && other < idleServer+servers:
		what = "servers (DHT, relays, tests of reachability)"
	}
	if len(p.Data) <= smallest {
		what += ": keep-alive and acknowledgements"
	}
	c[what] += len(p.Data)
}

func (c idleTraffic) sum() (n int) {
	for _, b := range c {
		n += b
	}
	return n
}

func (c idleTraffic) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%.2f MB", float64(c.sum())/1e6)
	for _, what := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintf(&out, "; %s %.3f", what, float64(c[what])/1e6)
	}
	return out.String()
}

// TestIdleDayWithTwentyContacts is the figure "idle node with 20 contacts, home / client
// profile, 24 virtual hours" of network.md 6, of whole nodes behind routers: half of the
// contacts are always there, a quarter comes and goes, a quarter is never there. Nobody
// says anything. The short form has two contacts, and two hours; the whole day:
//
//	KINLOOM_NIGHTLY=1 go test -count=1 -v -timeout 1h -run '^TestIdleDayWithTwentyContacts$' ./node
func TestIdleDayWithTwentyContacts(t *testing.T) {
	size, contacts, rounds, round := 2, 2, 1, 2*time.Hour
	switch {
	case os.Getenv("KINLOOM_NIGHTLY") == "1":
		size, contacts, rounds, round = 6, 20, 24, time.Hour
	case testing.Short(): // with the race detector
		size, round = 1, time.Hour
	}
	bars := []int{idleHome: 60_000_000, idleClient: 2_000_000}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		var servers []*node.Node
		for i := range size {
			servers = append(servers, onto(t, net, idleServer+i, "", fmt.Sprint("Server", i), "server", servers[:min(i, 2)]...))
		}
		ada, cleo := onto(t, net, idleHome, "", "Ada", "home", servers[0]), onto(t, net, idleClient, "", "Cleo", "client", servers[size-1])
		var homes []string
		var there []*node.Node
		for i := range contacts {
			dir := t.TempDir()
			n := onto(t, net, idleServer+size+i, dir, fmt.Sprint("Contact", i), "home", servers[i%size])
			befriend(ctx, t, n, ada)
			befriend(ctx, t, n, cleo)
			homes, there = append(homes, dir), append(there, n)
			if i%2 == 0 {
				net.Host(idleServer + size + i).Firewall(true)
			}
		}
		net.Host(idleHome).Firewall(true)
		net.Host(idleClient).Firewall(true)
		time.Sleep(time.Minute) // everybody tells everybody where they are
		steady, returning := contacts/2, 3*contacts/4
		closeAll(t, there[steady:]...)
		there = there[:steady]
		time.Sleep(time.Hour) // what follows a change is no idling

		var mu sync.Mutex // guards what lies in counted
		counted := map[int]idleTraffic{idleHome: {}, idleClient: {}}
		net.Tap(func(p testnet.Packet) {
			mu.Lock()
			defer mu.Unlock()
			if c := counted[p.From]; c != nil {
				c.add(p, p.To, p.Src.Port(), size)
			}
			if c := counted[p.To]; c != nil && !p.Lost {
				c.add(p, p.From, p.Dst.Port(), size)
			}
		})
		for k := range rounds {
			i := steady + k%max(1, returning-steady)
			back := onto(t, net, idleServer+size+i, homes[i], "", "home", servers[0])
			time.Sleep(20 * time.Minute)
			closeAll(t, back)
			time.Sleep(round - 20*time.Minute)
		}
		for i, n := range []*node.Node{idleHome: ada, idleClient: cleo} {
			s, err := n.Status(ctx)
			if err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			traffic := maps.Clone(counted[i])
			mu.Unlock()
			perDay := traffic.sum() * 24 / (rounds * int(round/time.Hour))
			t.Logf("%s, %d contacts, %d of their devices connected, %d hours: %s; %.2f MB a day, at most %d",
				s.Profile, s.Contacts, s.Online, rounds*int(round/time.Hour), traffic, float64(perDay)/1e6, bars[i]/1e6)
			if perDay > bars[i] {
				t.Errorf("%s: %d bytes a day, at most %d", s.Profile, perDay, bars[i])
			}
			if s.Contacts != contacts {
				t.Errorf("%s has %d contacts, want %d", s.Profile, s.Contacts, contacts)
			}
		}
		// It is idle, and not dead.
		delivered(ctx, t, there[0], say(ctx, t, there[0], "Ada", "still there?"))
		delivered(ctx, t, there[0], say(ctx, t, there[0], "Cleo", "and you?"))
		closeAll(t, append(append(servers, ada, cleo), there...)...)
	})
}
