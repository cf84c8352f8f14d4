package node

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/node/store"
)

// settingWatched is where the public places lie at which this node was when somebody
// was to find it no more (vanish), until it has left them: who knew them and watches
// there learns the key that was drawn then. It could be followed by that key, so once
// this node is elsewhere it draws another one.
const settingWatched = "watched places"

// placesMax bounds them.
const placesMax = 16

// loadWatched reads them; none, and not nil, where they were not known.
func (a *account) loadWatched(tx *store.Tx) error {
	raw, err := tx.Setting(settingWatched)
	if isNotFound(err) {
		return nil
	}
	a.watched = []netip.Prefix{}
	for s := range strings.FieldsSeq(string(raw)) {
		if p, err := netip.ParsePrefix(s); err == nil {
			a.watched = append(a.watched, p)
		}
	}
	return err
}

// watch notes the public places of this node; nil: nobody watches them.
func (l *loop) watch(tx *store.Tx, places []netip.Prefix) error {
	l.wrote, l.acct.watched = true, places
	if places == nil {
		return tx.PutSetting(settingWatched, nil, true)
	}
	var all []string
	for _, p := range places {
		all = append(all, p.String())
	}
	return tx.PutSetting(settingWatched, []byte(strings.Join(all, " ")), true)
}

// places are the public places at which this node knows to be, never nil. What the
// servers of one person say does not count.
func (l *loop) places(but identity.PersonID) []netip.Prefix {
	out := []netip.Prefix{}
	if l.net == nil {
		return out
	}
	k := l.knownNow() // a copy
	for p, id := range l.acct.transports() {
		if p == but {
			k.shunned[id] = true
		}
	}
	return append(out, l.net.places(k)...)
}

// slip draws another transport key, once, when this node has left the places at which
// the one of now could be seen. A place that was not known then is no other one.
func (l *loop) slip(tx *store.Tx) error {
	if l.acct.watched == nil || l.net == nil {
		return nil
	}
	now := l.places(identity.PersonID{})
	if !elsewhere(l.acct.watched, now) {
		if more := with(l.acct.watched, now); len(more) > len(l.acct.watched) {
			return l.watch(tx, more)
		}
		return nil
	}
	if err := l.watch(tx, nil); err != nil {
		return err
	}
	open, err := l.takeKey(tx, identity.PersonID{}, 0)
	if err != nil {
		return err
	}
	l.unplace()
	l.told.refill(l.now())
	if open > 0 {
		l.notify(Notice{Kind: "route", Text: "This node is at another address and took another key there, one that nobody saw at the old one. That ended " + openInvites(open) + ": make new ones with kinloom invite."})
	}
	return nil
}

// with adds to the places at which a node was those that have become known, if it has not
// left: its address of the other IP family, as a server tells it only who comes by that.
func with(before, now []netip.Prefix) []netip.Prefix {
	if len(before) > 0 && !slices.ContainsFunc(now, func(p netip.Prefix) bool { return slices.Contains(before, p) }) {
		return before
	}
	out := slices.Clone(before)
	for _, p := range now {
		if len(out) < placesMax && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// elsewhere says whether a node that was at some places has left them all. That none is
// known any more says nothing, nor does one of IPv6 where only IPv4 was known.
func elsewhere(before, now []netip.Prefix) bool {
	other := false
	for _, p := range now {
		if slices.Contains(before, p) {
			return false
		}
		other = other || slices.ContainsFunc(before, func(b netip.Prefix) bool { return b.Addr().BitLen() == p.Addr().BitLen() })
	}
	return other
}

// places implements jobs: what this machine knows by itself, and what servers say that
// could carry for the veil.
func (e *edge) places(k *known) []netip.Prefix {
	by := slices.Clone(k.trusted)
	for _, s := range e.n.net.Book() {
		if s.Source == p2p.FromUser {
			by = append(by, s.Peer)
		}
	}
	return e.n.net.Places(slices.DeleteFunc(by, func(s peer.AddrInfo) bool { return k.shunned[s.ID] }))
}
