package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node/client"
)

const (
	// pingEvery is the pause between two rounds of a ping.
	pingEvery = time.Second
	// pingMost bounds the wait for one round: the node does not try longer than that at once.
	pingMost = 90 * time.Second
)

func (a *app) ping() *cobra.Command {
	rounds, timeout := 1, span(30*time.Second)
	cmd := &cobra.Command{
		Use: "ping WHO", Short: "Reach a contact's devices now, and time the answer", GroupID: groupLook, Args: between(1, 1),
		Long: "Measures a round trip to each device of a contact, on the way that is in use. A device that is not connected is tried " +
			"now, at all that is known of it. Exit code 5 if nobody answered.",
		Example: "  kinloom ping bob\n  kinloom ping bob --count 5",
	}
	cmd.Flags().IntVar(&rounds, "count", rounds, "how often, a second apart")
	cmd.Flags().Var(&timeout, "timeout", "how long to try each time, up to 90s")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		limit := time.Duration(timeout)
		switch {
		case rounds < 1 || rounds > 1_000_000:
			return usage("Choose from 1 to 1000000.", "a count of %d", rounds)
		case limit < time.Millisecond || limit > pingMost:
			return usage("Give something from 1s to 90s.", "a ping cannot wait that long, or not at all")
		}
		return a.with(cmd.Context(), needNode, func(ctx context.Context, c *client.Client) error {
			return a.pings(ctx, c, args[0], rounds, limit)
		})
	}
	return cmd
}

// pings asks round after round. Whoever answered once is there.
func (a *app) pings(ctx context.Context, c *client.Client, who string, rounds int, limit time.Duration) error {
	answered := false
	var last client.Pong
	for i := range rounds {
		if i > 0 {
			if err := pause(ctx, pingEvery); err != nil {
				return err
			}
		}
		all, err := c.Ping(ctx, who, limit)
		if err != nil {
			return err
		}
		if err := showAll(a, all, a.listPongs); err != nil {
			return err
		}
		for _, p := range all {
			answered = answered || p.State == "answered"
			last = p
		}
	}
	if !answered {
		return &client.Problem{Code: client.CodeTimeout, Detail: last.Reason, Next: last.Next}
	}
	return nil
}

func (a *app) listPongs(w io.Writer, all []client.Pong) {
	for _, p := range all {
		if p.State == "answered" {
			fmt.Fprintf(w, "%s  %s  %.1f ms  %s, %s  %s\n", name(p.Name), p.Device, p.RTT, p.Route, p.Transport, clean(p.Address, 200))
			continue
		}
		fmt.Fprintf(w, "%s  %s  no answer: %s\n", name(p.Name), p.Device, clean(p.Reason, 300))
	}
}
