package contact

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/wire"
)

// Errors of the machines. After any of them the exchange is over.
var (
	// ErrOrder: a message that is not due now, or a second one.
	ErrOrder = errors.New("contact message out of order")
	// ErrOver: the exchange ended before.
	ErrOver = errors.New("contact exchange is over")
	// ErrProof: a commitment or signature does not fit what was said.
	ErrProof = errors.New("the other side could not prove what it said; someone may be in between")
	// ErrPerson: the one who answered is not the one who made the invite.
	ErrPerson = errors.New("another person answered than the one who made this invite; ask for a new one over a way you trust")
	// ErrTransport: the connection does not lead to the key in the invite, or
	// is not one that this protocol runs over.
	ErrTransport = errors.New("connected to another host than the invite names")
	// ErrOwnInvite: the invite is one of the person's own.
	ErrOwnInvite = errors.New("this is an invite of your own; send it to the person you want to add")
	// ErrSuite: no suite in common.
	ErrSuite = errors.New("the other side uses an encryption suite that this kinloom does not know; update both")
)

// Refused is the error when the other side ended the exchange.
type Refused struct{ Code wire.Code }

// Error says what happened and what to do.
func (r Refused) Error() string {
	switch r.Code {
	case CodeTokenUnknown, wire.CodeRefused:
		return "the other side does not know this invite; ask for a new one"
	case wire.CodeUsed:
		return "this invite was used before, by you or by someone else; ask for a new one"
	case wire.CodeExpired:
		return "this invite has expired; ask for a new one"
	case CodeTokenRevoked:
		return "this invite was taken back; ask for a new one"
	case CodeOwnInvite:
		return ErrOwnInvite.Error()
	case wire.CodeVersion:
		return "the other side needs a newer kinloom; update, then try again"
	case wire.CodeBusy, wire.CodeStorage, wire.CodeClosing:
		return "the other side cannot take a contact right now; try again later"
	case wire.CodeProof:
		return "the other side could not verify who we are; someone may be in between, or a clock is wrong"
	}
	return fmt.Sprintf("the other side ended the exchange (%v)", r.Code)
}

// Declined is the error when this side ended the exchange by its own decision
// about the token or the person.
type Declined struct{ Code wire.Code }

// Error names the code.
func (d Declined) Error() string { return fmt.Sprintf("declined a contact (%v)", d.Code) }

// Self is this side of an exchange.
type Self struct {
	Key      identity.DeviceKey
	Person   identity.PersonID
	Material Material
}

// Step is what a machine wants done after an input, in the order of the
// fields. Zero fields want nothing.
type Step struct {
	// Token asks a responder's caller whether this token is good; the answer
	// goes to Admit.
	Token *Token
	// Send is a message for the other side, unframed. It is to be sent also
	// where an error comes with it: it tells the other side why.
	Send []byte
	// Met is the verified other side. An initiator's caller may write to it
	// from now on; a responder's stores it together with the use of the
	// token, and gives the outcome to Settle.
	Met *Met
	// Result ends the exchange.
	Result *Result
}

// Met is the other side, verified, and the words that tell whether someone
// stands in between.
type Met struct {
	Peer  Peer
	Words [WordCount]string
}

// Result is how an exchange ended.
type Result struct {
	Met
	// Request tells that the invite was a public one: on the inviter's side
	// the other is a message request, not yet a contact.
	Request bool
}

// suites are those that this version speaks, best first.
func suites() []uint16 { return []uint16{identity.Suite1} }

type phase uint8

const (
	phaseStart  phase = iota
	phaseOffer        // initiator: waits for Offer
	phaseAdmit        // responder: waits for Admit
	phaseReveal       // responder: waits for Reveal
	phaseSettle       // responder: waits for Settle
	phaseAccept       // initiator: waits for Accept
	phaseOver
)

// Initiator is the side that opened an invite: it dials and speaks first.
type Initiator struct {
	self     Self
	invite   Invite
	channel  Channel
	nonce    [32]byte
	material []byte
	ask      []byte
	sum      [32]byte // transcript
	met      Met
	phase    phase
}

// NewInitiator prepares the answer to an invite over a connection to the host
// that it names. Errors: ErrInviteExpired, ErrOwnInvite, ErrTransport, and
// those of Material.Append.
func NewInitiator(now time.Time, self Self, invite Invite, channel Channel, random io.Reader) (*Initiator, error) {
	switch {
	case invite.Expired(now):
		return nil, ErrInviteExpired
	case invite.Person == self.Person.Hash16():
		return nil, ErrOwnInvite
	case channel.Remote != invite.Transport:
		return nil, ErrTransport
	}
	i := &Initiator{self: self, invite: invite, channel: channel}
	if _, err := io.ReadFull(random, i.nonce[:]); err != nil {
		return nil, fmt.Errorf("draw contact nonce: %w", err)
	}
	var err error
	if i.material, err = self.Material.Append(nil); err != nil {
		return nil, fmt.Errorf("write contact material: %w", err)
	}
	return i, nil
}

// Start returns the first message. It can be called once.
func (i *Initiator) Start() ([]byte, error) {
	if i.phase != phaseStart {
		return nil, ErrOver
	}
	ask := Ask{Suites: suites(), Token: i.invite.Token, Commit: commitment(i.nonce, i.material)}
	var err error
	if i.ask, err = ask.Append(nil); err != nil {
		i.phase = phaseOver
		return nil, err
	}
	i.phase = phaseOffer
	return i.ask, nil
}

// Limit is how long the next message of the other side may be, in bytes.
func (i *Initiator) Limit() int {
	if i.phase == phaseOffer {
		return MaxMessage
	}
	return MaxShort
}

// Handle takes one message of the other side.
func (i *Initiator) Handle(now time.Time, b []byte) (Step, error) {
	step, err := i.handle(now, b)
	if err != nil {
		i.phase = phaseOver
	}
	return step, err
}

func (i *Initiator) handle(now time.Time, b []byte) (Step, error) {
	if i.phase == phaseOver {
		return Step{}, ErrOver
	}
	m, err := ParseMessage(b)
	if err != nil {
		return refuse(err)
	}
	switch m := m.(type) {
	case Refuse:
		return Step{}, Refused{m.Code}
	case Offer:
		if i.phase == phaseOffer {
			return i.offered(now, m, b)
		}
	case Accept:
		if i.phase == phaseAccept {
			return i.accepted(m)
		}
	}
	return refuse(fmt.Errorf("%w: %T", ErrOrder, m))
}

func (i *Initiator) offered(now time.Time, m Offer, raw []byte) (Step, error) {
	if !slices.Contains(suites(), m.Suite) {
		return refuse(ErrSuite)
	}
	peer, err := verify(now, m.Material, i.channel.Remote)
	if err != nil {
		return refuse(err)
	}
	switch {
	case peer.Person() == i.self.Person:
		return refuse(ErrOwnInvite)
	case peer.Person().Hash16() != i.invite.Person:
		return refuse(ErrPerson)
	}
	i.sum = transcript(i.ask, raw, i.nonce, i.material, i.channel.Local, i.channel.Remote)
	sig := i.self.Key.Sign(identity.ContextContact, signedByInitiator(i.sum))
	out, err := Reveal{Nonce: i.nonce, Material: i.material, Sig: [64]byte(sig)}.Append(nil)
	if err != nil {
		return Step{}, err
	}
	i.phase = phaseAccept
	i.met = Met{Peer: peer, Words: checkWords(i.sum)}
	return Step{Send: out, Met: &i.met}, nil
}

func (i *Initiator) accepted(m Accept) (Step, error) {
	record := i.met.Peer.Record
	if record.Device.Verify(identity.ContextContact, signedByResponder(i.sum, m.Request), m.Sig[:]) != nil {
		return refuse(ErrProof)
	}
	i.phase = phaseOver
	return Step{Result: &Result{Met: i.met, Request: m.Request}}, nil
}

// Responder is the side that made the invite.
type Responder struct {
	self    Self
	channel Channel
	random  io.Reader
	ask     []byte
	commit  [32]byte
	offer   []byte
	sum     [32]byte // transcript
	met     Met
	phase   phase
}

// NewResponder waits for the first message on a connection. The material in
// self is not used: Admit brings it, so that nothing is made for a stranger.
func NewResponder(self Self, channel Channel, random io.Reader) *Responder {
	return &Responder{self: self, channel: channel, random: random}
}

// Limit is how long the next message of the other side may be, in bytes.
func (r *Responder) Limit() int {
	if r.phase == phaseReveal {
		return MaxMessage
	}
	return MaxShort
}

// Handle takes one message of the other side.
func (r *Responder) Handle(now time.Time, b []byte) (Step, error) {
	step, err := r.handle(now, b)
	if err != nil {
		r.phase = phaseOver
	}
	return step, err
}

func (r *Responder) handle(now time.Time, b []byte) (Step, error) {
	if r.phase == phaseOver {
		return Step{}, ErrOver
	}
	m, err := ParseMessage(b)
	if err != nil {
		return refuse(err)
	}
	switch m := m.(type) {
	case Refuse:
		return Step{}, Refused{m.Code}
	case Ask:
		if r.phase == phaseStart {
			return r.asked(m, b)
		}
	case Reveal:
		if r.phase == phaseReveal {
			return r.revealed(now, m)
		}
	}
	return refuse(fmt.Errorf("%w: %T", ErrOrder, m))
}

func (r *Responder) asked(m Ask, raw []byte) (Step, error) {
	if !slices.ContainsFunc(m.Suites, func(s uint16) bool { return slices.Contains(suites(), s) }) {
		return refuse(ErrSuite)
	}
	r.ask, r.commit, r.phase = bytes.Clone(raw), m.Commit, phaseAdmit
	return Step{Token: &m.Token}, nil
}

// Admit says what became of the token: code 0 lets the other side in and shows
// it the material; any other code is sent as the reason why not.
func (r *Responder) Admit(code wire.Code, material Material) (Step, error) {
	if r.phase != phaseAdmit {
		r.phase = phaseOver
		return Step{}, ErrOver
	}
	if code != 0 {
		r.phase = phaseOver
		return refuse(Declined{code})
	}
	step, err := r.offering(material)
	if err != nil {
		r.phase = phaseOver
	}
	return step, err
}

func (r *Responder) offering(material Material) (Step, error) {
	offer := Offer{Suite: identity.Suite1}
	if _, err := io.ReadFull(r.random, offer.Nonce[:]); err != nil {
		return Step{}, fmt.Errorf("draw contact nonce: %w", err)
	}
	var err error
	if offer.Material, err = material.Append(nil); err != nil {
		return Step{}, fmt.Errorf("write contact material: %w", err)
	}
	if r.offer, err = offer.Append(nil); err != nil {
		return Step{}, err
	}
	r.phase = phaseReveal
	return Step{Send: r.offer}, nil
}

func (r *Responder) revealed(now time.Time, m Reveal) (Step, error) {
	commit := commitment(m.Nonce, m.Material)
	if subtle.ConstantTimeCompare(commit[:], r.commit[:]) != 1 {
		return refuse(ErrProof)
	}
	peer, err := verify(now, m.Material, r.channel.Remote)
	if err != nil {
		return refuse(err)
	}
	r.sum = transcript(r.ask, r.offer, m.Nonce, m.Material, r.channel.Remote, r.channel.Local)
	switch {
	case peer.Record.Device.Verify(identity.ContextContact, signedByInitiator(r.sum), m.Sig[:]) != nil:
		return refuse(ErrProof)
	case peer.Person() == r.self.Person:
		return refuse(ErrOwnInvite)
	}
	r.met = Met{Peer: peer, Words: checkWords(r.sum)}
	r.phase = phaseSettle
	return Step{Met: &r.met}, nil
}

// Settle says how the other side was stored: with code 0 as a contact or as a
// request; any other code, such as CodeUsed for the loser of a race for a
// single-use token, is sent as the reason why not.
func (r *Responder) Settle(code wire.Code, request bool) (Step, error) {
	if r.phase != phaseSettle {
		r.phase = phaseOver
		return Step{}, ErrOver
	}
	r.phase = phaseOver
	if code != 0 {
		return refuse(Declined{code})
	}
	sig := r.self.Key.Sign(identity.ContextContact, signedByResponder(r.sum, request))
	out, err := Accept{Request: request, Sig: [64]byte(sig)}.Append(nil)
	if err != nil {
		return Step{}, err
	}
	return Step{Send: out, Result: &Result{Met: r.met, Request: request}}, nil
}

// Roles in what is signed, so that a signature of one side is never one of
// the other's.
const (
	roleInitiator = 1
	roleResponder = 2
)

func signedByInitiator(sum [32]byte) []byte {
	return append([]byte{roleInitiator}, sum[:]...)
}

func signedByResponder(sum [32]byte, request bool) []byte {
	b := append([]byte{roleResponder}, sum[:]...)
	if request {
		return append(b, 1)
	}
	return append(b, 0)
}

// refuse ends an exchange with err, and tells the other side which kind of
// error it is and no more.
func refuse(err error) (Step, error) {
	code := wire.CodeMalformed
	if r, ok := errors.AsType[Declined](err); ok {
		code = r.Code
	}
	for _, known := range []struct {
		err  error
		code wire.Code
	}{
		{ErrLimit, wire.CodeTooLarge},
		{ErrOrder, wire.CodeOrder},
		{ErrSuite, wire.CodeVersion},
		{ErrOwnInvite, CodeOwnInvite},
		{ErrProof, wire.CodeProof},
		{ErrPerson, wire.CodeProof},
		{ErrMaterial, wire.CodeProof},
	} {
		if errors.Is(err, known.err) {
			code = known.code
		}
	}
	out, encodeErr := Refuse{Code: code}.Append(nil)
	if encodeErr != nil {
		return Step{}, encodeErr
	}
	return Step{Send: out}, err
}
