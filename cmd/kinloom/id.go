package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node/client"
)

func (a *app) id() *cobra.Command {
	shown := func(draw bool) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
				who, err := c.Identity(ctx)
				if err != nil {
					return err
				}
				return a.showIdentity(who, draw)
			})
		}
	}
	return group(groupNode, "id", "Your identity: show, qr, name",
		&cobra.Command{
			Use: "show", Short: "Print your identity and this device", Args: between(0, 0), RunE: shown(false),
			Long:    "Prints your identity and this device. An identity alone lets nobody find you: for that there are invites.",
			Example: "  kinloom id show",
		},
		&cobra.Command{
			Use: "qr", Short: "Print your identity as a QR code, to be compared", Args: between(0, 0), RunE: shown(true),
			Example: "  kinloom id qr",
		},
		&cobra.Command{
			Use: "name [NEW]", Short: "Print or change the name that contacts see", Args: between(0, 1),
			Example: "  kinloom id name\n  kinloom id name \"Ada L.\"",
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
					who, err := c.Identity(ctx)
					if len(args) == 1 && err == nil {
						who, err = c.SetName(ctx, args[0])
					}
					if err != nil {
						return err
					}
					return show(a, who, func(w io.Writer, who client.Identity) { fmt.Fprintln(w, name(who.Name)) })
				})
			},
		},
	)
}

func (a *app) showIdentity(who client.Identity, draw bool) error {
	drawn := ""
	if draw && !a.json {
		var err error
		if drawn, err = drawQR(who.ID); err != nil {
			return err
		}
	}
	return show(a, who, func(w io.Writer, who client.Identity) {
		fmt.Fprint(w, drawn)
		table(w, func(w io.Writer) {
			fmt.Fprintf(w, "Identity\t%s\nDevice\t%s\n", who.ID, who.Device)
			if who.Name != "" {
				fmt.Fprintf(w, "Name\t%s\n", name(who.Name))
			}
		})
	})
}
