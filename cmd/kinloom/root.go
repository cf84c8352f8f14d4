package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/client"
)

// terminal is where a command reads and writes.
type terminal struct {
	in, out, err *os.File
}

// app is one command line being executed: its global flags and its terminal.
type app struct {
	term terminal
	env  func(string) string
	done <-chan struct{} // closed when the command is interrupted; nil: never

	home           string // --home
	json           bool   // --json
	passphraseFile string // --passphrase-file
}

// Groups of commands, as help shows them.
const (
	groupNode    = "node"
	groupPeople  = "people"
	groupTalk    = "talk"
	groupLook    = "look"
	groupProgram = "program"
)

// root builds the command tree.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "kinloom [command]", DisableFlagsInUseLine: true,
		Short: "A personal messenger node: your keys, your messages, no server in the middle",
		Long: "kinloom is a messenger node of your own. Messages go end-to-end encrypted from device to device; " +
			"keys, contacts and history stay on this computer.",
		Example:       "  kinloom up --name Ada\n  kinloom contact add 'kinloom:i#…'\n  kinloom send ada \"Hi!\" --wait delivered",
		SilenceErrors: true, SilenceUsage: true,
		Args: func(cmd *cobra.Command, args []string) error { return unknown(cmd, args) },
	}
	var asked bool
	root.Flags().BoolVar(&asked, "version", false, "print the version")
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if asked {
			return a.version().RunE(cmd, args)
		}
		return cmd.Help()
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(a.help())
	root.SetUsageFunc(usageOnce(root.UsageFunc()))
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("See: "+cmd.CommandPath()+" --help", "%s", parseDetail.ReplaceAllString(err.Error(), "not a number that fits"))
	})
	flags := root.PersistentFlags()
	flags.StringVar(&a.home, "home", "", "folder that holds everything of this node (KINLOOM_HOME)")
	flags.BoolVar(&a.json, "json", false, "print JSON, one object a line")
	flags.StringVar(&a.passphraseFile, "passphrase-file", "", "file with the passphrase of the home (KINLOOM_PASSPHRASE_FILE)")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		for _, path := range []string{"home", "passphrase-file"} { // as a script gives them whose variable is not set
			if flags.Changed(path) && flags.Lookup(path).Value.String() == "" {
				return usage("Give a path, or leave --"+path+" out.", "--%s is empty", path)
			}
		}
		return nil
	}
	for _, group := range []struct{ id, title string }{
		{groupNode, "Node:"},
		{groupPeople, "People:"},
		{groupTalk, "Messages:"},
		{groupLook, "Looking closer:"},
		{groupProgram, "This program:"},
	} {
		root.AddGroup(&cobra.Group{ID: group.id, Title: group.title})
	}
	root.AddCommand(
		a.up(), a.initialise(), a.runNode(), a.stop(), a.status(), a.doctor(), a.demo(),
		a.id(), a.invite(), a.contact(), a.request(),
		a.send(), a.inbox(), a.read(), a.search(), a.conversation(),
		a.events(), a.why(), a.route(), a.ping(), a.peers(), a.bootstrap(),
		a.version(), a.completion(), a.man(), a.bench(), a.benchHost(),
	)
	return root
}

// parseDetail is what the standard library adds to a flag that is no number.
var parseDetail = regexp.MustCompile(`strconv\.\w+: parsing .*$`)

// usageError is a command line that cannot be meant, with what to do instead.
type usageError struct{ text, next string }

func (e *usageError) Error() string { return e.text + ". " + e.next }

func usage(next, format string, args ...any) error {
	return &usageError{text: fmt.Sprintf(format, args...), next: next}
}

// unknown refuses arguments of a command that only has sub-commands.
func unknown(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	next := "See: " + cmd.CommandPath() + " --help"
	cmd.SuggestionsMinimumDistance = 2
	near := cmd.SuggestionsFor(args[0])
	switch below := paths(cmd.Root(), args[0]); {
	case strings.HasPrefix(strings.ToLower(args[0]), "kinloom:"):
		return usage("Answer an invite: kinloom contact add LINK", "an invite is no command")
	case len(below) > 0:
		next = "Did you mean: " + strings.Join(below, ", or ")
	case len(near) > 0:
		next = "Did you mean: " + cmd.CommandPath() + " " + strings.Join(near, ", ")
	}
	return usage(next, "there is no command %q", cmd.CommandPath()+" "+clean(args[0], 40))
}

// paths gives the commands of a name, wherever they are.
func paths(cmd *cobra.Command, name string) []string {
	var out []string
	for _, sub := range cmd.Commands() {
		if sub.Name() == name && !sub.Hidden {
			out = append(out, sub.CommandPath())
		}
		out = append(out, paths(sub, name)...)
	}
	return out
}

// group is a command that does nothing without one of its sub-commands.
func group(id, use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use + " [command]", DisableFlagsInUseLine: true, Short: short, GroupID: id, Args: unknown}
	var names []string
	for _, sub := range subs {
		names = append(names, sub.Name())
	}
	cmd.Example = subs[0].Example
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return usage("Say which: "+strings.Join(names, ", "), "%s needs one of its commands", cmd.CommandPath())
	}
	cmd.AddCommand(subs...)
	return cmd
}

// between asks for at least low and at most high arguments.
func between(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		next := "Usage: " + cmd.UseLine()
		switch {
		case len(args) < low:
			return usage(next, "%s needs more arguments", cmd.CommandPath())
		case high == 0 && len(args) > 0:
			return usage(next, "%s takes no %q", cmd.CommandPath(), clean(args[0], 40))
		case len(args) > high:
			return usage(next, "%s takes no %q; put quotes around what has blanks", cmd.CommandPath(), clean(args[high], 40))
		}
		if slices.Contains(args[:low], "") {
			return usage(next, "an argument of %s is empty", cmd.CommandPath())
		}
		for _, arg := range args {
			if !utf8.ValidString(arg) { // as JSON it would become another text, and a name that nobody gave
				return usage("Convert it to UTF-8 first.", "an argument of %s is not valid UTF-8 text", cmd.CommandPath())
			}
		}
		return nil
	}
}

// errInterrupted ends a command that a signal stopped.
var errInterrupted = errors.New("interrupted")

// report writes an error for people and gives the exit code.
func (a *app) report(ctx context.Context, err error) int {
	if err == nil {
		return 0
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errInterrupted
	}
	fmt.Fprintln(a.term.err, "kinloom: "+cleanText(a.commands(err.Error())))
	if said := technical(err); a.json && said != "" {
		fmt.Fprintln(a.term.err, "kinloom: technical: "+clean(said, 4000))
	}
	return exitCode(err)
}

// technical is what a library said about an error, which is no text for people.
func technical(err error) string {
	if p, ok := errors.AsType[*client.Problem](err); ok {
		return p.Technical
	}
	if e, ok := errors.AsType[*node.Error](err); ok {
		return e.Technical()
	}
	return ""
}

// exitCode gives the documented exit code of an error.
func exitCode(err error) int {
	if _, ok := errors.AsType[*usageError](err); ok {
		return int(node.KindUsage)
	}
	if p, ok := errors.AsType[*client.Problem](err); ok {
		return p.ExitCode()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return int(node.KindTimeout)
	}
	return int(node.KindOf(err))
}
