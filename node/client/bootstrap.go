package client

import (
	"context"
	"net/http"
	"net/url"
)

// Bootstrap is a node by which this one gets into the network.
type Bootstrap struct {
	Peer      string   `json:"peer" doc:"Its transport key"`
	Addresses []string `json:"addresses" doc:"Full addresses, as multiaddrs"`
	Answered  Time     `json:"answered,omitzero" format:"date-time" doc:"When it answered last"`
	Fails     int      `json:"fails,omitempty" doc:"How often it was tried in vain since"`
}

// NewBootstrap names one.
type NewBootstrap struct {
	Address string `json:"address" maxLength:"512" doc:"A full address, as a server prints it"`
}

// AddBootstrap names a way into the network.
func (c *Client) AddBootstrap(ctx context.Context, address string) (Bootstrap, error) {
	var out Bootstrap
	return out, c.call(ctx, http.MethodPost, "/v1/bootstrap", nil, NewBootstrap{Address: address}, &out)
}

// Bootstraps lists the ways into the network that were named.
func (c *Client) Bootstraps(ctx context.Context) ([]Bootstrap, error) {
	var out []Bootstrap
	return out, c.call(ctx, http.MethodGet, "/v1/bootstrap", nil, nil, &out)
}

// RemoveBootstrap forgets one, by its transport key.
func (c *Client) RemoveBootstrap(ctx context.Context, peer string) error {
	return c.call(ctx, http.MethodDelete, pathOf("v1", "bootstrap", peer), nil, nil, nil)
}

// Source is a place that is asked for servers when none answers.
type Source struct {
	Place   string `json:"place" doc:"dns:NAME, or the URL of a signed list"`
	Asked   Time   `json:"asked,omitzero" format:"date-time" doc:"When it was asked last; left out: never"`
	Servers int    `json:"servers" doc:"How many it named then"`
	Problem string `json:"problem,omitempty" doc:"Why it named none"`
}

// NewSource names one.
type NewSource struct {
	Place string `json:"place" maxLength:"512" doc:"dns:NAME, or the URL of a signed list"`
}

// AddSource names a place that is asked for servers when none answers.
func (c *Client) AddSource(ctx context.Context, place string) (Source, error) {
	var out Source
	return out, c.call(ctx, http.MethodPost, "/v1/bootstrap/sources", nil, NewSource{Place: place}, &out)
}

// Sources lists the places that were named, and what came of asking them.
func (c *Client) Sources(ctx context.Context) ([]Source, error) {
	var out []Source
	return out, c.call(ctx, http.MethodGet, "/v1/bootstrap/sources", nil, nil, &out)
}

// RemoveSource forgets one.
func (c *Client) RemoveSource(ctx context.Context, place string) error {
	return c.call(ctx, http.MethodDelete, "/v1/bootstrap/sources", url.Values{"place": {place}}, nil, nil)
}

// ServerList is a signed list of servers that was imported.
type ServerList struct {
	List    string   `json:"list" doc:"What it is called"`
	Issued  Time     `json:"issued" format:"date-time"`
	Expires Time     `json:"expires" format:"date-time"`
	Servers int      `json:"servers" doc:"How many it names that this node can dial"`
	Skipped int      `json:"skipped,omitempty" doc:"Addresses that it cannot"`
	Signers []string `json:"signers" doc:"Who of those believed has signed it: names that the owner gave, or keys"`
	Problem string   `json:"problem,omitempty" doc:"Why it is not used now"`
	New     bool     `json:"new,omitempty" doc:"By an import: it was not known before"`
}

// NewServerList is one to import.
type NewServerList struct {
	Text string `json:"text" maxLength:"65536" doc:"The file, as it is"`
}

// ImportServers imports a signed list.
func (c *Client) ImportServers(ctx context.Context, text string) (ServerList, error) {
	var out ServerList
	return out, c.call(ctx, http.MethodPost, "/v1/bootstrap/lists", nil, NewServerList{Text: text}, &out)
}

// ServerLists lists what was imported.
func (c *Client) ServerLists(ctx context.Context) ([]ServerList, error) {
	var out []ServerList
	return out, c.call(ctx, http.MethodGet, "/v1/bootstrap/lists", nil, nil, &out)
}

// RemoveServerList forgets a list and its servers.
func (c *Client) RemoveServerList(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, pathOf("v1", "bootstrap", "lists", name), nil, nil, nil)
}

// Signer is a key whose lists are believed.
type Signer struct {
	Key  string `json:"key" maxLength:"128" doc:"Public key, 64 hex digits"`
	Name string `json:"name,omitempty" maxLength:"64" doc:"What the owner calls it"`
}

// Signers are all of them.
type Signers struct {
	Need    int      `json:"need" doc:"How many must have signed a list"`
	Signers []Signer `json:"signers"`
}

// SignersNeeded says how many must agree.
type SignersNeeded struct {
	Need int `json:"need" minimum:"1" doc:"How many must have signed a list"`
}

// AddSigner has lists believed that a key has signed.
func (c *Client) AddSigner(ctx context.Context, s Signer) (Signer, error) {
	var out Signer
	return out, c.call(ctx, http.MethodPost, "/v1/bootstrap/signers", nil, s, &out)
}

// Signers tells whose lists are believed.
func (c *Client) Signers(ctx context.Context) (Signers, error) {
	var out Signers
	return out, c.call(ctx, http.MethodGet, "/v1/bootstrap/signers", nil, nil, &out)
}

// RemoveSigner believes a key no longer.
func (c *Client) RemoveSigner(ctx context.Context, key string) error {
	return c.call(ctx, http.MethodDelete, pathOf("v1", "bootstrap", "signers", key), nil, nil, nil)
}

// NeedSigners says how many must agree.
func (c *Client) NeedSigners(ctx context.Context, need int) error {
	return c.call(ctx, http.MethodPatch, "/v1/bootstrap/signers", nil, SignersNeeded{Need: need}, nil)
}
