package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node/client"
)

func (a *app) events() *cobra.Command {
	var since uint64
	var follow bool
	cmd := &cobra.Command{
		Use: "events", Short: "Everything that changed, by number, resumable", GroupID: groupLook, Args: between(0, 0),
		Long: "Prints every stored object that changed after the number given, in that order, each in its newest state; with --follow also " +
			"what changes from now on. Keep the last number and begin there the next time: nothing is missed.",
		Example: "  kinloom events --since 0 --json\n  kinloom events --since 1042 --follow --json",
	}
	cmd.Flags().Uint64Var(&since, "since", 0, "number of the last change that you have")
	cmd.Flags().BoolVar(&follow, "follow", false, "go on with what changes from now on (needs a running node)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if follow {
			return a.with(cmd.Context(), needNode, func(ctx context.Context, c *client.Client) error { return a.follow(ctx, c, since) })
		}
		return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
			for {
				page, err := c.Changes(ctx, since, 0)
				if err != nil || len(page) == 0 {
					return err
				}
				if err := showAll(a, page, listChanges); err != nil {
					return err
				}
				since = page[len(page)-1].Changed
			}
		})
	}
	return cmd
}

func (a *app) follow(ctx context.Context, c *client.Client, since uint64) error {
	for change, err := range c.Events(ctx, since, "") {
		if err != nil {
			return err
		}
		if change.Kind == client.KindStore {
			continue // who follows gives no store, so there is nothing to compare
		}
		if err := showAll(a, []client.Change{change}, listChanges); err != nil {
			return err
		}
	}
	return nil
}

func listChanges(w io.Writer, page []client.Change) {
	for _, change := range page {
		fmt.Fprintf(w, "%d  %s\n", change.Changed, describe(change))
	}
}

func describe(change client.Change) string {
	switch {
	case change.Message != nil:
		m := change.Message
		if m.Deleted {
			return fmt.Sprintf("message  %s: (deleted)", name(m.Name))
		}
		return fmt.Sprintf("message  %s: %s  [%s]", name(m.Name), clean(m.Text, 100), m.State)
	case change.State != nil:
		s := change.State
		return fmt.Sprintf("state    messages %d to %d of %.8s: %s", s.From, s.To, s.Conversation, s.State)
	case change.Contact != nil:
		c := change.Contact
		if c.State == "removed" || c.State == "request" {
			return fmt.Sprintf("contact  %s, %s", name(c.Name), c.State)
		}
		return fmt.Sprintf("contact  %s, %s", name(c.Name), trustWords(c.Trust))
	case change.Conversation != nil:
		return fmt.Sprintf("conversation  %s, %d unread", name(change.Conversation.Name), change.Conversation.Unread)
	case change.Invite != nil:
		return fmt.Sprintf("invite   %s, %s", change.Invite.ID, count(change.Invite.Uses, "answer"))
	}
	b, err := json.Marshal(change)
	if err != nil {
		return change.Kind
	}
	return string(b)
}
