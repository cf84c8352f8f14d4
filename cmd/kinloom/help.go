package main

import (
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// usageOnce prints the usage of a command that only has sub-commands in one line, where the library prints one for the
// command itself, too.
func usageOnce(print func(*cobra.Command) error) func(*cobra.Command) error {
	return func(cmd *cobra.Command) error {
		out := cmd.OutOrStderr()
		var text strings.Builder
		cmd.SetOut(&text)
		err := print(cmd)
		cmd.SetOut(out)
		if err != nil {
			return err
		}
		line := "  " + cmd.CommandPath() + " [command]\n"
		_, err = io.WriteString(out, strings.Replace(text.String(), line+line, line, 1))
		return err
	}
}

func (a *app) help() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Print help about a command", GroupID: groupProgram, Example: "  kinloom help contact add",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usage("See: kinloom --help", "there is no command %q", "kinloom "+clean(args[len(args)-max(1, len(rest))], 40))
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}
