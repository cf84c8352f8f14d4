package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node/client"
	"github.com/kinloom/kinloom/node/store"
)

// stopWait is how long stop waits for the node to let go of its home.
const stopWait = 60 * time.Second

// stopped is what stop tells.
type stopped struct {
	Stopped bool   `json:"stopped"`
	Home    string `json:"home"`
}

func (a *app) stop() *cobra.Command {
	return &cobra.Command{
		Use: "stop", Short: "End the running node", GroupID: groupNode, Args: between(0, 0),
		Long:    "Ends the running node and returns once it has let go of its home. What is queued stays queued.",
		Example: "  kinloom stop",
		RunE: func(cmd *cobra.Command, _ []string) error {
			where, err := a.places()
			if err != nil {
				return err
			}
			err = a.with(cmd.Context(), needNode, func(ctx context.Context, c *client.Client) error { return c.Stop(ctx) })
			if err != nil {
				return err
			}
			if err := released(cmd.Context(), where.home); err != nil {
				return err
			}
			return show(a, stopped{true, where.home}, func(w io.Writer, _ stopped) { fmt.Fprintln(w, "Stopped.") })
		},
	}
}

// released waits until no process holds the home.
func released(ctx context.Context, home string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, stopWait, fmt.Errorf("the node did not end within %s; see its log", stopWait))
	defer cancel()
	for {
		lock, err := store.AcquireLock(home)
		if err == nil {
			return lock.Release()
		}
		if pause(ctx, lockTry) != nil {
			return context.Cause(ctx)
		}
	}
}
