package rv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Times of publishing (SPEC 6).
const (
	// RefreshEvery is how long a record stands before it is published again,
	// RefreshJitter how much more or less that may be.
	RefreshEvery  = 10 * time.Hour
	RefreshJitter = time.Hour
	// Early is how long before its period the first record of it may go out.
	Early = 3 * time.Hour
	// ChangeGap is the shortest time between two records of a period. The second one
	// waits for the next minute, too, so that its seq says when it went out, but no
	// longer than ChangeMost where the clock was set back.
	ChangeGap  = 20 * time.Second
	ChangeMost = 2 * time.Minute
	// Apart is within what time a record goes out that would otherwise leave
	// together with one of another period, and show that they belong together.
	Apart = 30 * time.Minute
	// RetryFirst and RetryMost bound the time after a failure.
	RetryFirst = time.Minute
	RetryMost  = 30 * time.Minute

	// clockNoise is what a clock, or what others say of it, may go to and fro
	// without all times being reckoned anew.
	clockNoise = time.Minute
	// maxDone is how many periods are remembered: more than any clock that is
	// set right again goes through, so that no seq is used twice.
	maxDone = 16
)

// Clock is the own clock and what others say about it.
type Clock struct {
	Now time.Time
	// Offset is what has to be added to Now, by what several others said; 0
	// means nothing. It may be a lie: it adds periods and replaces none.
	Offset time.Duration
}

// periods returns the period by the corrected clock, and then that by the own
// one if it is another.
func (c Clock) periods() []Period {
	own, corrected := PeriodAt(c.Now), PeriodAt(c.Now.Add(c.Offset))
	if own == corrected {
		return []Period{own}
	}
	return []Period{corrected, own}
}

// Periods returns the periods in the order in which a reader looks for a
// record: the current one, the one before, the next; by the corrected clock,
// and then by the own one those that are not among them. Two clocks that are a
// day apart thus still find each other's.
func Periods(c Clock) []Period {
	var all []Period
	for _, p := range c.periods() {
		for _, q := range []Period{p, p - 1, p + 1} {
			if q <= lastPeriod && !slices.Contains(all, q) {
				all = append(all, q)
			}
		}
	}
	return all
}

// Published is what a publisher remembers of one period of one device and
// secret. It is on disk before the record leaves.
type Published struct {
	Period Period   `cbor:"1,keyasint"`
	Seq    uint64   `cbor:"2,keyasint"` // the highest that was given out
	At     int64    `cbor:"3,keyasint"` // unix seconds of the last success by the own clock, 0: none
	Hint   [32]byte `cbor:"4,keyasint"` // Hash of the hint of that
}

// Job is a record that is to be sealed and published.
type Job struct {
	Period Period
	Seq    uint64
	Hint   [32]byte // Hash of the hint that it is for
}

// Machine says which record of one device and secret is due. Another secret
// begins with another Machine.
type Machine struct {
	random  io.Reader
	done    []Published // in the order in which they were given out
	plans   map[Period]plan
	running map[Period]bool
	failed  map[Period]int // in a row
}

// plan is when a period is due, and what that was reckoned from.
type plan struct {
	at    time.Time
	hint  [32]byte
	clock Clock
}

// holds tells whether nothing has changed since that would make it another.
func (p plan) holds(c Clock, hint [32]byte) bool {
	return p.hint == hint && !c.Now.Before(p.clock.Now.Add(-clockNoise)) && (c.Offset-p.clock.Offset).Abs() < clockNoise
}

// NewMachine goes on where done, an earlier State, ended.
func NewMachine(random io.Reader, done []Published) *Machine {
	return &Machine{
		random: random, done: slices.Clone(done),
		plans: map[Period]plan{}, running: map[Period]bool{}, failed: map[Period]int{},
	}
}

// State returns what has to be on disk before the record of a Job leaves.
func (m *Machine) State() []Published { return slices.Clone(m.done) }

// Due returns the record that is due, if there is one, and the time when to
// ask again at the latest. hint is the Hash of the hint as it is now. It never
// gives out two periods at one time (SPEC 6.2). A job is followed by
// Finished. Errors are those of random.
func (m *Machine) Due(c Clock, hint [32]byte) (job *Job, next time.Time, err error) {
	wanted := m.wanted(c)
	for p := range m.plans {
		if !slices.Contains(wanted, p) {
			delete(m.plans, p)
		}
	}
	for _, p := range wanted {
		if m.running[p] {
			continue
		}
		old, ok := m.plans[p]
		if m.failed[p] > 0 {
			old.hint = hint // another hint has no better chance
		}
		if !ok || !old.holds(c, hint) {
			at, err := m.reckon(c, p, hint)
			if err != nil {
				return nil, time.Time{}, err
			}
			m.plans[p] = plan{at, hint, c}
		}
		if m.plans[p].at.After(c.Now) {
			continue
		}
		if job != nil {
			at, err := m.between(c.Now.Add(time.Minute), c.Now.Add(Apart))
			if err != nil {
				return nil, time.Time{}, err
			}
			m.plans[p] = plan{at, hint, c}
			continue
		}
		job = &Job{Period: p, Seq: m.take(c, p), Hint: hint}
		m.running[p] = true
		delete(m.plans, p)
	}
	next = c.Now.Add(RefreshEvery)
	for _, p := range c.periods() {
		if change := (p + 1).Start().Add(-c.Offset); change.After(c.Now) {
			next = earlier(next, change)
		}
		if change := (p + 1).Start(); change.After(c.Now) {
			next = earlier(next, change)
		}
	}
	for _, pl := range m.plans {
		next = earlier(next, pl.at)
	}
	return job, next, nil
}

// Finished tells how a job ended. State has changed after it, too: if that is
// lost, the record goes out once more.
func (m *Machine) Finished(c Clock, j Job, ok bool) error {
	delete(m.running, j.Period)
	if ok {
		delete(m.failed, j.Period)
		if i := m.find(j.Period); i >= 0 {
			m.done[i].At, m.done[i].Hint = c.Now.Unix(), j.Hint
		}
		return nil
	}
	wait := min(RetryFirst<<min(m.failed[j.Period], 10), RetryMost)
	m.failed[j.Period]++
	at, err := m.between(c.Now.Add(wait/2), c.Now.Add(wait))
	if err != nil {
		return err
	}
	m.plans[j.Period] = plan{at, j.Hint, c}
	return nil
}

// Retry makes due at once what failed, as the network has changed.
func (m *Machine) Retry() {
	for p := range m.failed {
		delete(m.failed, p)
		delete(m.plans, p)
	}
}

// wanted are the periods that are kept published, the most important first:
// the current ones, the next ones, and those further on that a clock which was
// fast has filled.
func (m *Machine) wanted(c Clock) []Period {
	all := c.periods()
	for _, p := range c.periods() {
		if p < lastPeriod && !slices.Contains(all, p+1) {
			all = append(all, p+1)
		}
	}
	for _, d := range m.done {
		left := d.Period.NotAfter().Sub(c.Now)
		if d.At != 0 && d.Period > PeriodAt(c.Now) && left <= Ahead && !slices.Contains(all, d.Period) {
			all = append(all, d.Period)
		}
	}
	return all
}

// reckon says when period p is due.
func (m *Machine) reckon(c Clock, p Period, hint [32]byte) (time.Time, error) {
	i := m.find(p)
	stands := i >= 0 && m.done[i].At != 0
	current := slices.Contains(c.periods(), p)
	begins := earlier(p.Start(), p.Start().Add(-c.Offset)) // by the clock that comes to it first
	var last time.Time
	if stands {
		// A clock that was set back must not put the next time off for long.
		last = earlier(time.Unix(m.done[i].At, 0), c.Now)
	}
	switch {
	case stands && m.done[i].Hint == hint:
		return m.between(last.Add(RefreshEvery-RefreshJitter), last.Add(RefreshEvery+RefreshJitter))
	case current && stands:
		minute := p.Start().Add(time.Duration(m.done[i].Seq+1)*time.Minute - min(c.Offset, 0))
		return later(last.Add(ChangeGap), earlier(minute, last.Add(ChangeMost))), nil
	case current:
		return c.Now, nil
	case stands && c.Now.Before(begins.Add(-Early)):
		// The clock was set back, and for others p has begun perhaps.
		return m.between(c.Now.Add(time.Minute), c.Now.Add(Apart))
	case stands:
		return m.between(c.Now.Add(time.Minute), later(c.Now.Add(Apart), begins))
	}
	return m.between(later(c.Now, begins.Add(-Early)), begins)
}

// take gives out the next seq of p: the minutes that have passed in it, by the
// slower of both clocks, so that no lie uses them up; and always more than the
// last one.
func (m *Machine) take(c Clock, p Period) uint64 {
	passed := min(c.Now.Sub(p.Start()), c.Now.Add(c.Offset).Sub(p.Start()))
	seq := uint64(max(passed/time.Minute, 0))
	d := Published{Period: p}
	if i := m.find(p); i >= 0 {
		d = m.done[i]
		m.done = slices.Delete(m.done, i, i+1)
		seq = max(seq, d.Seq+1)
	}
	d.Seq = min(seq, MaxSeq)
	if m.done = append(m.done, d); len(m.done) > maxDone {
		m.done = slices.Delete(m.done, 0, 1)
	}
	return d.Seq
}

func (m *Machine) find(p Period) int {
	return slices.IndexFunc(m.done, func(d Published) bool { return d.Period == p })
}

// between draws a second from a up to b, or is a if b is no later.
func (m *Machine) between(a, b time.Time) (time.Time, error) {
	n := int64(b.Sub(a) / time.Second)
	if n <= 0 {
		return a, nil
	}
	var r [8]byte
	if _, err := io.ReadFull(m.random, r[:]); err != nil {
		return time.Time{}, fmt.Errorf("draw time of publication: %w", err)
	}
	return a.Add(time.Duration(binary.BigEndian.Uint64(r[:])%uint64(n)) * time.Second), nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// ErrOld means that a record is older than one seen before, perhaps a replay.
var ErrOld = errors.New("record is older than one seen before")

// Seen is what a reader remembers of the records of one device and secret, so
// that no older one is taken for news. Its zero value has seen nothing.
type Seen struct {
	// Stamp is the highest that was seen.
	Stamp Stamp `cbor:"1,keyasint"`
	// Floor is the latest minute of publication that was seen, in unix seconds,
	// but never later than it was then: a publisher whose clock was fast is
	// believed again as soon as it is right.
	Floor int64 `cbor:"2,keyasint"`
}

// Check returns ErrOld for a stamp from before what was seen: a lower seq in
// the same period, or an earlier minute of publication.
func (s Seen) Check(t Stamp) error {
	if t.Period == s.Stamp.Period && t.Seq < s.Stamp.Seq || t.At().Unix() < s.Floor {
		return ErrOld
	}
	return nil
}

// Add returns what is remembered after a record with stamp t, which Check let
// pass, was seen at now.
func (s Seen) Add(now time.Time, t Stamp) Seen {
	if t.Compare(s.Stamp) > 0 {
		s.Stamp = t
	}
	s.Floor = max(s.Floor, min(t.At().Unix(), now.Unix()))
	return s
}
