package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

const usage = `netlab: real kinloom nodes in a network that misbehaves. Linux, root.

  netlab test [FLAGS] [NAME...]  run scenarios, all without a NAME, and print one line for each:
                                 name, figure, bar, ok or FAIL, seconds. Exit code 1 if one fails.
      --kinloom FILE             the program to test (default: built from the source tree around)
      --long                     the long forms, for .ci/nightly
      --soak TIME                how long the scenario soak lasts, of the long form (default 1h, at least 1m)
      --seed N                   of the wire's dice (default: drawn, and printed)
      --parallel N               scenarios at the same time (default 6); those with times of few seconds run alone
      --keep                     keep the folder with homes and logs, and print its name
  netlab list                    the scenarios
  netlab set [LINE]              change the wire of the running test, or show it without a LINE.
      'A B WORD...'              both directions between two ports; 'A>B WORD...' one; * is all others. Words:
                                 delay=100ms jitter=30ms loss=10% dup=5% corrupt=0.1% rate=2mbit cut=yes cut=no clear
      --scenario NAME            which wire, where several scenarios run
  netlab clean                   remove the folders of runs that were killed
  netlab probe                   a UDP agent, driven by lines on its input (used by scenarios)
  netlab proxy                   an HTTP CONNECT proxy (used by scenarios)

It needs root, ip, nft and /dev/net/tun, and fails where they are missing.
`

// errUsage is a command line that means nothing.
var errUsage = errors.New("see netlab help")

// run executes one command line and gives its exit code.
func run(ctx context.Context, args []string) int {
	if len(args) == 0 {
		args = []string{"help"}
	}
	commands := map[string]func(context.Context, []string) error{
		"test": testCommand, "inside": insideCommand, "list": listCommand, "set": setCommand, "clean": cleanCommand,
		"probe": probeCommand, "proxy": proxyCommand,
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		fmt.Print(usage)
		return 0
	}
	command, ok := commands[args[0]]
	if !ok {
		fmt.Fprintf(os.Stderr, "netlab: there is no command %q: see netlab help\n", args[0])
		return 2
	}
	err := command(ctx, args[1:])
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "netlab:", err)
		return 2
	case errors.Is(err, errFailed): // said already, line by line
		return 1
	}
	fmt.Fprintln(os.Stderr, "netlab:", err)
	return 1
}

// testOptions are the flags of test. The process inside its namespaces is given the same.
type testOptions struct {
	kinloom  string
	long     bool
	soak     time.Duration
	seed     uint64
	parallel int
	keep     bool
	names    []string
}

func (o *testOptions) parse(args []string) error {
	set := flags("test")
	set.StringVar(&o.kinloom, "kinloom", "", "")
	set.BoolVar(&o.long, "long", false, "")
	set.DurationVar(&o.soak, "soak", time.Hour, "")
	set.Uint64Var(&o.seed, "seed", 0, "")
	set.IntVar(&o.parallel, "parallel", 6, "")
	set.BoolVar(&o.keep, "keep", false, "")
	if err := parseFlags(set, args); err != nil {
		return err
	}
	o.names = set.Args()
	for _, name := range o.names {
		if !known(name) {
			return fmt.Errorf("there is no scenario %q: %w", name, errUsage)
		}
	}
	if o.soak < time.Minute {
		return fmt.Errorf("--soak is at least 1m: %w", errUsage)
	}
	if o.parallel < 1 {
		return fmt.Errorf("--parallel is at least 1: %w", errUsage)
	}
	return nil
}

func (o *testOptions) args() []string {
	args := []string{
		"--kinloom=" + o.kinloom, fmt.Sprintf("--long=%v", o.long), fmt.Sprintf("--soak=%v", o.soak), fmt.Sprintf("--seed=%d", o.seed),
		fmt.Sprintf("--parallel=%d", o.parallel), "--",
	}
	return append(args, o.names...)
}

func flags(name string) *flag.FlagSet {
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	set.Usage = func() {}
	set.SetOutput(new(strings.Builder)) // the error says it again
	return set
}

// parseFlags tells a wrong flag from one that asks for help.
func parseFlags(set *flag.FlagSet, args []string) error {
	err := set.Parse(args)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return err
	}
	return fmt.Errorf("%w: %w", err, errUsage)
}

func listCommand(_ context.Context, args []string) error {
	if err := parseFlags(flags("list"), args); err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, s := range scenarios() {
		fmt.Fprintf(w, "%s\t%s\tbar: %s\n", s.name, s.what, s.bar)
	}
	return w.Flush()
}

// setCommand talks to the control socket of a running scenario.
func setCommand(ctx context.Context, args []string) error {
	set := flags("set")
	scenario := set.String("scenario", "*", "")
	if err := parseFlags(set, args); err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(os.TempDir(), folderPattern, *scenario, "wire.sock"))
	if err != nil || len(found) != 1 {
		return errors.Join(fmt.Errorf("%d running scenarios match %q: name one with --scenario", len(found), *scenario), err)
	}
	line := strings.Join(set.Args(), " ")
	if line == "" {
		line = "show"
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	lines, err := askControl(ctx, found[0], line)
	for _, l := range lines {
		fmt.Println(l)
	}
	return err
}
