package main

import "github.com/spf13/cobra"

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
