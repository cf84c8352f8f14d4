package rv

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// out is a job and when it went out.
type out struct {
	at time.Time
	Job
}

// run asks m whenever it wants to be asked, from one time to another by its own
// clock, and publishes everything.
func run(tb testing.TB, m *Machine, from, to time.Time, offset time.Duration, hint [32]byte) (all []out) {
	tb.Helper()
	for now := from; now.Before(to); {
		c := Clock{now, offset}
		job, next, err := m.Due(c, hint)
		if err != nil {
			tb.Fatal(err)
		}
		if !next.After(now) {
			tb.Fatalf("at %v asks again at %v", now, next)
		}
		if job != nil {
			all = append(all, out{now, *job})
			if err := m.Finished(c, *job, true); err != nil {
				tb.Fatal(err)
			}
			continue
		}
		now = next
	}
	return all
}

// TestScheduleOfDays: for 60 days there is always a record of the period, each
// is refreshed, and the next one goes out before its day.
func TestScheduleOfDays(t *testing.T) {
	begin := PeriodAt(epoch)
	end := epoch.Add(60 * 24 * time.Hour)
	all := run(t, NewMachine(random(1), nil), epoch, end, 0, [32]byte{1})
	if all[0].Period != begin || !all[0].at.Equal(epoch) || all[0].Seq != 720 {
		t.Errorf("first %+v, want the current period at once", all[0])
	}
	if n := len(all); n < 120 || n > 240 {
		t.Errorf("%d records in 60 days, want 2 to 4 a day", n)
	}
	byPeriod := map[Period][]out{}
	for _, o := range all {
		byPeriod[o.Period] = append(byPeriod[o.Period], o)
	}
	hours := map[int]int{}
	for p, some := range byPeriod {
		early := p.Start().Sub(some[0].at)
		if p != begin && (early <= 0 || early > Early) {
			t.Errorf("period %d: first record %v before it, want within %v", p, early, Early)
		}
		hours[int(early/time.Hour)]++
		for i, o := range some {
			if want := uint64(max(o.at.Sub(p.Start())/time.Minute, 0)); o.Seq != want {
				t.Errorf("period %d: seq %d at %v, want %d", p, o.Seq, o.at, want)
			}
			if i == 0 {
				continue
			}
			if gap := o.at.Sub(some[i-1].at); gap < RefreshEvery-RefreshJitter || gap > RefreshEvery+RefreshJitter {
				t.Errorf("period %d: %v between two records", p, gap)
			}
		}
		last := some[len(some)-1].at
		if left := (p + 1).Start().Sub(last); left > RefreshEvery+RefreshJitter && p.NotAfter().Before(end) {
			t.Errorf("period %d: stands unrefreshed for its last %v", p, left)
		}
	}
	for h := range 3 {
		if hours[h] < 8 {
			t.Errorf("hours before the change in which first records go out: %v, want an even spread", hours)
		}
	}
}

// TestScheduleStart: begun in the last hours of a period, the next one follows
// before its day, and not together with the current one.
func TestScheduleStart(t *testing.T) {
	for _, before := range []time.Duration{3*time.Hour - time.Second, time.Hour, time.Minute, time.Second} {
		p := PeriodAt(epoch)
		from := (p + 1).Start().Add(-before)
		all := run(t, NewMachine(random(2), nil), from, from.Add(4*time.Hour), 0, [32]byte{1})
		if len(all) != 2 || all[0].Period != p || !all[0].at.Equal(from) || all[1].Period != p+1 || !all[1].at.After(from) {
			t.Fatalf("begun %v before the change: %v", before, all)
		}
		if late := all[1].at.Sub((p + 1).Start()); late > Apart {
			t.Errorf("begun %v before the change: the next is %v late", before, late)
		}
	}
}

// TestHintChangedAfterTheClock: a seq that is ahead, as the clock was, does not keep a
// changed hint back.
func TestHintChangedAfterTheClock(t *testing.T) {
	p := PeriodAt(epoch)
	m := NewMachine(random(4), []Published{{Period: p, Seq: 1300, At: epoch.Unix(), Hint: [32]byte{1}}})
	all := run(t, m, epoch.Add(time.Second), epoch.Add(time.Hour), 0, [32]byte{2})
	if len(all) != 1 || all[0].at.Sub(epoch) != ChangeMost || all[0].Seq != 1301 {
		t.Errorf("%v, want one after %v", all, ChangeMost)
	}
}

// TestHintChanged: the current record goes out at once, the next one, if it
// stands already, some time later; not twice in a minute, nor within ChangeGap.
func TestHintChanged(t *testing.T) {
	p := PeriodAt(epoch)
	m := NewMachine(random(3), nil)
	noon := epoch
	run(t, m, noon, noon.Add(time.Hour), 0, [32]byte{1})
	all := run(t, m, noon.Add(time.Hour), noon.Add(2*time.Hour), 0, [32]byte{2})
	if len(all) != 1 || all[0].Period != p || !all[0].at.Equal(noon.Add(time.Hour)) || all[0].Hint != [32]byte{2} {
		t.Errorf("changed at 13:00: %v, want the current one at once and no other", all)
	}
	quick := noon.Add(2*time.Hour + 30*time.Second)
	all = slices.Concat(run(t, m, noon.Add(2*time.Hour), quick, 0, [32]byte{3}), run(t, m, quick, quick.Add(time.Hour), 0, [32]byte{4}))
	if len(all) != 2 || all[1].at.Sub(all[0].at) != time.Minute || all[1].Seq != all[0].Seq+1 || all[1].Hint != [32]byte{4} {
		t.Errorf("changed twice within 30 s: %v, want a minute between them", all)
	}
	end := quick.Add(time.Hour + 20*time.Second) // 10 s before a minute
	all = slices.Concat(run(t, m, end, end.Add(time.Second), 0, [32]byte{3}), run(t, m, end.Add(time.Second), end.Add(time.Hour), 0, [32]byte{4}))
	if len(all) != 2 || all[1].at.Sub(all[0].at) != ChangeGap || all[1].Seq != all[0].Seq+1 {
		t.Errorf("changed twice at the end of a minute: %v, want %v between them", all, ChangeGap)
	}
	midnight := (p + 1).Start()
	late := midnight.Add(-5 * time.Minute)
	run(t, m, quick.Add(2*time.Hour), late, 0, [32]byte{4})
	all = run(t, m, late, late.Add(time.Hour), 0, [32]byte{5})
	if len(all) != 2 || all[0].Period != p || !all[0].at.Equal(late) || all[1].Period != p+1 {
		t.Fatalf("changed at 23:55: %v, want the current one at once, then the next one", all)
	}
	if apart := all[1].at.Sub(late); apart < time.Minute || apart > Apart {
		t.Errorf("changed at 23:55: the next one follows after %v", apart)
	}
	if all[1].Seq == 0 {
		t.Error("the second record of the next period has the seq of the first")
	}
}

// TestRestart: what was published stands after a restart, and no seq comes
// twice, also of what was given out and may have left.
func TestRestart(t *testing.T) {
	m := NewMachine(random(4), nil)
	run(t, m, epoch, epoch.Add(time.Hour), 0, [32]byte{1})
	now := epoch.Add(time.Hour)
	again := NewMachine(random(5), m.State())
	if all := run(t, again, now, now.Add(7*time.Hour), 0, [32]byte{1}); len(all) != 0 {
		t.Errorf("published again after a restart: %v", all)
	}
	job, _, err := again.Due(Clock{Now: now}, [32]byte{2})
	if err != nil || job == nil {
		t.Fatal("a changed hint is not due", err)
	}
	crashed := NewMachine(random(6), again.State())
	if other, _, err := crashed.Due(Clock{Now: now}, [32]byte{2}); err != nil || other == nil || other.Seq <= job.Seq {
		t.Errorf("after a crash: %+v (%v), want a seq above %d", other, err, job.Seq)
	}
}

// TestFailures: a failure is tried again soon, then more rarely, and at once
// when the network changes.
func TestFailures(t *testing.T) {
	m := NewMachine(random(7), nil)
	now, hint := epoch, [32]byte{1}
	var waits []time.Duration
	var seqs []uint64
	for range 12 {
		job, _, err := m.Due(Clock{Now: now}, hint)
		if err != nil || job == nil {
			t.Fatalf("nothing due at %v (%v)", now, err)
		}
		seqs = append(seqs, job.Seq)
		if err := m.Finished(Clock{Now: now}, *job, false); err != nil {
			t.Fatal(err)
		}
		_, next, err := m.Due(Clock{Now: now}, hint)
		if err != nil {
			t.Fatal(err)
		}
		waits = append(waits, next.Sub(now))
		now = next
	}
	for i, w := range waits {
		most := min(RetryFirst<<i, RetryMost)
		if w < most/2 || w > most {
			t.Errorf("failure %d: waits %v, want %v to %v", i+1, w, most/2, most)
		}
	}
	if !slices.IsSorted(seqs) || len(slices.Compact(seqs)) != 12 {
		t.Errorf("seqs of failures: %v", seqs)
	}
	if job, _, err := m.Due(Clock{Now: now.Add(-time.Second)}, [32]byte{2}); err != nil || job != nil {
		t.Errorf("with another hint it is tried at once: %+v (%v)", job, err)
	}
	if job, _, err := m.Due(Clock{Now: now}, [32]byte{2}); err != nil || job == nil || job.Hint != [32]byte{2} {
		t.Errorf("in its time, with another hint: %+v (%v)", job, err)
	} else if err := m.Finished(Clock{Now: now}, *job, false); err != nil {
		t.Fatal(err)
	}
	m.Retry()
	if job, _, err := m.Due(Clock{Now: now.Add(time.Second)}, hint); err != nil || job == nil {
		t.Errorf("after a change of the network nothing is due (%v)", err)
	}
}

// TestSeqAfterClockSetBack: whatever the clock does, no period gets a lower seq, and
// what was published ahead of the new time is kept up.
func TestSeqAfterClockSetBack(t *testing.T) {
	for _, back := range []time.Duration{time.Second, time.Minute, 3 * time.Hour, 26 * time.Hour, 60 * 24 * time.Hour} {
		m := NewMachine(random(8), nil)
		all := run(t, m, epoch, epoch.Add(30*time.Hour), 0, [32]byte{1})
		then := epoch.Add(30 * time.Hour).Add(-back)
		m = NewMachine(random(9), m.State())
		all = append(all, run(t, m, then, then.Add(30*time.Minute), 0, [32]byte{2})...)
		if last := all[len(all)-1]; last.Hint != [32]byte{2} {
			t.Errorf("back by %v: the new hint does not go out: %+v", back, last)
		}
		all = append(all, run(t, m, then.Add(30*time.Minute), then.Add(40*time.Hour), 0, [32]byte{2})...)
		seqs := map[Period]uint64{}
		for i, o := range all {
			if before, ok := seqs[o.Period]; ok && o.Seq <= before {
				t.Errorf("back by %v: record %d of period %d has seq %d after %d", back, i, o.Period, o.Seq, before)
			}
			seqs[o.Period] = o.Seq
		}
		if back == 26*time.Hour {
			i := slices.IndexFunc(all, func(o out) bool { return o.Hint == [32]byte{2} && o.Period == PeriodAt(epoch)+1 })
			if i < 0 || all[i].at.Sub(then) > Apart {
				t.Error("back by 26 h: the period that others are in does not get the new hint")
			}
		}
	}
}

// TestClockCorrected: both the own and the corrected clock's records are kept
// up, the corrected first; a correction that is a lie takes nothing away and
// uses up no seqs.
func TestClockCorrected(t *testing.T) {
	for _, offset := range []time.Duration{26 * time.Hour, -26 * time.Hour, 13 * time.Hour, -13 * time.Hour} {
		m := NewMachine(random(10), nil)
		all := run(t, m, epoch, epoch.Add(48*time.Hour), offset, [32]byte{1})
		corrected := PeriodAt(epoch.Add(offset))
		if all[0].Period != corrected || !all[0].at.Equal(epoch) {
			t.Errorf("%v: first %+v, want period %d at once", offset, all[0], corrected)
		}
		for h := range 48 {
			now := epoch.Add(time.Duration(h)*time.Hour + Apart)
			for _, p := range []Period{PeriodAt(now), PeriodAt(now.Add(offset))} {
				if !slices.ContainsFunc(all, func(o out) bool { return o.Period == p && !o.at.After(now) }) {
					t.Errorf("%v: after %d h there is no record of period %d", offset, h, p)
				}
			}
		}
		for i, o := range all[1:] {
			if o.at.Equal(all[i].at) {
				t.Errorf("%v: periods %d and %d go out together at %v", offset, all[i].Period, o.Period, o.at)
			}
			passed := max(o.at.Sub(o.Period.Start())/time.Minute, 0)
			if o.Seq > uint64(passed)+20 {
				t.Errorf("%v: seq %d in minute %d", offset, o.Seq, passed)
			}
		}
	}
}

// TestScheduleHolds: whatever clock, correction, network and restarts do, seqs
// rise, one period goes out at a time, and it is not asked for too often.
func TestScheduleHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := NewMachine(random(rapid.Byte().Draw(t, "random")), nil)
		c := Clock{Now: epoch}
		seqs, jobs := map[Period]uint64{}, map[Period]int{}
		hint := [32]byte{1}
		for range 60 {
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0:
				c.Now = c.Now.Add(time.Duration(rapid.Int64Range(-30*3600, 30*3600).Draw(t, "jump")) * time.Second)
			case 1:
				c.Offset = time.Duration(rapid.Int64Range(-30, 30).Draw(t, "offset")) * time.Hour
			case 2:
				hint[0]++
			case 3:
				m = NewMachine(random(1), m.State())
			case 4:
				m.Retry()
			}
			job, next, err := m.Due(c, hint)
			if err != nil || !next.After(c.Now) || next.Sub(c.Now) > RefreshEvery+RefreshJitter {
				t.Fatalf("next %v at %v, %v", next, c.Now, err)
			}
			if job == nil {
				c.Now = next
				continue
			}
			if before, ok := seqs[job.Period]; ok && job.Seq <= before && before < MaxSeq || job.Seq > MaxSeq {
				t.Fatalf("seq %d after %d", job.Seq, before)
			}
			seqs[job.Period] = job.Seq
			jobs[job.Period]++
			if second, _, err := m.Due(c, hint); err != nil || second != nil {
				t.Fatalf("periods %d and %d at one time (%v)", job.Period, second.Period, err)
			}
			c.Now = c.Now.Add(time.Second)
			if err := m.Finished(c, *job, rapid.Bool().Draw(t, "ok")); err != nil {
				t.Fatal(err)
			}
			if len(m.State()) > maxDone {
				t.Fatalf("%d periods are remembered", len(m.State()))
			}
		}
		for p := range maps.Keys(jobs) {
			if jobs[p] > 61 {
				t.Fatalf("period %d went out %d times", p, jobs[p])
			}
		}
	})
}

// failing is a source of chance that has run dry.
type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("dry") }

func TestScheduleWithoutChance(t *testing.T) {
	m := NewMachine(failing{}, nil)
	if job, _, err := m.Due(Clock{Now: epoch}, [32]byte{1}); err == nil || job != nil {
		t.Errorf("%+v, %v; want no guessable time", job, err)
	}
}

func TestPeriods(t *testing.T) {
	p := PeriodAt(epoch)
	midnight := p.Start()
	h := time.Hour
	for _, c := range []struct {
		name  string
		clock Clock
		want  []Period
	}{
		{"noon", Clock{epoch, 0}, []Period{p, p - 1, p + 1}},
		{"midnight", Clock{midnight, 0}, []Period{p, p - 1, p + 1}},
		{"just before midnight", Clock{midnight.Add(-time.Nanosecond), 0}, []Period{p - 1, p - 2, p}},
		{"own clock 26 h slow", Clock{epoch, 26 * h}, []Period{p + 1, p, p + 2, p - 1}},
		{"own clock 26 h fast", Clock{epoch, -26 * h}, []Period{p - 1, p - 2, p, p + 1}},
		{"own clock 1 h slow before midnight", Clock{midnight.Add(-h / 2), h}, []Period{p, p - 1, p + 1, p - 2}},
		{"own clock a year slow", Clock{epoch, 365 * 24 * h}, []Period{p + 365, p + 364, p + 366, p, p - 1, p + 1}},
		{"in 1970", Clock{time.Unix(5, 0), 0}, []Period{0, 1}},
		{"before 1970", Clock{time.Unix(-5, 0), 0}, []Period{0, 1}},
		{"in 3000", Clock{time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC), 0}, []Period{lastPeriod, lastPeriod - 1}},
	} {
		if d := cmp.Diff(c.want, Periods(c.clock)); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}

// TestSeen: H47, and what must not be taken for it.
func TestSeen(t *testing.T) {
	p := PeriodAt(epoch)
	type step struct {
		now   time.Duration // after the period's begin
		stamp Stamp
		old   bool
	}
	h := time.Hour
	for name, steps := range map[string][]step{
		"a lower seq":                        {{12 * h, Stamp{p, 700}, false}, {13 * h, Stamp{p, 699}, true}, {13 * h, Stamp{p, 700}, false}, {13 * h, Stamp{p, 701}, false}},
		"the day before":                     {{12 * h, Stamp{p - 1, 1439}, false}, {12 * h, Stamp{p, 0}, false}, {12 * h, Stamp{p - 1, 1439}, true}},
		"the next one before its day":        {{22 * h, Stamp{p + 1, 0}, false}, {23 * h, Stamp{p, 1380}, false}, {23 * h, Stamp{p, 1300}, true}, {25 * h, Stamp{p + 1, 0}, false}, {25 * h, Stamp{p, 1439}, true}},
		"a publisher that was 26 h fast":     {{12 * h, Stamp{p + 1, 840}, false}, {13 * h, Stamp{p, 780}, false}, {13 * h, Stamp{p, 700}, true}, {48 * h, Stamp{p + 1, 840}, false}, {48 * h, Stamp{p, 1439}, true}},
		"a publisher that was 26 h slow":     {{12 * h, Stamp{p - 1, 1200}, false}, {14 * h, Stamp{p, 840}, false}, {14 * h, Stamp{p - 1, 1300}, true}},
		"a reader whose clock is years slow": {{-10000 * h, Stamp{p, 700}, false}, {12 * h, Stamp{p, 600}, true}, {12 * h, Stamp{p, 720}, false}},
	} {
		var s Seen
		for i, st := range steps {
			err := s.Check(st.stamp)
			if errors.Is(err, ErrOld) != st.old {
				t.Errorf("%s: step %d: %v with %+v", name, i, err, s)
			}
			if err == nil {
				s = s.Add(p.Start().Add(st.now), st.stamp)
			}
		}
	}
}
