package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/event"
)

// settingBootstrap begins the name under which a way into the network lies that the
// owner named; the rest is its peer id, the value its addresses, one a line.
const settingBootstrap = "bootstrap "

// bootstrapsMax is how many ways into the network an owner may name.
const bootstrapsMax = 256

// Bootstrap is a node by which this one gets into the network.
type Bootstrap struct {
	Peer      string
	Addresses []string // full ones, with the /p2p part
	// When it answered last, zero if it never did, and how often it was tried in vain
	// since; known to a running node.
	Answered time.Time
	Fails    int
}

// AddBootstrap names a node by which this one gets into the network: a full address,
// as a server prints it. It is kept over restarts.
func (n *Node) AddBootstrap(ctx context.Context, address string) (Bootstrap, error) {
	info, err := parseBootstrap(address)
	if err != nil {
		return Bootstrap{}, err
	}
	err = n.change(ctx, func(l *loop, tx *store.Tx) error {
		known, err := bootstraps(tx)
		if err != nil {
			return err
		}
		if own, err := contact.ParseTransport([]byte(info.ID)); err == nil && own == l.acct.transport {
			return usage("Give that of another node.", "this is the address of this node itself")
		}
		if c, ok := l.underAt(info.ID); ok {
			return refused("Name another one.", "this is a server of %s, who may reach this node by relays only, and would show them where it is", l.acct.shown(c.Person))
		}
		at := slices.IndexFunc(known, func(k peer.AddrInfo) bool { return k.ID == info.ID })
		switch {
		case at >= 0:
			for _, a := range known[at].Addrs {
				if !multiaddr.Contains(info.Addrs, a) && len(info.Addrs) < p2p.MaxAddrs {
					info.Addrs = append(info.Addrs, a)
				}
			}
		case len(known) >= bootstrapsMax:
			return refused("Remove one first: kinloom bootstrap remove PEER.", "%d ways into the network are named already", bootstrapsMax)
		}
		return putBootstrap(tx, info)
	})
	if err != nil {
		return Bootstrap{}, err
	}
	if n.net != nil {
		n.net.AddBootstrap(p2p.FromUser, info)
	}
	return showBootstrap(info), nil
}

// Bootstraps lists the ways into the network that the owner named.
func (n *Node) Bootstraps(ctx context.Context) ([]Bootstrap, error) {
	var out []Bootstrap
	err := n.read(ctx, func(v *view) error {
		known, err := bootstraps(v.tx)
		for _, info := range known {
			out = append(out, showBootstrap(info))
		}
		return err
	})
	if err != nil || n.net == nil {
		return out, err
	}
	for _, k := range n.net.Book() {
		if i := slices.IndexFunc(out, func(b Bootstrap) bool { return b.Peer == k.Peer.ID.String() }); i >= 0 {
			out[i].Answered, out[i].Fails = k.Success, k.Fails
		}
	}
	return out, nil
}

// RemoveBootstrap takes back what AddBootstrap did, for a peer or a full address.
func (n *Node) RemoveBootstrap(ctx context.Context, which string) error {
	id, err := peer.Decode(which)
	if err != nil {
		info, err := parseBootstrap(which)
		if err != nil {
			return err
		}
		id = info.ID
	}
	var left []peer.AddrInfo
	err = n.change(ctx, func(_ *loop, tx *store.Tx) error {
		key := settingBootstrap + id.String()
		if _, err := tx.Setting(key); isNotFound(err) {
			return notFound("List them: kinloom bootstrap list.", "this way into the network was not named")
		} else if err != nil {
			return err
		}
		if err := tx.PutSetting(key, nil, false); err != nil {
			return err
		}
		var err error
		left, err = bootstraps(tx)
		return err
	})
	if err != nil || n.net == nil {
		return err
	}
	named, err := parseBootstraps(n.cfg.Bootstrap)
	n.net.KeepBootstrap(p2p.FromUser, append(left, named...)...)
	return err
}

// tellNamed tells the owner what becomes of a server that they named by hand, of a person
// who is to know nothing of this node (any more, or beyond the local network): it stays a
// way into the network. That of somebody who may reach this node by relays only does not.
func (l *loop) tellNamed(tx *store.Tx, p identity.PersonID, under bool) error {
	named, err := bootstraps(tx)
	if err != nil {
		return err
	}
	given, err := parseBootstraps(l.cfg.Bootstrap)
	if err != nil {
		return err
	}
	named = append(named, given...)
	text := "A server of %s stays a way into the network, as you named it, and sees when this node is there. To leave it: kinloom bootstrap remove %s."
	if under {
		text = "A server of %s, which you named, is no way into the network any more: it would show them where this node is. To take it off the list: kinloom bootstrap remove %s."
	}
	for of, id := range l.acct.transports() {
		if of == p && slices.ContainsFunc(named, func(i peer.AddrInfo) bool { return i.ID == id }) {
			l.notify(Notice{Kind: "route", Who: p, Text: fmt.Sprintf(text, l.acct.shown(p), id)})
		}
	}
	return nil
}

func parseBootstrap(address string) (peer.AddrInfo, error) {
	bad := usage("Give one as a server prints it: /ip4/198.51.100.7/udp/443/quic-v1/p2p/12D3Koo…", "%q is not the address of a node", event.Clean(address, 200))
	info, err := peer.AddrInfoFromString(address)
	if err != nil || len(info.Addrs) != 1 || !p2p.Dialable(info.ID, info.Addrs[0]) {
		return peer.AddrInfo{}, bad
	}
	return *info, nil
}

func parseBootstraps(addresses []string) ([]peer.AddrInfo, error) {
	var out []peer.AddrInfo
	for _, a := range addresses {
		info, err := parseBootstrap(a)
		if err != nil {
			return nil, err
		}
		out = append(out, info)
	}
	return out, nil
}

func putBootstrap(tx *store.Tx, info peer.AddrInfo) error {
	return tx.PutSetting(settingBootstrap+info.ID.String(), appendAddrs(nil, info.Addrs), false)
}

// bootstraps reads what the owner named, by peer.
func bootstraps(tx *store.Tx) ([]peer.AddrInfo, error) {
	rows, err := tx.SettingsUnder(settingBootstrap)
	if err != nil {
		return nil, err
	}
	var out []peer.AddrInfo
	for name, b := range rows {
		id, err := peer.Decode(name)
		if err != nil {
			continue
		}
		out = append(out, peer.AddrInfo{ID: id, Addrs: readAddrs(b)})
	}
	slices.SortFunc(out, func(a, b peer.AddrInfo) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

func showBootstrap(info peer.AddrInfo) Bootstrap {
	out := Bootstrap{Peer: info.ID.String()}
	for _, a := range info.Addrs {
		out.Addresses = append(out.Addresses, a.String()+"/p2p/"+out.Peer)
	}
	return out
}

// readAddrs reads addresses that stand one after the other behind their lengths.
func readAddrs(b []byte) []multiaddr.Multiaddr {
	var out []multiaddr.Multiaddr
	for len(b) > 0 {
		size := int(b[0])
		if len(b) < 1+size {
			break
		}
		if a, err := multiaddr.NewMultiaddrBytes(b[1 : 1+size]); err == nil {
			out = append(out, a)
		}
		b = b[1+size:]
	}
	return out
}

// appendAddrs is the reverse of readAddrs.
func appendAddrs(b []byte, addrs []multiaddr.Multiaddr) []byte {
	for _, a := range addrs {
		if raw := a.Bytes(); len(raw) < 256 {
			b = append(append(b, byte(len(raw))), raw...)
		}
	}
	return b
}
