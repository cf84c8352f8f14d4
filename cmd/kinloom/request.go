package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node/client"
)

func (a *app) request() *cobra.Command {
	return group(groupPeople, "request", "People who answered a public invite: list, accept, decline",
		&cobra.Command{
			Use: "list", Short: "Who waits for an answer", Args: between(0, 0), Example: "  kinloom request list",
			RunE: func(cmd *cobra.Command, _ []string) error {
				return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
					all, err := c.Requests(ctx)
					if err != nil {
						return err
					}
					return showAll(a, all, func(w io.Writer, all []client.Contact) {
						if len(all) == 0 {
							fmt.Fprintln(w, "Nobody waits for an answer.")
						}
						listContacts(w, all)
					})
				})
			},
		},
		a.contactChange("accept ID", "Make a contact of a request", "  kinloom request accept did:key:z6Mk…", "is a contact now, and not verified yet", (*client.Client).AcceptRequest),
		&cobra.Command{
			Use: "decline ID", Short: "Forget a request; the other side is told nothing", Args: between(1, 1), Example: "  kinloom request decline did:key:z6Mk…",
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
					if err := c.DeclineRequest(ctx, args[0]); err != nil {
						return err
					}
					if a.json {
						return show(a, map[string]any{"id": args[0], "declined": true}, nil)
					}
					a.say("Declined. They are told nothing.")
					return nil
				})
			},
		},
	)
}
