package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/client"
)

func (a *app) bootstrap() *cobra.Command {
	return group(groupNode, "bootstrap", "Ways into the network that you name: servers, lists, places",
		&cobra.Command{
			Use: "add ADDRESS|dns:NAME|URL", Short: "Name a server by which this node gets into the network, or a place to ask for some", Args: between(1, 1),
			Long: "Names a server by which this node gets into the network, finds contacts who have moved, and is relayed to where its router lets nothing in. " +
				"A server prints its address when it starts. It learns no name, contact or message of yours, and the address of this computer. " +
				"Whoever has a contact or an invite with a server behind it needs none of this.\n\n" +
				"A place is asked for servers when none that is known answers, and not before: dns:NAME, whose TXT records name servers, or the URL of a list that " +
				"those have signed whom you believe. Whoever runs the place learns your IP address and that kinloom runs there. None is asked unless you name it.",
			Example: "  kinloom bootstrap add /ip4/198.51.100.7/udp/443/quic-v1/p2p/12D3KooW…\n  kinloom bootstrap add dns:example.org\n  kinloom bootstrap add https://example.org/servers",
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.with(cmd.Context(), needMade, func(ctx context.Context, c *client.Client) error {
					if node.IsSource(args[0]) {
						added, err := c.AddSource(ctx, args[0])
						if err != nil {
							return err
						}
						return show(a, added, func(w io.Writer, s client.Source) {
							fmt.Fprintf(w, "Named: %s. It is asked when no known server answers.\n", clean(s.Place, 512))
						})
					}
					added, err := c.AddBootstrap(ctx, args[0])
					if err != nil {
						return err
					}
					return show(a, added, func(w io.Writer, b client.Bootstrap) { fmt.Fprintf(w, "Named: %s\n", clean(b.Peer, 128)) })
				})
			},
		},
		&cobra.Command{
			Use: "list", Short: "What you named: servers, lists, and places with what came of asking them", Args: between(0, 0), Example: "  kinloom bootstrap list",
			RunE: func(cmd *cobra.Command, _ []string) error { return a.with(cmd.Context(), needHome, a.listBootstrap) },
		},
		&cobra.Command{
			Use: "remove PEER|NAME|PLACE", Short: "Forget a server, a list or a place that you named", Args: between(1, 1),
			Example: "  kinloom bootstrap remove 12D3KooW…\n  kinloom bootstrap remove 'Gemeinschaft Köln'\n  kinloom bootstrap remove dns:example.org",
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error { return a.removeBootstrap(ctx, c, args[0]) })
			},
		},
		a.importServers(), a.signers(), a.exportServers(), a.signServers(), a.signerKey(),
	)
}

// listBootstrap shows all that the owner named. With --json each object begins with what it is: peer, list or place.
func (a *app) listBootstrap(ctx context.Context, c *client.Client) error {
	servers, err := c.Bootstraps(ctx)
	if err != nil {
		return err
	}
	lists, err := c.ServerLists(ctx)
	if err != nil {
		return err
	}
	places, err := c.Sources(ctx)
	if err != nil {
		return err
	}
	var all []any
	for _, s := range servers {
		all = append(all, s)
	}
	for _, l := range lists {
		all = append(all, l)
	}
	for _, p := range places {
		all = append(all, p)
	}
	return showAll(a, all, func(w io.Writer, all []any) {
		if len(all) == 0 {
			fmt.Fprintf(w, "None is named. Invites and contacts lead into the network by themselves; name one: %s\n", a.command("bootstrap add ADDRESS"))
		}
		for _, b := range servers {
			fmt.Fprintf(w, "%s\n  %s\n  %s\n", b.Peer, strings.Join(b.Addresses, "\n  "), answers(b))
		}
		for _, l := range lists {
			fmt.Fprintf(w, "list %q\n  %s, of %s, until %s\n", clean(l.List, 64), count(l.Servers, "server"), l.Issued.Format("2006-01-02"), l.Expires.Format("2006-01-02"))
			if len(l.Signers) > 0 {
				fmt.Fprintf(w, "  signed by %s\n", clean(strings.Join(l.Signers, ", "), 1024))
			}
			if l.Problem != "" {
				fmt.Fprintf(w, "  not used: %s\n", clean(l.Problem, 512))
			}
		}
		for _, p := range places {
			fmt.Fprintf(w, "%s\n  %s\n", clean(p.Place, 512), asked(p))
		}
	})
}

func answers(b client.Bootstrap) string {
	switch {
	case b.Answered.IsZero() && b.Fails == 0:
		return "not tried yet; it is when this node looks for a way into the network"
	case b.Answered.IsZero():
		return "never answered, tried " + count(b.Fails, "time") + ": check the address, its end included"
	case b.Fails > 0:
		return "answered " + clock(b.Answered.Time) + ", not since, tried " + count(b.Fails, "time")
	default:
		return "answered " + clock(b.Answered.Time)
	}
}

func asked(p client.Source) string {
	switch {
	case p.Asked.IsZero():
		return "never asked; it is when no known server answers"
	case p.Problem != "":
		return "asked " + clock(p.Asked.Time) + ": " + clean(p.Problem, 512)
	default:
		return "asked " + clock(p.Asked.Time) + ": " + count(p.Servers, "server")
	}
}

// removeBootstrap finds out what is meant: a list goes by its name.
func (a *app) removeBootstrap(ctx context.Context, c *client.Client, which string) error {
	lists, err := c.ServerLists(ctx)
	if err != nil {
		return err
	}
	kind := "peer"
	switch {
	case slices.ContainsFunc(lists, func(l client.ServerList) bool { return l.List == which }):
		kind, err = "list", c.RemoveServerList(ctx, which)
	case node.IsSource(which):
		kind, err = "place", c.RemoveSource(ctx, which)
	default:
		err = c.RemoveBootstrap(ctx, which)
	}
	if err != nil {
		return err
	}
	if a.json {
		if at := strings.LastIndex(which, "/p2p/"); kind == "peer" && at >= 0 {
			which = which[at+len("/p2p/"):]
		}
		return show(a, map[string]any{kind: which, "removed": true}, nil)
	}
	a.say("Forgotten. What this node has learned of the network by itself stays.")
	return nil
}
