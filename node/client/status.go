package client

import (
	"context"
	"net/http"
)

// Status says what a node is and how it stands. A node without network (a command's own) is not Ready.
type Status struct {
	Ready         bool     `json:"ready" doc:"The node is up and can send"`
	ID            string   `json:"id" doc:"The person, a did:key"`
	Device        string   `json:"device" doc:"This device, 64 hex digits"`
	Name          string   `json:"name" doc:"Profile name, may be empty"`
	Home          string   `json:"home" doc:"Folder of the node, empty for one in memory"`
	Version       string   `json:"version"`
	Started       Time     `json:"started,omitzero" format:"date-time"`
	KeyProtection string   `json:"key_protection" doc:"What protects the key file: passphrase, keychain, or file mode only"`
	Listening     []string `json:"listening" doc:"Addresses, as multiaddrs"`
	Peer          string   `json:"peer,omitempty" doc:"Transport key of the main host"`
	LANPeer       string   `json:"lan_peer,omitempty" doc:"Transport key of the LAN host, changed daily"`
	Reach         string   `json:"reach" enum:"lan,internet," doc:"How far an invite of this moment reaches; empty without a network"`
	ReachText     string   `json:"reach_text,omitempty" doc:"The same in words"`
	ReachNext     string   `json:"reach_next,omitempty" doc:"What to do where something is missing"`
	Profile       string   `json:"profile,omitempty" enum:"home,server,client,lan," doc:"What the node does for its own reach and for others"`
	Contacts      int      `json:"contacts"`
	Requests      int      `json:"requests" doc:"Message requests that wait for an answer"`
	Online        int      `json:"online" doc:"Contacts' devices with a live route"`
	Unread        int      `json:"unread"`
	Queued        int      `json:"queued" doc:"Messages not delivered yet"`
	Sent          uint64   `json:"sent" doc:"Messages that were said here since the start"`
	Received      uint64   `json:"received" doc:"Messages that came from others since the start"`
	LastCrash     string   `json:"last_crash,omitempty"`
	Warnings      []string `json:"warnings,omitempty" doc:"What the owner should know, in sentences"`
}

// Health is the answer of the one path that needs no right: ok, and nothing else.
type Health struct {
	Status string `json:"status" enum:"ok"`
}

// Identity is the person that the node speaks for.
type Identity struct {
	ID     string `json:"id" doc:"The person, a did:key"`
	Device string `json:"device" doc:"This device, 64 hex digits"`
	Name   string `json:"name" doc:"Profile name, may be empty"`
}

// Rename asks for another name.
type Rename struct {
	Name string `json:"name" maxLength:"256" doc:"At most 64 characters"`
}

// Health asks whether the node answers.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var out Health
	return out, c.call(ctx, http.MethodGet, "/v1/health", nil, nil, &out)
}

// Status asks how the node stands.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var out Status
	return out, c.call(ctx, http.MethodGet, "/v1/status", nil, nil, &out)
}

// Identity asks who the node speaks for.
func (c *Client) Identity(ctx context.Context) (Identity, error) {
	var out Identity
	return out, c.call(ctx, http.MethodGet, "/v1/identity", nil, nil, &out)
}

// SetName changes the profile name, which all contacts are told.
func (c *Client) SetName(ctx context.Context, name string) (Identity, error) {
	var out Identity
	return out, c.call(ctx, http.MethodPatch, "/v1/identity", nil, Rename{Name: name}, &out)
}

// Stop asks the node to end. It answers before it does.
func (c *Client) Stop(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/stop", nil, nil, nil)
}
