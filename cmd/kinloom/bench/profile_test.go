package bench

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kinloom/kinloom/node/corpus"
)

// newTestBench is a bench with homes of its own and few texts.
func newTestBench(t testing.TB) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{Options: Options{Quick: true, Seed: 1, Cache: dir, Progress: t.Logf}, dir: dir}
	c := corpus.New(1)
	for range texts {
		b.texts = append(b.texts, c.Text(TextSize))
	}
	return b
}

// The benchmarks are the figures in a form that go test can profile:
//
//	go test -run '^$' -bench Window/256 -cpuprofile cpu.out ./cmd/kinloom/bench

func BenchmarkOneAtATime(b *testing.B) {
	c, err := newTestBench(b).newCouple(b.Context(), "one", nil)
	if err != nil {
		b.Fatal(err)
	}
	var all []float64
	for b.Loop() {
		begin := time.Now()
		if err := c.say(b.Context()); err != nil {
			b.Fatal(err)
		}
		all = append(all, microseconds(time.Since(begin)))
	}
	b.ReportMetric(median(all), "p50-us")
	b.ReportMetric(percentile(all, 0.99), "p99-us")
	if err := c.close(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkWindow(b *testing.B) {
	for _, size := range windows {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			c, err := newTestBench(b).newCouple(b.Context(), "window", nil)
			if err != nil {
				b.Fatal(err)
			}
			var rate, cpu float64
			for b.Loop() {
				if rate, cpu, err = c.window(b.Context(), size, runTime); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(rate, "messages/s")
			b.ReportMetric(cpu, "cpu-us/message")
			if err := c.close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func BenchmarkRawStore(b *testing.B) {
	raw, err := newTestBench(b).newRawStore(b.Context(), "groups")
	if err != nil {
		b.Fatal(err)
	}
	var rate, cpu float64
	for b.Loop() {
		if rate, cpu, err = raw.groups(b.Context(), archiveGroup, runTime); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(rate, "rows/s")
	b.ReportMetric(cpu, "cpu-us/row")
	if err := raw.close(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkRawTurns(b *testing.B) {
	raw, err := newTestBench(b).newRawStore(b.Context(), "turns")
	if err != nil {
		b.Fatal(err)
	}
	net, err := newRawNet(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	var events, commits, requests []float64
	for b.Loop() {
		if events, commits, requests, err = raw.turns(b.Context(), quickTime, net); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(median(events), "event-us")
	b.ReportMetric(median(commits), "commit-us")
	b.ReportMetric(median(requests), "request-us")
	if err := errors.Join(raw.close(), net.close()); err != nil {
		b.Fatal(err)
	}
}
