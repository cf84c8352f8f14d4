package main

import (
	"testing"
	"time"
)

func TestQueue(t *testing.T) {
	var q queue
	if _, ok := q.next(); ok {
		t.Error("an empty queue has a next packet")
	}
	for _, at := range []int{5, 3, 9, 3, 1, 9} {
		q.push(noon.Add(time.Duration(at)*time.Second), nil, []byte{byte(at), byte(q.pushed)})
	}
	if f, ok := q.pop(noon); ok {
		t.Errorf("popped %v before it was due", f)
	}
	var got []byte
	for {
		f, ok := q.pop(noon.Add(5 * time.Second))
		if !ok {
			break
		}
		got = append(got, f.packet...)
	}
	// Those of one moment come in the order in which they were pushed.
	if want := "\x01\x04\x03\x01\x03\x03\x05\x00"; string(got) != want {
		t.Errorf("order is %q, want %q", got, want)
	}
	if due, ok := q.next(); !ok || !due.Equal(noon.Add(9*time.Second)) {
		t.Errorf("next is due at %v, %v", due, ok)
	}
}
