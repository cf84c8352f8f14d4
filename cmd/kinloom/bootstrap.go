package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node/client"
)

func (a *app) bootstrap() *cobra.Command {
	return group(groupNode, "bootstrap", "Ways into the network that you name: add, list, remove",
		&cobra.Command{
			Use: "add ADDRESS", Short: "Name a server by which this node gets into the network", Args: between(1, 1),
			Long: "Names a server by which this node gets into the network, finds contacts who have moved, and is relayed to where its router lets nothing in. " +
				"A server prints its address when it starts. It learns no name, contact or message of yours, and the address of this computer. " +
				"Whoever has a contact or an invite with a server behind it needs none of this.",
			Example: "  kinloom bootstrap add /ip4/198.51.100.7/udp/443/quic-v1/p2p/12D3KooW…",
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.with(cmd.Context(), needMade, func(ctx context.Context, c *client.Client) error {
					added, err := c.AddBootstrap(ctx, args[0])
					if err != nil {
						return err
					}
					return show(a, added, func(w io.Writer, b client.Bootstrap) { fmt.Fprintf(w, "Named: %s\n", clean(b.Peer, 128)) })
				})
			},
		},
		&cobra.Command{
			Use: "list", Short: "The servers that you named", Args: between(0, 0), Example: "  kinloom bootstrap list",
			RunE: func(cmd *cobra.Command, _ []string) error {
				return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
					all, err := c.Bootstraps(ctx)
					if err != nil {
						return err
					}
					return showAll(a, all, func(w io.Writer, all []client.Bootstrap) {
						if len(all) == 0 {
							fmt.Fprintf(w, "None is named. Invites and contacts lead into the network by themselves; name one: %s\n", a.command("bootstrap add ADDRESS"))
						}
						for _, b := range all {
							fmt.Fprintf(w, "%s\n  %s\n", b.Peer, strings.Join(b.Addresses, "\n  "))
						}
					})
				})
			},
		},
		&cobra.Command{
			Use: "remove PEER", Short: "Forget a server that you named", Args: between(1, 1), Example: "  kinloom bootstrap remove 12D3KooW…",
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
					if err := c.RemoveBootstrap(ctx, args[0]); err != nil {
						return err
					}
					if a.json {
						return show(a, map[string]any{"peer": args[0], "removed": true}, nil)
					}
					a.say("Forgotten. What this node has learned of the network by itself stays.")
					return nil
				})
			},
		},
	)
}
