package main

import (
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) completion() *cobra.Command {
	shells := map[string]func(*cobra.Command, io.Writer) error{
		"bash":       func(root *cobra.Command, w io.Writer) error { return root.GenBashCompletionV2(w, true) },
		"zsh":        func(root *cobra.Command, w io.Writer) error { return root.GenZshCompletion(w) },
		"fish":       func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) },
		"powershell": func(root *cobra.Command, w io.Writer) error { return root.GenPowerShellCompletionWithDesc(w) },
	}
	names := slices.Sorted(maps.Keys(shells))
	return &cobra.Command{
		Use: "completion SHELL", Short: "Print the completion script of a shell: " + strings.Join(names, ", "),
		GroupID: groupProgram, Args: between(1, 1), ValidArgs: names,
		Example: "  source <(kinloom completion bash)\n  kinloom completion fish > ~/.config/fish/completions/kinloom.fish",
		RunE: func(cmd *cobra.Command, args []string) error {
			generate, ok := shells[args[0]]
			if !ok {
				return usage("Choose one of: "+strings.Join(names, ", "), "there is no completion for the shell %q", clean(args[0], 40))
			}
			if !a.json {
				return generate(cmd.Root(), a.term.out)
			}
			var script strings.Builder
			if err := generate(cmd.Root(), &script); err != nil {
				return err
			}
			return show(a, map[string]string{"shell": args[0], "script": script.String()}, nil)
		},
	}
}
