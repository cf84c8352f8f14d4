package testnet

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Quality counts what was sent and what arrived, with virtual times. The zero
// value is ready.
type Quality struct {
	mu   sync.Mutex // guards sent
	sent map[string]*delivery
	odd  int
}

type delivery struct {
	at    time.Time
	after time.Duration
	times int
}

// Sent notes that key was sent now.
func (q *Quality) Sent(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.sent == nil {
		q.sent = make(map[string]*delivery)
	}
	q.sent[key] = &delivery{at: time.Now()}
}

// Got notes that key arrived now.
func (q *Quality) Got(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	d := q.sent[key]
	if d == nil {
		q.odd++
		return
	}
	if d.times++; d.times == 1 {
		d.after = time.Since(d.at)
	}
}

// Report is the sum of a Quality.
type Report struct {
	Sent, Delivered int
	Doubled         int // arrived more than once
	Unknown         int // arrived and were never sent
	P50, P95, Max   time.Duration
	Missing         []string // at most 10
}

// Share is the part that was delivered, 1 if nothing was sent.
func (r Report) Share() float64 {
	if r.Sent == 0 {
		return 1
	}
	return float64(r.Delivered) / float64(r.Sent)
}

func (r Report) String() string {
	return fmt.Sprintf("delivered %d of %d, doubled %d, unknown %d, p50 %v, p95 %v, max %v, missing %q",
		r.Delivered, r.Sent, r.Doubled, r.Unknown, r.P50, r.P95, r.Max, r.Missing)
}

// Report returns the sum so far.
func (q *Quality) Report() Report {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := Report{Sent: len(q.sent), Unknown: q.odd}
	var times []time.Duration
	for key, d := range q.sent {
		switch {
		case d.times == 0:
			r.Missing = append(r.Missing, key)
			continue
		case d.times > 1:
			r.Doubled++
		}
		r.Delivered++
		times = append(times, d.after)
	}
	slices.Sort(r.Missing)
	r.Missing = r.Missing[:min(len(r.Missing), 10)]
	if n := len(times); n > 0 {
		slices.Sort(times)
		r.P50, r.P95, r.Max = times[n/2], times[min(n-1, n*95/100)], times[n-1]
	}
	return r
}
