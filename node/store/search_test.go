package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/corpus"
	"github.com/kinloom/kinloom/protocol/event"
)

// found runs a search and gives the texts of its hits.
func (w *world) found(q Query) []string {
	w.t.Helper()
	hits, err := w.Search(w.t.Context(), q)
	if err != nil {
		w.t.Fatalf("search %+v: %v", q, err)
	}
	texts := []string{}
	for i := range hits {
		texts = append(texts, textOf(&hits[i].Event))
	}
	return texts
}

func (w *world) drain() {
	w.t.Helper()
	if err := w.IndexDrain(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// Every case is run twice: with the messages in the unindexed tail, and indexed.
func TestSearch(t *testing.T) {
	w := newWorld(t, t.TempDir())
	texts := []string{
		"The quick brown fox",
		"A lazy dog, and a quick one",
		"Straße nach Genève: GROSSE Fuge",
		"Cafe\u0301 au lait, naïve",
		"東京タワーに行きました",
		"half-baked ideas; foo_bar",
		"Ελληνικός κόσμος",
		"quick: the dog naps",
		"สวัสดีครับ",
		"one\u00adtwo \ue000a1 hidden",
	}
	for i, text := range texts {
		e := w.message(i%2, i%3 == 0, uint64(i+1), float64(10*i), text)
		if i == 7 {
			e.Protection = 2
		}
		w.insert(&e)
	}
	of := func(rows ...int) []string {
		out := []string{}
		for _, i := range rows {
			out = append(out, texts[i])
		}
		return out
	}
	cases := []struct {
		q    Query
		want []string
	}{
		{Query{Text: "quick"}, of(7, 1, 0)},
		{Query{Text: "QUICK dog"}, of(7, 1)},
		{Query{Text: "quick dog", Limit: 1}, of(7)},
		{Query{Text: `"quick brown"`}, of(0)},
		{Query{Text: `"brown quick"`}, of()},
		{Query{Text: "“quick one”"}, of(1)},
		{Query{Text: `"quick one`}, of(1)},
		{Query{Text: "bro*"}, of(0)},
		{Query{Text: `"the quick bro*`}, of(0)},
		{Query{Text: "brow"}, of()},
		{Query{Text: "strasse"}, of(2)},
		{Query{Text: "geneve grosse"}, of(2)},
		{Query{Text: "GENÈVE"}, of(2)},
		{Query{Text: "café"}, of(3)},
		{Query{Text: "naive"}, of(3)},
		{Query{Text: "東京"}, of(4)},
		{Query{Text: "京東"}, of()},
		{Query{Text: "タワー"}, of(4)},
		{Query{Text: "東*"}, of(4)},
		{Query{Text: "half-baked"}, of(5)},
		{Query{Text: "baked half"}, of(5)},
		{Query{Text: "ΕΛΛΗΝΙΚΟΣ"}, of(6)},
		{Query{Text: "สวัสดี"}, of(8)},
		{Query{Text: "onetwo"}, of(9)},
		{Query{Text: "a1"}, of(9)},
		{Query{Text: "\ue000a1"}, of(9)},
		{Query{Text: `quick" OR "dog`}, of()},
		{Query{Text: "quick NOT dog"}, of()},
		{Query{Text: "quick", Persons: []string{w.persons[1].Person.String()}}, of(7, 1)},
		{Query{Text: "quick", Persons: []string{w.self.Person.String()}}, of(0)},
		{Query{Text: "quick", Persons: []string{w.self.Person.String(), w.persons[1].Person.String()}}, of(7, 1, 0)},
		{Query{Text: "quick", Persons: []string{identity.NewRootKey([32]byte{77}).Person().String()}}, of()},
		{Query{Persons: []string{w.self.Person.String()}}, of(9, 6, 3, 0)},
		{Query{Text: "quick", Protection: "network"}, of(7)},
		{Query{Text: "quick", Protection: "direct"}, of(1, 0)},
		{Query{Text: "quick", Protection: "none"}, of()},
		{Query{Text: "quick", Network: "kinloom"}, of(7, 1, 0)},
		{Query{Text: "quick", Network: "mailto"}, of()},
		{Query{Text: "quick", Conversation: w.pairs[0].Row}, of(0)},
		{Query{Text: "quick", Since: w.start.Add(10 * time.Second)}, of(7, 1)},
		{Query{Text: "quick", Since: w.start.Add(71 * time.Second)}, of()},
		{Query{Since: w.start.Add(85 * time.Second)}, of(9)},
	}
	for _, state := range []string{"tail", "index"} {
		for _, c := range cases {
			if diff := cmp.Diff(c.want, w.found(c.q)); diff != "" {
				t.Errorf("%s: search %+v (-want +got):\n%s", state, c.q, diff)
			}
		}
		w.drain()
	}
	if n, err := w.IndexBehind(t.Context(), 100); n != 0 || err != nil {
		t.Errorf("behind by %d, %v, after a drain", n, err)
	}
}

func TestSearchRefusesWithWords(t *testing.T) {
	w := newWorld(t, "")
	for _, c := range []struct{ q, says string }{
		{"", "give a word"},
		{"?! …", "no letter"},
		{"a*", "at least 3 letters"},
		{"x ab*", "at least 3 letters"},
		{strings.Repeat("x", 1025), "1024 bytes"},
		{strings.Repeat("x ", 33), "32 words"},
	} {
		_, err := w.Search(t.Context(), Query{Text: c.q})
		if !errors.Is(err, ErrQuery) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.20q gives %v, want ErrQuery that says %q", c.q, err, c.says)
		}
	}
	if _, err := w.Search(t.Context(), Query{Text: "x", Persons: []string{"Bob"}}); !errors.Is(err, ErrQuery) {
		t.Errorf("an unreadable person gives %v, want ErrQuery", err)
	}
}

// An index that is filled in any order gives the newest first by the time of the
// events, page by page, whatever is late.
func TestSearchIsNewestFirstByTime(t *testing.T) {
	for _, late := range []int{0, 40, 1500} {
		t.Run(fmt.Sprint(late, " late"), func(t *testing.T) {
			w := newWorld(t, t.TempDir())
			r := rand.New(rand.NewPCG(1, uint64(late)))
			var events []*Event
			want := map[int64]bool{}
			add := func(at float64) {
				e := w.message(0, false, uint64(len(events)+1), at, "needle")
				e.At = w.start.Add(1000 * 24 * time.Hour)
				events = append(events, &e)
				want[e.when()] = true
			}
			for i := range 300 {
				add(1e7 + float64(i)*100)
			}
			for range late {
				add(float64(r.IntN(9_000_000)))
			}
			w.insert(events...)
			w.drain()
			times := make([]int64, 0, len(want))
			for at := range want {
				times = append(times, at)
			}
			slices.SortFunc(times, func(a, b int64) int { return int(b - a) })
			var got []int64
			q := Query{Text: "needle", Limit: 70}
			for {
				hits, err := w.Search(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				for _, h := range hits {
					if n := len(got); n == 0 || got[n-1] != h.At.UnixMilli() { // two may share a time
						got = append(got, h.At.UnixMilli())
					}
				}
				if len(hits) < q.Limit {
					break
				}
				q.Before = hits[len(hits)-1].Place()
			}
			if diff := cmp.Diff(times, got); diff != "" {
				t.Errorf("times differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFindEvent(t *testing.T) {
	w := newWorld(t, t.TempDir())
	var events []*Event
	for i := range 50 {
		e := w.message(0, false, uint64(i+1), float64(i), "to be found")
		e.ID = event.ID{0xab, 0xcd, 1, 2, 3, 4, 5, 6, byte(i / 2), byte(i)}
		if i == 0 {
			e.ID[7] = 0xff
		}
		events = append(events, &e)
	}
	control := w.message(0, false, 51, 51, "control")
	control.ID, control.Type = event.ID{1, 1, 1, 1, 1}, event.Profile
	events = append(events, &control)
	w.insert(events...)
	for _, state := range []string{"tail", "index"} {
		for _, e := range events[:50] {
			got, err := w.FindEvent(t.Context(), e.ID.String())
			if err != nil || got.Row != e.Row {
				t.Errorf("%s: %s is row %d, %v, want %d", state, e.ID, got.Row, err, e.Row)
			}
		}
		for _, c := range []struct {
			prefix string
			row    Row
			err    error
		}{
			{"ABCD0102030405ff", events[0].Row, nil},
			{"abcd0102030405f", events[0].Row, nil},
			{"abcd0102030405060102", events[2].Row, nil},
			{"abcd010203040506010", 0, ErrAmbiguous},
			{"abcd0102", 0, ErrAmbiguous},
			{"abcd0103", 0, ErrNotFound},
			{"01010101", 0, ErrNotFound},
			{"abcd010", 0, ErrQuery},
			{"abcd010g", 0, ErrQuery},
			{strings.Repeat("a", 65), 0, ErrQuery},
		} {
			got, err := w.FindEvent(t.Context(), c.prefix)
			if !errors.Is(err, c.err) || got.Row != c.row {
				t.Errorf("%s: %s is row %d, %v, want %d, %v", state, c.prefix, got.Row, err, c.row, c.err)
			}
		}
		w.drain()
	}
}

// The index and a walk through all texts give the same.
func TestSearchAgainstAWalk(t *testing.T) {
	w := newWorld(t, "")
	c := corpus.New(4)
	var events []*Event
	for i := range 1500 {
		e := w.message(i%2, false, uint64(i+1), float64(i*10), c.Text(200))
		events = append(events, &e)
	}
	w.insert(events...)
	w.drain()
	r := rand.New(rand.NewPCG(2, 2))
	for range 100 {
		text := c.Word(r.IntN(400))
		switch r.IntN(4) {
		case 0:
			text += " " + c.Word(r.IntN(100))
		case 1:
			text = `"` + text + " " + c.Word(r.IntN(20)) + `"`
		case 2:
			text = c.Word(1000 + r.IntN(1000))[:3] + "*"
		}
		q := Query{Text: text, Limit: 1000}
		if r.IntN(2) == 0 {
			q.Persons = []string{w.persons[0].Person.String()}
		}
		s, err := q.parse()
		if err != nil {
			t.Fatal(err)
		}
		want := []string{}
		for i, e := range slices.Backward(events) {
			if (len(q.Persons) == 0 || i%2 == 0) && s.holds(textOf(e)) && len(want) < 1000 {
				want = append(want, textOf(e))
			}
		}
		if diff := cmp.Diff(want, w.found(q)); diff != "" {
			t.Errorf("%q, persons %d: differs from the walk:\n%.600s", text, len(q.Persons), diff)
		}
	}
}

// As many are found as the commands offer to show.
func TestSearchLimit(t *testing.T) {
	const n = 1100
	w := newWorld(t, "")
	var events []*Event
	for i := range n {
		e := w.message(0, false, uint64(i+1), float64(i), "many")
		events = append(events, &e)
	}
	w.insert(events...)
	for _, indexed := range []bool{false, true} {
		if indexed {
			w.drain()
		}
		for limit, want := range map[int]int{10: 10, n: n, 10_000: n, 1 << 30: n} {
			if got := len(w.found(Query{Text: "many", Limit: limit})); got != want {
				t.Errorf("indexed %v: %d found with a limit of %d, want %d", indexed, got, limit, want)
			}
		}
	}
}
