package client

import (
	"context"
	"net/http"
)

// Bootstrap is a node by which this one gets into the network.
type Bootstrap struct {
	Peer      string   `json:"peer" doc:"Its transport key"`
	Addresses []string `json:"addresses" doc:"Full addresses, as multiaddrs"`
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
