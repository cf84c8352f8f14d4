package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node/client"
)

func (a *app) status() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use: "status", Short: "How the running node stands", GroupID: groupNode, Args: between(0, 0),
		Long: "Tells how the running node stands. Exit code 0 once it can send, 6 if none is running. With --watch it is told again " +
			"each second, on one screen at a terminal, until Ctrl-C.",
		Example: "  kinloom status\n  kinloom status --watch\n  kinloom status --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				return a.with(cmd.Context(), needNode, a.watch)
			}
			return a.with(cmd.Context(), needNode, func(ctx context.Context, c *client.Client) error {
				status, err := c.Status(ctx)
				if err != nil {
					return err
				}
				if err := show(a, status, a.showStatus); err != nil {
					return err
				}
				if !status.Ready {
					return &client.Problem{Code: client.CodeNotRunning, Detail: "the node is not ready yet", Next: "Ask again in a moment."}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "go on, a status each second")
	return cmd
}

func (a *app) showStatus(w io.Writer, s client.Status) {
	table(w, func(w io.Writer) {
		fmt.Fprintf(w, "Identity\t%s\n", s.ID)
		if s.Name != "" {
			fmt.Fprintf(w, "Name\t%s\n", name(s.Name))
		}
		fmt.Fprintf(w, "Device\t%s\n", s.Device)
		fmt.Fprintf(w, "Home\t%s\n", s.Home)
		fmt.Fprintf(w, "Key file\t%s\n", protection(s.KeyProtection))
		fmt.Fprintf(w, "Up since\t%s, version %s\n", clock(s.Started.Time), s.Version)
		fmt.Fprintf(w, "Invites\t%s\n", reachWords(s.Reach))
		fmt.Fprintf(w, "Reached\t%s\n", clean(s.ReachText, 400))
		if s.ReachNext != "" {
			fmt.Fprintf(w, "\t%s\n", clean(a.commands(s.ReachNext), 400))
		}
		fmt.Fprintf(w, "Listening\t%s\n", strings.Join(s.Listening, "\n\t"))
		fmt.Fprintf(w, "Contacts\t%d, %s, %s connected\n", s.Contacts, count(s.Requests, "request"), count(s.Online, "device"))
		fmt.Fprintf(w, "Messages\t%d unread, %d not delivered yet\n", s.Unread, s.Queued)
	})
	for _, warning := range s.Warnings {
		fmt.Fprintf(w, "Note: %s\n", warning)
	}
	if s.LastCrash != "" {
		fmt.Fprintf(w, "Last crash: %s\n", clean(s.LastCrash, 200))
	}
}
