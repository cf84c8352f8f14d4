package event

import "time"

// Clock is a hybrid logical clock: milliseconds since 1970 in the upper 48
// bits, a counter in the lower 16. It grows with every event of a device and
// is above all that the device has seen, so it orders a conversation wherever
// nobody's clock lies; it never decides what is accepted. Idea: Kulkarni et
// al., "Logical Physical Clocks" (OPODIS 2014).
type Clock uint64

const (
	// MaxClock is the highest value that an event may carry. Its top bit is
	// free, so that a database with signed integers orders clocks alike.
	MaxClock Clock = 1<<63 - 1
	// MaxAhead is how far the clock of someone else may be ahead of the time
	// here before it counts as wrong and stops moving ours.
	MaxAhead = 24 * time.Hour

	counterBits = 16
)

// clockAt returns the lowest clock of a time, within the bounds.
func clockAt(t time.Time) Clock {
	ms := min(max(t.UnixMilli(), 0), int64(MaxClock>>counterBits))
	return Clock(ms) << counterBits
}

// Time returns the time part, to the millisecond.
func (c Clock) Time() time.Time { return time.UnixMilli(int64(c >> counterBits)) }

// Next returns the clock of the next own event: above c, and not below now. At
// MaxClock it stays there.
func (c Clock) Next(now time.Time) Clock {
	return max(min(c, MaxClock-1)+1, clockAt(now))
}

// Observe returns the clock after an event with the clock remote was seen. A
// remote clock more than MaxAhead ahead of now is reported as wrong and does
// not move ours; one that is behind never does.
func (c Clock) Observe(remote Clock, now time.Time) (Clock, bool) {
	if remote > clockAt(now.Add(MaxAhead))|(1<<counterBits-1) {
		return c, true
	}
	return max(c, remote), false
}
