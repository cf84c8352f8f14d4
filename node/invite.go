package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/event"
)

const (
	inviteLife    = 14 * 24 * time.Hour // of a single-use invite
	inviteLongest = 365 * 24 * time.Hour
	// requestsMax is how many requests may wait; what comes above is refused,
	// so that a public invite cannot fill the disk or the owner's day.
	requestsMax = 100
)

// Reach says how far an invite is known to work.
const (
	ReachLAN      = "lan"
	ReachInternet = "internet"
)

// InviteRequest says what kind of invite to make.
type InviteRequest struct {
	// Many makes one that anybody may answer until it is revoked; answers
	// become requests. Otherwise it is for one person.
	Many bool
	// Expires is how long it works: default 14 days, or for ever with Many.
	Expires time.Duration
	// For says where it will be used: ReachLAN, or ReachInternet, which is refused
	// while nothing from outside is proven. Empty: the best that is proven now.
	For string
}

// Invite is one invite. Link and QR are set only where it was just made: the
// node keeps a hash of its secret.
type Invite struct {
	ID      string
	Link    string
	QR      string
	Reach   string
	Created time.Time
	Expires time.Time // zero: until revoked
	Many    bool
	Uses    int
	Revoked bool
	Changed uint64
	Warning string // of an invite just made: what its owner should know; or nothing
}

// Invite makes an invite for one person and gives its link.
func (n *Node) Invite(ctx context.Context) (string, error) {
	v, err := n.NewInvite(ctx, InviteRequest{})
	return v.Link, err
}

// NewInvite makes an invite with the best address that is known now.
func (n *Node) NewInvite(ctx context.Context, r InviteRequest) (Invite, error) {
	if n.net == nil {
		return Invite{}, &Error{Kind: KindNotRunning, Text: "an invite needs a running node to lead to", Next: "Start it: kinloom up."}
	}
	life := r.Expires
	switch {
	case life < 0 || life > inviteLongest || life != 0 && life < time.Minute:
		return Invite{}, usage("Give something like 24h or 336h.", "an invite can last from a minute to a year")
	case life == 0 && !r.Many:
		life = inviteLife
	}
	now := n.cfg.Now()
	var token contact.Token
	if _, err := io.ReadFull(n.cfg.Random, token[:]); err != nil {
		return Invite{}, fmt.Errorf("draw a token: %w", err)
	}
	v := contact.Invite{Person: n.me.Hash16(), Token: token, Many: r.Many}
	row := store.Invite{TokenHash: sha256.Sum256(token[:]), Created: now, Many: r.Many}
	if life > 0 {
		v.Expiry = contact.ExpiryHours(now.Add(life))
		row.Expires = now.Add(life)
	}
	reach, err := n.inviteAddresses(&v, r.For)
	if err != nil {
		return Invite{}, err
	}
	link, err := v.Link()
	if err != nil {
		return Invite{}, err
	}
	v.Addresses = v.Addresses[:1]
	qr, err := v.QR()
	if err != nil {
		return Invite{}, err
	}
	if err := n.change(ctx, func(_ *loop, tx *store.Tx) error { return tx.PutInvite(&row) }); err != nil {
		return Invite{}, err
	}
	var out Invite
	err = n.read(ctx, func(vw *view) error {
		stored, err := vw.tx.InviteByToken(row.TokenHash)
		if err != nil {
			return err
		}
		out = vw.invite(stored)
		out.Warning, err = inviteWarning(vw.tx)
		return err
	})
	out.Link, out.QR, out.Reach = link, qr, reach
	return out, err
}

// inviteWarning says of an invite, which shows this node's address and its key to who has
// it, that some contacts are not to learn that, and that the key will be left.
func inviteWarning(tx *store.Tx) (string, error) {
	contacts, err := tx.Contacts()
	if err != nil {
		return "", err
	}
	n := 0
	for _, c := range contacts {
		if c.Ways == store.RelayOnly && c.State == store.Accepted && c.Trust != store.Blocked {
			n++
		}
	}
	var all []string
	if n > 0 {
		whom := "the contact who may"
		if n > 1 {
			whom = fmt.Sprintf("the %d contacts who may", n)
		}
		all = append(all, "Whoever has this link sees this node's address. Keep it from "+whom+" reach this node by relays only.")
	}
	switch _, err := tx.Setting(settingWatched); {
	case err == nil:
		all = append(all, "It ends when this node's public address changes, as somebody was not to find the node any more.")
	case !isNotFound(err):
		return "", err
	}
	return strings.Join(all, " "), nil
}

// inviteAddresses puts the way to this node into v: the best address for where it
// is used first, and for the pasted form a few more. An address counts for the
// Internet once somebody outside reached it.
func (n *Node) inviteAddresses(v *contact.Invite, use string) (reach string, err error) {
	main, _ := n.net.PeerIDs()
	transport, err := contact.ParseTransport([]byte(main))
	if err != nil {
		return "", err
	}
	v.Transport = transport
	proven, outside := n.net.BestAddr(p2p.Internet)
	near, _ := n.net.BestAddr(p2p.OnLAN)
	reach = ReachLAN
	switch use {
	case "", ReachLAN, ReachInternet:
	default:
		return "", usage("Give lan or internet.", "an invite cannot be made for %q", event.Clean(use, maxName))
	}
	if outside && use != ReachLAN {
		reach = ReachInternet
	}
	if use == ReachInternet && !outside {
		r := reachOf(n.net.Reachability(), &n.cfg)
		return "", &Error{Kind: KindRefused, Text: "an invite for the Internet cannot be made now. " + r.Text, Next: r.Next}
	}
	v.LAN = reach == ReachLAN
	addrs := []multiaddr.Multiaddr{near, proven}
	if reach == ReachInternet {
		addrs = []multiaddr.Multiaddr{proven, near}
	}
	addrs = slices.DeleteFunc(append(addrs, n.net.Addrs()...), func(a multiaddr.Multiaddr) bool { return len(a) == 0 })
	for _, a := range addrs {
		b := a.Bytes()
		known := slices.ContainsFunc(v.Addresses, func(k []byte) bool { return bytes.Equal(k, b) })
		if !known && len(v.Addresses) < contact.MaxAddresses && len(b) <= contact.MaxAddress {
			v.Addresses = append(v.Addresses, b)
		}
	}
	if len(v.Addresses) == 0 {
		return "", &Error{Kind: KindError, Text: "this node listens on no address that another could dial", Next: "Connect to a network, or start it with --listen."}
	}
	return reach, nil
}

func (v *view) invite(i store.Invite) Invite {
	return Invite{
		ID: hex.EncodeToString(i.TokenHash[:8]), Created: i.Created, Expires: i.Expires,
		Many: i.Many, Uses: i.Uses, Revoked: i.Revoked, Changed: i.Changed,
	}
}

// Invites gives the invites that were made, the newest first.
func (n *Node) Invites(ctx context.Context) ([]Invite, error) {
	var out []Invite
	err := n.read(ctx, func(v *view) error {
		rows, err := v.tx.Invites()
		for _, i := range rows {
			out = append(out, v.invite(i))
		}
		return err
	})
	slices.SortStableFunc(out, func(a, b Invite) int { return b.Created.Compare(a.Created) })
	return out, err
}

// RevokeInvite ends an invite by its id or the start of it.
func (n *Node) RevokeInvite(ctx context.Context, id string) error {
	return n.change(ctx, func(_ *loop, tx *store.Tx) error {
		rows, err := tx.Invites()
		if err != nil {
			return err
		}
		var found []store.Invite
		for _, i := range rows {
			if id != "" && strings.HasPrefix(hex.EncodeToString(i.TokenHash[:8]), strings.ToLower(id)) {
				found = append(found, i)
			}
		}
		switch {
		case len(found) == 0:
			return notFound("List them: kinloom invite list.", "no invite %q", id)
		case len(found) > 1:
			return usage("Give more of it.", "more than one invite begins with %s", id)
		}
		found[0].Revoked = true
		return tx.PutInvite(&found[0])
	})
}

// offersMax is how often one invite is answered in offersEvery, while the check words
// of one exchange may be compared. Whoever stands in the middle needs an answer for
// each guess at the words, and leaves no other trace of it: SPEC 4.3 of contact.
const (
	offersMax   = 256
	offersEvery = wordsLive
)

// mayOffer takes one of the answers that an invite, named by the hash of its token,
// may have.
func (l *loop) mayOffer(invite [32]byte) bool {
	if l.acct.offered == nil {
		l.acct.offered = map[[32]byte]*share{}
	}
	if l.acct.offered[invite] == nil { // there are no more than invites
		l.acct.offered[invite] = new(share)
	}
	used := l.acct.offered[invite].of(l.now(), offersEvery)
	*used++
	if *used == offersMax+1 {
		l.log.Warn("an invite was answered too often, and by nobody who went on; it rests for a while", "answers", offersMax)
	}
	return *used <= offersMax
}
