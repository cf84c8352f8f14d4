package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node/client"
)

func (a *app) search() *cobra.Command {
	var q client.Query
	var since string
	cmd := &cobra.Command{
		Use: "search QUERY", Short: "Find messages, the newest first", GroupID: groupTalk, Args: between(1, 1),
		Long:    "Finds messages that hold all words. \"a phrase\" in double quotes is found as it stands, and begin* finds words that begin so.",
		Example: "  kinloom search train\n  kinloom search '\"see you\" tomorrow' --person ada --since 30d",
	}
	cmd.Flags().StringVar(&q.Network, "network", "", "only of this network, such as kinloom")
	cmd.Flags().StringVar(&q.Person, "person", "", "only what this person wrote")
	cmd.Flags().StringVar(&since, "since", "", "only since a date, or for so long, such as 30d")
	cmd.Flags().StringVar(&q.Protection, "protection", "", "only of this grade: direct, network or provider")
	cmd.Flags().IntVar(&q.Limit, "limit", 50, "at most that many")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q.Text = args[0]
		switch {
		case q.Limit < 1 || q.Limit > 10000:
			return usage("Give a number from 1 to 10000.", "a limit of %d", q.Limit)
		case q.Protection != "" && q.Protection != "direct" && q.Protection != "network" && q.Protection != "provider":
			return usage("Choose direct, network or provider.", "%q is not a grade of protection", clean(q.Protection, 40))
		}
		var err error
		if q.Since, err = parseSince(since, time.Now()); err != nil {
			return err
		}
		return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
			found, err := c.Search(ctx, q)
			if err != nil {
				return err
			}
			to, err := a.peopleOf(ctx, c)
			if err != nil {
				return err
			}
			err = showAll(a, found, func(w io.Writer, found []client.Message) {
				if len(found) == 0 {
					fmt.Fprintln(w, "Nothing found.")
					return
				}
				listMessages(w, found, to)
			})
			if err == nil && len(found) == q.Limit {
				a.say("These are the newest; there may be more with a larger --limit.")
			}
			return err
		})
	}
	return cmd
}

// peopleOf names the person of each conversation, for people to read: none with --json, nor for notes to oneself.
func (a *app) peopleOf(ctx context.Context, c *client.Client) (map[string]string, error) {
	if a.json {
		return nil, nil
	}
	all, err := c.Conversations(ctx)
	people := map[string]string{}
	for _, one := range all {
		if one.Kind != "self" {
			people[one.ID] = one.Name
		}
	}
	return people, err
}
