package node

import (
	"iter"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/store"
)

// settingFormer begins the name under which lies whose device had a transport key once;
// the rest is its peer id. What listens there with that key may be theirs still: a
// server goes on while its owner's device tells another key.
const settingFormer = "former transport "

// formerMax bounds such keys of one person: one a week for twenty years. None of them is
// forgotten for a later one; who has had so many has the last for good.
const formerMax = 1024

// keysOften says that a device named more.
const keysOften = "a device changed its transport key too often; the next one was passed over"

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

// mayLeave says whether a device may have another transport key: not, where the one that
// it has could not be noted, and would not be known as theirs any more.
func (l *loop) mayLeave(d *store.Device, next []byte) bool {
	if !l.isLeft(d, next) {
		return true
	}
	n := 0
	for _, p := range l.acct.former {
		if p == d.Person {
			n++
		}
	}
	return n < formerMax
}

// isLeft says whether a device has a transport key that is to be noted when it has
// another one.
func (l *loop) isLeft(d *store.Device, next []byte) bool {
	id := peer.ID(d.Transport)
	_, known := l.acct.former[id]
	return !known && len(id) > 0 && string(id) != string(next) && d.Person != l.acct.me
}

// leaves notes the transport key that a device has, as it will have another one.
func (l *loop) leaves(tx *store.Tx, d *store.Device, next []byte) error {
	if !l.isLeft(d, next) {
		return nil
	}
	id := peer.ID(d.Transport)
	l.wrote = true
	l.acct.former[id] = d.Person
	l.then(l.tellKnown)
	return tx.PutSetting(settingFormer+id.String(), d.Person[:], false)
}

// transports gives the keys that the devices of each person have, or had. One may come
// twice.
func (a *account) transports() iter.Seq2[identity.PersonID, peer.ID] {
	return func(yield func(identity.PersonID, peer.ID) bool) {
		for _, d := range a.devices {
			for _, id := range [][]byte{d.Transport, d.LAN} {
				if len(id) > 0 && !yield(d.Person, peer.ID(id)) {
					return
				}
			}
		}
		for id, p := range a.former {
			if !yield(p, id) {
				return
			}
		}
	}
}

// underAt names the contact who may reach this node by relays only and has, or had, a
// transport key.
func (l *loop) underAt(id peer.ID) (*store.Contact, bool) {
	for p, key := range l.acct.transports() {
		if c, ok := l.acct.contacts[p]; ok && key == id && c.Ways == store.RelayOnly {
			return c, true
		}
	}
	return nil, false
}
