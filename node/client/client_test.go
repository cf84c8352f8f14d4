package client

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestChangeJSON writes one change of each kind as one flat object and reads it back.
func TestChangeJSON(t *testing.T) {
	at := At(time.Date(2026, 3, 1, 12, 0, 0, 5e6, time.UTC))
	for _, test := range []struct {
		change Change
		want   string
	}{
		{Change{7, KindMessage, &Message{Changed: 7, ID: "aa", Text: "Hi", At: at, State: "read"}, nil, nil, nil, nil, nil}, `{"event":"msg","changed":7,"id":"aa",`},
		{Change{8, KindState, nil, &StateChange{Changed: 8, Conversation: "cc", From: 1, To: 2, State: "delivered"}, nil, nil, nil, nil}, `{"event":"state","changed":8,"conversation":"cc",`},
		{Change{9, KindContact, nil, nil, &Contact{Changed: 9, ID: "did:key:z"}, nil, nil, nil}, `{"event":"contact","changed":9,"id":"did:key:z",`},
		{Change{10, KindConversation, nil, nil, nil, &Conversation{Changed: 10, ID: "dd", Kind: "pair"}, nil, nil}, `{"event":"conversation","changed":10,"id":"dd","kind":"pair",`},
		{Change{11, KindInvite, nil, nil, nil, nil, &Invite{Changed: 11, ID: "ee"}, nil}, `{"event":"invite","changed":11,"id":"ee",`},
		{Change{0, KindStore, nil, nil, nil, nil, nil, &Store{ID: "ff"}}, `{"event":"store","changed":0,"id":"ff"}`},
	} {
		b, err := json.Marshal(test.change)
		if err != nil || !strings.HasPrefix(string(b), test.want) {
			t.Errorf("%s: wrote %s, %v; want it to begin %s", test.change.Kind, b, err, test.want)
		}
		if n := strings.Count(string(b), `"changed":`); n != 1 {
			t.Errorf("%s: changed stands %d times: %s", test.change.Kind, n, b)
		}
		var got Change
		if err := json.Unmarshal(b, &got); err != nil {
			t.Errorf("%s: %v", test.change.Kind, err)
		}
		if diff := cmp.Diff(test.change, got); diff != "" {
			t.Errorf("%s (-written +read):\n%s", test.change.Kind, diff)
		}
	}
	var newer Change
	if err := json.Unmarshal([]byte(`{"event":"hologram","changed":12}`), &newer); err != nil || newer.Changed != 12 || newer.Kind != "hologram" {
		t.Errorf("a kind of a newer node: %+v, %v", newer, err)
	}
}

// TestTime keeps to UTC and milliseconds.
func TestTime(t *testing.T) {
	zone := time.FixedZone("east", 2*3600)
	for _, test := range []struct {
		in   time.Time
		want string
	}{
		{time.Date(2026, 3, 1, 14, 0, 0, 0, zone), `"2026-03-01T12:00:00.000Z"`},
		{time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC), `"2026-03-01T12:00:00.123Z"`},
		{time.Time{}, `""`},
	} {
		b, err := json.Marshal(At(test.in))
		if err != nil || string(b) != test.want {
			t.Errorf("%v is written %s, %v; want %s", test.in, b, err, test.want)
		}
		var back Time
		if err := json.Unmarshal(b, &back); err != nil || !back.Equal(test.in.Truncate(time.Millisecond)) {
			t.Errorf("%s is read %v, %v", b, back, err)
		}
	}
	var bad Time
	if err := json.Unmarshal([]byte(`"yesterday"`), &bad); err == nil {
		t.Error("a time that is none was read")
	}
}

// answers is a transport that gives one reply.
type answers struct {
	status int
	body   string
}

func (a answers) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(a.status)
	fmt.Fprint(w, a.body)
}

// TestOddReplies makes errors of replies that no node of ours gives.
func TestOddReplies(t *testing.T) {
	for _, test := range []struct {
		name string
		answers
		want string
		exit int
	}{
		{"no problem", answers{500, "boom"}, "the node answered 500 Internal Server Error", 1},
		{"half a problem", answers{418, `{"status":418}`}, "the node answered 418", 1},
		{"a page", answers{404, "404 page not found"}, "nothing has that name", 3},
		{"elsewhere", answers{301, ""}, "nothing has that name", 3},
		{"a code of a newer node", answers{409, `{"status":409,"code":"hologram","detail":"no room"}`}, "no room", 1},
		{"no JSON", answers{200, "{"}, "read the node's reply", 1},
		{"another JSON", answers{200, "[]"}, "read the node's reply", 1},
	} {
		_, err := New(InProcess{test.answers}).Status(t.Context())
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", test.name, err, test.want)
			continue
		}
		if p, ok := err.(*Problem); ok && p.ExitCode() != test.exit {
			t.Errorf("%s: exit code %d, want %d", test.name, p.ExitCode(), test.exit)
		}
	}
}

// TestStreamReplies reads streams that are cut, empty or wrong.
func TestStreamReplies(t *testing.T) {
	long := "event: msg\nid: 5\ndata: {\"text\":\"" + strings.Repeat("x", maxEvent) + "\"}\n\n"
	for _, test := range []struct {
		name, body string
		kinds      string
		want       string
	}{
		{"comments and an unknown field", ":\n\nretry: 5\n: hi\n\nevent: store\ndata: {\"id\":\"a\"}\n\n", "store", "stop"},
		{"a cut event is not given out", "event: store\ndata: {\"id\":\"a\"}\n\nevent: msg\nid: 7\ndata: {\"text\":\"x\"}", "store", "stop"},
		{"data that is no JSON", "event: msg\nid: 1\ndata: {\n\n", "", "read a change"},
		{"a line too long", long, "", "read a change"},
		{"no id", "event: msg\ndata: {\"text\":\"x\"}\n\n", "msg", "stop"},
	} {
		replies := 0
		transport := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if replies++; replies > 1 {
				answers{503, `{"status":503,"code":"not-running","detail":"stop"}`}.ServeHTTP(w, r)
				return
			}
			answers{200, test.body}.ServeHTTP(w, r)
		})
		var kinds []string
		var last error
		for change, err := range New(InProcess{transport}).Events(t.Context(), 0, "") {
			if err != nil {
				last = err
				break
			}
			kinds = append(kinds, change.Kind)
		}
		if got := strings.Join(kinds, " "); got != test.kinds || last == nil || !strings.Contains(last.Error(), test.want) {
			t.Errorf("%s: got %q and %v, want %q and %s", test.name, got, last, test.kinds, test.want)
		}
	}
}
