package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Kinds of changes; also the names of the events of the stream.
const (
	KindMessage      = "msg"
	KindState        = "state"
	KindContact      = "contact"
	KindConversation = "conversation"
	KindInvite       = "invite"
	KindStore        = "store"   // first event of a stream: which store the numbers belong to
	KindReset        = "reset"   // the store is another one: start at 0
	KindProblem      = "problem" // last event of a stream that cannot go on; Events gives it as an error
)

// maxEvent bounds one line of the stream, 1 MiB: far above a message of 12 KiB.
const maxEvent = 1 << 20

// Change is one stored object that changed. Exactly one of the pointers is set, by Kind.
type Change struct {
	Changed      uint64
	Kind         string
	Message      *Message
	State        *StateChange
	Contact      *Contact
	Conversation *Conversation
	Invite       *Invite
	Store        *Store
}

// StateChange says that a run of own messages reached a state on one device.
type StateChange struct {
	Changed      uint64 `json:"changed"`
	Conversation string `json:"conversation"`
	Person       string `json:"person,omitempty" doc:"Who confirmed, a did:key"`
	Device       string `json:"device,omitempty" doc:"The device that confirmed"`
	From         uint64 `json:"from_seq" doc:"First message of the run, by the author's count in the conversation"`
	To           uint64 `json:"to_seq" doc:"Last message of the run"`
	Upto         string `json:"upto,omitempty" doc:"Id of the last message of the run"`
	State        string `json:"state"`
	At           Time   `json:"at,omitzero" format:"date-time"`
}

// Store names the store that changed numbers belong to.
type Store struct {
	ID string `json:"id"`
}

// Object is what changed, ready to be written as JSON.
func (ch Change) Object() any {
	switch {
	case ch.Message != nil:
		return ch.Message
	case ch.State != nil:
		return ch.State
	case ch.Contact != nil:
		return ch.Contact
	case ch.Conversation != nil:
		return ch.Conversation
	case ch.Invite != nil:
		return ch.Invite
	}
	return ch.Store
}

// MarshalJSON writes the object's own fields, with "event" (the Kind) and "changed" in front.
func (ch Change) MarshalJSON() ([]byte, error) {
	object, err := json.Marshal(ch.Object())
	if err != nil {
		return nil, err
	}
	head := fmt.Sprintf(`{"event":%q,"changed":%d`, ch.Kind, ch.Changed)
	rest := strings.TrimPrefix(string(object), "{")
	rest = strings.TrimPrefix(rest, fmt.Sprintf(`"changed":%d`, ch.Changed))
	rest = strings.TrimPrefix(rest, ",")
	if rest != "}" {
		head += ","
	}
	return []byte(head + rest), nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (ch *Change) UnmarshalJSON(b []byte) error {
	var head struct {
		Kind    string `json:"event"`
		Changed uint64 `json:"changed"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return err
	}
	read, err := decodeChange(head.Kind, b)
	if err != nil {
		return err
	}
	*ch = read
	ch.Changed = head.Changed
	return nil
}

func decodeChange(kind string, data []byte) (Change, error) {
	ch := Change{Kind: kind}
	var into any
	switch kind {
	case KindMessage:
		ch.Message = new(Message)
		into = ch.Message
	case KindState:
		ch.State = new(StateChange)
		into = ch.State
	case KindContact:
		ch.Contact = new(Contact)
		into = ch.Contact
	case KindConversation:
		ch.Conversation = new(Conversation)
		into = ch.Conversation
	case KindInvite:
		ch.Invite = new(Invite)
		into = ch.Invite
	case KindStore, KindReset:
		ch.Store = new(Store)
		into = ch.Store
	default: // of a newer node
		return ch, nil
	}
	if err := json.Unmarshal(data, into); err != nil {
		return Change{}, fmt.Errorf("read a change: %w", err)
	}
	return ch, nil
}

// Changes gives stored objects that changed after since, in that order, at most limit of them; 0 is the most that one
// page holds. The next page begins after the last one's Changed.
func (c *Client) Changes(ctx context.Context, since uint64, limit int) ([]Change, error) {
	query := url.Values{"since": {strconv.FormatUint(since, 10)}, "limit": {strconv.Itoa(limit)}}
	var out []Change
	return out, c.call(ctx, http.MethodGet, "/v1/changes", query, nil, &out)
}

// Events gives everything that changed after since, then what changes from now on, until ctx ends. A stream that breaks
// is taken up again after the last change that was given out, as long as the node answers. The first item names the
// store; a reader that kept a number of another store gets KindReset and everything from the start.
func (c *Client) Events(ctx context.Context, since uint64, store string) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		first := true
		for {
			ended := c.stream(ctx, since, store, func(ch Change) bool {
				switch ch.Kind {
				case KindStore:
					if again := !first && ch.Store.ID == store; again {
						return true
					}
					store, first = ch.Store.ID, false
				case KindReset:
					since, store, first = 0, ch.Store.ID, false
				}
				since = max(since, ch.Changed)
				return yield(ch, nil)
			})
			switch {
			case ctx.Err() != nil || errors.Is(ended, errStopped):
				return
			case errors.Is(ended, io.EOF), errors.Is(ended, io.ErrUnexpectedEOF):
				continue // the node closed the stream: the next request says whether it is still there
			default:
				yield(Change{}, ended)
				return
			}
		}
	}
}

// errStopped says that the reader of Events wants no more.
var errStopped = errors.New("reader stopped")

// stream reads one connection's events. It always returns an error; io.EOF is a regular end.
func (c *Client) stream(ctx context.Context, since uint64, store string, give func(Change) bool) error {
	query := url.Values{"since": {strconv.FormatUint(since, 10)}}
	if store != "" {
		query.Set("store", store)
	}
	response, err := c.open(ctx, http.MethodGet, "/v1/events", query, nil, "")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxEvent)
	var name, data, id string
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "" && name == KindProblem:
			return parseProblem([]byte(data))
		case lines.Text() == "" && data != "":
			ch, err := decodeChange(name, []byte(data))
			if err != nil {
				return err
			}
			if ch.Changed, err = strconv.ParseUint(id, 10, 64); err != nil {
				ch.Changed = 0 // store and reset carry no id
			}
			if !give(ch) {
				return errStopped
			}
			name, data, id = "", "", ""
		case field == "event":
			name = value
		case field == "data":
			data += value
		case field == "id":
			id = value
		}
	}
	if err := lines.Err(); err != nil && ctx.Err() == nil && errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("read a change: %w", err)
	}
	return io.EOF
}
