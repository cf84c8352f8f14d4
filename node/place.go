package node

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/enc"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/event"
)

// settingSecret is where the contact secret of this device lies.
const settingSecret = "contact secret"

// settingTold begins the name under which lies, for a conversation, the number of the
// event that told last where this device is: its receipts say who knows.
const settingTold = "told place "

// sourceTold is an address of a device's main host, as it said in a session.
const sourceTold = "told"

// place is where this node is found at the moment, as its edge reports it.
type place struct {
	addrs  [][]byte // of the main host, best first, at most event.MaxPlaces
	veiled [][]byte // of the veil, likewise
	offers uint64
}

const (
	// tellBurst changes of where this node is found are told as they come, and after
	// them one in each tellEvery, unless this node has moved: each is stored for ever on
	// both sides, and others can make up relays that come and go.
	tellBurst = 8
	tellEvery = 10 * time.Minute
)

// telling bounds how often contacts are told where this node is found.
type telling struct {
	left  int // to be told as they come
	at    time.Time
	waits bool // one that is not told yet
}

// take reports whether a change is told now; if not, it waits.
func (t *telling) take(now time.Time) bool {
	if now.Before(t.at) { // the clock was set back
		t.at = now
	}
	if n := int(now.Sub(t.at) / tellEvery); n > 0 {
		t.left, t.at = min(t.left+n, tellBurst), now
	}
	t.waits = t.left == 0
	if !t.waits {
		t.left--
	}
	return !t.waits
}

// refill begins anew: what comes now is this node's own doing.
func (t *telling) refill(now time.Time) { t.left, t.at = tellBurst, now }

// placed takes the edge's report of where this node is found. Who is connected is
// told with the next tick, everybody else once they are.
func (l *loop) placed(p place) {
	if slices.EqualFunc(p.addrs, l.place.addrs, bytes.Equal) && slices.EqualFunc(p.veiled, l.place.veiled, bytes.Equal) && p.offers == l.place.offers {
		return
	}
	l.place = p
	if l.told.take(l.now()) {
		l.unplace()
	}
}

// unplace notes that nobody knows any more where this device is found.
func (l *loop) unplace() {
	for _, c := range l.acct.convs {
		c.placed = false
	}
}

// whereabouts is what a contact is told of this device: where it is now, and the
// secret that finds it later. Who may reach it on the local network alone gets nothing
// of that: with the transport key it could be followed over any relay. There it is found
// by its LAN host. Who may by relays alone is told of the veil and of nothing else.
func (l *loop) whereabouts(c *store.Contact) event.Whereabouts {
	switch c.Ways {
	case store.LANOnly:
		return event.Whereabouts{Offers: l.place.offers & event.OffersDoze}
	case store.RelayOnly:
		return event.Whereabouts{Transport: l.acct.veil, Proof: l.acct.veilProof, Addrs: l.place.veiled, Offers: l.place.offers & event.OffersDoze}
	}
	w := event.Whereabouts{Transport: l.acct.transport, Proof: l.acct.proof, Secret: l.acct.secret, Offers: l.place.offers}
	for _, b := range l.place.addrs {
		a, err := multiaddr.NewMultiaddrBytes(b)
		if err == nil && allows(c.Ways, a) && len(w.Addrs) < event.MaxPlaces && len(b) <= event.MaxPlace {
			w.Addrs = append(w.Addrs, b)
		}
	}
	return w
}

// tellPlace says where this device is found to a person who does not know, once a
// session with the device that is connected is confirmed.
func (l *loop) tellPlace(tx *store.Tx, d *device) error {
	c, ok := l.acct.pair(d.Person)
	if !ok || c.placed || d.queue.link == nil || l.acct.transport == ([32]byte{}) || d.Person == l.acct.me || l.maySay(c) != nil {
		return nil
	}
	if s, ok := l.acct.sessions.Current(l.now(), d.ID); !ok || !s.Confirmed {
		return nil
	}
	to := l.acct.contacts[d.Person]
	if to.Ways == store.RelayOnly && len(l.place.veiled) == 0 {
		return nil // the relays that were told may come back
	}
	body, err := l.whereabouts(to).Append()
	if err != nil {
		return fmt.Errorf("bug: own whereabouts: %w", err)
	}
	key := l.acct.device.String()
	last, err := tx.Control(c.Row, l.acct.me, event.Reach, key)
	if err != nil && !isNotFound(err) {
		return err
	}
	c.placed = true
	if err == nil && bytes.Equal(last.Body, body) {
		return nil
	}
	said, err := l.speak(tx, c, event.Reach, key, body)
	if inputError(err) { // no number is left in this conversation
		l.log.Error("a contact cannot be told where this device is", "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	if _, err = tx.SetControl(store.Control{Conversation: c.Row, Person: l.acct.me, Type: event.Reach, Key: key, Clock: said.Clock, ID: said.ID, Body: body}); err != nil {
		return err
	}
	return tx.PutSetting(settingTold+c.ID.String(), binary.BigEndian.AppendUint64(nil, said.Seq), false)
}

// moved takes what a device says of where it is found. The latest that it said
// counts, in whatever order it comes; but a transport key is its own only with the
// proof of that, and while no other device has it.
func (l *loop) moved(tx *store.Tx, d *device, c *conversation, e store.Event, ev event.Event) error {
	w, err := event.ParseWhereabouts(ev.Body)
	if err != nil || ev.Key != d.ID.String() {
		l.complain(d, "a device said what cannot be read of where it is", err)
		return nil
	}
	var id []byte
	if w.Transport != [32]byte{} {
		if err := event.Proved(w, d.ID); err != nil {
			l.complain(d, "a device named a transport key and did not prove that it is its own; it was passed over", err)
			return nil
		}
		id = contact.Transport(w.Transport).PeerID()
		if other, ok := l.byTransport(id); ok && other != d && !l.shutOut(other) {
			l.complain(d, "a device named the transport key of another one; it was passed over", nil)
			return nil
		}
	}
	if !l.mayLeave(&d.Device, id) {
		l.complain(d, keysOften, nil)
		return nil
	}
	won, err := tx.SetControl(store.Control{Conversation: c.Row, Person: d.Person, Type: ev.Type, Key: ev.Key, Clock: e.Clock, ID: e.ID, Body: ev.Body})
	if err != nil || !won {
		return err
	}
	if w.Secret != d.Secret { // of the records made with another one nothing was seen
		seen, err := enc.Marshal(seenRecords{Pair: seenOf(&d.Device).Pair})
		if err != nil {
			return err
		}
		d.Records = seen
	}
	if err := l.leaves(tx, &d.Device, id); err != nil {
		return err
	}
	d.Transport, d.Secret, d.Offers, d.Told = id, w.Secret, w.Offers, e.Clock.Time()
	addrs := slices.DeleteFunc(slices.Clone(d.Addrs), func(a store.Address) bool { return a.Source != sourceLAN })
	told := w.Addrs
	if l.net != nil {
		told = l.net.clean(told)
	}
	for _, a := range slices.Backward(told) { // addAddress puts each in front
		addrs = addAddress(addrs, a, sourceTold)
	}
	d.Addrs = addrs
	l.wrote = true
	return tx.PutDevice(&d.Device)
}

// loadPlace reads what this device is found by, and draws it at the first start.
func (a *account) loadPlace(tx *store.Tx) error {
	secret, err := tx.Setting(settingSecret)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	copy(a.secret[:], secret)
	raw, err := tx.Setting(settingTransport)
	if err != nil {
		return err
	}
	key, err := crypto.UnmarshalPrivateKey(raw)
	if err != nil {
		return fmt.Errorf("transport key: %w", err)
	}
	if err := a.answerAs(key); err != nil {
		return err
	}
	raw, err = tx.Setting(settingVeil)
	if isNotFound(err) || err == nil && len(raw) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if key, err = crypto.UnmarshalPrivateKey(raw); err != nil {
		return fmt.Errorf("transport key of the veil: %w", err)
	}
	a.veil, a.veilProof, err = proveKey(key, a.device)
	return err
}

// answerAs notes the transport key that this device has from now on.
func (a *account) answerAs(key crypto.PrivKey) (err error) {
	a.transport, a.proof, err = proveKey(key, a.device)
	return err
}

// proveKey gives the public half of a transport key, and the proof that it is used by
// a device.
func proveKey(key crypto.PrivKey, d identity.DeviceID) (public [32]byte, proof [identity.SignatureSize]byte, err error) {
	raw, err := key.GetPublic().Raw()
	if err != nil {
		return public, proof, fmt.Errorf("transport key: %w", err)
	}
	sig, err := key.Sign(identity.ReachInput(d))
	if err != nil {
		return public, proof, fmt.Errorf("transport key: %w", err)
	}
	return [32]byte(raw), [identity.SignatureSize]byte(sig), nil
}

// drawSecret draws a contact secret and stores it.
func drawSecret(tx *store.Tx, random io.Reader) (secret [32]byte, err error) {
	if _, err = io.ReadFull(random, secret[:]); err != nil {
		return secret, fmt.Errorf("draw a contact secret: %w", err)
	}
	return secret, tx.PutSetting(settingSecret, secret[:], true)
}

// drawTransport draws a transport key and stores it as a setting.
func drawTransport(tx *store.Tx, random io.Reader, setting string) (crypto.PrivKey, error) {
	key, _, err := crypto.GenerateEd25519Key(random)
	if err != nil {
		return nil, fmt.Errorf("draw a transport key: %w", err)
	}
	raw, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, tx.PutSetting(setting, raw, true)
}

// hide replaces the contact secret, so that who knew the one of before, and is not
// told this one, can neither compute nor read the records of this device.
func (l *loop) hide(tx *store.Tx) (err error) {
	l.wrote = true
	l.acct.secret, err = drawSecret(tx, l.cfg.Random)
	l.unplace()
	return err
}

// vanish replaces all by which a person who is no contact any more could find this
// device: the contact secret, and the transport key, so that it cannot be dialled by
// what they know. Those who are connected are told in their sessions before the host
// changes; invites that are open name the old key, so they end. Who tries the old
// address may see the new key there, so that one is replaced, too, once this node has
// left it (slip).
func (l *loop) vanish(tx *store.Tx, p identity.PersonID) error {
	if err := l.hide(tx); err != nil {
		return err
	}
	places := l.places(p)
	open, err := l.takeKey(tx, p, rekeyAfter)
	if err != nil {
		return err
	}
	if err := l.watch(tx, places); err != nil {
		return err
	}
	text := fmt.Sprintf("This node can no longer be found by what %s knew.", l.acct.shown(p))
	if open > 0 {
		text += fmt.Sprintf(" That ended %s: make new ones with kinloom invite.", openInvites(open))
	}
	fixed := l.cfg.fixedPort()
	if fixed {
		text += " But it listens at a fixed port: who tries its old address sees that it is still this node, and its new key, which it leaves when that address changes."
	}
	if open > 0 || fixed {
		l.notify(Notice{Kind: "route", Who: p, Text: text})
	}
	return nil
}

// takeKey draws another transport key, because of a person if there is one, which the
// main host gets after a while, and ends the open invites, as they name the one of before.
// It counts these.
func (l *loop) takeKey(tx *store.Tx, p identity.PersonID, after time.Duration) (open int, err error) {
	key, err := drawTransport(tx, l.cfg.Random, settingTransport)
	if err != nil {
		return 0, err
	}
	if err := l.acct.answerAs(key); err != nil {
		return 0, err
	}
	if err := tx.PutSetting(settingPorts, nil, false); err != nil { // the next key is not heard of at the old ones
		return 0, err
	}
	if net := l.net; net != nil {
		l.then(func() {
			l.keys++
			if l.parts(p) {
				l.parting[p] = l.keys
			}
			net.rekey(nextKey{key, l.keys, after})
		})
	}
	return l.endInvites(tx)
}

func openInvites(n int) string {
	if n == 1 {
		return "an open invite"
	}
	return fmt.Sprintf("%d open invites", n)
}

// endInvites revokes the invites that could still be answered, and counts them.
func (l *loop) endInvites(tx *store.Tx) (open int, err error) {
	invites, err := tx.Invites()
	if err != nil {
		return 0, err
	}
	for _, i := range invites {
		if inviteCode(i, l.now(), nil) != 0 {
			continue
		}
		i.Revoked = true
		if err := tx.PutInvite(&i); err != nil {
			return open, err
		}
		open++
	}
	return open, nil
}

// allows says whether an address may be used with a contact.
func allows(w store.Ways, a multiaddr.Multiaddr) bool {
	switch w {
	case store.RelayOnly:
		return isRelayed(a)
	case store.LANOnly:
		return !isRelayed(a) && !manet.IsPublicAddr(a)
	}
	return true
}
