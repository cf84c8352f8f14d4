package node

import (
	"fmt"
	"strings"

	"github.com/kinloom/kinloom/node/p2p"
)

// Reach says how far this node can be reached at the moment, in the owner's words.
type Reach struct {
	Reach string // ReachInternet once it was dialled back from outside or holds a relay, else ReachLAN
	Text  string // what works and what does not, one sentence
	Next  string // what to do where something is missing, or nothing
}

// reachOf puts what the network has found out into words.
func reachOf(r p2p.Reachability, c *Config) Reach {
	switch {
	case c.LANOnly:
		return Reach{ReachLAN, "This node speaks to the local network only, as it was told to.", ""}
	case len(r.Direct) > 0 && len(r.Relays) > 0:
		return Reach{ReachInternet, "Others reach this node directly, and by " + relays(len(r.Relays)) + ".", ""}
	case len(r.Direct) > 0:
		return Reach{ReachInternet, "Others reach this node directly: somebody outside has.", ""}
	case len(r.Relays) > 0:
		out := Reach{ReachInternet, "Others reach this node by " + relays(len(r.Relays)) + ", and directly where both routers let them.", ""}
		if r.Symmetric {
			out.Text = "Others reach this node by " + relays(len(r.Relays)) + "; its router gives each connection another port, so they stay on the relay."
		}
		return out
	case r.Verdict == p2p.Public:
		return Reach{
			ReachLAN, "This server is open to others, and nobody outside has come in so far.",
			"The first who does proves it, somebody who answers an invite for one. If they cannot: let its UDP and TCP ports in at the provider's firewall.",
		}
	case r.Verdict == p2p.Private:
		return Reach{
			ReachLAN, "Nobody outside reaches this node: its router lets nothing in, and no relay is held.",
			"Allow UPnP in the router, forward a port and give it to --listen, or add a contact whose node is a server (kinloom up --profile server): it relays for you.",
		}
	}
	return Reach{
		ReachLAN, "Whether others reach this node from outside is not known yet: nobody outside was asked.",
		"Add a contact who runs a server, or name one: kinloom bootstrap add ADDRESS. On the local network it works now.",
	}
}

// Reach says how far this node can be reached at the moment.
func (n *Node) Reach() Reach {
	if n.net == nil {
		return Reach{Text: "This node has no network."}
	}
	return reachOf(n.net.Reachability(), &n.cfg)
}

// reached takes how far this node can be reached now, and tells the owner when that
// has changed: invites that were made before say something else.
func (l *loop) reached(r Reach) {
	if l.far.Reach != "" && l.far.Reach != r.Reach {
		text := r.Text + " Invites that are made now work anywhere."
		if r.Reach == ReachLAN {
			text = r.told() + " Invites that are made now work on the local network only."
		}
		l.notify(Notice{Kind: "reach", Text: text})
	}
	l.far = r
}

func relays(n int) string {
	if n == 1 {
		return "a relay"
	}
	return fmt.Sprintf("%d relays", n)
}

// told is the sentence and the next step as one line.
func (r Reach) told() string { return strings.TrimSpace(r.Text + " " + r.Next) }
