package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// Contact is another person as this node's owner knows them.
type Contact struct {
	Changed      uint64   `json:"changed,omitempty"`
	ID           string   `json:"id" doc:"The person, a did:key"`
	Name         string   `json:"name" doc:"As shown: the petname, else the profile name"`
	Trust        string   `json:"trust" enum:"unverified,verified,blocked"`
	State        string   `json:"state" enum:"contact,request,removed,self"`
	Petname      string   `json:"petname,omitempty"`
	Profile      string   `json:"profile,omitempty" doc:"The name they gave themselves"`
	Since        Time     `json:"since,omitzero" format:"date-time"`
	Devices      int      `json:"devices"`
	LastSeen     Time     `json:"last_seen,omitzero" format:"date-time"`
	Words        []string `json:"words,omitempty" doc:"Check words, while the first exchange is fresh"`
	Conversation string   `json:"conversation,omitempty"`
	Ways         string   `json:"ways" enum:"any,relay,lan" doc:"By which routes their devices are reached"`
	Unreached    string   `json:"unreached,omitempty" doc:"Why they cannot be reached by these now, and what to do"`
}

// Ways asks for other routes to a contact's devices.
type Ways struct {
	Ways string `json:"ways" enum:"any,relay,lan" doc:"any; relay: over relays only, without their learning this node's address; lan: on the local network only"`
}

// AddContact answers an invite.
type AddContact struct {
	Link string `json:"link" maxLength:"2048" doc:"The invite"`
	Name string `json:"name,omitempty" maxLength:"256" doc:"Petname, at most 64 characters"`
}

// Added is a contact just made, with the check words of the exchange.
type Added struct {
	Contact
	Via     string `json:"via" doc:"Route that the invite was answered over"`
	Took    int64  `json:"took_ms" doc:"Milliseconds"`
	Request bool   `json:"request,omitempty" doc:"The other side has to accept first"`
}

// Verdict is the owner's answer to the check words.
type Verdict struct {
	Same bool `json:"same" doc:"Both screens showed the same"`
}

// Fingerprint is what two persons compare.
type Fingerprint struct {
	ID     string   `json:"id"`
	Name   string   `json:"name"`
	Trust  string   `json:"trust"`
	Words  []string `json:"words,omitempty" doc:"Three check words, while the first exchange is fresh"`
	Digits string   `json:"digits" doc:"At least 200 bits, the same on both sides"`
	QR     string   `json:"qr" doc:"The same digits for a QR code"`
}

// Way is one way to a device of a contact.
type Way struct {
	Device    string `json:"device"`
	Route     string `json:"route" doc:"direct, lan or relay; lookup where its record is looked for, which has no address"`
	Transport string `json:"transport,omitempty" doc:"quic, tcp or wss"`
	Address   string `json:"address"`
	Source    string `json:"source,omitempty" doc:"How it is known: told, invite, seen, lan or record; empty for a connection that came in; own: it is their way to this node"`
	Live      bool   `json:"live"`
	LastTry   Time   `json:"last_try,omitzero" format:"date-time"`
	LastOK    Time   `json:"last_ok,omitzero" format:"date-time"`
	Result    string `json:"result,omitempty"`
}

// AddContact answers an invite and waits for the other side.
func (c *Client) AddContact(ctx context.Context, in AddContact) (Added, error) {
	var out Added
	return out, c.call(ctx, http.MethodPost, "/v1/contacts", nil, in, &out)
}

// Contacts lists contacts by name.
func (c *Client) Contacts(ctx context.Context) ([]Contact, error) {
	var out []Contact
	return out, c.call(ctx, http.MethodGet, "/v1/contacts", nil, nil, &out)
}

// Contact gives one contact by name, did:key, or beginning of either.
func (c *Client) Contact(ctx context.Context, who string) (Contact, error) {
	var out Contact
	return out, c.call(ctx, http.MethodGet, pathOf("v1", "contacts", who), nil, nil, &out)
}

// RenameContact gives a contact a petname; an empty one takes it away.
func (c *Client) RenameContact(ctx context.Context, who, name string) (Contact, error) {
	var out Contact
	return out, c.call(ctx, http.MethodPatch, pathOf("v1", "contacts", who), nil, Rename{Name: name}, &out)
}

// RemoveContact forgets a contact, and its conversation if history is set.
func (c *Client) RemoveContact(ctx context.Context, who string, history bool) error {
	query := url.Values{"history": {strconv.FormatBool(history)}}
	return c.call(ctx, http.MethodDelete, pathOf("v1", "contacts", who), query, nil, nil)
}

// Fingerprint gives what to compare with a contact.
func (c *Client) Fingerprint(ctx context.Context, who string) (Fingerprint, error) {
	var out Fingerprint
	return out, c.call(ctx, http.MethodGet, pathOf("v1", "contacts", who, "fingerprint"), nil, nil, &out)
}

// Verify records the owner's answer to the comparison.
func (c *Client) Verify(ctx context.Context, who string, same bool) (Contact, error) {
	var out Contact
	return out, c.call(ctx, http.MethodPost, pathOf("v1", "contacts", who, "verify"), nil, Verdict{Same: same}, &out)
}

// Block takes nothing more from a contact, and tells them nothing.
func (c *Client) Block(ctx context.Context, who string) (Contact, error) {
	var out Contact
	return out, c.call(ctx, http.MethodPost, pathOf("v1", "contacts", who, "block"), nil, nil, &out)
}

// Unblock ends a block.
func (c *Client) Unblock(ctx context.Context, who string) (Contact, error) {
	var out Contact
	return out, c.call(ctx, http.MethodPost, pathOf("v1", "contacts", who, "unblock"), nil, nil, &out)
}

// SetWays says by which routes a contact's devices are reached: any, relay or lan.
func (c *Client) SetWays(ctx context.Context, who, ways string) (Contact, error) {
	var out Contact
	return out, c.call(ctx, http.MethodPost, pathOf("v1", "contacts", who, "ways"), nil, Ways{Ways: ways}, &out)
}

// Routes gives the ways to a contact's devices, the live one first, then in the order in which they are tried.
func (c *Client) Routes(ctx context.Context, who string) ([]Way, error) {
	var out []Way
	return out, c.call(ctx, http.MethodGet, pathOf("v1", "contacts", who, "routes"), nil, nil, &out)
}

// Requests lists people who wrote without being invited by name.
func (c *Client) Requests(ctx context.Context) ([]Contact, error) {
	var out []Contact
	return out, c.call(ctx, http.MethodGet, "/v1/requests", nil, nil, &out)
}

// AcceptRequest makes a contact of a request.
func (c *Client) AcceptRequest(ctx context.Context, who string) (Contact, error) {
	var out Contact
	return out, c.call(ctx, http.MethodPost, pathOf("v1", "requests", who, "accept"), nil, nil, &out)
}

// DeclineRequest forgets a request; the other side is told nothing.
func (c *Client) DeclineRequest(ctx context.Context, who string) error {
	return c.call(ctx, http.MethodPost, pathOf("v1", "requests", who, "decline"), nil, nil, nil)
}
