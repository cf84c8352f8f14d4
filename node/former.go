package node

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/store"
)

// settingFormer begins the name under which lies whose device had a transport key once;
// the rest is its peer id. What listens there with that key may be theirs still: a
// server goes on while its owner's device tells another key.
const settingFormer = "former transport "

// formerMax bounds such keys of one person: no device needs a new one often, and later
// ones must not push out the first.
const formerMax = 256

// loadFormer reads who had which transport key.
func (a *account) loadFormer(tx *store.Tx) error {
	rows, err := tx.SettingsUnder(settingFormer)
	if err != nil {
		return err
	}
	a.former = make(map[peer.ID]identity.PersonID, len(rows))
	for name, b := range rows {
		if id, err := peer.Decode(name); err == nil && len(b) == len(identity.PersonID{}) {
			a.former[id] = identity.PersonID(b)
		}
	}
	return nil
}

// leaves notes the transport key that a device has, as it will have another one.
func (l *loop) leaves(tx *store.Tx, d *store.Device, next []byte) error {
	id := peer.ID(d.Transport)
	if _, known := l.acct.former[id]; known || len(id) == 0 || string(id) == string(next) || d.Person == l.acct.me {
		return nil
	}
	n := 0
	for _, p := range l.acct.former {
		if p == d.Person {
			n++
		}
	}
	if n >= formerMax {
		return nil
	}
	l.wrote = true
	l.acct.former[id] = d.Person
	l.then(l.tellKnown)
	return tx.PutSetting(settingFormer+id.String(), d.Person[:], false)
}

// transportsOf are the keys that the devices of a person have, or had.
func (l *loop) transportsOf(p identity.PersonID) []peer.ID {
	var out []peer.ID
	for _, d := range l.acct.devices {
		for _, id := range [][]byte{d.Transport, d.LAN} {
			if d.Person == p && len(id) > 0 {
				out = append(out, peer.ID(id))
			}
		}
	}
	for id, of := range l.acct.former {
		if of == p {
			out = append(out, id)
		}
	}
	return out
}

// underAt names the contact who may reach this node by relays only and has, or had, a
// transport key.
func (l *loop) underAt(id peer.ID) (c *store.Contact, ok bool) {
	for _, c := range l.acct.contacts {
		if c.Ways == store.RelayOnly && slices.Contains(l.transportsOf(c.Person), id) {
			return c, true
		}
	}
	return nil, false
}
