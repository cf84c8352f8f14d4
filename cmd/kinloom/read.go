package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node/client"
)

func (a *app) inbox() *cobra.Command {
	var unread bool
	cmd := &cobra.Command{
		Use: "inbox", Short: "Conversations, the newest first", GroupID: groupTalk, Args: between(0, 0),
		Example: "  kinloom inbox\n  kinloom inbox --unread --json",
	}
	cmd.Flags().BoolVar(&unread, "unread", false, "only those with unread messages")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
			all, err := c.Inbox(ctx, unread)
			if err != nil {
				return err
			}
			return showAll(a, all, listConversations)
		})
	}
	return cmd
}

func (a *app) read() *cobra.Command {
	var page client.Page
	cmd := &cobra.Command{
		Use: "read WHO|CONVERSATION", SuggestFor: []string{"messages", "history"}, Short: "What was said with somebody, oldest first", GroupID: groupTalk, Args: between(1, 1),
		Long:    "Prints what was said with somebody, oldest first, complete unless --limit asks for the newest. It counts as read then.",
		Example: "  kinloom read ada\n  kinloom read ada --limit 20 --json\n  kinloom read me",
	}
	cmd.Flags().IntVar(&page.Limit, "limit", 0, "only the newest that many")
	cmd.Flags().BoolVar(&page.Peek, "peek", false, "leave it unread")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if page.Limit < 0 {
			return usage("Give a number above 0.", "a limit of %d", page.Limit)
		}
		return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
			all, err := c.Read(ctx, args[0], page)
			if err != nil {
				return err
			}
			return showAll(a, all, func(w io.Writer, all []client.Message) { listMessages(w, all, nil) })
		})
	}
	return cmd
}

// listMessages shows a timeline. Where it goes over several conversations, to names whom own messages went to, by
// conversation.
func listMessages(w io.Writer, all []client.Message, to map[string]string) {
	day := ""
	for _, m := range all {
		at := m.At.Local()
		if d := at.Format("Monday, 2 January 2006"); d != day {
			day = d
			fmt.Fprintf(w, "-- %s --\n", day)
		}
		if m.Gap > 0 {
			fmt.Fprintf(w, "       (%d of %s's messages are missing here; they are asked for)\n", m.Gap, name(m.Name))
		}
		who, mark := name(m.Name), ""
		if m.Own {
			who, mark = "you", "  ["+m.State+"]"
			if m.State == "queued" || m.State == "failed" {
				mark = fmt.Sprintf("  [%s, id %.16s]", m.State, m.ID) // to be asked about with why
			}
			if to[m.Conversation] != "" {
				who += " to " + name(to[m.Conversation])
			}
		}
		if m.ClockWrong {
			mark += "  [their clock is wrong]"
		}
		if m.Type != "message" {
			who += " (" + clean(m.Type, 20) + ")"
		}
		if m.Deleted {
			mark += "  [deleted]"
		}
		fmt.Fprintf(w, "%s  %s: %s%s\n", at.Format("15:04"), who, lines(m.Text, "       "), mark)
	}
	if len(all) == 0 {
		fmt.Fprintln(w, "Nothing yet.")
	}
}
