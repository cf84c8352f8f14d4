package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node/client"
)

func (a *app) peers() *cobra.Command {
	return &cobra.Command{
		Use: "peers", Short: "Who is connected with the running node, and how", GroupID: groupLook, Args: between(0, 0),
		Long: "Lists who is connected with the running node: contacts by name, servers by their own word, and strangers, who may be " +
			"contacts that have not said anything yet.",
		Example: "  kinloom peers\n  kinloom peers --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), needNode, func(ctx context.Context, c *client.Client) error {
				all, err := c.Peers(ctx)
				if err != nil {
					return err
				}
				return showAll(a, all, a.listPeers)
			})
		},
	}
}

func (a *app) listPeers(w io.Writer, all []client.Peer) {
	if len(all) == 0 {
		fmt.Fprintln(w, "Nobody is connected. See why: "+a.command("doctor"))
	}
	table(w, func(w io.Writer) {
		for _, p := range all {
			who := p.Kind
			switch p.Kind {
			case "contact":
				who = name(p.Name)
			case "request":
				who = name(p.Name) + ", a request"
			case "own":
				who = "your other device"
			}
			dialled := "we dialled"
			if p.Direction == "in" {
				dialled = "they dialled"
			}
			device := p.Device
			if device == "" {
				device = "-"
			}
			fmt.Fprintf(w, "%s\t%s\t%s, %s\t%s\t%s\tsince %s\n", who, device, p.Route, p.Transport, dialled, clean(p.Address, 200), clock(p.Since.Time))
		}
	})
}
