package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/kinloom/kinloom/node/corpus"
)

const (
	// TextSize is the size of every message, in bytes.
	TextSize = 1024
	// Messages is how many messages the archive has that is searched and started
	// with; QuickMessages with Options.Quick.
	Messages      = 1_000_000
	QuickMessages = 20_000

	runs       = 5
	runTime    = 5 * time.Second
	quickTime  = time.Second
	manyWaited = 10_000 // messages before memory is looked at
	texts      = 8192   // different texts that runs say in turn; 8 MiB
)

// Options say what to measure.
type Options struct {
	// Figure is the name of one figure, or the beginning of several up to a dash;
	// empty: all.
	Figure string
	// Quick takes one run of one second and a small archive: no verdicts.
	Quick bool
	// Seed is that of the corpus. Two seeds share their frequent words.
	Seed uint64
	// Cache is the folder, made if it is not there, that keeps the archive from
	// time to time. The homes of the nodes lie in it too, so it says which disk is
	// measured.
	Cache string
	// Program is the path of the kinloom program, and Host its arguments to run
	// Host of this package: some figures need processes.
	Program string
	Host    []string
	// Version names the program to the nodes of this process.
	Version string
	// Progress is told what is being done; nil: nobody.
	Progress func(format string, args ...any)
}

// bench is one run of Run.
type bench struct {
	Options
	dir   string // of this run, removed at its end
	texts []string
	next  atomic.Uint64 // text to say next
	give  func(Figure) error
}

// step measures some figures at once.
type step struct {
	figures []string
	run     func(*bench, context.Context) ([]Figure, error)
	// children: processes do the work, so the load is that before the step.
	children bool
}

// steps are in the order of bars.
var steps = []step{
	{[]string{"one-at-a-time"}, (*bench).latency, false},
	{[]string{"window-64", "window-256", "cpu", "disk"}, (*bench).pipeline, false},
	{[]string{"stream-one", "stream-batch"}, (*bench).streams, false},
	{[]string{"start"}, (*bench).start, true},
	{[]string{"memory-idle"}, (*bench).memoryIdle, true},
	{[]string{"memory-after"}, (*bench).memoryAfter, true},
	{[]string{
		"search-word", "search-word-p95", "search-two-words", "search-two-words-p95",
		"search-word-person", "search-word-person-p95", "open-conversation",
	}, (*bench).search, false},
	{[]string{"binary"}, (*bench).binary, true},
}

// Run measures what o says and gives each figure as soon as it is known, the
// load of the machine first. It takes about a quarter of an hour for all
// figures, and as much again the first time, for the archive.
func Run(ctx context.Context, o Options, give func(Figure) error) (err error) {
	if !Known(o.Figure) {
		return fmt.Errorf("no figure %q", o.Figure)
	}
	if err := os.MkdirAll(o.Cache, 0o700); err != nil {
		return fmt.Errorf("make the folder of the bench: %w", err)
	}
	dir, err := os.MkdirTemp(o.Cache, "run-")
	if err != nil {
		return fmt.Errorf("make a folder for this run: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{Options: o, dir: dir, give: give}
	c := corpus.New(o.Seed)
	for range texts {
		b.texts = append(b.texts, c.Text(TextSize))
	}
	if err := b.machine(ctx); err != nil {
		return err
	}
	for _, s := range steps {
		if !slices.ContainsFunc(s.figures, func(name string) bool { return selects(o.Figure, name) }) {
			continue
		}
		if err := b.step(ctx, s); err != nil {
			return fmt.Errorf("measure %s: %w", s.figures[0], err)
		}
	}
	return nil
}

// machine gives the first line: how much others use the machine while this
// program rests.
func (b *bench) machine(ctx context.Context) error {
	load, known, err := restingLoad(ctx, b.runTime())
	if err != nil {
		return err
	}
	f := figure("load", load, 0)
	f.judge(load, known, "")
	if f.Note == "" {
		f.Note = machineNote()
	}
	return b.give(f)
}

// step runs one step with the load watched.
func (b *bench) step(ctx context.Context, s step) error {
	b.progress("measuring %s", s.figures[0])
	var load float64
	var known bool
	var figures []Figure
	var err error
	if s.children {
		if load, known, err = restingLoad(ctx, quickTime); err == nil {
			figures, err = s.run(b, ctx)
		}
	} else {
		begin := readClock()
		figures, err = s.run(b, ctx)
		load, known = begin.others(readClock())
	}
	if err != nil {
		return err
	}
	short := ""
	if b.Quick {
		short = "a quick run: no verdict"
	}
	for _, f := range figures {
		if !selects(b.Figure, f.Figure) {
			continue
		}
		f.judge(load, known, short)
		if err := b.give(f); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) progress(format string, args ...any) {
	if b.Progress != nil {
		b.Progress(format, args...)
	}
}

func (b *bench) runs() int {
	if b.Quick {
		return 1
	}
	return runs
}

func (b *bench) runTime() time.Duration {
	if b.Quick {
		return quickTime
	}
	return runTime
}

// home names a folder for something of this run.
func (b *bench) home(name string) string { return filepath.Join(b.dir, name) }

// text gives the next text, to any goroutine.
func (b *bench) text() string { return b.texts[b.next.Add(1)%texts] }

// rest waits.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
