package node_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/protocol/rv"
)

// TestTranscriptOfTheThird: two who met, stopped, moved and started again find each
// other through a server that they never told each other about, and go on for days,
// running and restarted. All that this server takes in and sends is recorded, as
// whoever runs it could.
//
// What is in it, and may be: at connections of their own, the transport keys of the two
// and their addresses, as of any node that is online, and what those ask of a part of
// the DHT: themselves, and random keys. At connections that last for one look-up each,
// by a key and a port of that moment, from the same addresses: a point, and a record of
// a day. As both come from one address, this one server can guess that what it was
// asked from there on one day and on the next is of one person; only with more servers
// than this there is another one for each day (TestTwoDaysNeverMeet). It cannot tell
// whose record was asked for: that is what this test is about.
func TestTranscriptOfTheThird(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		days := 3
		switch {
		case os.Getenv("KINLOOM_NIGHTLY") == "1":
			days = 10
		case testing.Short():
			days = 2
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(days+3)*24*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		rec := net.Host(0).Record()
		server := onto(t, net, 0, "", "Server", "server")
		third, err := server.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		people := []*person{
			{name: "Ada Lindqvist", dir: filepath.Join(t.TempDir(), "ada")},
			{name: "Bob Okafor", dir: filepath.Join(t.TempDir(), "bob")},
		}
		first := rv.PeriodAt(time.Now())
		running, machine := make([]*node.Node, 2), 0
		start := func(i int) {
			machine++
			running[i] = onto(t, net, machine, people[i].dir, people[i].name, "home", server)
		}
		all := secrets{}
		start(0)
		start(1)
		link, err := running[0].Invite(ctx)
		if err != nil {
			t.Fatal(err)
		}
		added, err := running[1].AddContact(ctx, link, node.AddOptions{Name: "Countess of Somewhere"})
		if err != nil {
			t.Fatal(err)
		}
		all["invite"], all["petname"] = []byte(link), []byte("Countess of Somewhere")
		all["conversation"] = added.Contact.Conversation[:]
		for i, p := range people {
			all["name "+p.name] = []byte(p.name)
			p.keys, p.main, p.points = all.ofHome(t, p.dir, nil), map[peer.ID]bool{}, map[rv.Point]publishedAs{}
			p.note(ctx, t, running[i], first, days)
		}
		time.Sleep(time.Hour) // they are known to be public then, and name no relay
		closeAll(t, running...)
		time.Sleep(time.Until(first.Start().Add(16 * time.Hour)))
		start(0)
		start(1)
		if took := talking(ctx, t, running[0], running[1], "Countess of Somewhere", people[1].name); took > 10*time.Second {
			t.Errorf("talking again after %s, want at most 10 s", took)
		}
		// Whatever was first, a relay or a record: by records alone it works as well.
		finds(ctx, t, running[0], running[1])
		finds(ctx, t, running[1], running[0])
		if !slices.ContainsFunc(carriages(t, rec.Conns()), func(c carriage) bool { return !c.put && c.record != nil && c.proxy }) {
			t.Error("they did not find each other through the third")
		}

		// They run over the change of each day, are closed by day, one alone or both in turn
		// start at other addresses before the evening, and all at no minute in particular.
		dice := rand.New(rand.NewPCG(1, 2))
		for day := range days {
			evening := (first + rv.Period(day)).Start().Add(20*time.Hour + time.Duration(dice.IntN(60))*time.Minute)
			if day > 0 {
				time.Sleep(time.Until(evening.Add(-time.Duration(dice.IntN(50)+10) * time.Minute)))
				start(0)
				start(1)
			}
			time.Sleep(time.Until(evening))
			for i := range running {
				if day%3 != i {
					closeAll(t, running[i])
					start(i)
				}
			}
			talking(ctx, t, running[0], running[1], "Countess of Somewhere", people[1].name)
			time.Sleep(time.Until((first + rv.Period(day+1)).Start().Add(time.Hour)))
			for i, p := range people {
				p.note(ctx, t, running[i], first, days)
			}
			closeAll(t, running...)
		}
		closeAll(t, server)

		conns, owners := rec.Conns(), map[rv.Point]publishedAs{}
		for _, p := range people {
			for point, as := range p.points {
				owners[point] = as
				all[fmt.Sprintf("contact secret of %s %x", p.name, [32]byte(as.secret))] = as.secret[:]
			}
		}
		tell(t, conns, people, third.PeerID)
		var in, out, who []byte
		for _, c := range conns {
			for _, s := range c.Streams {
				in, out = append(in, s.In...), append(out, s.Out...)
			}
			who = fmt.Appendf(who, "%s %s %s\n", c.Addr, c.Remote, string(c.Remote))
		}
		for what, b := range map[string][]byte{"what the third took in": in, "what it sent": out, "who was there": who} {
			all.leaks(t, what, b)
			for spelling, text := range all.texts() {
				if bytes.Contains(b, []byte(text)) {
					t.Errorf("%s: there is %s", what, spelling)
				}
			}
		}
		namesNobody(t, conns, people...)
		looked := carriages(t, conns)
		unlinked(t, conns, looked, owners)
		of := map[string]map[rv.Period]bool{}
		for _, c := range looked {
			o, ok := owners[c.point]
			if !ok {
				t.Errorf("a point that is of nobody: %x, put %v, by proxy %v, with %s at %s", c.point, c.put, c.proxy, c.remote, c.at)
				continue
			}
			if of[o.who] == nil {
				of[o.who] = map[rv.Period]bool{}
			}
			of[o.who][o.period] = of[o.who][o.period] || c.record != nil
			for _, p := range people {
				if c.proxy && p.main[c.remote] {
					t.Errorf("%s looked up under its own transport key", p.name)
				}
			}
		}
		for _, p := range people {
			if seen := slices.Collect(maps.Values(of[p.name])); len(seen) < days {
				t.Errorf("records of %s on %d days: too few to prove anything", p.name, len(seen))
			}
		}
	})
}

// tell logs what the third has seen, for the reader of the test.
func tell(t *testing.T, conns []testnet.HeardConn, people []*person, third string) {
	t.Helper()
	size, streams := 0, 0
	own := map[string]map[string]int{}
	for _, c := range conns {
		who := "a host of the moment"
		for _, p := range people {
			if p.main[c.Remote] {
				who = p.name
			}
		}
		if c.Remote.String() == third {
			who = "itself"
		}
		if own[who] == nil {
			own[who] = map[string]int{}
		}
		for _, s := range c.Streams {
			size += len(s.In) + len(s.Out)
			way := "asked "
			if s.Inbound {
				way = "was asked "
			}
			own[who][way+s.Protocol]++
			streams++
		}
	}
	for who, asked := range own {
		t.Logf("%s: %v", who, asked)
	}
	t.Logf("%d connections, %d streams, %d bytes", len(conns), streams, size)
	if size < 50_000 || len(conns) < 20 {
		t.Errorf("the third saw too little to prove anything: %d connections, %d bytes", len(conns), size)
	}
}
