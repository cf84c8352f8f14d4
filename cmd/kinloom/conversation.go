package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/client"
)

func (a *app) conversation() *cobra.Command {
	return group(groupTalk, "conversation", "Conversations: list, clear, mute, archive, retention",
		&cobra.Command{
			Use: "list", Short: "All conversations, archived ones too", Args: between(0, 0), Example: "  kinloom conversation list",
			RunE: func(cmd *cobra.Command, _ []string) error {
				return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
					all, err := c.Conversations(ctx)
					if err != nil {
						return err
					}
					return showAll(a, all, listConversations)
				})
			},
		},
		&cobra.Command{
			Use: "clear WHO", Short: "Delete what was said, on this device only", Args: between(1, 1), Example: "  kinloom conversation clear bob",
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
					cleared, err := c.ClearConversation(ctx, args[0])
					if err != nil {
						return err
					}
					return show(a, cleared, func(w io.Writer, cleared client.Cleared) {
						fmt.Fprintf(w, "%s deleted on this device.", count(cleared.Removed, "message"))
						if args[0] != node.Me {
							fmt.Fprint(w, " The other side keeps its own.")
						}
						fmt.Fprintln(w)
					})
				})
			},
		},
		a.conversationSwitch("mute WHO", "Give no notice of new messages; --off ends it", "  kinloom conversation mute bob\n  kinloom conversation mute bob --off",
			func(on *bool) client.ConversationUpdate { return client.ConversationUpdate{Muted: on} }),
		a.conversationSwitch("archive WHO", "Leave it out of the inbox; --off ends it", "  kinloom conversation archive bob\n  kinloom conversation archive bob --off",
			func(on *bool) client.ConversationUpdate { return client.ConversationUpdate{Archived: on} }),
		&cobra.Command{
			Use: "retention WHO DURATION", Short: "Delete here what is older; off keeps everything", Args: between(2, 2),
			Example: "  kinloom conversation retention bob 90d\n  kinloom conversation retention bob off",
			RunE: func(cmd *cobra.Command, args []string) error {
				var kept time.Duration
				if args[1] != "off" {
					var err error
					if kept, err = parseSpan(args[1]); err != nil {
						return err
					}
				}
				return a.update(cmd.Context(), args[0], client.ConversationUpdate{Retention: new(int64(kept / time.Second))})
			},
		},
	)
}

// conversationSwitch is a command that turns something on, or with --off off.
func (a *app) conversationSwitch(use, short, example string, update func(*bool) client.ConversationUpdate) *cobra.Command {
	var off bool
	cmd := &cobra.Command{
		Use: use, Short: short, Args: between(1, 1), Example: example,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.update(cmd.Context(), args[0], update(new(!off)))
		},
	}
	cmd.Flags().BoolVar(&off, "off", false, "end it")
	return cmd
}

func (a *app) update(ctx context.Context, who string, update client.ConversationUpdate) error {
	return a.with(ctx, needHome, func(ctx context.Context, c *client.Client) error {
		changed, err := c.UpdateConversation(ctx, who, update)
		if err != nil {
			return err
		}
		return showAll(a, []client.Conversation{changed}, listConversations)
	})
}

func listConversations(w io.Writer, all []client.Conversation) {
	if len(all) == 0 {
		fmt.Fprintln(w, "No conversations yet.")
		return
	}
	table(w, func(w io.Writer) {
		for _, c := range all {
			marks := ""
			if c.Unread > 0 {
				marks += fmt.Sprintf("%d unread  ", c.Unread)
			}
			if c.Muted {
				marks += "muted  "
			}
			if c.Archived {
				marks += "archived  "
			}
			if c.Retention > 0 {
				kept := span(time.Duration(c.Retention) * time.Second)
				marks += "kept " + kept.String() + "  "
			}
			last := clean(c.LastText, 60)
			if c.LastOwn && last != "" {
				last = "you: " + last
			}
			fmt.Fprintf(w, "%s\t%s\t%s%s\n", name(c.Name), clock(c.LastAt.Time), marks, last)
		}
	})
}
