package client

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// Message is one event of a timeline.
type Message struct {
	Changed      uint64 `json:"changed"`
	ID           string `json:"id" doc:"64 hex digits"`
	Conversation string `json:"conversation" doc:"64 hex digits"`
	From         string `json:"from" doc:"The author, a did:key"`
	Name         string `json:"name" doc:"The author as shown"`
	Own          bool   `json:"own,omitempty"`
	Type         string `json:"type" doc:"message, edit, reaction, retract, …"`
	Text         string `json:"text"`
	About        string `json:"about,omitempty" doc:"The message that this one answers, changes or reacts to"`
	At           Time   `json:"at" format:"date-time"`
	State        string `json:"state" doc:"queued, carried, delivered, read or failed; received for messages of others"`
	Network      string `json:"network"`
	Protection   string `json:"protection" enum:"direct,network,provider"`
	Route        string `json:"route,omitempty"`
	Reason       string `json:"reason,omitempty"`
	Next         string `json:"next,omitempty"`
	ClockWrong   bool   `json:"clock_wrong,omitempty" doc:"The author's clock is more than a day off"`
	Deleted      bool   `json:"deleted,omitempty"`
	Gap          int    `json:"gap,omitempty" doc:"Messages missing before this one"`
}

// Sent is what send tells about its message.
type Sent struct {
	ID           string `json:"id"`
	Conversation string `json:"conversation"`
	State        string `json:"state"`
	Route        string `json:"route"`
	Protection   string `json:"protection"`
	Reason       string `json:"reason,omitempty"`
	Next         string `json:"next,omitempty"`
	Took         int64  `json:"took_ms" doc:"From the command to this state, in milliseconds"`
}

// Outgoing is a message to send.
type Outgoing struct {
	To   string `json:"to" maxLength:"512" doc:"Who, me for notes to oneself, or a conversation id"`
	Text string `json:"text" doc:"1 to 12,288 bytes of UTF-8"`
}

// Waited is a message when a wait for a state ended.
type Waited struct {
	Message
	TimedOut bool `json:"timed_out,omitempty" doc:"The state was not reached in time"`
}

// Query finds messages.
type Query struct {
	Text       string
	Network    string
	Person     string
	Protection string
	Since      time.Time
	Limit      int
}

// Page asks for a part of a timeline.
type Page struct {
	Limit int  // newest messages at most; 0 is all
	Peek  bool // leave the unread mark as it is
}

// Stage is one step of a message on its way.
type Stage struct {
	At     Time   `json:"at,omitzero" format:"date-time"`
	Stage  string `json:"stage" enum:"queued,sealed,sent,carried,delivered,read,failed"`
	Route  string `json:"route"`
	By     string `json:"by"`
	Reason string `json:"reason,omitempty"`
	Next   string `json:"next,omitempty"`
}

// Send puts a message into the outbox. It is durable when Send returns.
func (c *Client) Send(ctx context.Context, in Outgoing) (Message, error) {
	return c.SendOnce(ctx, in, newKey())
}

// SendOnce is Send for a caller that may have to ask twice, as the node may end between the two: with the same key, of at
// most 128 bytes, within 24 hours, it says nothing new and gives the first message.
func (c *Client) SendOnce(ctx context.Context, in Outgoing, key string) (Message, error) {
	if !utf8.ValidString(in.Text) { // JSON would quietly put other characters in place
		return Message{}, &Problem{
			Title: http.StatusText(http.StatusUnprocessableEntity), Status: http.StatusUnprocessableEntity, Code: CodeUsage,
			Detail: "the message is not valid UTF-8 text", Next: "Convert it to UTF-8 first.",
		}
	}
	var out Message
	return out, c.callOnce(ctx, http.MethodPost, "/v1/messages", nil, in, &out, key)
}

// Wait returns when the message has reached the state, failed, or the time is over.
func (c *Client) Wait(ctx context.Context, id, state string, timeout time.Duration) (Waited, error) {
	var out Waited
	query := url.Values{"state": {state}, "timeout_ms": {strconv.FormatInt(timeout.Milliseconds(), 10)}}
	return out, c.call(ctx, http.MethodGet, pathOf("v1", "messages", id, "wait"), query, nil, &out)
}

// Message gives one message by its id or a beginning of it, at least 8 digits.
func (c *Client) Message(ctx context.Context, id string) (Message, error) {
	var out Message
	return out, c.call(ctx, http.MethodGet, pathOf("v1", "messages", id), nil, nil, &out)
}

// Why gives the stages of a message, oldest first.
func (c *Client) Why(ctx context.Context, id string) ([]Stage, error) {
	var out []Stage
	return out, c.call(ctx, http.MethodGet, pathOf("v1", "messages", id, "stages"), nil, nil, &out)
}

// readPage is how many messages one reply holds: with the longest texts less than half of what a reply may have.
const readPage = 500

// Read gives a person's timeline over all conversations, or one conversation's, oldest first. It is read page by page from
// the newest message on; with the first page all of it counts as read.
func (c *Client) Read(ctx context.Context, who string, page Page) ([]Message, error) {
	out := []Message{}
	known := map[string]bool{} // where an author's clock was wrong, pages may overlap
	query := url.Values{"peek": {strconv.FormatBool(page.Peek)}}
	for page.Limit == 0 || len(out) < page.Limit {
		n := readPage
		if page.Limit > 0 {
			n = min(n, page.Limit-len(out))
		}
		query.Set("limit", strconv.Itoa(n))
		var part []Message
		if err := c.call(ctx, http.MethodGet, pathOf("v1", "conversations", who, "messages"), query, nil, &part); err != nil {
			return nil, err
		}
		before := len(out)
		for _, m := range slices.Backward(part) { // the newest first, until all are here
			if !known[m.ID] {
				known[m.ID] = true
				out = append(out, m)
			}
		}
		if len(part) < n || len(out) == before {
			break
		}
		query.Set("before", part[0].ID)
		query.Set("peek", "true")
	}
	if page.Limit > 0 {
		out = out[:min(len(out), page.Limit)]
	}
	slices.Reverse(out)
	return out, nil
}

// Search finds messages, newest first.
func (c *Client) Search(ctx context.Context, q Query) ([]Message, error) {
	query := url.Values{"q": {q.Text}, "limit": {strconv.Itoa(q.Limit)}}
	for name, value := range map[string]string{"network": q.Network, "person": q.Person, "protection": q.Protection} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if !q.Since.IsZero() {
		query.Set("since", At(q.Since).String())
	}
	var out []Message
	return out, c.call(ctx, http.MethodGet, "/v1/messages", query, nil, &out)
}
