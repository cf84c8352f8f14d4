package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/api"
	"github.com/kinloom/kinloom/node/client"
	"github.com/kinloom/kinloom/protocol/event"
)

func (a *app) up() *cobra.Command {
	var o nodeOptions
	cmd := &cobra.Command{
		Use: "up", SuggestFor: []string{"start", "serve"}, Short: "Start the node here, print an invite and what happens", GroupID: groupNode, Args: between(0, 0),
		Long:    "Makes a home if there is none, starts the node in this terminal, and prints an invite and what happens. Ctrl-C ends it.",
		Example: "  kinloom up --name Ada\n  kinloom --home ./bob up --name Bob --lan-only",
	}
	o.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.serve(cmd.Context(), o, a.greet)
	}
	return cmd
}

// greeting is the first thing that up prints with --json.
type greeting struct {
	Type string `json:"type"`
	client.Status
}

// invitation is the second.
type invitation struct {
	Type string `json:"type"`
	client.Invite
}

// notice is what up prints from then on.
type notice struct {
	Type  string      `json:"type"`
	At    client.Time `json:"at"`
	Kind  string      `json:"kind"`
	Text  string      `json:"text"`
	Who   string      `json:"who,omitempty"`
	Words []string    `json:"words,omitempty"`
}

// greet prints who the node is and how to reach it, then what happens until ctx ends.
func (a *app) greet(ctx context.Context, n *node.Node) error {
	status, err := n.Status(ctx)
	if err != nil {
		return err
	}
	made, err := n.NewInvite(ctx, node.InviteRequest{})
	if err != nil {
		return err
	}
	if err := a.welcome(api.Status(status), api.Invite(made)); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.notices(ctx, n) })
	group.Go(func() error { return a.missing(ctx, n) })
	group.Go(func() error { return a.arrivals(ctx, n) })
	return group.Wait()
}

// arrivals tells of new messages, once for each conversation until it is read, and without text or name: others may see
// this screen.
func (a *app) arrivals(ctx context.Context, n *node.Node) error {
	since := map[event.ConversationID]int{} // messages since the last notice; fewer unread ones: it was read in between
	for m, err := range n.Messages(ctx) {
		if err != nil {
			return err
		}
		c, err := n.Conversation(ctx, hex.EncodeToString(m.Conversation[:]))
		switch {
		case ctx.Err() != nil, errors.Is(err, node.ErrClosed):
			return nil
		case err != nil:
			return err
		case c.Muted || c.State == "request":
			continue
		}
		if since[c.ID]++; since[c.ID] > 1 && c.Unread >= since[c.ID] {
			continue
		}
		since[c.ID] = 1
		if err := a.tell(node.Notice{At: time.Now(), Kind: "message", Text: "A new message: kinloom inbox"}); err != nil {
			return err
		}
	}
	return nil
}

// notices tells what else happens.
func (a *app) notices(ctx context.Context, n *node.Node) error {
	for happened, err := range n.Notices(ctx) {
		switch {
		case err != nil && ctx.Err() != nil, errors.Is(err, node.ErrClosed):
			return nil
		case err != nil:
			return err
		}
		if err := a.tell(happened); err != nil {
			return err
		}
		if happened.Kind == "reach" && n.Reach().Reach == node.ReachInternet {
			if err := a.inviteAgain(ctx, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// inviteAgain prints an invite that works anywhere, as the first one did not.
func (a *app) inviteAgain(ctx context.Context, n *node.Node) error {
	made, err := n.NewInvite(ctx, node.InviteRequest{})
	if err != nil {
		return err
	}
	if a.json {
		return show(a, invitation{"invite", api.Invite(made)}, nil)
	}
	_, err = fmt.Fprintf(a.term.out, "Invite (%s, one person) - %s:\n  %s\n", until(made.Expires, time.Now()), reachWords(made.Reach), made.Link)
	if err == nil && made.Warning != "" {
		_, err = fmt.Fprintf(a.term.out, "Note:  %s\n", made.Warning)
	}
	return err
}

// missingAfter is how long a node takes to find out how far it is reached: a relay is
// held, or others have dialled back, within some seconds.
const missingAfter = 20 * time.Second

// missing says what keeps others from reaching this node, where that is so.
func (a *app) missing(ctx context.Context, n *node.Node) error {
	if pause(ctx, missingAfter) != nil {
		return nil
	}
	reach := n.Reach()
	if reach.Reach == node.ReachInternet || reach.Next == "" {
		return nil
	}
	return a.tell(node.Notice{At: time.Now(), Kind: "reach", Text: reach.Text + " " + reach.Next})
}

// welcome prints the first screen.
func (a *app) welcome(s client.Status, invite client.Invite) error {
	if a.json {
		if err := show(a, greeting{"ready", s}, nil); err != nil {
			return err
		}
		return show(a, invitation{"invite", invite}, nil)
	}
	drawn := ""
	if a.drawsQR() {
		var err error
		if drawn, err = drawQR(invite.QR); err != nil {
			return err
		}
	}
	return show(a, s, func(w io.Writer, s client.Status) {
		who := ""
		if s.Name != "" {
			who = "   (" + name(s.Name) + ")"
		}
		fmt.Fprintf(w, "Identity   %s%s\n", s.ID, who)
		fmt.Fprintf(w, "Home       %s\n", s.Home)
		fmt.Fprintf(w, "Listening  %s\n", strings.Join(kinds(s), ", "))
		fmt.Fprintf(w, "Invite (%s, one person) - %s:\n%s  %s\n", until(invite.Expires.Time, time.Now()), reachWords(invite.Reach), drawn, invite.Link)
		if s.Profile == "server" {
			showEntry(w, s)
		}
		fmt.Fprintf(w, "Next:  %s\n       %s\n       %s\n", a.command("contact add LINK"), a.command(`send me "a note"`), a.command("inbox"))
		notes := s.Warnings
		if invite.Warning != "" {
			notes = append(notes, invite.Warning)
		}
		for _, note := range notes {
			fmt.Fprintf(w, "Note:  %s\n", note)
		}
	})
}

// showEntry prints how others name this server: by its public addresses, if it has any.
func showEntry(w io.Writer, s client.Status) {
	isPrivate := func(address string) bool {
		a, err := multiaddr.NewMultiaddr(address)
		return err != nil || !manet.IsPublicAddr(a)
	}
	addresses := slices.DeleteFunc(slices.Clone(s.Listening), isPrivate)
	if len(addresses) > 0 {
		fmt.Fprintf(w, "Others get into the network by this server, which one of these names:\n")
	} else {
		addresses = s.Listening
		fmt.Fprintf(w, "Others in this server's own network get in by it, which one of these names. If your provider gives it a public address of\n")
		fmt.Fprintf(w, "its own, start it with --announce ADDRESS:\n")
	}
	for _, address := range addresses {
		fmt.Fprintf(w, "  kinloom bootstrap add %s/p2p/%s\n", address, s.Peer)
	}
}

// kinds sums up the addresses that a node listens on.
func kinds(s client.Status) []string {
	var out []string
	for _, kind := range []struct{ part, word string }{{"/quic", "quic"}, {"/tcp/", "tcp"}} {
		for _, address := range s.Listening {
			if strings.Contains(address, kind.part) {
				out = append(out, kind.word)
				break
			}
		}
	}
	if s.LANPeer != "" {
		out = append(out, "lan")
	}
	return out
}

func reachWords(reach string) string {
	if reach == node.ReachLAN {
		return "LAN only so far"
	}
	return "works anywhere"
}

// until says how long an invite is valid.
func until(expires, now time.Time) string {
	if expires.IsZero() {
		return "valid until revoked"
	}
	left := expires.Sub(now)
	switch hours := left.Round(time.Hour); {
	case hours >= 48*time.Hour:
		return "valid " + count(int(hours.Round(24*time.Hour)/(24*time.Hour)), "day")
	case left.Round(time.Minute) >= time.Hour:
		return "valid " + count(int(hours/time.Hour), "hour")
	}
	return "valid " + count(max(1, int(left.Round(time.Minute)/time.Minute)), "minute")
}

// tell prints one thing that happened.
func (a *app) tell(n node.Notice) error {
	line := notice{Type: "notice", At: client.At(n.At), Kind: n.Kind, Text: n.Text, Words: n.Words}
	if n.Kind == "contact" || n.Kind == "request" || n.Kind == "words" {
		line.Who = n.Who.String()
	}
	if a.json {
		b, err := json.Marshal(line)
		if err == nil {
			_, err = fmt.Fprintf(a.term.out, "%s\n", b)
		}
		return err
	}
	_, err := fmt.Fprintf(a.term.out, "%s  %s\n", n.At.Local().Format("15:04:05"), clean(a.commands(n.Text), 1000))
	return err
}
