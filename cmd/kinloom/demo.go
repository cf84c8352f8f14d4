package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/api"
	"github.com/kinloom/kinloom/node/client"
	"github.com/kinloom/kinloom/protocol/contact"
)

const (
	demoTime    = 60 * time.Second       // for the whole demo; it takes one or two
	demoPause   = 400 * time.Millisecond // between messages where somebody watches
	demoListen  = "/ip4/127.0.0.1/udp/0/quic-v1"
	demoAda     = "Ada Lindqvist"
	demoBob     = "Bob Okafor"
	demoCommand = "kinloom up --name YOU"
)

// demoTalk is the conversation, Ada first, then in turn.
var demoTalk = []string{
	"Hi Bob, is anybody between us?",
	"Hi Ada! Somebody copies every packet. They see when we talk and how much, not a word of it.",
	"And if your computer crashes right now?",
	"Then this waits on your disk and comes when mine is back. Delivered means: decrypted, on the other's disk.",
}

func (a *app) demo() *cobra.Command {
	return &cobra.Command{
		Use: "demo", Short: "Two nodes, a conversation and a wiretap, live in this terminal", GroupID: groupNode, Args: between(0, 0),
		Long: "Starts two nodes in temporary homes on this computer, with the same code and the same network protocols as between two " +
			"computers, and has them talk through a wiretap: a socket that copies every packet. It shows what each side sees, the way of a message " +
			"step by step, and searches all that the wiretap saw for the texts, names and keys. Your own home is not touched; the temporary ones are deleted.",
		Example: "  kinloom demo\n  kinloom demo --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := a.runDemo(cmd.Context())
			if err == nil || cmd.Context().Err() != nil {
				return err
			}
			next := "Try it again; kinloom up --name YOU starts a node of your own and says more about what is wrong."
			if p, ok := errors.AsType[*client.Problem](err); ok && p.Next != "" {
				next = ""
			}
			return &client.Problem{Code: client.CodeError, Detail: "the demo failed: " + err.Error(), Next: next}
		},
	}
}

// demoNode is one of the two nodes with a client of its API: what is shown is what its commands would show.
type demoNode struct {
	name   string
	node   *node.Node
	api    *client.Client
	status client.Status
}

// What the demo prints, besides messages and stages, with --json.
type (
	demoReady struct {
		Type      string   `json:"type"`
		Name      string   `json:"name"`
		ID        string   `json:"id"`
		Listening []string `json:"listening"`
	}
	demoContact struct {
		Type  string   `json:"type"`
		On    string   `json:"on"` // whose screen
		Name  string   `json:"name"`
		Words []string `json:"words"`
		Via   string   `json:"via,omitempty"`
		Took  int64    `json:"took_ms,omitempty"`
	}
	demoMessage struct {
		Type string      `json:"type"`
		At   client.Time `json:"at"`
		From string      `json:"from"`
		To   string      `json:"to"`
		Text string      `json:"text"` // as it stands on the receiver's screen
		client.Sent
	}
	demoStage struct {
		Type string `json:"type"`
		client.Stage
	}
	demoWiretap struct {
		Type      string `json:"type"`
		Packets   int    `json:"packets"`
		Bytes     int    `json:"bytes"`
		FromAda   int    `json:"bytes_from_ada"`
		FromBob   int    `json:"bytes_from_bob"`
		Texts     int    `json:"texts"`      // searched for
		Names     int    `json:"names"`      // searched for
		Keys      int    `json:"identities"` // searched for: did:key, root key, device id
		Spellings int    `json:"spellings"`  // of each
		Found     int    `json:"found"`
	}
	demoNext struct {
		Type    string `json:"type"`
		Command string `json:"command"`
	}
)

// runDemo is the demo. The homes are gone when it returns.
func (a *app) runDemo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoTime)
	defer cancel()
	signal.Ignore(syscall.SIGPIPE) // a reader that has seen enough ends the demo as an error does, not the process with the homes left behind
	homes, err := os.MkdirTemp("", "kinloom-demo-")
	if err != nil {
		return &client.Problem{Code: client.CodeError, Detail: err.Error(), Next: "Set TMPDIR to a folder that you can write to."}
	}
	if err := errors.Join(a.demoIn(ctx, homes), os.RemoveAll(homes)); err != nil {
		return err
	}
	return show(a, demoNext{"next", demoCommand}, func(w io.Writer, n demoNext) {
		fmt.Fprintf(w, "\nBoth homes are deleted. Next, a node of your own:  %s\n", n.Command)
	})
}

// demoIn runs the two nodes, the wiretap and the story.
func (a *app) demoIn(ctx context.Context, homes string) (err error) {
	var nodes [2]demoNode
	for i, name := range []string{demoAda, demoBob} {
		if nodes[i], err = a.demoNode(ctx, filepath.Join(homes, first(name)), name); err != nil {
			return fmt.Errorf("start %s's node: %w", first(name), err)
		}
		defer func() { err = errors.Join(err, nodes[i].node.Close()) }()
	}
	at, err := listensAt(nodes[0].status)
	if err != nil {
		return err
	}
	wire, err := openTap(at)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return wire.run(ctx) })
	group.Go(func() error {
		defer stop()
		return a.demoStory(ctx, nodes[0], nodes[1], wire)
	})
	return group.Wait()
}

func (a *app) demoNode(ctx context.Context, dir, name string) (demoNode, error) {
	n, err := node.Open(ctx, node.Config{Dir: dir, Name: name, Listen: []string{demoListen}, NoLAN: true, Version: version})
	if err != nil {
		return demoNode{}, err
	}
	d := demoNode{name: name, node: n, api: client.New(client.InProcess{Handler: api.New(n, api.Options{Version: version})})}
	if d.status, err = d.api.Status(ctx); err != nil {
		return demoNode{}, errors.Join(err, n.Close())
	}
	err = show(a, demoReady{"node", name, d.status.ID, d.status.Listening}, func(w io.Writer, r demoReady) {
		fmt.Fprintf(w, "%s's node is ready.  %s\n", first(r.Name), r.ID)
	})
	if err != nil {
		return demoNode{}, errors.Join(err, n.Close())
	}
	return d, nil
}

// first is a person's first name.
func first(name string) string { return strings.Fields(name)[0] }

// listensAt finds the UDP address of a node.
func listensAt(s client.Status) (netip.AddrPort, error) {
	for _, listening := range s.Listening {
		if at, ok := udpOf(listening); ok {
			return at, nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("%s's node listens on no UDP address", first(s.Name))
}

func udpOf(address string) (netip.AddrPort, bool) {
	parsed, err := multiaddr.NewMultiaddr(address)
	if err != nil {
		return netip.AddrPort{}, false
	}
	_, at, err := manet.DialArgs(parsed)
	if err != nil {
		return netip.AddrPort{}, false
	}
	port, err := netip.ParseAddrPort(at)
	return port, err == nil
}

// demoStory has the two meet and talk through the wire, and shows it.
func (a *app) demoStory(ctx context.Context, ada, bob demoNode, wire *tap) error {
	if err := a.demoMeet(ctx, ada, bob, wire); err != nil {
		return err
	}
	var shown client.Message
	for i, text := range demoTalk {
		if i > 0 && !a.json && term.IsTerminal(a.term.out.Fd()) {
			if err := pause(ctx, demoPause); err != nil {
				return err
			}
		}
		from, to := ada, bob
		if i%2 == 1 {
			from, to = bob, ada
		}
		sent, err := a.demoSay(ctx, from, to, text)
		if err != nil {
			return fmt.Errorf("message from %s to %s: %w", first(from.name), first(to.name), err)
		}
		if i == 0 {
			shown = sent
		}
	}
	if err := a.demoWhy(ctx, ada, shown); err != nil {
		return err
	}
	return a.demoOverheard(ctx, ada, bob, wire)
}

// demoMeet has Bob answer Ada's invite, which leads to the wire.
func (a *app) demoMeet(ctx context.Context, ada, bob demoNode, wire *tap) error {
	made, err := ada.api.Invite(ctx, client.NewInvite{})
	if err != nil {
		return fmt.Errorf("make an invite: %w", err)
	}
	link, err := throughWire(made.Link, wire)
	if err != nil {
		return fmt.Errorf("lead the invite to the wiretap: %w", err)
	}
	added, err := bob.api.AddContact(ctx, client.AddContact{Link: link})
	if err != nil {
		return fmt.Errorf("answer the invite: %w", err)
	}
	seen, err := ada.api.Contact(ctx, bob.status.ID)
	if err != nil {
		return fmt.Errorf("look for Bob among Ada's contacts: %w", err)
	}
	screens := []demoContact{
		{Type: "contact", On: bob.name, Name: added.Name, Words: added.Words, Via: added.Via, Took: added.Took},
		{Type: "contact", On: ada.name, Name: seen.Name, Words: seen.Words},
	}
	err = showAll(a, screens, func(w io.Writer, all []demoContact) {
		fmt.Fprintf(w, "Bob answers Ada's invite over %s and finds her in %d ms.\n", strings.ToUpper(all[0].Via), all[0].Took)
		for _, c := range all {
			fmt.Fprintf(w, "    check words on %s's screen:  %s\n", first(c.On), strings.Join(c.Words, " "))
		}
	})
	if err == nil && (len(added.Words) == 0 || !slices.Equal(added.Words, seen.Words)) {
		return &client.Problem{
			Code: client.CodeError, Detail: "the check words differ, so somebody stood in between",
			Next: "Do not use this build; get another one and compare its checksum.",
		}
	}
	return err
}

// throughWire makes an invite lead to the front of the wiretap.
func throughWire(link string, wire *tap) (string, error) {
	invite, err := contact.ParseInvite(link)
	if err != nil {
		return "", err
	}
	at, err := multiaddr.NewMultiaddr(fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", wire.addr().Addr(), wire.addr().Port()))
	if err != nil {
		return "", err
	}
	invite.Addresses = [][]byte{at.Bytes()}
	return invite.Link()
}

// demoSay sends a message, waits until it is delivered, and shows it as it stands on the receiver's screen.
func (a *app) demoSay(ctx context.Context, from, to demoNode, text string) (client.Message, error) {
	began := time.Now()
	queued, err := from.api.Send(ctx, client.Outgoing{To: to.status.ID, Text: text})
	if err != nil {
		return queued, err
	}
	state, err := from.api.Wait(ctx, queued.ID, "delivered", demoTime)
	if err != nil {
		return queued, err
	}
	took := time.Since(began)
	timeline, err := to.api.Read(ctx, from.status.ID, client.Page{Limit: 1})
	if err != nil {
		return queued, err
	}
	if state.State != "delivered" && state.State != "read" || len(timeline) != 1 || timeline[0].ID != queued.ID || timeline[0].Text != text {
		return queued, fmt.Errorf("it is %s for one and not on the screen of the other", state.State)
	}
	got := timeline[0]
	line := demoMessage{Type: "message", At: queued.At, From: from.name, To: to.name, Text: got.Text, Sent: client.Sent{
		ID: queued.ID, Conversation: queued.Conversation, State: state.State, Route: got.Route, Protection: got.Protection, Took: took.Milliseconds(),
	}}
	return queued, show(a, line, func(w io.Writer, m demoMessage) {
		fmt.Fprintf(w, "\n%s  %s:  %s\n", m.At.Local().Format(demoClock), first(m.From), lines(m.Text, "    "))
		fmt.Fprintf(w, "    delivered to %s in %.1f ms  %s  %s\n", first(m.To), float64(took.Microseconds())/1000, m.Route, protectionWords(m.Protection))
	})
}

const demoClock = "15:04:05.000"

// demoWhy shows every step of a message, once it is read.
func (a *app) demoWhy(ctx context.Context, from demoNode, m client.Message) error {
	if _, err := from.api.Wait(ctx, m.ID, "read", demoTime); err != nil {
		return fmt.Errorf("wait until it is read: %w", err)
	}
	stages, err := from.api.Why(ctx, m.ID)
	if err != nil {
		return fmt.Errorf("ask for the steps of a message: %w", err)
	}
	all := make([]demoStage, len(stages))
	for i, s := range stages {
		all[i] = demoStage{"stage", s}
	}
	return showAll(a, all, func(w io.Writer, all []demoStage) {
		fmt.Fprintf(w, "\nThe way of Ada's first message, as her node knows it (kinloom why %s):\n", m.ID[:8])
		table(w, func(w io.Writer) {
			for _, s := range all {
				fmt.Fprintf(w, "    %s\t%s\t%s\t%s\n", s.At.Local().Format(demoClock), s.Stage.Stage, s.Route, name(s.By))
			}
		})
	})
}

// demoOverheard shows what the wiretap saw, after looking through all of it.
func (a *app) demoOverheard(ctx context.Context, ada, bob demoNode, wire *tap) error {
	for _, side := range [][2]demoNode{{ada, bob}, {bob, ada}} {
		ways, err := side[0].api.Routes(ctx, side[1].status.ID)
		if err != nil {
			return fmt.Errorf("ask for the routes: %w", err)
		}
		for _, way := range ways {
			if at, ok := udpOf(way.Address); way.Live && (!ok || !wire.carries(at)) {
				return fmt.Errorf("a route goes past the wiretap, so what it saw proves nothing")
			}
		}
	}
	secrets, err := demoSecrets(ada, bob)
	if err != nil {
		return err
	}
	in, out := wire.copies()
	found := slices.Concat(find(in.bytes, secrets), find(out.bytes, secrets))
	sum := demoWiretap{
		Type: "wiretap", Packets: in.packets + out.packets, Bytes: len(in.bytes) + len(out.bytes), FromAda: len(out.bytes), FromBob: len(in.bytes),
		Spellings: spellingsSearched, Found: len(found),
	}
	for _, s := range secrets {
		switch s.what {
		case "text":
			sum.Texts++
		case "name":
			sum.Names++
		default:
			sum.Keys++
		}
	}
	err = show(a, sum, func(w io.Writer, s demoWiretap) {
		fmt.Fprintf(w, "\nThe wiretap between them copied %d packets, %d bytes: %d from Ada, %d from Bob.\n", s.Packets, s.Bytes, s.FromAda, s.FromBob)
		fmt.Fprintf(w, "    searched for %d texts, %d names and %d identities and keys, each as it is, in hex and in base64:  %d found\n", s.Texts, s.Names, s.Keys, s.Found)
		fmt.Fprintf(w, "    it did see: both addresses, when packets went, how big they were, and that they are QUIC\n")
	})
	if err == nil && len(found) > 0 {
		return &client.Problem{
			Code: client.CodeError, Detail: fmt.Sprintf("the wiretap saw the %s %q", found[0].what, clean(string(found[0].value), 60)),
			Next: "Do not use this build, and report it.",
		}
	}
	return err
}

// demoSecrets is all that nobody between the two may learn.
func demoSecrets(ada, bob demoNode) ([]secret, error) {
	var out []secret
	for _, text := range demoTalk {
		out = append(out, secret{"text", []byte(text)})
	}
	for _, n := range []demoNode{ada, bob} {
		root, err := identity.ParsePersonID(n.status.ID)
		if err != nil {
			return nil, err
		}
		device, err := hex.DecodeString(n.status.Device)
		if err != nil {
			return nil, err
		}
		out = append(out, secret{"name", []byte(n.name)}, secret{"identity", []byte(n.status.ID)}, secret{"root key", root[:]}, secret{"device id", device})
	}
	return out, nil
}
