package client

import (
	"context"
	"net/http"
)

// Invite is a link that makes its reader a contact.
type Invite struct {
	Changed uint64 `json:"changed,omitempty"`
	ID      string `json:"id" doc:"Names the invite in list and revoke"`
	Link    string `json:"link,omitempty" doc:"Shown when the invite is made, and not stored"`
	QR      string `json:"qr,omitempty" doc:"The same link, shorter, in the characters of a QR code"`
	Expires Time   `json:"expires,omitzero" format:"date-time"`
	Reach   string `json:"reach,omitempty" enum:"lan,internet" doc:"lan: LAN only so far"`
	Many    bool   `json:"many,omitempty" doc:"May be answered by many; answers become requests"`
	Created Time   `json:"created,omitzero" format:"date-time"`
	Uses    int    `json:"uses"`
	Revoked bool   `json:"revoked,omitempty"`
	Warning string `json:"warning,omitempty" doc:"What to know of the link that was made"`
}

// NewInvite asks for an invite.
type NewInvite struct {
	Many    bool   `json:"many,omitempty" doc:"For many readers, whose answers become requests"`
	For     string `json:"for,omitempty" enum:"lan,internet" doc:"Where it is used; left out: the best that is proven now"`
	Seconds int64  `json:"expires_seconds,omitempty" minimum:"0" doc:"How long it is valid; 0 is 14 days"`
}

// Invite makes an invite.
func (c *Client) Invite(ctx context.Context, in NewInvite) (Invite, error) {
	var out Invite
	return out, c.call(ctx, http.MethodPost, "/v1/invites", nil, in, &out)
}

// Invites lists invites, newest first.
func (c *Client) Invites(ctx context.Context) ([]Invite, error) {
	var out []Invite
	return out, c.call(ctx, http.MethodGet, "/v1/invites", nil, nil, &out)
}

// RevokeInvite ends an invite before its time.
func (c *Client) RevokeInvite(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, pathOf("v1", "invites", id), nil, nil, nil)
}
