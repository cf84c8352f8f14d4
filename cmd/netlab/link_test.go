package main

import (
	"math"
	"slices"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// flow sends packets of 1,000 bytes over a link, a millisecond apart.
func flow(seed uint64, q quality, n int) (all [][]fate) {
	l := newLink(seed, "a", "b", q)
	for i := range n {
		all = append(all, l.fates(noon.Add(time.Duration(i)*time.Millisecond), 1000))
	}
	return all
}

func TestFates(t *testing.T) {
	const n = 20000
	q := quality{delay: 100 * time.Millisecond, jitter: 30 * time.Millisecond, loss: 0.1, dup: 0.05, corrupt: 0.02}
	var lost, twice, damaged, mended, overtaken int
	early, late := time.Hour, time.Duration(0)
	var last time.Time
	for i, fates := range flow(1, q, n) {
		if len(fates) == 0 {
			lost++
			continue
		}
		twice += len(fates) - 1
		for _, f := range fates {
			took := f.due.Sub(noon.Add(time.Duration(i) * time.Millisecond))
			early, late = min(early, took), max(late, took)
			if f.damaged {
				damaged++
			}
			if f.mend {
				mended++
			}
		}
		if fates[0].due.Before(last) {
			overtaken++
		}
		last = fates[0].due
	}
	for _, test := range []struct {
		what      string
		got, want float64
	}{
		{"lost", float64(lost) / n, 0.1},
		{"twice", float64(twice) / n, 0.9 * 0.05},
		{"damaged", float64(damaged) / n, 0.9 * 0.02},
		{"mended", float64(mended) / n, 0.9 * 0.01},
	} {
		if math.Abs(test.got-test.want) > 0.007 {
			t.Errorf("%s: %.4f of all, want %.4f", test.what, test.got, test.want)
		}
	}
	if early < 70*time.Millisecond || early > 71*time.Millisecond || late > 130*time.Millisecond || late < 129*time.Millisecond {
		t.Errorf("packets take %v to %v, want 70 ms to 130 ms", early, late)
	}
	if overtaken < n/4 {
		t.Errorf("%d packets were overtaken, want about half", overtaken)
	}
}

func TestFatesRepeat(t *testing.T) {
	q := quality{delay: time.Millisecond, jitter: time.Millisecond, loss: 0.3, dup: 0.3, corrupt: 0.3}
	same := func(a, b [][]fate) bool {
		return slices.EqualFunc(a, b, func(x, y []fate) bool { return slices.Equal(x, y) })
	}
	if !same(flow(7, q, 200), flow(7, q, 200)) {
		t.Error("the same seed gives other fates")
	}
	if same(flow(7, q, 200), flow(8, q, 200)) {
		t.Error("another seed gives the same fates")
	}
	// What is lost stays the same when something else is set, too.
	for i, fates := range flow(7, quality{loss: 0.3}, 200) {
		if lost := len(flow(7, q, 200)[i]) == 0; lost != (len(fates) == 0) {
			t.Fatalf("packet %d: lost %v with other settings", i, lost)
		}
	}
}

func TestFatesAtARate(t *testing.T) {
	const n = 3000 // a millisecond apart: 1,000 bytes a millisecond into 500,000 bytes a second
	arrived, last := 0, time.Time{}
	for _, fates := range flow(1, quality{rate: 500e3}, n) {
		for _, f := range fates {
			if gap := f.due.Sub(last); !last.IsZero() && gap < 2*time.Millisecond {
				t.Fatalf("two packets arrive within %v, want 2 ms or more", gap)
			}
			arrived, last = arrived+1, f.due
		}
	}
	// Within 3 s 1,500 go through, and 500 wait at the end.
	if arrived < 1990 || arrived > 2010 {
		t.Errorf("%d of %d packets arrive, want 2,000", arrived, n)
	}
}

func TestFatesCut(t *testing.T) {
	for i, fates := range flow(1, quality{cut: true, dup: 1}, 100) {
		if len(fates) > 0 {
			t.Fatalf("packet %d goes through a cut", i)
		}
	}
}

func TestParseQuality(t *testing.T) {
	q, err := parseQuality(quality{}, []string{"delay=100ms", "jitter=30ms", "loss=10%", "dup=0.05", "corrupt=0.1%", "rate=2mbit", "cut=yes"})
	want := quality{delay: 100 * time.Millisecond, jitter: 30 * time.Millisecond, loss: 0.1, dup: 0.05, corrupt: 0.001, rate: 250e3, cut: true}
	if err != nil || q != want {
		t.Errorf("got %+v, %v, want %+v", q, err, want)
	}
	if again, err := parseQuality(q, []string{"cut=no", "loss=0"}); err != nil || again.cut || again.loss != 0 || again.delay != q.delay {
		t.Errorf("a change gives %+v, %v: what is not named stays", again, err)
	}
	if empty, err := parseQuality(q, []string{"clear"}); err != nil || empty != (quality{}) {
		t.Errorf("clear gives %+v, %v", empty, err)
	}
	for _, wrong := range []string{"", "loss", "loss=", "loss=2", "loss=-1%", "loss=NaN", "delay=-1s", "delay=5", "delay=2h", "rate=fast", "rate=-1", "cut=maybe", "colour=red"} {
		if q, err := parseQuality(quality{}, []string{wrong}); err == nil {
			t.Errorf("%q is taken for %+v", wrong, q)
		}
	}
}

func FuzzParseQuality(f *testing.F) {
	f.Add("loss=10%")
	f.Add("rate=2mbit")
	f.Add("delay=1h")
	f.Fuzz(func(t *testing.T, word string) {
		q, err := parseQuality(quality{}, []string{word})
		if err != nil {
			return
		}
		if q.loss < 0 || q.loss > 1 || q.delay < 0 || q.rate < 0 {
			t.Errorf("%q gives %+v", word, q)
		}
		newLink(1, "a", "b", q).fates(noon, 1000)
	})
}
