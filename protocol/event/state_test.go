package event

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kinloom/kinloom/identity"
)

var (
	ann = identity.PersonID{1}
	bob = identity.PersonID{2}

	annPhone = identity.DeviceID{11}
	annDesk  = identity.DeviceID{12}
	bobPhone = identity.DeviceID{21}

	noon = time.UnixMilli(1_790_000_000_000)
)

func machine(p identity.PersonID, dev identity.DeviceID) *Machine {
	return NewMachine(Context{Conversation: PairID(ann, bob), Author: p, Device: dev})
}

// say makes a message and fails the test if it cannot.
func say(t *testing.T, m *Machine, now time.Time, text string) Made {
	t.Helper()
	made, err := m.Next(now, Message, "", must(Text{Text: text}.Append()))
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// hear lets a machine observe what another one made, by way of the bytes.
func hear(t *testing.T, m *Machine, now time.Time, c Context, made Made) Seen {
	t.Helper()
	e, err := Parse(made.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(made.Event, e); d != "" {
		t.Fatalf("parsed event (-made +parsed):\n%s", d)
	}
	return m.Observe(now, c.Device, IDOf(c, made.Raw), e, ID{})
}

// state is what a node stores of a machine.
func (m *Machine) stored() (Clock, []ID, []Latest) {
	var latest []Latest
	for _, l := range m.latest {
		latest = append(latest, l)
	}
	return m.Clock(), m.Heads(), latest
}

// TestConversation tells the story of two persons and three devices.
func TestConversation(t *testing.T) {
	a, b := machine(ann, annPhone), machine(bob, bobPhone)
	desk := machine(ann, annDesk)

	one := say(t, a, noon, "one")
	two := say(t, a, noon, "two")
	if one.Seq != 1 || two.Seq != 2 || len(one.Parents)+len(two.Parents) > 0 {
		t.Fatalf("a one-sided run: %+v, %+v; want seqs 1, 2 and no parents", one.Event, two.Event)
	}
	if two.Clock <= one.Clock {
		t.Fatalf("clock %d after %d", two.Clock, one.Clock)
	}
	for _, m := range []Made{one, two} {
		if got := hear(t, b, noon, a.self, m); got != (Seen{Verdict: New}) {
			t.Fatalf("first sight: %+v", got)
		}
		hear(t, desk, noon, a.self, m)
	}
	reply := say(t, b, noon, "reply")
	if !slices.Equal(reply.Parents, []ID{two.ID}) || reply.Seq != 1 {
		t.Fatalf("reply: seq %d, parents %v; want 1 and %v", reply.Seq, reply.Parents, two.ID)
	}
	other := say(t, desk, noon, "from the desk") // has not seen the reply
	hear(t, a, noon, b.self, reply)
	hear(t, a, noon, desk.self, other)
	three := say(t, a, noon, "three")
	want := []ID{reply.ID, other.ID}
	slices.SortFunc(want, func(x, y ID) int { return slices.Compare(x[:], y[:]) })
	if !slices.Equal(three.Parents, want) || !slices.Equal(a.Heads(), []ID{three.ID}) {
		t.Fatalf("parents %v, heads %v; want %v and %v", three.Parents, a.Heads(), want, three.ID)
	}
	if a.Seq() != 4 || a.Latest(bobPhone).Seq != 1 || a.Latest(identity.DeviceID{}).Seq != 0 {
		t.Errorf("next seq %d, Bob's latest %+v", a.Seq(), a.Latest(bobPhone))
	}
}

// TestIDsHoldTheContext: the same bytes elsewhere are another event.
func TestIDsHoldTheContext(t *testing.T) {
	raw := say(t, machine(ann, annPhone), noon, "x").Raw
	seen := map[ID]Context{}
	for _, conv := range []ConversationID{PairID(ann, bob), SelfID(ann), SelfID(bob)} {
		for _, p := range []identity.PersonID{ann, bob} {
			for _, dev := range []identity.DeviceID{annPhone, annDesk} {
				c := Context{Conversation: conv, Author: p, Device: dev}
				if other, twice := seen[IDOf(c, raw)]; twice {
					t.Errorf("%v and %v have one id", c, other)
				}
				seen[IDOf(c, raw)] = c
			}
		}
	}
}

// TestObserve (H81): doubles, gaps, late ones, and two events under one seq.
func TestObserve(t *testing.T) {
	a := machine(ann, annPhone)
	made := make([]Made, 8)
	for i := range made {
		made[i] = say(t, a, noon.Add(time.Duration(i)*time.Second), "x")
	}
	b := machine(bob, bobPhone)
	held := map[uint64]ID{}
	for _, step := range []struct {
		name string
		i    int
		id   ID // another than the true one
		want Seen
	}{
		{"first, two before it missing", 2, ID{}, Seen{Verdict: New, GapFrom: 1, GapTo: 2}},
		{"the next", 3, ID{}, Seen{Verdict: New}},
		{"the same again", 3, ID{}, Seen{Verdict: Duplicate}},
		{"an older one again", 2, ID{}, Seen{Verdict: Duplicate}},
		{"a gap is filled", 0, ID{}, Seen{Verdict: New, Late: true}},
		{"and doubled", 0, ID{}, Seen{Verdict: Duplicate}},
		{"another gap", 6, ID{}, Seen{Verdict: New, GapFrom: 5, GapTo: 6}},
		{"another event under the latest seq", 6, ID{66}, Seen{Verdict: Equivocation}},
		{"another event under an old seq", 2, ID{66}, Seen{Verdict: Equivocation}},
		{"another event under a seq that is missing", 4, ID{66}, Seen{Verdict: New, Late: true}},
		{"and then the true one", 4, ID{}, Seen{Verdict: Equivocation}},
		{"the end", 7, ID{}, Seen{Verdict: New}},
	} {
		m := made[step.i]
		id := m.ID
		if step.id != (ID{}) {
			id = step.id
		}
		clock, heads := b.Clock(), b.Heads()
		known := ID{}
		if !b.Above(annPhone, m.Seq) {
			known = held[m.Seq]
		}
		got := b.Observe(noon, annPhone, id, m.Event, known)
		if got != step.want {
			t.Fatalf("%s: %+v, want %+v", step.name, got, step.want)
		}
		if got.Verdict == New {
			held[m.Seq] = id
		} else if b.Clock() != clock || !slices.Equal(b.Heads(), heads) {
			t.Fatalf("%s: state changed", step.name)
		}
	}
	if !slices.Equal(b.Heads(), []ID{made[7].ID}) {
		t.Errorf("heads %v, want the last event", b.Heads())
	}
}

// TestOwnEventFromElsewhere (H31): a copy of this device is noticed.
func TestOwnEventFromElsewhere(t *testing.T) {
	a := machine(ann, annPhone)
	mine := say(t, a, noon, "mine")
	copied := LoadMachine(a.self, 0, nil, nil)
	theirs := say(t, copied, noon, "theirs")
	next := say(t, copied, noon, "and on")
	if got := hear(t, a, noon, a.self, mine); got.Verdict != Duplicate {
		t.Errorf("own event: %+v", got)
	}
	for _, m := range []Made{theirs, next} {
		if got := hear(t, a, noon, a.self, m); got.Verdict != Equivocation {
			t.Errorf("seq %d of the copy: %+v", m.Seq, got)
		}
	}
	if a.Seq() != 2 {
		t.Errorf("next seq %d, want 2", a.Seq())
	}
}

// TestSeqJumps (H26): a jump of any width is one gap.
func TestSeqJumps(t *testing.T) {
	b := machine(bob, bobPhone)
	for _, tt := range []struct {
		seq  uint64
		want Seen
	}{
		{1, Seen{Verdict: New}},
		{2002, Seen{Verdict: New, GapFrom: 2, GapTo: 2001}},
		{1<<32 - 1, Seen{Verdict: New, GapFrom: 2003, GapTo: 1<<32 - 2}},
		{MaxSeq, Seen{Verdict: New, GapFrom: 1 << 32, GapTo: MaxSeq - 1}},
		{3, Seen{Verdict: New, Late: true}},
	} {
		e := Event{Seq: tt.seq, Clock: Clock(tt.seq), Type: Message}
		if got := b.Observe(noon, annPhone, ID{byte(tt.seq), byte(tt.seq >> 8)}, e, ID{}); got != tt.want {
			t.Errorf("seq %d: %+v, want %+v", tt.seq, got, tt.want)
		}
	}
	last := LoadMachine(b.self, 0, nil, []Latest{{Device: bobPhone, Seq: MaxSeq, ID: ID{1}}})
	if _, err := last.Next(noon, Message, "", must(Text{Text: "x"}.Append())); !errors.Is(err, ErrSeqs) {
		t.Errorf("after MaxSeq: %v", err)
	}
}

// TestNextRefusedChangesNothing: an event that cannot be written takes no seq.
func TestNextRefusedChangesNothing(t *testing.T) {
	m := machine(ann, annPhone)
	say(t, m, noon, "x")
	clock, heads, _ := m.stored()
	for _, tt := range []struct {
		typ  Type
		key  string
		body []byte
		want error
	}{
		{Message, "", nil, ErrMalformed},
		{Message, "k", must(Text{Text: "x"}.Append()), ErrKey},
		{0, "", must(Text{Text: "x"}.Append()), ErrType},
		{Message, "", make([]byte, MaxBody+1), ErrSize},
	} {
		if made, err := m.Next(noon, tt.typ, tt.key, tt.body); !errors.Is(err, tt.want) || made.Raw != nil {
			t.Errorf("%v, key %q: %v, want %v", tt.typ, tt.key, err, tt.want)
		}
	}
	if m.Seq() != 2 || m.Clock() != clock || !slices.Equal(m.Heads(), heads) {
		t.Error("state changed")
	}
}

// TestEphemeral: it is made and heard, and leaves no trace.
func TestEphemeral(t *testing.T) {
	a, b := machine(ann, annPhone), machine(bob, bobPhone)
	hear(t, b, noon, a.self, say(t, a, noon, "x"))
	before := [2]uint64{a.Seq(), b.Seq()}
	clocks := [2]Clock{a.Clock(), b.Clock()}
	typing, err := a.Next(noon, Typing, "", must(Composing{Seconds: 5}.Append()))
	if err != nil || typing.Seq != 0 || len(typing.Parents) > 0 {
		t.Fatalf("typing: %+v, %v", typing.Event, err)
	}
	for range 2 {
		if got := hear(t, b, noon, a.self, typing); got != (Seen{Verdict: New}) {
			t.Errorf("heard: %+v", got)
		}
	}
	if [2]uint64{a.Seq(), b.Seq()} != before || [2]Clock{a.Clock(), b.Clock()} != clocks || len(b.Heads()) != 1 {
		t.Error("an ephemeral event left a trace")
	}
}

// TestHeadsAreBounded: whoever opens many heads makes the oldest be forgotten,
// and the next own event names all that are left.
func TestHeadsAreBounded(t *testing.T) {
	m := machine(ann, annPhone)
	for i := range 50 {
		dev := identity.DeviceID{99, byte(i)}
		m.Observe(noon, dev, ID{byte(i + 1)}, Event{Seq: 1, Clock: Clock(i), Type: Message}, ID{})
	}
	heads := m.Heads()
	if len(heads) != MaxHeads || heads[0] != (ID{31}) || heads[19] != (ID{50}) {
		t.Fatalf("%d heads, from %v to %v", len(heads), heads[0], heads[len(heads)-1])
	}
	if made := say(t, m, noon, "x"); len(made.Parents) != MaxParents || len(m.Heads()) != 1 {
		t.Errorf("%d parents, %d heads left", len(made.Parents), len(m.Heads()))
	}
	many := LoadMachine(m.self, 0, make([]ID, 30), nil)
	if len(many.Heads()) != MaxHeads {
		t.Errorf("%d heads loaded", len(many.Heads()))
	}
}

// TestWrongClocks (H82): years ahead, at the maximum, going back: marked, and
// nobody else's clock moves by more than a day.
func TestWrongClocks(t *testing.T) {
	at := func(d time.Duration) Clock { return clockAt(noon.Add(d)) }
	for _, tt := range []struct {
		name   string
		clocks []Clock
		wrong  []bool
	}{
		{"in step", []Clock{at(0), at(time.Second)}, []bool{false, false}},
		{"a day ahead", []Clock{at(24 * time.Hour)}, []bool{false}},
		{"a day and a bit", []Clock{at(24*time.Hour + time.Millisecond)}, []bool{true}},
		{"years ahead, then right", []Clock{at(40_000 * time.Hour), at(time.Second)}, []bool{true, true}},
		{"maximum", []Clock{MaxClock, MaxClock}, []bool{true, true}},
		{"going back", []Clock{at(time.Second), at(0), at(time.Minute)}, []bool{false, true, false}},
		{"standing still", []Clock{at(0), at(0)}, []bool{false, true}},
		{"1970", []Clock{0, 1}, []bool{false, false}},
	} {
		b := machine(bob, bobPhone)
		say(t, b, noon, "own")
		for i, c := range tt.clocks {
			before := b.Clock()
			e := Event{Seq: uint64(i + 1), Clock: c, Type: Message}
			got := b.Observe(noon, annPhone, ID{byte(i + 1)}, e, ID{})
			if got.Verdict != New || got.ClockWrong != tt.wrong[i] {
				t.Errorf("%s, event %d: %+v", tt.name, i+1, got)
			}
			if b.Clock() < before || b.Clock() > at(24*time.Hour)|0xffff {
				t.Errorf("%s, event %d: the own clock went from %d to %d", tt.name, i+1, before, b.Clock())
			}
		}
		if made := say(t, b, noon, "answer"); len(made.Parents) != 1 {
			t.Errorf("%s: parents do not place it: %v", tt.name, made.Parents)
		}
	}
}

// TestClockNeverStops: a clock at its end, or a wall clock before its beginning
// or set back, still makes events.
func TestClockNeverStops(t *testing.T) {
	m := LoadMachine(Context{Device: annPhone}, MaxClock-1, nil, nil)
	for range 3 {
		if made := say(t, m, noon, "x"); made.Clock != MaxClock {
			t.Errorf("clock %d", made.Clock)
		}
	}
	m = machine(ann, annPhone)
	var last Clock
	for i, now := range []time.Time{time.Unix(-1e9, 0), time.Unix(0, 0), noon, noon, noon.Add(-24 * time.Hour), time.Unix(1e12, 0), noon} {
		made := say(t, m, now, "x")
		if made.Clock <= last || made.Clock > MaxClock {
			t.Errorf("event %d at %v: clock %d after %d", i+1, now, made.Clock, last)
		}
		last = made.Clock
	}
	if got := clockAt(noon).Time(); !got.Equal(noon) {
		t.Errorf("time of a clock: %v, want %v", got, noon)
	}
}

// TestReload: a machine that is built from what was stored goes on as the one
// that ran through.
func TestReload(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 7))
		through, stored := machine(ann, annPhone), machine(ann, annPhone)
		now := noon
		for i := range 60 {
			now = now.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
			if r.IntN(3) == 0 {
				x, y := say(t, through, now, "x"), say(t, stored, now, "x")
				if x.ID != y.ID {
					t.Fatalf("seed %d, step %d: %+v\n%+v", seed, i, x.Event, y.Event)
				}
			} else {
				dev := identity.DeviceID{byte(50 + r.IntN(3))}
				seq := through.Latest(dev).Seq + uint64(r.IntN(3))
				e := Event{Seq: max(seq, 1), Clock: clockAt(now), Type: Message, Parents: through.Heads()}
				id := ID{byte(i + 1), byte(r.IntN(2))}
				if x, y := through.Observe(now, dev, id, e, ID{}), stored.Observe(now, dev, id, e, ID{}); x != y {
					t.Fatalf("seed %d, step %d: %+v, reloaded %+v", seed, i, x, y)
				}
			}
			clock, heads, latest := stored.stored()
			stored = LoadMachine(stored.self, clock, heads, latest)
		}
	}
}

// TestNamesOfThings: the words of the API.
func TestNamesOfThings(t *testing.T) {
	for typ, want := range map[Type]string{
		Message: "message", Edit: "edit", Reaction: "reaction", Retract: "retract", Profile: "profile",
		Log: "log", ReadMark: "read", Refusal: "refusal", Want: "want", Typing: "typing", 33: "type 33",
	} {
		if got := typ.String(); got != want {
			t.Errorf("type %d: %q, want %q", int(typ), got, want)
		}
	}
	for typ, want := range map[Type]Class{0: 0, 1: Content, 63: Content, 64: Control, 127: Control, 128: Ephemeral, 191: Ephemeral, 192: 0, 65535: 0} {
		if got := typ.Class(); got != want {
			t.Errorf("class of type %d: %d, want %d", int(typ), got, want)
		}
	}
	for k, want := range map[Kind]string{Self: "self", Pair: "pair", Group: "group", Room: "room", Foreign: "foreign", 9: "kind 9"} {
		if got := k.String(); got != want {
			t.Errorf("kind %d: %q, want %q", int(k), got, want)
		}
	}
}

// TestConversationIDs: symmetric, and apart from each other.
func TestConversationIDs(t *testing.T) {
	if PairID(ann, bob) != PairID(bob, ann) || SelfID(ann) != PairID(ann, ann) {
		t.Error("a pair depends on who asks")
	}
	seen := map[ConversationID]bool{}
	for _, c := range []ConversationID{
		PairID(ann, bob), SelfID(ann), SelfID(bob),
		ForeignID("a", "b", "c"), ForeignID("ab", "", "c"), ForeignID("a", "bc", ""), ForeignID("", "", ""), ForeignID("a", "b", "c\x00"),
	} {
		if seen[c] {
			t.Errorf("%v twice", c)
		}
		seen[c] = true
	}
}

func BenchmarkNextAndObserve(b *testing.B) {
	x, y := machine(ann, annPhone), machine(bob, bobPhone)
	body := must(benchText().Append())
	b.ReportAllocs()
	for b.Loop() {
		made, err := x.Next(noon, Message, "", body)
		if err != nil {
			b.Fatal(err)
		}
		if s := y.Observe(noon, annPhone, made.ID, made.Event, ID{}); s.Verdict != New {
			b.Fatal(s)
		}
	}
}
