package main

import (
	"errors"
	"flag"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCommandLines(t *testing.T) {
	for _, line := range []string{"nonsense", "test --nonsense", "test no-such-scenario", "test --parallel 0", "test --soak 5s", "inside /tmp", "list --x", "set --x", "clean --x"} {
		if code := run(t.Context(), strings.Fields(line)); code != 2 {
			t.Errorf("netlab %s: exit code %d, want 2", line, code)
		}
	}
	var o testOptions
	if err := o.parse([]string{"--help"}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("--help gives %v", err)
	}
	if err := o.parse([]string{"--seed", "7", "--long", "--soak", "5m", "lan", "lossy"}); err != nil {
		t.Fatal(err)
	}
	var inner testOptions
	if err := inner.parse(o.args()); err != nil || inner.seed != 7 || !inner.long || inner.soak != 5*time.Minute || inner.parallel != 6 || !slices.Equal(inner.names, []string{"lan", "lossy"}) {
		t.Errorf("what is handed on is read as %+v, %v", inner, err)
	}
}

func TestScenarioNames(t *testing.T) {
	var seen []string
	for _, s := range scenarios() {
		if slices.Contains(seen, s.name) {
			t.Errorf("scenario %s stands twice", s.name)
		}
		seen = append(seen, s.name)
		if len(s.name) > 20 || s.what == "" || s.bar == "" || s.run == nil {
			t.Errorf("scenario %s: its name is long, or something is missing", s.name)
		}
	}
}

// TestRules keeps the traps of nft 1.0.6 out: a closing brace stands on a line of its own.
func TestRules(t *testing.T) {
	for _, r := range []routing{{nat: cone}, {nat: symmetric, refuses: "meta l4proto udp"}, {refuses: "all"}, {}} {
		text := rules(r)
		open := 0
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); strings.HasSuffix(line, "}") && line != "}" {
				t.Errorf("%+v: %q closes a brace", r, line)
			}
			open += strings.Count(line, "{") - strings.Count(line, "}")
		}
		if strings.Contains(text, "masquerade") != (r.nat != "") || strings.Contains(text, "fully-random") != (r.nat == symmetric) {
			t.Errorf("%+v: the translation is wrong:\n%s", r, text)
		}
		if open != 0 {
			t.Errorf("%+v: braces do not match:\n%s", r, text)
		}
	}
}
