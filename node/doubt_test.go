package node

import (
	"testing"
	"time"
)

// TestPatience: where receipts come fast a missing one is doubted soon, where they are
// slow it is waited for, and of nobody's receipts nothing is known.
func TestPatience(t *testing.T) {
	var q queue
	if got := q.patience(doubtSoon, doubtAfter); got != doubtAfter {
		t.Errorf("before any receipt: %v", got)
	}
	q.answered(20 * time.Millisecond)
	if got := q.patience(doubtSoon, doubtAfter); got != doubtSoon {
		t.Errorf("fast: %v", got)
	}
	q.answered(900 * time.Millisecond)
	if got := q.patience(doubtSoon, doubtAfter); got != 4600*time.Millisecond {
		t.Errorf("slow: %v", got)
	}
	for range 30 {
		q.answered(20 * time.Millisecond)
	}
	if got := q.patience(doubtSoon, doubtAfter); got != doubtSoon {
		t.Errorf("fast again: %v", got)
	}
	q.answered(time.Minute)
	if got := q.patience(doubtTime, doubtLong); got != doubtLong {
		t.Errorf("never more than %v: %v", doubtLong, got)
	}
}

// TestLateByTheFirst: amid a stream of messages it is the first without a receipt that
// tells whether the other side is there, not the one with which the stream began.
func TestLateByTheFirst(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	q := queue{items: []item{{sent: now}, {sent: now.Add(time.Minute)}}, sent: 2}
	q.answered(time.Millisecond)
	if !q.late(now.Add(doubtSoon)) || q.late(now.Add(doubtSoon-1)) {
		t.Error("the first one is not what counts")
	}
	q.items, q.sent = q.items[1:], 1
	if q.late(now.Add(time.Minute + doubtSoon - 1)) {
		t.Error("doubted by one that has its receipt")
	}
	q.rewind()
	if q.late(now.Add(time.Hour)) {
		t.Error("doubted by what was not sent")
	}
}
