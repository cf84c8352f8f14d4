package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// scenario is one test: a network, what happens in it, and the figure that has to reach a bar.
type scenario struct {
	name  string
	what  string
	bar   string
	long  bool // it runs in the long form only, or when it is named
	alone bool // its times are few seconds, which others must not lengthen
	run   func(context.Context, *lab) (outcome, error)
}

// outcome is what a scenario measured, and whether that reaches the bar.
type outcome struct {
	figure string
	ok     bool
}

// scenarioTime bounds a scenario; the long forms have longTime.
const (
	scenarioTime = 2 * time.Minute
	longTime     = 30 * time.Minute
)

// scenarios are all there are, in the order in which they run.
func scenarios() []scenario {
	// The longest ones of those that run side by side come early.
	return slices.Concat(lanScenarios(), wireScenarios(), natScenarios(), movedScenarios(), wallScenarios(), homeScenarios(), selfScenarios(), soakScenarios())
}

func known(name string) bool {
	return slices.ContainsFunc(scenarios(), func(s scenario) bool { return s.name == name })
}

// runScenarios runs what the options name: first those that run alone, then the others, some at a time.
func runScenarios(ctx context.Context, folder string, o testOptions) error {
	var tuns atomic.Int64
	var failed atomic.Bool
	var say sync.Mutex
	one := func(s scenario) {
		began := time.Now()
		l := &lab{name: s.name, folder: filepath.Join(folder, s.name), kinloom: o.kinloom, long: o.long, soak: o.soak, tuns: &tuns}
		got, err := attempt(ctx, s, l, o.seed)
		verdict := "ok"
		if err != nil || !got.ok {
			verdict = "FAIL"
			failed.Store(true)
		}
		say.Lock()
		defer say.Unlock()
		fmt.Printf("%-13s  %-66s  bar: %-48s  %-4s  %5.1f s\n", s.name, cmp.Or(got.figure, "-"), s.bar, verdict, time.Since(began).Seconds())
		if verdict != "ok" {
			explain(l, err)
		}
	}
	turns := make(chan struct{}, o.parallel)
	var all sync.WaitGroup
	for _, alone := range []bool{true, false} {
		for _, s := range scenarios() {
			wanted := len(o.names) == 0 && (o.long || !s.long) || slices.Contains(o.names, s.name)
			if s.alone != alone || !wanted {
				continue
			}
			turns <- struct{}{}
			all.Go(func() {
				defer func() { <-turns }()
				one(s)
			})
			if alone {
				all.Wait()
			}
		}
	}
	all.Wait()
	if failed.Load() {
		return errFailed
	}
	return nil
}

// attempt runs one scenario in a lab of its own and takes the lab down.
func attempt(ctx context.Context, s scenario, l *lab, seed uint64) (got outcome, err error) {
	limit := scenarioTime
	if l.long || s.long {
		limit = longTime + l.soak
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := openLab(ctx, l, seed); err != nil {
		return outcome{}, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	return s.run(ctx, l)
}

// explain prints why a scenario failed, and what its nodes said last.
func explain(l *lab, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", l.name, err)
	}
	for _, n := range l.nodes {
		for _, path := range []string{n.home + ".log", filepath.Join(n.home, "logs", "kinloom.log"), filepath.Join(n.home, "kinloom.log"), filepath.Join(n.home, "crash.log")} {
			if b, err := os.ReadFile(path); err == nil && len(b) > 0 {
				fmt.Fprintf(os.Stderr, "--- %s, the end of %s:\n%s\n", n.name, filepath.Base(path), b[max(0, len(b)-3000):])
			}
		}
	}
}
