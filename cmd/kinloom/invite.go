package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node/client"
)

func (a *app) invite() *cobra.Command {
	var many bool
	var expires span
	var use string
	cmd := &cobra.Command{
		Use: "invite", Short: "Make an invite for one person, or with --many for anybody", GroupID: groupPeople, Args: unknown,
		Long: "Makes an invite. Its reader becomes a contact with kinloom contact add. An invite for one person is valid 14 days and works " +
			"once; with --many it works until revoked, and who answers waits among your requests. It leads to the running node, by the best way " +
			"that is proven: it says \"LAN only so far\" until somebody outside has reached this node, or a relay is held.",
		Example: "  kinloom invite\n  kinloom invite --many --expires 30d\n  kinloom invite --for lan\n  kinloom invite --json",
	}
	cmd.Flags().BoolVar(&many, "many", false, "for anybody; answers become requests")
	cmd.Flags().StringVar(&use, "for", "", "where it is used: lan or internet (default: the best that is proven now)")
	cmd.Flags().Var(&expires, "expires", "how long it is valid, from 1m to 365d (default 14d; with --many until revoked)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("expires") && time.Duration(expires) < time.Second { // 0 would be the default
			return usage("Give something like 24h or 14d.", "an invite can last from a minute to a year")
		}
		return a.with(cmd.Context(), needNode, func(ctx context.Context, c *client.Client) error {
			made, err := c.Invite(ctx, client.NewInvite{Many: many, For: use, Seconds: int64(time.Duration(expires) / time.Second)})
			if err != nil {
				return err
			}
			return a.showInvite(made)
		})
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "list", Short: "Invites that were made", Args: between(0, 0), Example: "  kinloom invite list",
			RunE: func(cmd *cobra.Command, _ []string) error {
				return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
					all, err := c.Invites(ctx)
					if err != nil {
						return err
					}
					return showAll(a, all, a.listInvites)
				})
			},
		},
		&cobra.Command{
			Use: "revoke ID", Short: "End an invite before its time", Args: between(1, 1), Example: "  kinloom invite revoke 3fa1",
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
					if err := c.RevokeInvite(ctx, args[0]); err != nil {
						return err
					}
					if a.json {
						return show(a, map[string]any{"id": args[0], "revoked": true}, nil)
					}
					a.say("Revoked. Contacts that it made stay.")
					return nil
				})
			},
		},
	)
	return cmd
}

func (a *app) showInvite(made client.Invite) error {
	drawn := ""
	if a.drawsQR() {
		var err error
		if drawn, err = drawQR(made.QR); err != nil {
			return err
		}
	}
	return show(a, made, func(w io.Writer, i client.Invite) {
		whom := "one person"
		if i.Many {
			whom = "anybody"
		}
		a.say("Invite (%s, %s) - %s:", until(i.Expires.Time, time.Now()), whom, reachWords(i.Reach))
		fmt.Fprintf(w, "%s%s\n", drawn, i.Link)
		if i.Warning != "" {
			a.say("Note:  %s", i.Warning)
		}
	})
}

func (a *app) listInvites(w io.Writer, all []client.Invite) {
	if len(all) == 0 {
		fmt.Fprintln(w, "No invites. Make one: "+a.command("invite"))
		return
	}
	table(w, func(w io.Writer) {
		for _, i := range all {
			whom, state := "one person", until(i.Expires.Time, time.Now())
			if i.Many {
				whom = "anybody"
			}
			switch {
			case i.Revoked:
				state = "revoked"
			case !i.Many && i.Uses > 0:
				state = "used"
			case !i.Expires.IsZero() && i.Expires.Before(time.Now()):
				state = "expired"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\tmade %s\n", i.ID, whom, state, count(i.Uses, "answer"), clock(i.Created.Time))
		}
	})
}
