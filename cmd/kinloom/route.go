package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node/client"
)

func (a *app) route() *cobra.Command {
	return &cobra.Command{
		Use: "route WHO", Short: "Every way to a contact's devices, when it was tried, and what came of it", GroupID: groupLook, Args: between(1, 1),
		Long: "Lists every way to a contact's devices: the live one first, then in the order in which they are tried, with how each is " +
			"known, when it was tried last and what came of it.",
		Example: "  kinloom route bob\n  kinloom route bob --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
				ways, err := c.Routes(ctx, args[0])
				if err != nil {
					return err
				}
				return showAll(a, ways, listWays)
			})
		},
	}
}

func listWays(w io.Writer, ways []client.Way) {
	if len(ways) == 0 {
		fmt.Fprintln(w, "No way is known yet. It is found when that device comes to this one, or on the local network.")
	}
	table(w, func(w io.Writer) {
		for _, way := range ways {
			tried, result := "tried "+clock(way.LastTry.Time), clean(way.Result, 200)
			switch {
			case way.Live:
				tried = "since " + clock(way.LastTry.Time)
			case way.LastTry.IsZero():
				tried = "-"
			}
			where := clean(way.Address, 200)
			if where == "" {
				where = "-"
			}
			device := way.Device
			if device == "" {
				device = "-"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", device, way.Route, where, sourceWords(way), tried, result)
		}
	})
}

// sourceWords says how a way is known.
func sourceWords(way client.Way) string {
	switch way.Source {
	case "told":
		return "told by them"
	case "invite":
		return "from the invite"
	case "seen":
		return "seen: they came from there"
	case "lan":
		return "found on the local network"
	case "record":
		return "from their look-up record"
	case "own":
		return "their way to this node"
	case "":
		if way.Live {
			return "they came from there"
		}
	}
	return clean(way.Source, 40)
}
