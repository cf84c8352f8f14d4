package session

import (
	"fmt"
	"testing"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/wire"
)

// talking returns two sides with a confirmed session.
func talking(t testing.TB) (a, b *side) {
	t.Helper()
	a, b = newSide(t, "alice", "1"), newSide(t, "bob", "1")
	start(epoch0, a, b, true)
	b.open(epoch0, a.say(epoch0, b, "hello"))
	a.open(epoch0, b.say(epoch0, a, "hello"))
	settle(epoch0, a, b)
	return a, b
}

// BenchmarkMessage: 1 KiB messages one way, encrypted, packed, opened and with
// the rows of both sides taken, in batches; renewals and receipts included.
func BenchmarkMessage(b *testing.B) {
	for _, batch := range []int{1, 13} {
		b.Run(fmt.Sprint("batch", batch), func(b *testing.B) {
			x, y := talking(b)
			payload, c := make([]byte, 1024), conv(x, y)
			now, bytes := epoch0, 0
			var items []Sealed
			for b.Loop() {
				now = now.Add(time.Millisecond)
				s, err := x.m.Seal(now, y.dev(), c, payload)
				if err != nil {
					b.Fatal(err)
				}
				if items = append(items, s); len(items) < batch {
					continue
				}
				x.bench(now, y)
				for len(items) > 0 {
					n := 0
					for n < len(items) && items[n].Session == items[0].Session {
						n++
					}
					cell, n, err := x.m.Pack(now, y.dev(), items[0].Session, items[:n], wire.Padme)
					if err != nil {
						b.Fatal(err)
					}
					items, bytes = items[n:], bytes+len(cell)
					if _, err := y.m.OpenFrom(now, cell, x.dev()); err != nil {
						b.Fatal(err)
					}
				}
				y.bench(now, x)
				for _, o := range y.m.Owing() {
					cell, _, err := y.m.Pack(now, o.Device, o.Session, nil, wire.Padme)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := x.m.OpenFrom(now, cell, y.dev()); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(bytes)/float64(b.N), "wire-B/msg")
			b.ReportMetric(float64(len(x.m.sessions)), "sessions")
		})
	}
}

func (s *side) bench(now time.Time, to *side) {
	if _, err := s.m.Prepare(now, to.dev()); err != nil {
		s.t.Fatal(err)
	}
	s.m.Dirty()
}

// BenchmarkStart: a session with its first message and the answer, both sides.
func BenchmarkStart(b *testing.B) {
	x, y := newSide(b, "alice", "1"), newSide(b, "bob", "1")
	meet(x, y)
	for b.Loop() {
		bundle, err := y.m.Bundle(epoch0, true)
		if err != nil {
			b.Fatal(err)
		}
		if err := x.m.Start(epoch0, y.remote(), bundle); err != nil {
			b.Fatal(err)
		}
		y.open(epoch0, x.say(epoch0, y, "hello"))
		x.m.Forget(y.dev())
		y.m.Forget(x.dev())
		meet(x, y)
	}
}

// crowd is a side with sessions to n devices.
func crowd(t testing.TB, n int) (*side, []*side) {
	t.Helper()
	a := newSide(t, "alice", "1")
	var others []*side
	for i := range n {
		b := newSide(t, fmt.Sprint("peer", i), "1")
		start(epoch0, b, a, true)
		a.open(epoch0, b.say(epoch0, a, "hello"))
		if i == 0 {
			b.open(epoch0, a.say(epoch0, b, "hello"))
		}
		others = append(others, b)
	}
	return a, others
}

// BenchmarkFind: a cell of one of 1,000 devices, with and without a hint, and
// one of nobody.
func BenchmarkFind(b *testing.B) {
	a, others := crowd(b, 1000)
	cell := others[0].say(epoch0, a, "again")
	stranger := newSide(b, "mallory", "1")
	start(epoch0, stranger, newSide(b, "trudy", "1"), true)
	foreign := stranger.say(epoch0, newSide(b, "trudy", "1"), "x")
	for _, v := range []struct {
		name string
		hint identity.DeviceID
		cell []byte
	}{{"hint", others[0].dev(), cell}, {"none", identity.DeviceID{}, cell}, {"stranger", identity.DeviceID{}, foreign}} {
		b.Run(v.name, func(b *testing.B) {
			for b.Loop() {
				a.m.use(a.m.recent[len(a.m.recent)-1]) // never the one at the front
				_, err := a.m.OpenFrom(epoch0, v.cell, v.hint)
				if (err != nil) != (v.name == "stranger") {
					b.Fatal(err)
				}
			}
		})
	}
}
