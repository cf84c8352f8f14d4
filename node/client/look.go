package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Peer is somebody who is connected with the node.
type Peer struct {
	Peer      string `json:"peer" doc:"Transport key of the moment"`
	Kind      string `json:"kind" enum:"contact,request,own,server,stranger" doc:"A stranger may be a contact that has not said anything yet; who is a server says so itself"`
	Who       string `json:"who,omitempty" doc:"The person, a did:key, where it is known"`
	Name      string `json:"name,omitempty" doc:"The person as shown"`
	Device    string `json:"device,omitempty" doc:"The first 8 digits"`
	Route     string `json:"route" doc:"direct, lan or relay"`
	Transport string `json:"transport" doc:"quic, tcp or wss"`
	Direction string `json:"direction" enum:"in,out" doc:"Who dialled: in is the other side"`
	Address   string `json:"address"`
	Since     Time   `json:"since" format:"date-time"`
}

// Pong is what a ping of one device came to.
type Pong struct {
	Device    string  `json:"device" doc:"The first 8 digits"`
	Name      string  `json:"name"`
	State     string  `json:"state" enum:"answered,unanswered"`
	RTT       float64 `json:"rtt_ms,omitempty" doc:"One round trip on the way that is in use, in milliseconds"`
	Route     string  `json:"route,omitempty" doc:"direct, lan or relay"`
	Transport string  `json:"transport,omitempty"`
	Address   string  `json:"address,omitempty"`
	Reason    string  `json:"reason,omitempty" doc:"Why nobody answered"`
	Next      string  `json:"next,omitempty"`
}

// Finding is one line of doctor.
type Finding struct {
	Check   string `json:"check" doc:"home, keys, disk, node, socket, store, certificate, copy, clock, network, ports, udp, lan, reach, relay, bootstrap, dht, proxy, messages or crash; more may come"`
	Verdict string `json:"verdict" enum:"OK,WARN,FAIL"`
	Found   string `json:"found" doc:"What was found, in words"`
	Fix     string `json:"fix,omitempty" doc:"What to do next"`
}

// Doctor has the node look at itself. It reads every page of the databases, about a second for 200 MB.
func (c *Client) Doctor(ctx context.Context) ([]Finding, error) {
	var out []Finding
	return out, c.call(ctx, http.MethodGet, "/v1/doctor", nil, nil, &out)
}

// Peers lists who is connected.
func (c *Client) Peers(ctx context.Context) ([]Peer, error) {
	var out []Peer
	return out, c.call(ctx, http.MethodGet, "/v1/peers", nil, nil, &out)
}

// Ping measures a round trip to each device of a contact. Those that are not connected are tried now, for at most the
// time given.
func (c *Client) Ping(ctx context.Context, who string, timeout time.Duration) ([]Pong, error) {
	var out []Pong
	query := url.Values{"timeout_ms": {strconv.FormatInt(timeout.Milliseconds(), 10)}}
	return out, c.call(ctx, http.MethodPost, pathOf("v1", "contacts", who, "ping"), query, nil, &out)
}
