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
		Use: "route WHO", Short: "The ways to a contact's devices, tried or not", GroupID: groupLook, Args: between(1, 1),
		Example: "  kinloom route bob",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
				ways, err := c.Routes(ctx, args[0])
				if err != nil {
					return err
				}
				return showAll(a, ways, func(w io.Writer, ways []client.Way) {
					if len(ways) == 0 {
						fmt.Fprintln(w, "No way is known yet. It is found when that device comes to this one, or on the local network.")
					}
					table(w, func(w io.Writer) {
						for _, way := range ways {
							live := "not connected"
							if way.Live {
								live = "connected"
							}
							fmt.Fprintf(w, "%s\t%s\t%s\t%s\ttried %s\t%s\n", way.Device, way.Route, live, clean(way.Address, 200), clock(way.LastTry.Time), clean(way.Result, 200))
						}
					})
				})
			})
		},
	}
}
