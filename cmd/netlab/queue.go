package main

import (
	"container/heap"
	"time"
)

// flight is a packet on its way.
type flight struct {
	due    time.Time
	order  uint64 // of two that are due at once the one that came first leaves first
	to     *port
	packet []byte
}

// queue holds the packets on their way. Its zero value is ready.
type queue struct {
	flights flights
	pushed  uint64
}

func (q *queue) push(due time.Time, to *port, packet []byte) {
	q.pushed++
	heap.Push(&q.flights, flight{due: due, order: q.pushed, to: to, packet: packet})
}

// next returns when the first packet is due, and false if there is none.
func (q *queue) next() (time.Time, bool) {
	if len(q.flights) == 0 {
		return time.Time{}, false
	}
	return q.flights[0].due, true
}

// pop takes the first packet out if it is due.
func (q *queue) pop(now time.Time) (flight, bool) {
	if due, ok := q.next(); !ok || due.After(now) {
		return flight{}, false
	}
	return heap.Pop(&q.flights).(flight), true
}

// flights is a heap.Interface.
type flights []flight

func (f flights) Len() int      { return len(f) }
func (f flights) Swap(i, j int) { f[i], f[j] = f[j], f[i] }

func (f flights) Less(i, j int) bool {
	if c := f[i].due.Compare(f[j].due); c != 0 {
		return c < 0
	}
	return f[i].order < f[j].order
}

// Push is called by container/heap.
func (f *flights) Push(x any) { *f = append(*f, x.(flight)) }

// Pop is called by container/heap.
func (f *flights) Pop() any {
	last := len(*f) - 1
	x := (*f)[last]
	(*f)[last] = flight{}
	*f = (*f)[:last]
	return x
}
