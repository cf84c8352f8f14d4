package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node/client"
)

func (a *app) why() *cobra.Command {
	return &cobra.Command{
		Use: "why MESSAGE", Short: "Every step of a message, and what it waits for", GroupID: groupLook, Args: between(1, 1),
		Long:    "Prints every step of a message on its way, device by device, and for what is missing the reason and what to do. MESSAGE is its id or the first 8 digits.",
		Example: "  kinloom why 3f9a01c2",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
				stages, err := c.Why(ctx, args[0])
				if err != nil {
					return err
				}
				return showAll(a, stages, a.listStages)
			})
		},
	}
}

func (a *app) listStages(w io.Writer, stages []client.Stage) {
	table(w, func(w io.Writer) {
		for _, s := range stages {
			note := clean(s.Reason, 200)
			if s.Next != "" {
				note += ". " + clean(a.commands(s.Next), 200)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", clock(s.At.Time), s.Stage, s.Route, name(s.By), note)
		}
	})
}
