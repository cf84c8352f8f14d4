// Command kinloom is a personal messenger node and the commands that drive it.
//
//	kinloom up --name Ada                start a node, print an invite
//	kinloom contact add LINK             answer an invite
//	kinloom send ada "Hi!" --wait delivered
//
// Every command asks the running node over its socket; without one it opens the home itself and calls the same handlers.
// What a command gives goes to stdout, as text or with --json as one object a line; what is meant for people goes to
// stderr. Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 refused, 5 timed out (still queued), 6 node not running.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"charm.land/fang/v2"
	"github.com/charmbracelet/x/term"

	"github.com/kinloom/kinloom/node/p2p"
)

// version is set when a release is built.
var version = "dev"

func main() {
	os.Exit(run(os.Args[1:], terminal{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}

// run executes one command line and gives its exit code. SIGINT and SIGTERM end the command in order; a second one ends
// the process.
func run(args []string, t terminal) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	p2p.LibraryLog(nil) // libp2p would write addresses to stderr
	harden()
	a := &app{term: t, env: os.Getenv, done: ctx.Done()}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(t.in)
	root.SetOut(t.out)
	root.SetErr(t.err)

	var err error
	if a.styles() && asksHelp(args) {
		quiet := func(io.Writer, fang.Styles, error) {}
		err = fang.Execute(ctx, root, fang.WithoutCompletions(), fang.WithoutManpage(), fang.WithoutVersion(), fang.WithErrorHandler(quiet))
	} else {
		err = root.ExecuteContext(ctx)
	}
	return a.report(ctx, err)
}

// styles reports whether help is styled: on a terminal with room for it, as examples are cut off where there is less, and
// where plain text is not asked for. Styling asks the terminal for its colours, and one that does not answer costs seconds.
func (a *app) styles() bool {
	width, _, err := term.GetSize(a.term.out.Fd())
	return err == nil && width >= 80 && a.env("NO_COLOR") == "" && a.env("TERM") != "dumb"
}

// asksHelp reports whether a command line prints help, which is styled at a terminal. Nothing else goes through fang: on
// an error it asks the terminal for its colours and reads the answer from the input, with what is typed there.
func asksHelp(args []string) bool {
	return len(args) == 0 || args[0] == "help" || slices.Contains(args, "--help") || slices.Contains(args, "-h")
}
