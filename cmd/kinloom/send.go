package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node/client"
	"github.com/kinloom/kinloom/protocol/wire"
)

// states are what send can wait for.
var states = []string{"queued", "delivered", "read"}

// lastLook is how long a send that was interrupted still asks how far its message came.
const lastLook = 5 * time.Second

func (a *app) send() *cobra.Command {
	var wait string
	timeout := span(30 * time.Second)
	cmd := &cobra.Command{
		Use: "send WHO [TEXT|-]", SuggestFor: []string{"message", "msg", "say", "write"}, Short: "Send a message; me sends a note to yourself", GroupID: groupTalk, Args: between(1, 2),
		Long: "Sends a message of up to 12 KiB: the text given, or what stands on the input with - or without a text. It returns once the " +
			"message is safe in the outbox; --wait waits for more. A message that was not delivered in time stays queued and goes out by itself.",
		Example: "  kinloom send ada \"Hi!\" --wait delivered\n  echo \"backup done\" | kinloom send ada -\n  kinloom send me \"a note\"",
	}
	cmd.Flags().StringVar(&wait, "wait", "queued", "wait until it is queued, delivered or read")
	cmd.Flags().Var(&timeout, "timeout", "how long to wait")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(states, wait) {
			return usage("Wait for queued, delivered or read.", "%q is not a state to wait for", clean(wait, 40))
		}
		text, err := a.text(args[1:])
		if err != nil {
			return err
		}
		n := needHome
		if wait != "queued" {
			n = needNetwork
		}
		began := time.Now()
		return a.with(cmd.Context(), n, func(ctx context.Context, c *client.Client) error {
			m, err := c.Send(ctx, client.Outgoing{To: args[0], Text: text})
			if err != nil {
				return err
			}
			waited := client.Waited{Message: m}
			if wait != "queued" {
				if waited, err = c.Wait(ctx, m.ID, wait, time.Duration(timeout)); err != nil {
					if ctx.Err() == nil {
						return err
					}
					if waited, err = interrupted(ctx, c, m, wait); err != nil {
						return err
					}
				}
			}
			return a.sent(waited, wait, time.Since(began))
		})
	}
	return cmd
}

// interrupted looks once more how far a message came when nobody waits for it any longer. The message is safe.
func interrupted(ctx context.Context, c *client.Client, m client.Message, wait string) (client.Waited, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLook)
	defer cancel()
	waited, err := c.Wait(ctx, m.ID, wait, 0)
	if err != nil {
		return waited, &client.Problem{
			Code: client.CodeTimeout, Detail: "interrupted; the message is safe, and how far it came is not known",
			Next: "See: kinloom why " + m.ID[:min(16, len(m.ID))], Technical: err.Error(),
		}
	}
	return waited, nil
}

// text gives what to send: the argument, or the input.
func (a *app) text(args []string) (string, error) {
	if len(args) == 1 && args[0] != "-" {
		return args[0], nil
	}
	if len(args) == 0 && !isPipe(a.term.in) {
		return "", usage(`Write it behind the name: kinloom send WHO "text"`, "there is no text to send")
	}
	b, err := io.ReadAll(io.LimitReader(a.term.in, wire.MaxText+2)) // one line end more, and one byte to tell "too long"
	if err != nil {
		return "", fmt.Errorf("read the text: %w", err)
	}
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
	}
	return string(b), nil
}

// sent tells what became of a message.
func (a *app) sent(w client.Waited, wait string, took time.Duration) error {
	m := w.Message
	out := client.Sent{
		ID: m.ID, Conversation: m.Conversation, State: m.State, Route: m.Route, Protection: m.Protection,
		Reason: m.Reason, Next: m.Next, Took: took.Milliseconds(),
	}
	err := show(a, out, func(w io.Writer, s client.Sent) {
		route := ""
		if s.Route != "" {
			route = s.Route + "  "
		}
		fmt.Fprintf(w, "%s  %.2f s  %s%s  id %s\n", s.State, took.Seconds(), route, protectionWords(s.Protection), s.ID[:min(16, len(s.ID))])
	})
	switch {
	case err != nil:
		return err
	case m.State == "failed":
		return &client.Problem{Code: client.CodeError, Detail: "the message failed: " + m.Reason, Next: m.Next}
	case w.TimedOut:
		return errors.Join(&client.Problem{
			Code: client.CodeTimeout, Detail: late(m.State, wait),
			Next: "See where it stands: " + a.command("why "+m.ID[:min(16, len(m.ID))]),
		})
	}
	return nil
}

// late says how far a message came that was waited for in vain.
func late(state, wait string) string {
	switch {
	case state == "queued":
		return "not " + wait + " in time; it stays queued and goes out by itself"
	case state == "delivered" && wait == "read":
		return "delivered, but not read in time"
	}
	return state + ", but not " + wait + " in time"
}

func protectionWords(grade string) string {
	switch grade {
	case "direct":
		return "end-to-end encrypted, device to device"
	case "network":
		return "end-to-end encrypted by the other network"
	case "provider":
		return "readable by the provider"
	}
	return grade
}
