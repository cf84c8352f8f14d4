package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/cmd/kinloom/bench"
)

func (a *app) bench() *cobra.Command {
	o := bench.Options{Host: []string{"bench-host"}, Version: version}
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure this machine: speed, memory, disk", GroupID: groupProgram, Args: between(0, 0),
		Long: "Measures two nodes of its own, in a temporary folder, next to the parts that they are made of: raw libp2p and the raw store, " +
			"in the same run. Your node and home are not touched.\n\n" +
			"Each figure is the median of five runs of five seconds, with a bar that it has to reach: at most so much, for messages a second " +
			"at least so much, of the raw figure where there is one. A raw commit, two of which and a raw request one message is compared with, " +
			"is that of the same event row and then of its index row; the progress lines say what the event row takes alone. There is no verdict (ok is null) while other programs use more than " +
			fmt.Sprintf("%.0f", 100*bench.MaxLoad) + " % of the machine: the first line tells how much they do.\n\n" +
			"All figures take about a quarter of an hour, and the first time as much again, to make 1,000,000 messages that are kept in the " +
			"folder of --cache. The first message to a new contact over a slow line is measured in virtual time, by a test: " +
			"go test -run TestFirstMessage ./node.\n\n" +
			"Figures: " + strings.Join(bench.Names(), ", ") + ".",
		Example: "  kinloom bench --quick\n  kinloom bench --figure search --json",
	}
	cmd.Flags().StringVar(&o.Figure, "figure", "", "measure this one only, or those that begin with it")
	cmd.Flags().BoolVar(&o.Quick, "quick", false, "one run of one second each, a small archive, no verdicts")
	cmd.Flags().Uint64Var(&o.Seed, "seed", 1, "of the texts")
	cmd.Flags().StringVar(&o.Cache, "cache", "", "folder for the archive and the nodes; its disk is what is measured (default: in the folder for temporary files)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !bench.Known(o.Figure) {
			return usage("Choose one of: "+strings.Join(bench.Names(), ", "), "there is no figure %q", clean(o.Figure, 40))
		}
		program, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		o.Program = program
		if o.Cache == "" {
			o.Cache = filepath.Join(os.TempDir(), "kinloom-bench")
		}
		if o.Cache, err = filepath.Abs(o.Cache); err != nil {
			return fmt.Errorf("find the folder of --cache: %w", err)
		}
		o.Progress = a.say
		give := benchLine(a.term.out)
		if !a.json && term.IsTerminal(a.term.out.Fd()) {
			give = benchTable(a.term.out)
		}
		return bench.Run(cmd.Context(), o, give)
	}
	return cmd
}

// benchLine writes figures as JSON, one a line.
func benchLine(w io.Writer) func(bench.Figure) error {
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	return func(f bench.Figure) error { return lines.Encode(f) }
}

// benchTable writes figures for people, each as soon as it is known.
func benchTable(out io.Writer) func(bench.Figure) error {
	headed := false
	number := func(v *float64) string {
		if v == nil {
			return "-"
		}
		return fmt.Sprintf("%.4g", *v)
	}
	return func(f bench.Figure) error {
		w := bufio.NewWriter(out)
		if !headed {
			headed = true
			fmt.Fprintf(w, "%-24s%10s %-12s%10s%8s%8s  %s\n", "FIGURE", "VALUE", "", "RAW", "RATIO", "BAR", "VERDICT")
		}
		verdict := f.Note
		if f.OK != nil {
			verdict = "missed"
			if *f.OK {
				verdict = "ok"
			}
			if f.Note != "" {
				verdict += ", " + f.Note
			}
		}
		fmt.Fprintf(w, "%-24s%10.4g %-12s%10s%8s%8.4g  %s\n", f.Figure, f.Value, f.Unit, number(f.Raw), number(f.Ratio), f.Bar, verdict)
		return w.Flush()
	}
}

// benchHost is the bare host that bench compares the memory of a node with, in a process of its own.
func (a *app) benchHost() *cobra.Command {
	return &cobra.Command{
		Use: "bench-host", Short: "Run a bare libp2p host, for bench", Hidden: true, Args: between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return bench.Host(cmd.Context(), a.term.out) },
	}
}
