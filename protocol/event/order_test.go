package event

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kinloom/kinloom/identity"
)

func orderIDs(nodes []Node) []ID {
	ids := make([]ID, 0, len(nodes))
	for _, i := range Order(nodes) {
		ids = append(ids, nodes[i].ID)
	}
	return ids
}

// positions returns where each event stands in the order.
func positions(t *testing.T, nodes []Node) map[ID]int {
	t.Helper()
	at := map[ID]int{}
	for i, id := range orderIDs(nodes) {
		if _, twice := at[id]; twice {
			t.Fatalf("%v stands twice", id)
		}
		at[id] = i
	}
	if len(at) != len(nodes) {
		t.Fatalf("%d of %d events are in the order", len(at), len(nodes))
	}
	return at
}

// checkSenderOrder: seqs of a device rise, whatever anybody does.
func checkSenderOrder(t *testing.T, nodes []Node) {
	t.Helper()
	at := positions(t, nodes)
	for _, a := range nodes {
		for _, b := range nodes {
			if a.Device == b.Device && a.Seq < b.Seq && at[a.ID] > at[b.ID] {
				t.Fatalf("device %v: seq %d stands behind seq %d", a.Device.Short(), a.Seq, b.Seq)
			}
		}
	}
}

// history makes the events of honest devices that hear of each other's events
// late, in any order, or never.
func history(r *rand.Rand, devices, events int) []Node {
	type peer struct {
		dev  identity.DeviceID
		m    *Machine
		lead time.Duration // of its wall clock
		due  []Node        // sent to it, not arrived
	}
	conv := ConversationID{9}
	peers := make([]*peer, devices)
	for i := range peers {
		dev := identity.DeviceID{byte(i + 1)}
		lead := time.Duration(r.IntN(7200)-3600) * time.Second
		if r.IntN(4) == 0 {
			lead *= 300 // far beyond MaxAhead, to either side
		}
		peers[i] = &peer{dev: dev, m: NewMachine(Context{Conversation: conv, Device: dev}), lead: lead}
	}
	now := time.UnixMilli(1_790_000_000_000)
	var all []Node
	for range events {
		now = now.Add(time.Duration(r.IntN(5000)) * time.Millisecond)
		p := peers[r.IntN(devices)]
		r.Shuffle(len(p.due), func(i, j int) { p.due[i], p.due[j] = p.due[j], p.due[i] })
		arrived := r.IntN(len(p.due) + 1)
		for _, n := range p.due[:arrived] {
			e := Event{Seq: n.Seq, Parents: n.Parents, Clock: n.Clock, Type: Message}
			p.m.Observe(now.Add(p.lead), n.Device, n.ID, e, ID{})
		}
		p.due = p.due[arrived:]
		made, err := p.m.Next(now.Add(p.lead), Message, "", must(Text{Text: "x"}.Append()))
		if err != nil {
			panic(err)
		}
		n := Node{ID: made.ID, Device: p.dev, Seq: made.Seq, Clock: made.Clock, Parents: made.Parents}
		all = append(all, n)
		for _, q := range peers {
			if q != p && r.IntN(20) > 0 {
				q.due = append(q.due, n)
			}
		}
	}
	return all
}

// TestOrderOfHonestDevices: seqs and parents hold, from every arrival and with
// any part missing; wrong clocks included.
func TestOrderOfHonestDevices(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		nodes := history(r, 2+r.IntN(5), 1+r.IntN(120))
		if seed%2 == 1 { // something is missing for ever
			nodes = slices.DeleteFunc(nodes, func(Node) bool { return r.IntN(8) == 0 })
		}
		want := orderIDs(nodes)
		at := positions(t, nodes)
		for _, n := range nodes {
			for _, p := range n.Parents {
				if i, ok := at[p]; ok && i > at[n.ID] {
					t.Fatalf("seed %d: %v stands before its parent", seed, n.ID)
				}
			}
		}
		checkSenderOrder(t, nodes)
		for range 3 {
			r.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
			if got := orderIDs(nodes); !slices.Equal(got, want) {
				t.Fatalf("seed %d: the order depends on the arrival", seed)
			}
		}
	}
}

// TestOrderOfLiars: no graph, however contradictory, moves a sender's seqs, ends
// without an event, or comes out differently elsewhere.
func TestOrderOfLiars(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 2))
		b := make([]byte, 5*(1+r.IntN(60)))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		nodes := graphOf(b)
		want := orderIDs(nodes)
		checkSenderOrder(t, nodes)
		for range 3 {
			r.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
			if got := orderIDs(nodes); !slices.Equal(got, want) {
				t.Fatalf("seed %d: %v, was %v", seed, got, want)
			}
		}
	}
}

// TestRingStaysAmongLiars: a ring of two dishonest devices does not move what
// honest devices say to each other, nor put them before their own parents.
func TestRingStaysAmongLiars(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 3))
		nodes := history(r, 3, 60)
		before := orderIDs(nodes)
		// Two devices whose first events name each other's second, and nothing
		// of the honest ones.
		for d := range byte(2) {
			for s := range byte(2) {
				n := Node{ID: ID{250, d, s}, Device: identity.DeviceID{250, d}, Seq: uint64(s) + 1, Clock: Clock(r.Uint64() >> 1)}
				if s == 0 {
					n.Parents = []ID{{250, 1 - d, 1}}
				}
				nodes = append(nodes, n)
			}
		}
		after := slices.DeleteFunc(orderIDs(nodes), func(id ID) bool { return id[0] == 250 && id[3] == 0 && id[4] == 0 })
		if !slices.Equal(before, after) {
			t.Fatalf("seed %d: honest events moved", seed)
		}
	}
}

// TestEventsOfRingFollowers: an honest event that answers one of a ring waits
// for it; the ring alone is cut.
func TestEventsOfRingFollowers(t *testing.T) {
	dev := func(b byte) identity.DeviceID { return identity.DeviceID{b} }
	nodes := []Node{
		{ID: ID{1}, Device: dev('a'), Seq: 1, Clock: 100, Parents: []ID{{4}}},
		{ID: ID{2}, Device: dev('a'), Seq: 2, Clock: 101},
		{ID: ID{3}, Device: dev('b'), Seq: 1, Clock: 102, Parents: []ID{{2}}},
		{ID: ID{4}, Device: dev('b'), Seq: 2, Clock: 103},
		{ID: ID{5}, Device: dev('c'), Seq: 1, Clock: 1, Parents: []ID{{3}}}, // honest, its clock is behind
		{ID: ID{6}, Device: dev('c'), Seq: 2, Clock: 2},
	}
	want := []ID{{1}, {2}, {3}, {5}, {6}, {4}}
	if got := orderIDs(nodes); !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

// TestOrderScales: a long conversation, and one made to be slow.
func TestOrderScales(t *testing.T) {
	n := 20_000
	if testing.Short() { // beside the race detector
		n = 4_000
	}
	chain := make([]Node, n)
	rings := make([]Node, n)
	for i := range n {
		id := func(k int) (id ID) { binary.BigEndian.PutUint32(id[:], uint32(k)); return id }
		chain[i] = Node{ID: id(i), Device: identity.DeviceID{byte(i % 7)}, Seq: uint64(i/7 + 1), Clock: Clock(i % 100)}
		// Every event waits for the last one of the next device.
		rings[i] = Node{ID: id(i), Device: identity.DeviceID{byte(i % 200)}, Seq: uint64(i/200 + 1), Clock: Clock(i)}
		if i > 0 {
			chain[i].Parents = []ID{id(i - 1)}
		}
		rings[i].Parents = []ID{id(n - 200 + (i+1)%200)}
	}
	for name, nodes := range map[string][]Node{"chain": chain, "rings": rings} {
		start := time.Now()
		if got := len(Order(nodes)); got != n {
			t.Errorf("%s: %d of %d", name, got, n)
		}
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("%s of %d: %v", name, n, d)
		} else {
			t.Logf("%s of %d: %v", name, n, d)
		}
	}
}

// TestOrderByClockAlone: without parents and with one event a device, the order
// is that of clock and id.
func TestOrderByClockAlone(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	nodes := make([]Node, 300)
	for i := range nodes {
		nodes[i] = Node{ID: ID{byte(r.Uint32()), byte(i), byte(i >> 8)}, Device: identity.DeviceID{byte(i), byte(i >> 8)}, Seq: 1, Clock: Clock(r.IntN(40))}
	}
	got := orderIDs(nodes)
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Or(cmp.Compare(a.Clock, b.Clock), bytes.Compare(a.ID[:], b.ID[:])) })
	for i := range nodes {
		if got[i] != nodes[i].ID {
			t.Fatalf("place %d: %v, want %v", i, got[i], nodes[i].ID)
		}
	}
	if Order(nil) == nil || len(Order(nil)) != 0 {
		t.Error("the order of nothing is not empty")
	}
}

func BenchmarkOrder(b *testing.B) {
	nodes := history(rand.New(rand.NewPCG(1, 1)), 4, 200)
	b.ReportAllocs()
	for b.Loop() {
		Order(nodes)
	}
}
