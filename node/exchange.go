package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/session"
	"github.com/kinloom/kinloom/protocol/wire"
)

// addTimeout bounds AddContact where the caller gives no deadline.
const addTimeout = 40 * time.Second

// AddOptions says how to add a contact.
type AddOptions struct {
	// Name is the petname to give; empty: none.
	Name string
}

// Added is a contact that was added, and how.
type Added struct {
	Contact Contact
	Via     string // "direct" or "lan"
	Took    time.Duration
	Words   []string // check words, the same on both sides
	Request bool     // the other side has to accept first
}

// AddContact answers an invite: it dials the inviter, both sides prove who they
// are, and on both the other becomes a contact. The check words let the two
// people rule out a stranger in between; VerifyContact notes their answer.
func (n *Node) AddContact(ctx context.Context, link string, o AddOptions) (Added, error) {
	if n.net == nil {
		return Added{}, &Error{Kind: KindNotRunning, Text: "adding a contact needs the network", Next: "Start the node: kinloom up."}
	}
	invite, err := readInvite(link, o, n.cfg.Now())
	if err != nil {
		return Added{}, err
	}
	if err := n.mayCall(ctx, invite); err != nil {
		return Added{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeoutLeft(ctx, addTimeout))
	defer cancel()
	begin := time.Now()
	self, err := n.introduce(ctx)
	if err != nil {
		return Added{}, err
	}
	path, s, err := n.dialInvite(ctx, invite)
	if err != nil {
		return Added{}, err
	}
	channel, err := contact.StreamChannel(s)
	if err != nil {
		return Added{}, errors.Join(exchangeError(err), s.Reset())
	}
	initiator, err := contact.NewInitiator(n.cfg.Now(), self, invite, channel, n.cfg.Random)
	if err != nil {
		return Added{}, errors.Join(exchangeError(err), s.Reset())
	}
	result, err := contact.Exchange(ctx, s, initiator, nil)
	if err != nil {
		return Added{}, exchangeError(err)
	}
	took := time.Since(begin)
	addrs := invite.Addresses
	result.Peer.Addresses = n.edge.clean(result.Peer.Addresses)
	err = n.change(ctx, func(l *loop, tx *store.Tx) error {
		if err := l.nameFree(o.Name, result.Peer.Person()); err != nil {
			return err
		}
		c, err := l.begin(tx, result.Met, addrs)
		if err != nil {
			return err
		}
		if o.Name != "" {
			named := *l.acct.contacts[result.Peer.Person()]
			named.Petname = o.Name
			if err := tx.PutContact(&named); err != nil {
				return err
			}
			l.acct.contacts[named.Person] = &named
		}
		return l.greet(tx, c)
	})
	if err != nil {
		return Added{}, err
	}
	shown, err := n.Contact(ctx, result.Peer.Person().String())
	return Added{Contact: shown, Via: string(path.Route), Took: took, Words: result.Words[:], Request: result.Request}, err
}

// CheckInvite gives the error that AddContact has for what it can refuse by itself,
// so that nothing is made or started for a broken link.
func CheckInvite(link string, o AddOptions, now time.Time) error {
	_, err := readInvite(link, o, now)
	return err
}

func readInvite(link string, o AddOptions, now time.Time) (contact.Invite, error) {
	invite, err := contact.ParseInvite(link)
	if err == nil && invite.Expired(now) {
		err = contact.ErrInviteExpired
	}
	if err != nil {
		return invite, exchangeError(err)
	}
	if o.Name != "" {
		return invite, checkName(o.Name)
	}
	return invite, nil
}

// introduce makes what this side tells about itself in an exchange. The secrets
// of the fresh bundle are on disk before it returns.
func (n *Node) introduce(ctx context.Context) (contact.Self, error) {
	self := contact.Self{Key: identity.NewDeviceKey(n.home.secrets.Device), Person: n.me}
	err := n.change(ctx, func(l *loop, _ *store.Tx) error {
		now := l.now()
		once, err := l.acct.sessions.Bundle(now, true)
		if err != nil {
			return err
		}
		static, err := l.acct.sessions.Bundle(now, false)
		if err != nil {
			return err
		}
		self.Material = contact.Material{
			Entries: l.acct.logs[l.acct.me].Entries(), Record: l.acct.devices[l.acct.device].Record,
			Static: static, Once: once, Name: contact.CleanName(l.acct.contacts[l.acct.me].Name),
		}
		return nil
	})
	for _, a := range n.net.Addrs() {
		if len(self.Material.Addresses) < contact.MaxReach && len(a.Bytes()) <= contact.MaxAddress {
			self.Material.Addresses = append(self.Material.Addresses, a.Bytes())
		}
	}
	return self, err
}

// befriend stores a person that an exchange has proved, with the device that
// spoke and the conversation of the two.
func (l *loop) befriend(tx *store.Tx, met contact.Met, log *identity.Log, state store.ContactState, addrs [][]byte) (*conversation, error) {
	l.wrote = true
	now, p := l.now(), met.Peer
	person := p.Person()
	next := store.Contact{Person: person, Since: now, State: state}
	back := false
	if known, ok := l.acct.contacts[person]; ok {
		next = *known
		back = known.State == store.Removed
		if state == store.Accepted || back {
			next.State = state
		}
	}
	if p.Name != "" {
		next.Name = event.Clean(p.Name, maxName)
	}
	next.Words, next.WordsAt = strings.Join(met.Words[:], " "), now
	if err := tx.PutContact(&next); err != nil {
		return nil, err
	}
	l.acct.contacts[person] = &next
	if state == store.Accepted && next.Ways == store.RelayOnly { // by the invite they know where this node is
		if l.net != nil {
			l.parting[person] = 0
		}
		if err := l.goUnderAgain(tx, person); err != nil {
			return nil, err
		}
	}
	if err := l.keepLog(tx, person, log); err != nil {
		return nil, err
	}
	d := store.Device{ID: p.Device(), Person: person}
	if known, ok := l.acct.devices[p.Device()]; ok {
		d = known.Device
	}
	if state, ok := log.Device(d.ID); len(d.Record) == 0 || ok && state.RecordHash == p.RecordHash { // or a newer one is here
		d.Record = p.RecordBytes
	}
	if err := l.leaves(tx, &d, p.Transport.PeerID()); err != nil {
		return nil, err
	}
	d.Static, d.Transport, d.Seen = p.Static, p.Transport.PeerID(), now
	d.Addrs = nil
	for _, a := range append(addrs, p.Addresses...) {
		d.Addrs = addAddress(d.Addrs, a, sourceExchange)
	}
	if err := tx.PutDevice(&d); err != nil {
		return nil, err
	}
	l.acct.addDevice(d)
	if back {
		if err := l.meetAgain(person); err != nil {
			return nil, err
		}
	}
	if remote, ok := l.acct.remote(d.ID); ok {
		if err := l.acct.sessions.SetRemote(remote); err != nil {
			return nil, err
		}
	}
	if c, ok := l.acct.pair(person); ok {
		return c, nil
	}
	c := store.Conversation{ID: event.PairID(l.acct.me, person), Kind: event.Pair, Person: person, LastAt: now}
	if err := tx.PutConversation(&c); err != nil {
		return nil, err
	}
	return l.acct.addConversation(c, nil), nil
}

// freshBundle gives the bundle to begin a session with, once it verifies.
func freshBundle(p contact.Peer, now time.Time) ([]byte, error) {
	bundle := p.Once
	if bundle == nil {
		bundle = p.Static
	}
	if _, err := session.ParseBundle(bundle, p.Record.Device, now); err != nil {
		return nil, badKeys(err)
	}
	return bundle, nil
}

func badKeys(err error) error {
	return &Error{Kind: KindRefused, Err: err, Text: "the other side's keys do not verify", Next: "Check both clocks, update both, then ask for a new invite."}
}

// begin starts the session with the device that an exchange has just proved,
// from its fresh bundle, and makes its person a contact. Where the other side is
// at fault nothing has changed.
func (l *loop) begin(tx *store.Tx, met contact.Met, addrs [][]byte) (*conversation, error) {
	p := met.Peer
	if c, ok := l.acct.contacts[p.Person()]; ok && c.Trust == store.Blocked {
		return nil, refused("Unblock first: kinloom contact unblock "+quoteName(l.acct.shown(c.Person))+".", "%s is blocked", l.acct.shown(c.Person))
	}
	bundle, err := freshBundle(p, l.now())
	if err != nil {
		return nil, err
	}
	log, err := l.standing(tx, p)
	if err != nil {
		return nil, err
	}
	_, known := l.acct.devices[p.Device()]
	remote := session.Remote{Device: p.Device(), Record: p.Record, RecordHash: p.RecordHash, Head: p.Log.Head()}
	if err = l.acct.sessions.Start(l.now(), remote, bundle); err != nil {
		err = badKeys(err)
	}
	var c *conversation
	if err == nil {
		c, err = l.befriend(tx, met, log, store.Accepted, addrs)
	}
	if err != nil && !known {
		l.acct.sessions.Forget(p.Device())
	}
	return c, err
}

// Admit implements contact.Host for the inviter's side.
func (e *edge) Admit(ctx context.Context, token contact.Token, from contact.Transport) (wire.Code, contact.Material, error) {
	code, hash := contact.CodeTokenUnknown, sha256.Sum256(token[:])
	err := e.n.read(ctx, func(v *view) error {
		invite, err := v.tx.InviteByToken(hash)
		if isNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		code = inviteCode(invite, e.n.cfg.Now(), nil)
		if code == wire.CodeUsed {
			code = 0 // whether it is the same person again, only Store can tell
		}
		return nil
	})
	if err == nil && code == 0 {
		err = e.n.ask(ctx, func(l *loop) {
			if !l.mayOffer(hash) {
				code = wire.CodeBusy
			}
		})
	}
	if err != nil || code != 0 {
		return code, contact.Material{}, err
	}
	self, err := e.n.introduce(ctx)
	return 0, self.Material, err
}

// inviteCode says why an invite is no good for somebody, 0 if it is.
func inviteCode(i store.Invite, now time.Time, by *identity.PersonID) wire.Code {
	switch {
	case i.Revoked:
		return contact.CodeTokenRevoked
	case !i.Expires.IsZero() && !now.Before(i.Expires):
		return wire.CodeExpired
	case !i.Many && i.Uses > 0 && (by == nil || i.UsedBy != *by):
		return wire.CodeUsed
	}
	return 0
}

// Store implements contact.Host: the person and the use of the token are on disk
// when it returns. The same person may come twice with a token, as the answer
// to the first time may have been lost.
func (e *edge) Store(ctx context.Context, token contact.Token, met contact.Met) (code wire.Code, request bool, err error) {
	met.Peer.Addresses = e.clean(met.Peer.Addresses)
	err = e.n.change(ctx, func(l *loop, tx *store.Tx) error {
		now, person := l.now(), met.Peer.Person()
		request = false // it may run again, where another input of its batch failed
		invite, err := tx.InviteByToken(sha256.Sum256(token[:]))
		if err != nil {
			return err
		}
		if code = inviteCode(invite, now, &person); code != 0 {
			return nil
		}
		known, ok := l.acct.contacts[person]
		switch {
		case person == l.acct.me:
			code = contact.CodeOwnInvite
			return nil
		case ok && known.Trust == store.Blocked:
			code = contact.CodeTokenUnknown
			return nil
		case !invite.Many && invite.Uses > 0 && ok && known.State == store.Removed:
			code = wire.CodeUsed // a removal is not undone by who was removed
			return nil
		case invite.Many && (!ok || known.State == store.Removed) && l.requests() >= requestsMax:
			code = wire.CodeBusy
			return nil
		}
		state := store.Accepted
		if invite.Many && (!ok || known.State != store.Accepted) {
			state, request = store.Request, true
		}
		log, err := l.standing(tx, met.Peer)
		if inputError(err) {
			code = wire.CodeProof
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := l.befriend(tx, met, log, state, nil); err != nil {
			return err
		}
		invite.Uses, invite.UsedBy = invite.Uses+1, person
		if state == store.Accepted && l.acct.contacts[person].Ways == store.RelayOnly {
			invite.Revoked = true // as the key in it; they cannot have another one drawn by it
		}
		if err := tx.PutInvite(&invite); err != nil {
			return err
		}
		l.greeted(l.acct.contacts[person], met, request)
		return nil
	})
	return code, request, err
}

// greeted tells the owner who answered an invite.
func (l *loop) greeted(c *store.Contact, met contact.Met, request bool) {
	n := Notice{Kind: "contact", Who: c.Person, Words: met.Words[:]}
	name := l.acct.shown(c.Person)
	if request {
		n.Kind, n.Text = "request", fmt.Sprintf("%s asks to be a contact. Answer: kinloom request accept %s", name, c.Person)
	} else {
		n.Text = fmt.Sprintf("%s answered your invite. Check words: %s - the same on their screen? Then: kinloom contact verify %s", name, strings.Join(met.Words[:], " "), quoteName(name))
	}
	l.notify(n)
}

// quoteName makes one word of the shell, whatever a contact calls itself.
func quoteName(name string) string {
	plain := func(r rune) bool {
		return unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_' || r == '.'
	}
	if strings.ContainsFunc(name, func(r rune) bool { return !plain(r) }) {
		return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return name
}

func (l *loop) requests() int {
	n := 0
	for _, c := range l.acct.contacts {
		if c.State == store.Request {
			n++
		}
	}
	return n
}

// exchangeError puts a failed exchange into words.
func exchangeError(err error) error {
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	e := &Error{Kind: KindError, Err: err, Text: "the contact was not added", Next: "Try again, or ask for a new invite."}
	refused, isRefused := errors.AsType[contact.Refused](err)
	parts := []error{
		contact.ErrInviteForeign, contact.ErrInviteTruncated, contact.ErrInviteBroken, contact.ErrInviteVersion,
	}
	for _, part := range parts {
		if errors.Is(err, part) {
			e.Kind, e.Text, e.Err, e.Next = KindUsage, err.Error(), nil, ""
			return e
		}
	}
	switch {
	case isRefused:
		e.Kind, e.Text, e.Err, e.Next = KindRefused, refused.Error(), nil, ""
	case errors.Is(err, contact.ErrInviteExpired), errors.Is(err, contact.ErrOwnInvite), errors.Is(err, contact.ErrPerson),
		errors.Is(err, contact.ErrSuite):
		e.Kind, e.Text, e.Err, e.Next = KindRefused, rootText(err), nil, ""
	case errors.Is(err, contact.ErrSlow), errors.Is(err, context.DeadlineExceeded):
		e.Kind, e.Quiet, e.Text = KindTimeout, true, "the contact was not added: the other side was too slow"
		e.Next = "Check the connection and try again."
	case errors.Is(err, contact.ErrCut):
		e.Kind, e.Quiet, e.Text = KindTimeout, true, "the contact was not added: the connection ended in the middle"
	case errors.Is(err, contact.ErrProof), errors.Is(err, contact.ErrMaterial), errors.Is(err, contact.ErrTransport):
		e.Kind = KindRefused
	default:
		e.Quiet, e.Text = true, "the contact was not added: the exchange with the other side broke off"
	}
	return e
}

// rootText is the text of the innermost error.
func rootText(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}
