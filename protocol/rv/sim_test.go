package rv

import (
	"testing"
	"time"
)

// publish runs a device for some days whose clock is off by wrong, and stores
// what a node with a right clock lets pass. It returns what the device keeps.
func publish(t *testing.T, d *device, stored map[Point][][]byte, done []Published, from time.Time, days int, wrong, offset time.Duration) []Published {
	t.Helper()
	h, err := someHint().Hash()
	if err != nil {
		t.Fatal(err)
	}
	m := NewMachine(d.random, done)
	for now := from; now.Before(from.Add(time.Duration(days) * 24 * time.Hour)); {
		c := Clock{now.Add(wrong), offset}
		job, next, err := m.Due(c, h)
		if err != nil {
			t.Fatal(err)
		}
		if job == nil {
			now = next.Add(-wrong)
			continue
		}
		b, point := d.seal(t, job.Period, job.Seq), d.point(t, job.Period)
		_, err = Validate(now, point, b)
		if err == nil {
			// The minute of storing stands in front, so that a reader sees what there was then.
			stored[point] = append(stored[point], append([]byte(now.Format(time.RFC3339)), b...))
		}
		if err := m.Finished(c, *job, err == nil); err != nil {
			t.Fatal(err)
		}
	}
	return m.State()
}

// find is what a reader finds at a moment.
func find(t *testing.T, d *device, stored map[Point][][]byte, now time.Time, wrong, offset time.Duration, seen Seen) (Seen, bool) {
	t.Helper()
	for _, p := range Periods(Clock{now.Add(wrong), offset}) {
		point := d.point(t, p)
		var there [][]byte
		for _, s := range stored[point] {
			n := len(time.RFC3339) - len("07:00")
			if string(s[:n]) > now.Format(time.RFC3339) {
				continue
			}
			if _, err := Validate(now, point, s[n:]); err == nil {
				there = append(there, s[n:])
			}
		}
		i := Select(there)
		if i < 0 {
			continue
		}
		_, stamp, err := Open(d.public, d.secret, p, there[i])
		if err != nil {
			t.Fatal(err)
		}
		if seen.Check(stamp) == nil {
			return seen.Add(now.Add(wrong+offset), stamp), true
		}
	}
	return seen, false
}

// TestClocksApart is H50: clocks of publisher and reader that are off by up to
// 26 h, the nodes that store in between with right ones. Told of it, each finds
// the other at every hour; untold, as long as the two are less than a day apart
// and the publisher no more than a day slow.
func TestClocksApart(t *testing.T) {
	begin := PeriodAt(epoch).Start()
	offs := []time.Duration{-26 * time.Hour, -13 * time.Hour, 0, 13 * time.Hour, 26 * time.Hour}
	if testing.Short() { // beside the race detector
		offs = offs[3:]
	}
	for _, told := range []bool{true, false} {
		found, tried := 0, 0
		for i, publisher := range offs {
			d := newDevice(byte(i + 1))
			offset := func(wrong time.Duration) time.Duration {
				if told {
					return -wrong
				}
				return 0
			}
			stored := map[Point][][]byte{}
			publish(t, d, stored, nil, begin, 5, publisher, offset(publisher))
			for _, reader := range offs {
				missed, seen := 0, Seen{}
				for hour := range 48 {
					now := begin.Add(2*24*time.Hour + time.Duration(hour)*time.Hour)
					ok := false
					if seen, ok = find(t, d, stored, now, reader, offset(reader), seen); !ok {
						missed++
					}
				}
				tried, found = tried+48, found+48-missed
				apart := (publisher - reader).Abs()
				if missed > 0 && (told || apart < 24*time.Hour && publisher > -24*time.Hour) {
					t.Errorf("publisher %v off, reader %v off, told %v: missed in %d of 48 hours", publisher, reader, told, missed)
				}
			}
		}
		t.Logf("told of it %v: found %d of %d times", told, found, tried)
		if told && found != tried || !told && found*2 < tried {
			t.Errorf("told of it %v: found %d of %d times", told, found, tried)
		}
	}
}

// TestClockSetRight: a device whose clock was fast or slow, told or untold, is
// found by those who saw its records in the hour after it was set right.
func TestClockSetRight(t *testing.T) {
	begin, step := PeriodAt(epoch).Start(), 4
	if testing.Short() { // beside the race detector
		step = 24
	}
	for _, wrong := range []time.Duration{26 * time.Hour, -26 * time.Hour, 13 * time.Hour, -13 * time.Hour} {
		for _, offset := range []time.Duration{-wrong, 0} {
			for hour := 0; hour < 24; hour += step {
				d, stored := newDevice(3), map[Point][][]byte{}
				set := begin.Add(time.Duration(48+hour) * time.Hour)
				// Before that, it was right once, and the reader looked all the time.
				done := publish(t, d, stored, nil, begin, 1, 0, 0)
				done = publish(t, d, stored, done, begin.Add(24*time.Hour), 1, wrong, offset)
				var seen Seen
				for h := range 48 {
					seen, _ = find(t, d, stored, begin.Add(time.Duration(h)*time.Hour), 0, 0, seen)
				}
				publish(t, d, stored, done, set, 1, 0, 0)
				if _, ok := find(t, d, stored, set.Add(time.Hour), 0, 0, seen); !ok {
					t.Errorf("clock %v off (told %v), set right at hour %d: not found", wrong, offset, hour)
				}
			}
		}
	}
}
