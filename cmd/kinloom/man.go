package main

import (
	"fmt"
	"io"

	mango "github.com/muesli/mango-cobra"
	"github.com/muesli/roff"
	"github.com/spf13/cobra"
)

// manual is the manual page, in roff.
type manual struct {
	Page string `json:"page"`
}

func (a *app) man() *cobra.Command {
	return &cobra.Command{
		Use: "man", Short: "Print the manual page", GroupID: groupProgram, Args: between(0, 0), Example: "  kinloom man | man -l -",
		RunE: func(cmd *cobra.Command, _ []string) error {
			page, err := mango.NewManPage(1, cmd.Root())
			if err != nil {
				return fmt.Errorf("write the manual page: %w", err)
			}
			return show(a, manual{page.Build(roff.NewDocument())}, func(w io.Writer, m manual) { fmt.Fprint(w, m.Page) })
		},
	}
}
