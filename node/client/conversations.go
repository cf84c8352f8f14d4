package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// Conversation is one conversation with its last line.
type Conversation struct {
	Changed   uint64 `json:"changed,omitempty"`
	ID        string `json:"id" doc:"64 hex digits"`
	Kind      string `json:"kind" enum:"self,pair,group,room,foreign"`
	Name      string `json:"name"`
	Person    string `json:"person,omitempty" doc:"The other person of a pair, a did:key"`
	State     string `json:"state" enum:"contact,request,removed,self" doc:"How the owner stands to that person"`
	Unread    int    `json:"unread"`
	LastAt    Time   `json:"last_at,omitzero" format:"date-time"`
	LastText  string `json:"last_text,omitempty"`
	LastOwn   bool   `json:"last_own,omitempty"`
	Muted     bool   `json:"muted"`
	Archived  bool   `json:"archived"`
	Retention int64  `json:"retention_seconds" doc:"Messages older than this are deleted here; 0 keeps them"`
	ClearedTo uint64 `json:"cleared_to,omitempty" doc:"Its messages that were first told under this number or a smaller one are deleted on this node"`
}

// ConversationUpdate changes what is given and leaves the rest.
type ConversationUpdate struct {
	Muted     *bool  `json:"muted,omitempty"`
	Archived  *bool  `json:"archived,omitempty"`
	Retention *int64 `json:"retention_seconds,omitempty" minimum:"0"`
}

// Cleared says how many messages were deleted on this device.
type Cleared struct {
	Removed int `json:"removed"`
}

// Conversations lists conversations, the one with the newest message first.
func (c *Client) Conversations(ctx context.Context) ([]Conversation, error) {
	var out []Conversation
	return out, c.call(ctx, http.MethodGet, "/v1/conversations", nil, nil, &out)
}

// Inbox lists conversations as Conversations does, with the archived left out, and those without unread messages too if
// unread is set.
func (c *Client) Inbox(ctx context.Context, unread bool) ([]Conversation, error) {
	var out []Conversation
	query := url.Values{"inbox": {"true"}, "unread": {strconv.FormatBool(unread)}}
	return out, c.call(ctx, http.MethodGet, "/v1/conversations", query, nil, &out)
}

// Conversation gives one by the name of its person, or by its id.
func (c *Client) Conversation(ctx context.Context, who string) (Conversation, error) {
	var out Conversation
	return out, c.call(ctx, http.MethodGet, pathOf("v1", "conversations", who), nil, nil, &out)
}

// UpdateConversation mutes, archives, or sets the retention.
func (c *Client) UpdateConversation(ctx context.Context, who string, in ConversationUpdate) (Conversation, error) {
	var out Conversation
	return out, c.call(ctx, http.MethodPatch, pathOf("v1", "conversations", who), nil, in, &out)
}

// ClearConversation deletes a conversation's messages on this device.
func (c *Client) ClearConversation(ctx context.Context, who string) (Cleared, error) {
	var out Cleared
	return out, c.call(ctx, http.MethodPost, pathOf("v1", "conversations", who, "clear"), nil, nil, &out)
}
